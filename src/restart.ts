/**
 * A task that runs another one again when it has ended.
 *
 * @module
 */
import { TaskAlreadyStartedError } from "./errors.ts";
import type { LifecycleEvent } from "./events.ts";
import { check, checkMilliseconds, checkNumber, checkType } from "./internal/check.ts";
import { failureOf } from "./internal/failure.ts";
import { type Observer, observer } from "./internal/observer.ts";
import { callInPlace, type Place, placeOf } from "./internal/place.ts";
import { callTask, checkTask, taskName } from "./internal/task.ts";
import { sleep, startTimer } from "./internal/time.ts";
import type { Task, TaskLike } from "./task.ts";

/** How a run ended: it returned, or it failed with an error. */
export interface RunEnd {
  readonly outcome: "returned" | "failed";
  readonly error?: Error;
}

/** After which ends the task is run again: `"on-failure"`, `"always"`, `"never"`, or as a function decides. */
export type RestartPolicy = "on-failure" | "always" | "never" | ((end: RunEnd) => boolean);

/** Milliseconds before a restart: always the same, or as a function of its number, from 1, and the error, if any. */
export type RestartDelay = number | ((attempt: number, error: Error | undefined) => number);

/** What a {@link RestartTask} does: nothing, run its task, or wait to run it again. */
export type RestartStatus = "stopped" | "running" | "restarting";

export interface RestartOptions {
  /** @default "on-failure" */
  policy?: RestartPolicy | undefined;
  /** How many restarts there may be; the end after that is the end of the task. @default 3 */
  maxRestarts?: number | undefined;
  /**
   * Milliseconds: `maxRestarts` is then the limit for any span of this length, counted from one decision to restart to
   * the next. Without it, restarts count until a run proves healthy.
   * @default Infinity
   */
  within?: number | undefined;
  /** Before each restart, in milliseconds. @default 1_000 */
  delay?: RestartDelay | undefined;
  /** Milliseconds after which a run counts as healthy: the count of restarts begins again. @default 30_000 */
  healthyAfter?: number | undefined;
  /** Is told of restarts, and of giving up. @default `onEvent` of the manager that runs the task */
  onEvent?: ((event: LifecycleEvent) => void) | undefined;
}

/** A {@link RestartTask} has restarted its task as often as it may. Its `cause` is the last error, if any. */
export class RestartLimitError extends Error {
  /** The full name of the task. */
  declare readonly task: string;
  /** How many restarts there have been since the task was last healthy. */
  declare readonly restarts: number;

  constructor(task: string, restarts: number, cause?: Error) {
    super(`Gave up on ${task} after ${restarts} restarts`, cause && { cause });
    this.restarts = restarts;
    this.task = task;
  }

  override get name(): string {
    return "RestartLimitError";
  }
}

/**
 * Runs a task, and runs it again when it has failed.
 *
 * When it ended, these are asked, in this order: the policy, the limit, the delay. An end that the policy does not
 * restart is passed on as it is; at the limit it gives up with a {@link RestartLimitError}. A run that stays up for
 * `healthyAfter` milliseconds sets the count of restarts to 0 while it still runs.
 *
 * There are never two runs of the task at once, even if one does not hear its signal: the next starts only after the
 * promise of the last has settled. A stop, during a run or a delay, restarts nothing. It may itself run again after it
 * has ended; `new RestartTask(new GroupTask(...))` restarts a whole group when one of its tasks fails.
 *
 * Events: `task-restarting`, before the delay; `task-restarted`, after it; `task-healthy`, when the count goes back to
 * 0; `task-gave-up`. After Erlang's supervisors, whose restart intensity is `maxRestarts` `within` a time.
 *
 * @example A consumer that connects the second time
 * ```ts
 * import { Manager } from "allstop";
 * import { RestartTask } from "allstop/restart";
 *
 * let runs = 0;
 * async function consumer() {
 *   if (++runs === 1) throw new Error("connection refused");
 *   console.log("connected"); // prints connected
 * }
 * const manager = new Manager({
 *   onEvent: (event) => event.type === "task-restarting" && console.log(`${event.task}: ${event.error?.message}`),
 * });
 * manager.run(new RestartTask(consumer, { delay: 10 })); // prints consumer: connection refused
 * await manager.wait();
 * ```
 */
export class RestartTask implements Task {
  /** That of its task. */
  readonly name: string;
  readonly #task: TaskLike;
  readonly #policy: (end: RunEnd) => boolean;
  readonly #maxRestarts: number;
  readonly #within: number;
  readonly #delay: (attempt: number, error: Error | undefined) => number;
  readonly #healthyAfter: number;
  readonly #onEvent: Observer | undefined;
  #started = false;
  #status: RestartStatus = "stopped";
  #restarts = 0;
  /** When it was decided to restart, for the last `within` milliseconds. */
  #decisions: number[] = [];

  /**
   * @throws {TypeError} If the task is none, or an option has the wrong type.
   * @throws {RangeError} If a time is below 0, `maxRestarts` is no whole number from 0 on, or the policy is not known.
   */
  constructor(task: TaskLike, options: RestartOptions = {}) {
    const action = "create a RestartTask";
    const { policy = "on-failure", maxRestarts = 3, within = Infinity, delay = 1_000, healthyAfter = 30_000 } = options;
    checkTask(action, task);
    if (typeof policy !== "function") {
      checkType(action, "policy", "string", policy);
      const rule = 'policy must be "on-failure", "always", "never" or a function';
      check(["on-failure", "always", "never"].includes(policy), action, rule, policy, RangeError);
    }
    checkNumber(
      action,
      "maxRestarts",
      maxRestarts,
      maxRestarts >= 0 && !(maxRestarts % 1),
      "a whole number, 0 or more",
    );
    checkMilliseconds(action, "within", within);
    if (typeof delay !== "function") checkMilliseconds(action, "delay", delay);
    checkMilliseconds(action, "healthyAfter", healthyAfter);

    this.name = taskName(task, "restart");
    this.#task = task;
    this.#policy =
      typeof policy === "function"
        ? policy
        : ({ outcome }) => policy === "always" || (policy === "on-failure" && outcome === "failed");
    this.#maxRestarts = maxRestarts;
    this.#within = within;
    this.#delay = typeof delay === "function" ? delay : () => delay;
    this.#healthyAfter = healthyAfter;
    this.#onEvent = observer(action, options.onEvent);
  }

  get status(): RestartStatus {
    return this.#status;
  }

  /** How many restarts there have been since the run began, or the task was last healthy. */
  get restarts(): number {
    return this.#restarts;
  }

  /**
   * @returns A promise of what the last run of the task returned.
   * @throws What that threw, if the policy does not restart it or the task was told to stop.
   * @throws {RestartLimitError} If there have been enough restarts.
   * @throws What the policy or the delay throws; the error of the last run becomes its `cause`, if it has none.
   * @throws {TypeError | RangeError} If the delay is not 0 or more milliseconds.
   * @throws {TaskAlreadyStartedError} If it is running.
   */
  async run(signal: AbortSignal): Promise<unknown> {
    const place = placeOf(signal, this.name, this.#onEvent);
    if (this.#started) throw new TaskAlreadyStartedError(place.task);
    this.#decisions = [];
    this.#restarts = 0;
    this.#started = true;
    try {
      return await this.#supervise(signal, place);
    } finally {
      this.#started = false;
      this.#status = "stopped";
    }
  }

  async #supervise(signal: AbortSignal, place: Place): Promise<unknown> {
    const { task, onEvent } = place;
    while (!signal.aborted) {
      this.#status = "running";
      if (this.#restarts) onEvent?.({ type: "task-restarted", task, attempt: this.#restarts });
      if (signal.aborted) break;
      const healthy = startTimer(this.#healthyAfter, () => {
        if (signal.aborted || !this.#restarts) return;
        this.#restarts = 0;
        onEvent?.({ type: "task-healthy", task });
      });
      // Only the task itself keeps the process alive.
      healthy.unref?.();
      const run = callInPlace(place, signal, (own) => callTask(this.#task, task, own));
      const error = await run.then(() => undefined, failureOf);
      clearTimeout(healthy);
      const delay = this.#decide(signal, place, error);
      // The policy, or the function that gives the delay, may also have stopped the group.
      if (delay === undefined || signal.aborted) return run;
      this.#restarts++;
      this.#status = "restarting";
      onEvent?.({ type: "task-restarting", task, attempt: this.#restarts, delay, ...(error && { error }) });
      await sleep(delay, signal);
    }
    return undefined;
  }

  /** Gives the delay before the next run, or nothing if this end is to be passed on. */
  #decide(signal: AbortSignal, { task, onEvent }: Place, error: Error | undefined): number | undefined {
    if (signal.aborted) return undefined;
    const cause = error && { error };
    try {
      if (!this.#policy({ outcome: error ? "failed" : "returned", ...cause }) || signal.aborted) return undefined;
      if (this.#isAtLimit()) {
        this.#status = "stopped";
        onEvent?.({ type: "task-gave-up", task, restarts: this.#restarts, ...cause });
        throw new RestartLimitError(task, this.#restarts, error);
      }
      const delay = this.#delay(this.#restarts + 1, error);
      checkMilliseconds(`restart ${task}`, "delay", delay);
      return delay;
    } catch (thrown) {
      const failure = failureOf(thrown, signal);
      if (!failure) return undefined;
      if (error && failure !== error) failure.cause ??= error;
      throw failure;
    }
  }

  #isAtLimit(): boolean {
    if (this.#within === Infinity || this.#maxRestarts === Infinity) return this.#restarts >= this.#maxRestarts;
    const now = performance.now();
    // The list never has more than so many, so that one less is room enough.
    if (now - (this.#decisions[0] ?? now + 1) >= this.#within) this.#decisions.shift();
    return this.#decisions.length >= this.#maxRestarts || !this.#decisions.push(now);
  }
}

export interface BackoffOptions {
  /** The delay of the first restart, in milliseconds. @default 1_000 */
  base?: number | undefined;
  /** By how much it grows each time; 1 or more. @default 2 */
  factor?: number | undefined;
  /** The longest delay, in milliseconds. @default 30_000 */
  max?: number | undefined;
  /** By how much of itself a delay may be shorter, at random; from 0 to 1. @default 0.5 */
  jitter?: number | undefined;
}

/**
 * Makes a `delay` for {@link RestartTask} that grows with each restart:
 * `min(max, base * factor ** (attempt - 1)) * (1 - jitter * random)`.
 *
 * The jitter keeps a hundred instances that failed together from coming back together; see "Exponential Backoff And
 * Jitter" in the AWS Architecture Blog.
 *
 * @throws {TypeError} If an option is no number.
 * @throws {RangeError} If a time is below 0, `factor` is below 1, or `jitter` is not from 0 to 1.
 *
 * @example Doubled each time, up to a limit
 * ```ts
 * import { backoff } from "allstop/restart";
 *
 * const delay = backoff({ base: 100, max: 500, jitter: 0 });
 * console.log([1, 2, 3, 4].map(delay)); // prints [ 100, 200, 400, 500 ]
 * ```
 */
export function backoff(options: BackoffOptions = {}): (attempt: number) => number {
  const action = "create a backoff";
  const { base = 1_000, factor = 2, max = 30_000, jitter = 0.5 } = options;
  checkMilliseconds(action, "base", base);
  checkNumber(action, "factor", factor, factor >= 1, "1 or more");
  checkMilliseconds(action, "max", max);
  checkNumber(action, "jitter", jitter, jitter >= 0 && jitter <= 1, "from 0 to 1");
  // Without a base it is 0, also once the power has grown beyond all numbers.
  return (attempt) => base && Math.min(max, base * factor ** (attempt - 1)) * (1 - jitter * Math.random());
}
