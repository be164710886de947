/*
 * What all runs of mutation.mjs share, which says what is mutated, and by which tests it has to be noticed.
 */
export default {
  testRunner: "vitest",
  plugins: ["@stryker-mutator/vitest-runner"],
  // Which tests there are, the configuration says: those that import a file are not all that notice a change of it.
  vitest: { configFile: "test/interop/vitest.stryker.config.ts", related: false },
  coverageAnalysis: "perTest",
  // Neither is needed by a test, and the nested packages have a folder of dependencies each.
  ignorePatterns: ["coverage", "dist", "test/bench", "test/interop/**", "!test/interop/vitest.stryker.*.ts"],
  // Beyond what the tests took without a change, one and a half times.
  timeoutMS: 15_000,
  tempDirName: "test/.generated/mutation",
  cleanTempDir: "always",
  // Sources are mutated as they are: types are no longer looked at.
  disableTypeChecks: false,
  reporters: ["progress-append-only"],
  allowEmpty: false,
};
