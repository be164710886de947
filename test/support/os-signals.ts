import { afterEach, beforeEach, expect } from "vitest";

let before: Record<string, number> = {};

function countListeners(): Record<string, number> {
  const names = process.eventNames().filter((name) => String(name).startsWith("SIG"));
  return Object.fromEntries(names.map((name) => [name, process.listenerCount(name)]));
}

/** How many listeners the process has more than when the test began, for each signal that has any more. */
export function newListeners(): Record<string, number> {
  const more = Object.entries(countListeners()).map(([name, count]) => [name, count - (before[name] ?? 0)] as const);
  return Object.fromEntries(more.filter(([, count]) => count !== 0));
}

/** How many more it has for one signal. */
export function listeners(signal: NodeJS.Signals = "SIGUSR2"): number {
  return newListeners()[signal] ?? 0;
}

/** Tells the process of a signal, as Node does when one arrives. No real one is ever sent to the tests' own process. */
export function send(signal: NodeJS.Signals = "SIGUSR2"): void {
  process.emit(signal, signal);
}

/** Checks in every test of a file that it leaves no listener for signals behind. */
export function useOsSignals(): void {
  beforeEach(() => {
    before = countListeners();
  });
  afterEach(() => {
    expect(newListeners()).toEqual({});
  });
}
