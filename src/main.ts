/**
 * The whole of `main()`: from the first task to the exit code.
 *
 * @module
 */
import { constants } from "node:os";
import { type Failure, TaskAlreadyStartedError } from "./errors.ts";
import { onAbort } from "./internal/abort.ts";
import { checkMilliseconds, checkType } from "./internal/check.ts";
import { Fill } from "./internal/fill.ts";
import { END_SIGNALS, onSecondSignal } from "./internal/os-signals.ts";
import { placeOf } from "./internal/place.ts";
import { Report } from "./internal/report.ts";
import { afterTurn, startTimer } from "./internal/time.ts";
import { UncaughtErrors } from "./internal/uncaught-errors.ts";
import { Manager, type ManagerOptions } from "./manager.ts";
import { OsSignalTask } from "./os-signal-task.ts";
import type { Task } from "./task.ts";

const ACTION = "run a program";

/** What failures call the function that sets a program up, and the task that takes errors that nobody caught. */
const SETUP = "setup";
const UNCAUGHT = "uncaught-errors";

/** In milliseconds: once all has been written, a process that nothing else keeps alive ends in less. */
const GRACE = 50;

/** Those of the {@link Manager}, and two more. */
export interface RunMainOptions extends ManagerOptions {
  /**
   * The names of the signals that end the program.
   * @default ["SIGINT", "SIGTERM", "SIGQUIT"]
   */
  signals?: readonly string[] | undefined;
  /** Milliseconds, from the end on, that the process has to end by itself. @default 2_000 */
  exitTimeout?: number | undefined;
}

/**
 * Runs a program: lets `setup` fill a {@link Manager} with tasks and hooks, waits for its end, and tells how it went.
 *
 * Signals of the operating system, and errors that nobody caught, stop the group as the end of a task does, from before
 * `setup` is called. During `setup` its next `run` then throws a `ManagerStoppedError`, which is no failure. Every
 * failure, with its source and its causes, is written to stderr; after a clean end nothing is. The exit code is 1 after
 * a failure, else 0, or what the program itself has set.
 *
 * The first signal never cuts the stop short. A second one ends the process with 128 + its number, and says what was
 * still running; but not within 500 ms of the first, as one Ctrl-C may arrive more than once. Errors that nobody caught
 * are told until the last hook has run.
 *
 * At the end nothing is left that keeps the process alive. If something of the program does, such as a server that was
 * not closed, then after `exitTimeout` stderr says what it is, and the process exits, once all output has been written.
 * So this is for a program as a whole, which runs it once, and last.
 *
 * @param setup - Is given the manager. A promise that it returns is awaited, from a stop on for `shutdownTimeout`. So it
 * should not wait for the group, whose hooks have a timeout of their own.
 * @returns A promise that resolves at the end, also after a failure.
 * @throws {TypeError} If `setup` is no function, or an option has the wrong type.
 * @throws {RangeError} If a timeout is below 0, or `limit` is no whole number above 0.
 *
 * @example A service, until Ctrl-C, or `kill`
 * ```ts
 * import { once } from "node:events";
 * import { runMain } from "allstop/main";
 *
 * await runMain((manager) => {
 *   manager.cleanup(() => console.log("closed the database")); // prints closed the database
 *   manager.run((signal) => once(signal, "abort"));
 *   setTimeout(() => process.kill(process.pid, "SIGTERM"), 10); // somebody stops us
 * });
 * console.log(`exit code ${process.exitCode}`); // prints exit code 0
 * ```
 */
export async function runMain(setup: (manager: Manager) => unknown, options: RunMainOptions = {}): Promise<void> {
  checkType(ACTION, "setup", "function", setup);
  checkType(ACTION, "options", "object", options);
  const { signals = END_SIGNALS, exitTimeout = 2_000, shutdownTimeout } = options;
  checkMilliseconds(ACTION, "exitTimeout", exitTimeout);
  const osSignal = new OsSignalTask({ signals });
  try {
    await new Program(new Manager(options), shutdownTimeout).run(setup, osSignal, signals);
  } finally {
    // It was not run if an option is bad, or the parent had stopped already.
    osSignal[Symbol.dispose]();
  }
  void exitLate(exitTimeout);
}

/** A run of a program, up to its exit code. */
class Program {
  readonly #fill: Fill;
  readonly #manager: Manager;
  readonly #report = new Report();
  /** Those of errors that nobody caught, but for the first, which is among the manager's. */
  readonly #others: Failure[] = [];
  #isSetUp = false;

  constructor(manager: Manager, shutdownTimeout: number | undefined) {
    this.#manager = manager;
    this.#fill = new Fill(manager, SETUP, shutdownTimeout);
  }

  async run(setup: (manager: Manager) => unknown, osSignal: Task, signals: readonly string[]): Promise<void> {
    const unlisten = onSecondSignal(ACTION, signals, (signal) => this.#abandon(signal));
    const errors = new UncaughtErrors(UNCAUGHT, (failure) => {
      this.#others.push(failure);
      // Not before the first one has become the failure that it is.
      afterTurn(() => this.#tell());
    });
    // At once, as nobody knows how long the stop will take, or who will cut it short.
    onAbort(this.#manager.signal, () => this.#tell());
    await this.#fill.run(async (manager) => {
      try {
        manager.runBackground(osSignal, errors);
        await setup(manager);
      } finally {
        this.#isSetUp = true;
      }
    });
    // What the last hook left to nobody is known only now.
    await new Promise<void>(afterTurn);
    errors.release();
    unlisten();
    this.#tell();
    process.exitCode ??= 0;
  }

  /** Tells all failures that have not been told, and returns all. Any of them decides about the exit code. */
  #tell(): readonly Failure[] {
    const failures = [...this.#fill.failures, ...this.#others];
    this.#report.tell(failures);
    if (failures.length) process.exitCode = 1;
    return failures;
  }

  #abandon(signal: string): void {
    const failures = this.#tell();
    const running = [...(this.#isSetUp ? [] : [SETUP]), ...this.#manager.pending];
    // Hooks have their turn when all has ended, or was given up.
    if (!running.length || failures.some(({ source }) => source === "shutdown")) running.push("cleanup");
    void this.#report.say(`Ended by a second signal, ${signal}, while still running: ${running.join(", ")}`);
    process.exit(128 + constants.signals[signal as NodeJS.Signals]);
  }
}

/** Ends a process that has not ended by itself when the time is over. Nothing here keeps it alive. */
async function exitLate(exitTimeout: number): Promise<void> {
  await unwaited(exitTimeout);
  const { stdout, stderr } = process;
  if (stdout.writableLength || stderr.writableLength) {
    // That alone may be what keeps it alive, if the reader is slow.
    await Promise.all([written(stdout), written(stderr)]);
    await unwaited(GRACE);
  }
  // They are listed, too, if they are pipes or terminals, though they keep nothing alive.
  stdout.unref?.();
  stderr.unref?.();
  const resources = countsOf(process.getActiveResourcesInfo()) || "something that Node does not name";
  void new Report().say(`Still alive ${exitTimeout} ms after the end, because of: ${resources}`);
  await Promise.all([written(stdout), written(stderr)]);
  process.exit();
}

/** Waits so many milliseconds, or for ever, if nothing but this would keep the process alive. */
function unwaited(milliseconds: number): Promise<void> {
  return new Promise((resolve) => startTimer(milliseconds, resolve).unref());
}

/** Waits until all that was written so far is with the reader, as `process.exit` does not. */
function written(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    if (!stream.writableLength) resolve();
    else if (stream.writableEnded) stream.end(resolve);
    else stream.write("", () => resolve());
  });
}

function countsOf(names: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return Array.from(counts, ([name, count]) => (count > 1 ? `${name} (${count})` : name)).join(", ");
}

export interface UncaughtErrorOptions {
  /** @default "uncaught-errors" */
  name?: string | undefined;
}

/**
 * A task that fails with the first error that nobody caught while it runs, so that the group stops, and its hooks run,
 * where Node would end the process at once: an exception out of a callback, or a rejection that was never handled.
 *
 * The failure is a `PanicError`: its `cause` is what was thrown, and its `origin` says which of the two it was. What is
 * rejected only because the group was told to stop is no failure. It returns at the stop, keeps no process alive, and
 * its listeners are gone when it ends: later errors have Node's own end again. One instance runs once.
 *
 * {@link runMain} has one.
 *
 * @example An error out of a callback
 * ```ts
 * import { once } from "node:events";
 * import { Manager } from "allstop";
 * import { UncaughtErrorTask } from "allstop/main";
 *
 * const manager = new Manager();
 * manager.runBackground(new UncaughtErrorTask());
 * manager.run((signal) => once(signal, "abort"));
 * manager.cleanup(() => console.log("cleaned up")); // prints cleaned up
 * setTimeout(() => {
 *   throw new Error("not my day");
 * }, 10);
 * await manager.wait().catch((error) => console.log(error.origin, error.cause.message));
 * // prints uncaughtException not my day
 * ```
 */
export class UncaughtErrorTask implements Task {
  readonly name: string;
  #started = false;

  /** @throws {TypeError} If the name is no string. */
  constructor(options: UncaughtErrorOptions = {}) {
    const action = "create an UncaughtErrorTask";
    checkType(action, "options", "object", options);
    const { name = UNCAUGHT } = options;
    checkType(action, "name", "string", name);
    this.name = name;
  }

  /**
   * @returns A promise that resolves when `signal` aborts.
   * @throws {PanicError} If there was an error that nobody caught.
   * @throws {TaskAlreadyStartedError} If it ran before.
   */
  async run(signal: AbortSignal): Promise<void> {
    if (this.#started) throw new TaskAlreadyStartedError(placeOf(signal, this.name).task);
    this.#started = true;
    let late: Failure | undefined;
    const errors = new UncaughtErrors(this.name, (failure) => {
      late ??= failure;
    });
    try {
      await errors.run(signal);
      // What the stop itself made fail is told only at the end of the turn.
      await new Promise<void>(afterTurn);
    } finally {
      errors.release();
    }
    if (late) throw late.error;
  }
}
