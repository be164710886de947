import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Small files that start many processes, one after the other, come first, lest all others wait for them in the end. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const isLong = ({ moduleId }: TestSpecification): boolean => /(docs|examples)\.test\.ts$/.test(moduleId);
    const sorted = await super.sort(files);
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}

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
    // A test that hangs fails then, and none fails because the machine is busy.
    testTimeout: 30_000,
    hookTimeout: 30_000,
    sequence: { sequencer: LongestFirst },
    // By default it leaves one core of two idle, while tests wait for sockets and child processes.
    maxWorkers: Math.max(3, availableParallelism() - 1),
    coverage: {
      include: ["src/**"],
      reporter: ["text"],
      thresholds: { lines: 100, branches: 100, functions: 100, statements: 100 },
    },
  },
});
