// Not the global one, which may be faked.
import { setImmediate } from "node:timers/promises";
import { afterEach, beforeEach, expect } from "vitest";

/** Checks in every test of a file that Node warns of nothing, as of too many listeners. */
export function useNoWarnings(): void {
  let warnings: unknown[];
  const note = (warning: unknown): void => void warnings.push(warning);
  beforeEach(() => {
    warnings = [];
    process.on("warning", note);
  });
  afterEach(async () => {
    await setImmediate();
    process.off("warning", note);
    expect(warnings).toEqual([]);
  });
}
