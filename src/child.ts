/**
 * A program of its own process as a task.
 *
 * @module
 */
import { type ChildProcess, spawn, type SpawnOptions, type StdioOptions } from "node:child_process";
import { constants } from "node:os";
import { basename } from "node:path";
import { TaskAlreadyStartedError } from "./errors.ts";
import type { LifecycleEvent } from "./events.ts";
import { untilAborted } from "./internal/abort.ts";
import { check, checkMilliseconds, checkType } from "./internal/check.ts";
import { type Observer, observer } from "./internal/observer.ts";
import { type Place, placeOf } from "./internal/place.ts";
import { killAtExit, signalGroup, watchGroup } from "./internal/process-group.ts";
import { sleep, startTimer } from "./internal/time.ts";
import type { Task } from "./task.ts";

/** How long what was killed may take to be gone, in milliseconds: longer than anything takes that can be killed. */
const KILL_TIMEOUT = 2_000;

/** The longest pause between two looks at what a program has left behind, in milliseconds. */
const LONGEST_PAUSE = 50;

export interface ChildProcessOptions {
  /** @default the last part of the command, such as `node` for `/usr/bin/node` */
  name?: string | undefined;
  /** Where the program runs. @default the current directory, at each start */
  cwd?: string | undefined;
  /** All of its environment. @default `process.env`, at each start */
  env?: Readonly<Record<string, string | undefined>> | undefined;
  /**
   * As of `spawn` in `node:child_process`. Nobody reads the other end of a pipe, or writes to it.
   * @default "inherit"
   */
  stdio?: StdioOptions | undefined;
  /** What tells the program, and all of its group, to stop. @default "SIGTERM" */
  stopSignal?: NodeJS.Signals | undefined;
  /** Milliseconds until the group is killed; `Infinity`, or more than 2^31-1, is no limit. @default 10_000 */
  stopTimeout?: number | undefined;
  /** Is told how the program starts and ends. @default `onEvent` of the manager that runs it */
  onEvent?: ((event: LifecycleEvent) => void) | undefined;
}

/** A program failed: by how it ended, or because its group had to be killed after it was told to stop. */
export class ChildExitError extends Error {
  /** As it was given. */
  declare readonly command: string;
  /** `null` if a signal killed the program, or it could not be killed and has not ended. */
  declare readonly exitCode: number | null;
  /** The signal that killed the program, `null` if none did. */
  declare readonly signal: NodeJS.Signals | null;

  /** @param killedAfter - The timeout after which its group got SIGKILL, if it did, in milliseconds. */
  constructor(command: string, exitCode: number | null, signal: NodeJS.Signals | null, killedAfter?: number) {
    const end = exitCode === null ? "has not ended" : `exited with code ${exitCode}`;
    const kill = killedAfter === undefined ? "" : `; its group got SIGKILL after ${killedAfter} ms`;
    super(`Program ${command} ${signal ? `was killed by ${signal}` : end}${kill}`);
    this.command = command;
    this.exitCode = exitCode;
    this.signal = signal;
  }

  override get name(): string {
    return "ChildExitError";
  }
}

/**
 * Runs a program until it ends, and stops it, with all that it has started.
 *
 * The program leads a process group of its own (and a session: it has no terminal to control it, and Ctrl-C reaches it
 * only as our stop). At the stop the group gets `stopSignal`, and SIGCONT, as what is suspended would not hear it; what
 * is left of it after `stopTimeout` gets SIGKILL. `run` settles once the program has ended and nothing of its group
 * lives. What a program that ends by itself has left behind is stopped in the same way; what made itself a group of its
 * own, as a daemon does, has left.
 *
 * Exit code 0 is a return. So is, after the stop, death by `stopSignal`, or the exit code 128 + its number, which is
 * what a shell makes of it. Any other end is a {@link ChildExitError}, as is to be killed after `stopTimeout`, whoever
 * of the group that was. A program that cannot be started fails with Node's own error, such as ENOENT (of the command,
 * or of `cwd`). What cannot even be killed within 2 seconds, such as a process of another user, is left alone.
 *
 * If this process ends first, by `process.exit` or an error that nobody caught, the groups that live get SIGKILL. That
 * needs its `exit` event: what SIGKILL ends, or a signal that nobody listens for, leaves them running.
 *
 * It may run again after a run has ended, so `new RestartTask(new ChildProcessTask(...))` supervises a program. Events:
 * `child-started`, `child-exited`, `child-stop-timed-out`. After systemd's `KillMode=control-group`.
 *
 * @example Two programs: when one fails, the other is stopped
 * ```ts
 * import { Manager } from "allstop";
 * import { ChildExitError, ChildProcessTask } from "allstop/child";
 *
 * const manager = new Manager({
 *   onEvent: (event) => event.type === "child-exited" && console.log(event.task, event.exitCode ?? event.signal),
 * });
 * manager.run(
 *   new ChildProcessTask("sleep", ["60"]),
 *   new ChildProcessTask("sh", ["-c", "echo hello; exit 3"], { name: "greet" }), // prints hello
 * );
 * await manager.wait().catch((error: unknown) => {
 *   if (error instanceof ChildExitError) console.log(error.message);
 * });
 * // prints greet 3
 * // prints sleep SIGTERM
 * // prints Program sh exited with code 3
 * ```
 */
export class ChildProcessTask implements Task {
  readonly name: string;
  readonly #command: string;
  readonly #args: readonly string[];
  readonly #options: SpawnOptions;
  readonly #stopSignal: NodeJS.Signals;
  readonly #stopTimeout: number;
  readonly #onEvent: Observer | undefined;
  #started = false;

  /**
   * @param command - A path, or what is found in `PATH`; no shell is involved.
   * @throws {TypeError} If an argument or option has the wrong type.
   * @throws {RangeError} If `command` is empty, the system does not know `stopSignal`, or `stopTimeout` is below 0.
   * @throws {Error} On Windows, which has no process groups.
   */
  constructor(command: string, args: readonly string[] = [], options: ChildProcessOptions = {}) {
    const action = "create a ChildProcessTask";
    checkType(action, "command", "string", command);
    check(command > "", action, "command must not be empty", command, RangeError);
    const areStrings = Array.isArray(args) && Array.from(args).every((arg) => typeof arg === "string");
    check(areStrings, action, "args must be a list of strings", args);
    checkType(action, "options", "object", options);
    const { name = basename(command), cwd, env, stdio = "inherit", onEvent } = options;
    const { stopSignal = "SIGTERM", stopTimeout = 10_000 } = options;
    checkType(action, "name", "string", name);
    if (cwd !== undefined) checkType(action, "cwd", "string", cwd);
    check(env !== null, action, "env must be of type object", env);
    if (env !== undefined) checkType(action, "env", "object", env);
    const isStdio = typeof stdio === "string" || Array.isArray(stdio);
    check(isStdio, action, "stdio must be a string or a list", stdio);
    checkType(action, "stopSignal", "string", stopSignal);
    const isKnown = constants.signals[stopSignal] > 0;
    check(isKnown, action, "stopSignal must be one that the system knows", stopSignal, RangeError);
    checkMilliseconds(action, "stopTimeout", stopTimeout);
    if (process.platform === "win32") throw new Error(`Cannot ${action}: there are no process groups on Windows`);

    this.name = name;
    this.#command = command;
    this.#args = [...args];
    this.#options = {
      cwd,
      env: env && { ...env },
      stdio: typeof stdio === "string" ? stdio : [...stdio],
      detached: true,
    };
    this.#stopSignal = stopSignal;
    this.#stopTimeout = stopTimeout;
    this.#onEvent = observer(action, onEvent);
  }

  /**
   * @returns A promise that resolves when the program has ended well, by itself or because it was told to stop.
   * @throws {ChildExitError} If it has ended in any other way, or its group had to be killed.
   * @throws {Error} Node's own, if it cannot be started.
   * @throws {TaskAlreadyStartedError} If it is running.
   */
  async run(signal: AbortSignal): Promise<void> {
    const place = placeOf(signal, this.name, this.#onEvent);
    if (this.#started) throw new TaskAlreadyStartedError(place.task);
    if (signal.aborted) return;
    this.#started = true;
    try {
      await this.#supervise(signal, place);
    } finally {
      this.#started = false;
    }
  }

  async #supervise(signal: AbortSignal, place: Place): Promise<void> {
    const { task, onEvent } = place;
    const child = spawn(this.#command, this.#args, this.#options);
    const { pid } = child;
    if (pid === undefined) return new Promise((_, reject) => child.once("error", reject));
    const isAnyAlive = watchGroup(pid);
    const release = killAtExit(pid);
    let wasTold = false;
    const exit = new Promise<void>((resolve) => {
      child.once("exit", (exitCode, killedBy) => {
        wasTold = signal.aborted;
        onEvent?.({ type: "child-exited", task, pid, exitCode, signal: killedBy });
        resolve();
      });
    });
    onEvent?.({ type: "child-started", task, pid });
    await untilAborted(signal, exit);

    // One that has ended is dead before that is told here.
    const isAlive = (): boolean => (child.exitCode ?? child.signalCode) === null || isAnyAlive();
    const isKilled = isAlive() && (await this.#stop(pid, place, (timeout) => isGone(exit, isAlive, timeout)));
    release();
    letGo(child);
    if (isKilled || !this.#isGood(child, wasTold)) {
      const killedAfter = isKilled ? this.#stopTimeout : undefined;
      throw new ChildExitError(this.#command, child.exitCode, child.signalCode, killedAfter);
    }
  }

  /** Stops the group; tells whether it had to be killed. */
  async #stop(group: number, place: Place, goes: (timeout: number) => Promise<boolean>): Promise<boolean> {
    signalGroup(group, this.#stopSignal);
    signalGroup(group, "SIGCONT");
    if (await goes(this.#stopTimeout)) return false;
    signalGroup(group, "SIGKILL");
    place.onEvent?.({ type: "child-stop-timed-out", task: place.task, pid: group });
    await goes(KILL_TIMEOUT);
    return true;
  }

  #isGood({ exitCode, signalCode }: ChildProcess, wasTold: boolean): boolean {
    const { signals } = constants;
    const number = signals[this.#stopSignal];
    // By number, as some signals have two names.
    const isStop = exitCode === 128 + number || (signalCode !== null && signals[signalCode] === number);
    return exitCode === 0 || (wasTold && isStop);
  }
}

/** Waits for the program to end, then for all others of its group; tells whether they did so in time. */
async function isGone(exit: Promise<void>, isAlive: () => boolean, timeout: number): Promise<boolean> {
  const late = new AbortController();
  const timer = startTimer(timeout, () => late.abort());
  await untilAborted(late.signal, exit);
  for (let pause = 1; isAlive(); pause = Math.min(2 * pause, LONGEST_PAUSE)) {
    if (late.signal.aborted) return false;
    await sleep(pause, late.signal);
  }
  clearTimeout(timer);
  return true;
}

/** Leaves a process without anything of it that would keep this one alive. */
function letGo(child: ChildProcess): void {
  child.unref();
  child.channel?.unref();
  child.removeAllListeners();
  // Of these the other ends may be open in a process that has left the group.
  for (const stream of child.stdio) stream?.destroy();
}
