import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

// In the copy of the repository that Stryker makes.
const root = fileURLToPath(new URL("../..", import.meta.url));

/** The unit tests named by mutation.mjs, on the sources. */
export default defineConfig({
  root,
  resolve: {
    alias: [
      { find: /^allstop$/, replacement: `${root}src/index.ts` },
      { find: /^allstop\/(.*)$/, replacement: `${root}src/$1.ts` },
    ],
  },
  test: {
    include: (process.env["ALLSTOP_MUTATION_TESTS"] ?? "*").split(" ").map((name) => `test/${name}.test.ts`),
    setupFiles: `${root}test/interop/vitest.stryker.setup.ts`,
    // A change that makes a test hang is noticed by that, sooner than by Stryker, which has to start anew then.
    testTimeout: 10_000,
    hookTimeout: 10_000,
  },
});
