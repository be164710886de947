/**
 * A manager as a task of another one.
 *
 * @module
 */
import { ManagerStoppedError, ShutdownTimeoutError, StopReason, TaskAlreadyStartedError } from "./errors.ts";
import type { Failure } from "./errors.ts";
import { untilAborted } from "./internal/abort.ts";
import { checkType } from "./internal/check.ts";
import { failureOf } from "./internal/failure.ts";
import { placeOf } from "./internal/place.ts";
import { startTimer } from "./internal/time.ts";
import { Manager, type ManagerOptions } from "./manager.ts";
import type { Task } from "./task.ts";

/** Those of a {@link Manager}, but for its name and its parent, which are the group's own. */
export type GroupOptions = Omit<ManagerOptions, "name" | "signal">;

/** One run of a group. */
interface GroupRun {
  readonly manager: Manager;
  /** That of the function that fills it, and how many of the manager's came before. */
  failed?: { readonly failure: Failure; readonly index: number };
}

/**
 * A group as a task of a larger one: it starts, stops and fails as one.
 *
 * Each run makes a {@link Manager} of its own, lets a function fill it with tasks and hooks, and waits for it. Its
 * tasks' names begin with the full name of the group: `x` in `b` in `a` is `a/b/x`. When the outer group stops, so does
 * this one, for the same reason; its hooks have run before those of the outer one. Events go to its `onEvent`, or else
 * to that of the outer manager. If it has a task that may hang, or a slow hook, give it a shorter `shutdownTimeout`
 * than the outer group: only then is there time left for its own hooks.
 *
 * It may run again after a run has ended: `new RestartTask(new GroupTask(...))` restarts all of it when one task fails.
 * (What hangs beyond the `shutdownTimeout` has been given up, and goes on beside the next run.)
 *
 * @example Two hooks, of the inner and of the outer group
 * ```ts
 * import { Manager } from "allstop";
 * import { GroupTask } from "allstop/group";
 *
 * const manager = new Manager({ name: "shop" });
 * manager.run(
 *   new GroupTask("orders", (orders) => {
 *     orders.cleanup(() => console.log("closed the queue")); // prints closed the queue
 *     orders.run(async function consumer() {
 *       throw new Error("connection lost");
 *     });
 *   }),
 * );
 * manager.cleanup(() => console.log("closed the database")); // prints closed the database
 *
 * await manager.wait().catch((error) => console.log(error.message)); // prints connection lost
 * console.log(manager.failures[0]?.source); // prints shop/orders
 * ```
 */
export class GroupTask implements Task {
  readonly name: string;
  readonly #fill: (manager: Manager) => unknown;
  readonly #options: GroupOptions;
  #started = false;
  #lastRun: GroupRun | undefined;

  /**
   * @param name - Its name, below that of the manager that runs it.
   * @param fill - Is given a fresh manager on each run. If it returns a promise, that is awaited first.
   * @throws {TypeError} If the name is no string, `fill` is no function, or an option has the wrong type.
   * @throws {RangeError} If a timeout is below 0, or `limit` is no whole number above 0.
   */
  constructor(name: string, fill: (manager: Manager) => unknown, options: GroupOptions = {}) {
    const action = "create a GroupTask";
    checkType(action, "name", "string", name);
    checkType(action, "fill", "function", fill);
    checkType(action, "options", "object", options);
    new Manager({ ...options, signal: undefined }); // which checks the rest
    this.name = name;
    this.#fill = fill;
    this.#options = { ...options };
  }

  /** All failures of the last run, in order, of which the outer manager gets only the first. */
  get failures(): readonly Failure[] {
    if (!this.#lastRun) return [];
    const { manager, failed } = this.#lastRun;
    const failures = [...manager.failures];
    if (failed) failures.splice(failed.index, 0, failed.failure);
    return failures;
  }

  /**
   * @returns A promise that resolves when all its tasks have ended, and all its hooks.
   * @throws The first failure itself.
   * @throws {TaskAlreadyStartedError} If it is running.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { task, onEvent } = placeOf(signal, this.name, this.#options.onEvent);
    if (this.#started) throw new TaskAlreadyStartedError(task);
    this.#lastRun = undefined;
    if (signal.aborted) return;

    const manager = new Manager({ ...this.#options, name: task, signal, onEvent });
    this.#started = true;
    this.#lastRun = { manager };
    await this.#fillUp(this.#lastRun, task);
    // What it rejects with is among the failures.
    await manager.wait().catch(() => {});
    this.#started = false;
    if (this.failures[0]) throw this.failures[0].error;
  }

  async #fillUp(run: GroupRun, task: string): Promise<void> {
    const { manager } = run;
    const fail = (source: string, error: Error): void => {
      run.failed ??= { failure: { source, error }, index: manager.failures.length };
      manager.stop(new StopReason(task, error));
    };
    const fill = async (): Promise<void> => {
      try {
        await this.#fill(manager);
      } catch (thrown) {
        const error = failureOf(thrown, manager.signal);
        const isRefused = manager.signal.aborted && thrown instanceof ManagerStoppedError;
        // It may have waited for the group itself, which has told then.
        const isKnown = manager.failures.some((failure) => failure.error === error);
        if (error && !isRefused && !isKnown) fail(task, error);
      }
    };
    const filled = fill();
    await untilAborted(manager.signal, filled);

    // Told to stop meanwhile, it has as long for that as the tasks have, and the hooks wait for it.
    const { shutdownTimeout = 20_000 } = this.#options;
    const late = new AbortController();
    const deadline = startTimer(shutdownTimeout, () => late.abort());
    await untilAborted(late.signal, filled);
    clearTimeout(deadline);
    if (late.signal.aborted) fail("shutdown", new ShutdownTimeoutError(shutdownTimeout, [task]));
  }
}
