/// <reference lib="esnext.disposable" preserve="true" />
import { CleanupError, CleanupTimeoutError, ManagerStoppedError, ShutdownTimeoutError, StopReason } from "./errors.ts";
import type { Failure } from "./errors.ts";
import type { LifecycleEvent, TaskKind, TaskOutcome } from "./events.ts";
import { onAbort } from "./internal/abort.ts";
import { check, checkCount, checkMilliseconds, checkType } from "./internal/check.ts";
import { failureOf } from "./internal/failure.ts";
import { type Observer, observer } from "./internal/observer.ts";
import { type Place, PLACE, type PlacedSignal } from "./internal/place.ts";
import { callTask, checkTask, taskName } from "./internal/task.ts";
import { startTimer, type Timer } from "./internal/time.ts";
import type { TaskLike } from "./task.ts";

/** Timeouts are in milliseconds; `Infinity`, or more than 2^31-1, is no limit. */
export interface ManagerOptions {
  /** Prefix of its tasks' names: `"api"` gives `"api/http"`. @default "" */
  name?: string | undefined;
  /** Parent: when it aborts, the group stops, for the same reason. @default undefined */
  signal?: AbortSignal | undefined;
  /** From the stop until every task must have ended. @default 20_000 */
  shutdownTimeout?: number | undefined;
  /** For all hooks together. @default 5_000 */
  cleanupTimeout?: number | undefined;
  /** How many ephemeral tasks may run at once; the others wait their turn. @default Infinity */
  limit?: number | undefined;
  /** Told at once of all that happens. What it throws changes nothing. @default undefined */
  onEvent?: ((event: LifecycleEvent) => void) | undefined;
}

/** A task, from its acceptance to its end: its place, and what to call. */
interface Entry extends Place {
  readonly kind: TaskKind;
  readonly work: TaskLike;
  /** Of its own signal, while it runs: those that wait for their turn need none, and a million of them cost memory. */
  controller?: AbortController | undefined;
  /** The one that waits behind it. */
  next?: Entry;
}

/**
 * Runs tasks. When any one of them ends, all are told to stop, all are waited for, hooks run, and what failed is
 * reported. After errgroup of golang.org/x/sync, and oklog/run.
 *
 * @example One task fails: the other one is told, the hook runs, the error is reported
 * ```ts
 * import { once } from "node:events";
 * import { Manager } from "allstop";
 *
 * const manager = new Manager({ name: "shop" });
 * manager.run(async function consumer() {
 *   throw new Error("connection lost");
 * });
 * manager.run((signal) => (signal.aborted ? Promise.resolve() : once(signal, "abort")));
 * manager.cleanup(() => console.log("cleaned up")); // prints cleaned up
 *
 * await manager.wait().catch((error) => console.log(error.message)); // prints connection lost
 * console.log(manager.failures[0]?.source); // prints shop/consumer
 * ```
 */
export class Manager implements AsyncDisposable {
  readonly #controller = new AbortController();
  /** The shared signal: aborts when the group is told to stop; its `reason` says why. */
  readonly signal: AbortSignal = this.#controller.signal;
  readonly #name: string;
  readonly #shutdownTimeout: number;
  readonly #cleanupTimeout: number;
  readonly #onEvent: Observer | undefined;
  /** What its tasks tell; after the deadline, nobody. */
  readonly #relay: Observer = (event) => {
    if (this.#phase === "task") this.#onEvent?.(event);
  };

  /** Whose turn it is: tasks', hooks' once all tasks have ended or were given up, then nobody's. */
  #phase: "task" | "hook" | "" = "task";
  /** Those that have been started, or are about to be. The others, of which there may be a million, are only linked. */
  readonly #entries = new Set<Entry>();
  /** How many tasks keep the group alive, those of the queue included. */
  #holding = 0;
  /**
   * The last one that left the queue of those that wait for a free slot: the one behind it is the first to go. Before
   * any has, there is nothing of an entry that it needs.
   */
  #head = {} as Entry;
  /** The last one that joined it. */
  #tail = this.#head;
  #slots: number;
  readonly #hooks: (() => unknown)[] = [];
  readonly #failures: Failure[] = [];
  #stoppedAt!: number;
  #deadline: Timer | undefined;
  #tasksOver: (() => void) | undefined;
  #done: Promise<void> | undefined;

  /**
   * @throws {TypeError} If an option has the wrong type.
   * @throws {RangeError} If a timeout is below 0, or `limit` is no whole number above 0.
   */
  constructor(options: ManagerOptions = {}) {
    const action = "create a Manager";
    const { signal, onEvent } = options;
    ({
      name: this.#name = "",
      shutdownTimeout: this.#shutdownTimeout = 20_000,
      cleanupTimeout: this.#cleanupTimeout = 5_000,
      limit: this.#slots = Infinity,
    } = options);
    checkType(action, "name", "string", this.#name);
    if (signal !== undefined) {
      check(typeof signal?.throwIfAborted === "function", action, "signal must be an AbortSignal", signal);
    }
    checkMilliseconds(action, "shutdownTimeout", this.#shutdownTimeout);
    checkMilliseconds(action, "cleanupTimeout", this.#cleanupTimeout);
    checkCount(action, "limit", this.#slots);

    this.#onEvent = observer(action, onEvent);
    if (signal) onAbort(this.signal, onAbort(signal, () => this.#stop(signal.reason)));
  }

  /** The names of the tasks that have not ended, from before their `run` is called; then those in the queue. */
  get pending(): readonly string[] {
    const entries = [...this.#entries];
    for (let entry = this.#head.next; entry; entry = entry.next) entries.push(entry);
    return entries.map((entry) => entry.task);
  }

  /** All failures so far, in order. */
  get failures(): readonly Failure[] {
    return [...this.#failures];
  }

  /**
   * Starts tasks, in order, before it returns. Whatever ends one of them stops the group.
   *
   * @throws {TypeError} If one of them is no task; none has been started then.
   * @throws {ManagerStoppedError} If the group has been told to stop, or stopped by itself.
   */
  run(...tasks: TaskLike[]): void {
    this.#start("main", tasks);
  }

  /**
   * As {@link Manager.run}, but a clean end does not stop the group. Those beyond the `limit` wait their turn, first in
   * first out; a stop drops them.
   */
  runEphemeral(...tasks: TaskLike[]): void {
    this.#start("ephemeral", tasks);
  }

  /** As {@link Manager.run}, but it does not keep the group alive, which stops once only such tasks are left. */
  runBackground(...tasks: TaskLike[]): void {
    this.#start("background", tasks);
  }

  /**
   * Registers a hook for `wait()` to call, once, after the last task ended: last registered first, one at a time.
   *
   * @throws {TypeError} If it is no function.
   * @throws {ManagerStoppedError} If the last hook has run.
   */
  cleanup(hook: () => unknown): void {
    checkType("register a hook", "it", "function", hook);
    if (!this.#phase) throw new ManagerStoppedError("register a hook", this.signal.reason);
    this.#hooks.push(hook);
  }

  /**
   * Waits for the stop, for all tasks and for all hooks. The group stops by itself once no task keeps it alive.
   *
   * @returns Always the same promise, which rejects with the first failure itself.
   */
  wait(): Promise<void> {
    if (!this.#done) {
      this.#done = this.#finish();
      // To be awaited late, or never, is no unhandled rejection.
      this.#done.catch(() => {});
      this.#deadline?.ref?.();
      this.#advance();
    }
    return this.#done;
  }

  /**
   * Tells the group to stop, then waits as `wait()` does.
   *
   * @param reason - Is passed on as `signal.reason`, unless the group has stopped already. Default: a `StopReason`.
   */
  stop(reason: unknown = new StopReason()): Promise<void> {
    this.#stop(reason);
    return this.wait();
  }

  /** Calls `stop()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #start(kind: TaskKind, tasks: readonly TaskLike[]): void {
    const entries = tasks.map((work): Entry => {
      checkTask("run a task", work);
      const task = (this.#name && `${this.#name}/`) + taskName(work, kind);
      return { task, onEvent: this.#relay, kind, work };
    });
    if (this.signal.aborted) throw new ManagerStoppedError("run a task", this.signal.reason);

    // All are accepted before the first one runs: should that stop the group, the others are told and waited for, too.
    for (const entry of entries) {
      if (kind !== "ephemeral") this.#entries.add(entry);
      else this.#tail = this.#tail.next = entry;
      if (kind !== "background") this.#holding++;
    }
    this.#advance();
    if (kind !== "ephemeral") entries.forEach((entry) => this.#run(entry, true));
  }

  /** From its start to its end, or just the end of one that is dropped from the queue. */
  async #run(entry: Entry, starts: boolean): Promise<void> {
    const { task, kind } = entry;
    // Nobody else asks, and the clock takes longer than a task that has nothing to do.
    const startedAt = this.#onEvent ? performance.now() : 0;
    let error: Error | undefined;
    let outcome: TaskOutcome = "skipped";
    if (starts) {
      this.#onEvent?.({ manager: this.#name, type: "task-started", task, kind });
      const { signal } = (entry.controller = new AbortController());
      (signal as PlacedSignal<Entry>)[PLACE] = entry;
      // An earlier one of the same call may have stopped the group.
      if (this.signal.aborted) entry.controller.abort(this.signal.reason);
      try {
        await callTask(entry.work, task, signal);
        outcome = "returned";
      } catch (thrown) {
        error = failureOf(thrown, this.signal);
        outcome = error ? "failed" : "cancelled";
      }
    }
    this.#entries.delete(entry);
    // The head of the queue, which outlives its turn, keeps no signal, nor what listens to it.
    entry.controller = undefined;
    // What a task does after the deadline changes nothing, and is told to nobody.
    if (this.#phase !== "task") return;
    if (error) this.#failures.push({ source: task, error });
    this.#onEvent?.({
      manager: this.#name,
      type: "task-ended",
      kind,
      task,
      outcome,
      ...(error && { error }),
      elapsed: performance.now() - startedAt,
    });
    if (!this.signal.aborted && (kind !== "ephemeral" || error)) this.#stop(new StopReason(task, error));
    // Only now, lest an observer that waits ends the group for another reason. (A background task, which was not
    // counted, has stopped the group by its end; from then on neither this count nor that of the slots matters.)
    this.#holding--;
    if (starts) {
      this.#slots++;
      this.#advance();
    }
  }

  #stop(reason: unknown): void {
    if (this.signal.aborted) return;
    this.#controller.abort(reason);
    if (this.#onEvent) this.#stoppedAt = performance.now();
    this.#onEvent?.({ manager: this.#name, type: "stopping", reason, pending: this.pending });
    this.#entries.forEach((entry) => entry.controller?.abort(reason));
    // Only now, so that the deadlines of groups in this one, which started just before, pass before it.
    this.#deadline = startTimer(this.#shutdownTimeout, () => {
      this.#phase = "hook";
      this.#reportTimeout("shutdown", new ShutdownTimeoutError(this.#shutdownTimeout, this.pending));
      this.#advance();
    });
    // Until somebody waits, only the tasks themselves keep the process alive.
    if (!this.#done) this.#deadline.unref?.();
    this.#advance();
  }

  /**
   * Runs those of the queue that have a slot; when the group is told to stop, the others are dropped. Stops a group that
   * nothing keeps alive, and leaves the tasks of one that is stopped when the last has ended.
   */
  #advance(): void {
    while (this.#head.next && (this.#slots > 0 || this.signal.aborted)) {
      this.#entries.add((this.#head = this.#head.next));
      this.#run(this.#head, this.#slots-- > 0);
    }
    if (!this.signal.aborted) {
      if (this.#done && !this.#holding) this.#stop(new StopReason());
    } else if (!this.#entries.size) {
      this.#phase = "hook";
      clearTimeout(this.#deadline);
    }
    if (this.#phase === "hook") this.#tasksOver?.();
  }

  async #finish(): Promise<void> {
    await new Promise<void>((resolve) => (this.#tasksOver = resolve));
    const pending: string[] = [];
    const errors: Error[] = [];
    const call = async (hook: () => unknown): Promise<void> => {
      const name = hook.name || "hook";
      const startedAt = performance.now();
      let error: Error | undefined;
      const turn = pending.push(name) - 1;
      try {
        await hook();
      } catch (thrown) {
        errors[turn] = error = failureOf(thrown);
      }
      if (this.#phase !== "hook") return;
      delete pending[turn];
      this.#onEvent?.({
        manager: this.#name,
        type: "cleanup-ended",
        hook: name,
        ...(error && { error }),
        elapsed: performance.now() - startedAt,
      });
    };
    let timedOut: unknown;
    const timeout = new Promise<true>(
      (resolve) => (this.#deadline = startTimer(this.#cleanupTimeout, () => resolve(true))),
    );
    for (let hook; (hook = this.#hooks.pop()); ) {
      // Once the timeout has passed, this is over within the turn: the rest are called, and no longer waited for.
      timedOut = await Promise.race([timeout, call(hook)]);
    }
    this.#phase = "";
    clearTimeout(this.#deadline);

    if (errors.length) this.#failures.push({ source: "cleanup", error: new CleanupError(errors.flat()) });
    if (timedOut) this.#reportTimeout("cleanup", new CleanupTimeoutError(this.#cleanupTimeout, pending.flat()));
    this.#onEvent?.({
      manager: this.#name,
      type: "stopped",
      failures: this.failures,
      elapsed: performance.now() - this.#stoppedAt,
    });
    if (this.#failures[0]) throw this.#failures[0].error;
  }

  #reportTimeout(source: "shutdown" | "cleanup", error: ShutdownTimeoutError | CleanupTimeoutError): void {
    this.#failures.push({ source, error });
    this.#onEvent?.({ manager: this.#name, type: `${source}-timed-out`, pending: error.pending, error });
  }
}
