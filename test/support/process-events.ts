// Not the global one, which may be faked.
import { setImmediate } from "node:timers/promises";
import { afterEach, beforeEach, expect } from "vitest";

/** Checks in every test of a file that no rejection is left to nobody. */
export function useNoUnhandledRejections(): void {
  useNone("unhandledRejection");
}

/** Checks in every test of a file that Node warns of nothing, as of too many listeners. */
export function useNoWarnings(): void {
  useNone("warning");
}

function useNone(event: "unhandledRejection" | "warning"): void {
  let told: unknown[];
  const note = (what: unknown): void => void told.push(what);
  beforeEach(() => {
    told = [];
    process.on(event, note);
  });
  afterEach(async () => {
    await setImmediate();
    process.off(event, note);
    expect(told).toEqual([]);
  });
}
