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

/** What a runtime without signals may have as `process`. */
export const processesWithoutSignals: [what: string, process: PropertyDescriptor | undefined][] = [
  ["no `process`", undefined],
  ["a `process` that is undefined", { value: undefined }],
  ["a `process` that is null", { value: null }],
  ["a `process` without signals, as a bundler makes one", { value: { env: {} } }],
];

/** Goes through a part of a test with another `process`, or with none. */
export function withProcess<Result>(other: PropertyDescriptor | undefined, part: () => Result): Result {
  const nodes = Object.getOwnPropertyDescriptor(globalThis, "process") as PropertyDescriptor;
  Reflect.deleteProperty(globalThis, "process");
  if (other) Object.defineProperty(globalThis, "process", { ...other, configurable: true });
  try {
    return part();
  } finally {
    Object.defineProperty(globalThis, "process", nodes);
  }
}
