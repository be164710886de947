import { getEventListeners } from "node:events";
import type { Task } from "allstop";
import { afterEach, expect } from "vitest";

/** A run of a task without a manager. */
export interface Run {
  readonly controller: AbortController;
  /** What it rejected with, `"returned"`, or `"running"`. */
  end: unknown;
}

let signals: AbortSignal[] = [];

/** Runs a task by hand, with a signal that must have no listener at the end of the test. */
export function start(task: Task, controller: AbortController = new AbortController()): Run {
  const run: Run = { controller, end: "running" };
  signals.push(controller.signal);
  task.run(controller.signal).then(
    () => (run.end = "returned"),
    (error) => (run.end = error),
  );
  return run;
}

/** Checks after every test of a file that what was run by hand has left no listener on its signal. */
export function useRunsByHand(): void {
  afterEach(() => {
    const left = signals.flatMap((signal) => getEventListeners(signal, "abort"));
    signals = [];
    expect(left).toEqual([]);
  });
}
