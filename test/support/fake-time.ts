import { afterEach, beforeEach, expect, vi } from "vitest";

/** Fakes the clock in every test of a file, each of which must leave no timer behind. */
export function useFakeTime(): void {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
  });
}

/** Goes through a part of such a test by the real clock, as one with real processes must. */
export async function inRealTime(part: () => Promise<void>): Promise<void> {
  vi.useRealTimers();
  try {
    await part();
  } finally {
    vi.useFakeTimers();
  }
}
