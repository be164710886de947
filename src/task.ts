/**
 * What a {@link Manager} runs: an object with `run(signal)`, or just that function.
 *
 * `run` owes two things:
 *
 * 1. It returns a promise. The task has ended when that promise settles, and not before: whatever `run` started must
 *    be over by then. A function that starts something and returns at once is no task; a `Manager` refuses what it
 *    returns.
 * 2. Once `signal` aborts, the promise settles soon: resolved, or rejected with `signal.reason`, or with the
 *    `AbortError` that `node:timers/promises`, `events.once` or `fetch` reject with. All of these are clean ends, so
 *    nothing has to be caught just because of a stop.
 *
 * Tempting, and wrong: to swallow one's own errors and return. Throw them. The group stops, cleans up and reports the
 * first; a task that should live on after an error handles it inside `run`.
 *
 * The contract is that of a Go function under `errgroup.WithContext`, with an `AbortSignal` as the context.
 *
 * @example A task as a class: its name is the class's name, unless it has a `name`
 * ```ts
 * import { setTimeout as sleep } from "node:timers/promises";
 * import { Manager, type Task } from "allstop";
 *
 * class Heartbeat implements Task {
 *   beats = 0;
 *
 *   async run(signal: AbortSignal): Promise<void> {
 *     for (;;) {
 *       this.beats++;
 *       await sleep(10, undefined, { signal }); // rejects when the group stops: a clean end
 *     }
 *   }
 * }
 *
 * const manager = new Manager();
 * const heartbeat = new Heartbeat();
 * manager.run(heartbeat);
 * console.log(manager.pending); // prints [ 'Heartbeat' ]
 * await manager.stop();
 * console.log(heartbeat.beats); // prints 1
 * ```
 */
export interface Task {
  /** How the task is called in failures, events and {@link Manager.pending}. Default: the name of its class. */
  readonly name?: string | undefined;
  /**
   * Does the work.
   *
   * @param signal - Aborts when the group is told to stop; `signal.reason` says why.
   * @returns A promise that settles when the work is over.
   */
  run(signal: AbortSignal): PromiseLike<unknown>;
}

/** A {@link Task}, or just its `run` as a function, which is then called by the name of that function. */
export type TaskLike = Task | Task["run"];
