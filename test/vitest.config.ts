import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const root = fileURLToPath(new URL("..", import.meta.url));

export default defineConfig({
  root,
  resolve: {
    alias: [
      { find: /^allstop$/, replacement: `${root}src/index.ts` },
      { find: /^allstop\/(.*)$/, replacement: `${root}src/$1.ts` },
    ],
  },
  test: {
    include: ["test/*.test.ts"],
    // By default it leaves one core of two idle, while tests wait for sockets and child processes.
    maxWorkers: Math.max(3, availableParallelism() - 1),
    coverage: {
      include: ["src/**"],
      reporter: ["text"],
      thresholds: { lines: 100, branches: 100, functions: 100, statements: 100 },
    },
  },
});
