/**
 * A manager as a task of another one.
 *
 * @module
 */
import { type Failure, TaskAlreadyStartedError } from "./errors.ts";
import { checkType } from "./internal/check.ts";
import { Fill } from "./internal/fill.ts";
import { placeOf } from "./internal/place.ts";
import { Manager, type ManagerOptions } from "./manager.ts";
import type { Task } from "./task.ts";

/** Those of a {@link Manager}, but for its name and its parent, which are the group's own. */
export type GroupOptions = Omit<ManagerOptions, "name" | "signal">;

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
  #lastRun: Fill | undefined;

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
    return this.#lastRun?.failures ?? [];
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
    this.#lastRun = new Fill(manager, task, this.#options.shutdownTimeout);
    await this.#lastRun.run(this.#fill);
    this.#started = false;
    if (this.failures[0]) throw this.failures[0].error;
  }
}
