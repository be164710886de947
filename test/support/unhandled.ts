// Not the global one, which may be faked.
import { setImmediate } from "node:timers/promises";
import { afterEach, beforeEach, expect } from "vitest";

/** Checks in every test of a file that no rejection is left to nobody. */
export function useNoUnhandledRejections(): void {
  let unhandled: unknown[];
  const note = (reason: unknown): void => void unhandled.push(reason);
  beforeEach(() => {
    unhandled = [];
    process.on("unhandledRejection", note);
  });
  afterEach(async () => {
    await setImmediate();
    process.off("unhandledRejection", note);
    expect(unhandled).toEqual([]);
  });
}
