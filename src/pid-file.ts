/**
 * A PID file: a program that runs once only, and can be found.
 *
 * @module
 */
import { resolve } from "node:path";
import { check, checkNumber, checkType } from "./internal/check.ts";
import { releaseFile, seizeFile, statusOfFile } from "./internal/held-file.ts";
import { processStat } from "./internal/process-stat.ts";
import { startTimer } from "./internal/time.ts";

/** How often a file that is just being released is tried again, and after how many milliseconds. */
const ATTEMPTS = 200;
const PAUSE = 5;

export interface AcquirePidFileOptions {
  /**
   * The id of a running process whose file may be taken over, as the `parentPid` of an `UpgradeTask`. If the upgrade
   * fails after that, the file is gone, or that of a dead process: on `upgrade-failed` the parent acquires it again.
   * @default undefined
   */
  replaces?: number | undefined;
}

/** A PID file that this process holds. */
export interface PidFile extends AsyncDisposable {
  /** Where it is; absolute. */
  readonly path: string;
  /** That of this process. */
  readonly pid: number;
  /** Removes the file, if it is still that of this process. Does nothing the second time. */
  release(): Promise<void>;
}

/** What a PID file says. Without an id in it, nothing is running. */
export type PidFileStatus =
  | { readonly pid: number; readonly running: true }
  | { readonly pid: number | undefined; readonly running: false };

/** The PID file is that of a running process, or one is about to take it over. */
export class AlreadyRunningError extends Error {
  declare readonly pid: number;
  /** The PID file. */
  declare readonly path: string;

  constructor(pid: number, path: string) {
    super(`Cannot acquire ${path}: process ${pid} is already running`);
    this.pid = pid;
    this.path = path;
  }

  override get name(): string {
    return "AlreadyRunningError";
  }
}

/**
 * Makes a PID file for this process, or takes over one whose process has ended.
 *
 * Its first line is the process id; its second, where there is a `/proc`, is when the process started, by which it is
 * told from another one that gets the same id later. It appears whole, and a takeover replaces it in one step. Of any
 * number of processes that try at the same time exactly one gets it, whatever was there, and even if some of them are
 * killed or frozen on the way. It needs a file system with hard links, and processes that see each other's ids.
 *
 * The file does not vanish with the process: release it, as below. One that is left behind by a crash does no harm.
 *
 * @param path - What it is relative to, is the current directory now. A symbolic link is read, but then replaced.
 * @throws {AlreadyRunningError} If the process that holds it is running.
 * @throws {TypeError} If `path` is no string, or empty, or `replaces` is no number.
 * @throws {RangeError} If `replaces` is no whole number above 0.
 * @throws {Error} Node's own, with its `code`, if the path is a directory, or cannot be read or written.
 *
 * @example Only one of them runs
 * ```ts
 * import { tmpdir } from "node:os";
 * import { join } from "node:path";
 * import { Manager } from "allstop";
 * import { AlreadyRunningError, acquirePidFile, readPidFile } from "allstop/pid-file";
 *
 * const path = join(tmpdir(), `allstop-${process.pid}.pid`);
 * const manager = new Manager();
 * const pidFile = await acquirePidFile(path);
 * manager.cleanup(() => pidFile.release());
 *
 * console.log(readPidFile(path).pid === process.pid); // prints true
 * try {
 *   await acquirePidFile(path); // as a second process would
 * } catch (error) {
 *   console.log(error instanceof AlreadyRunningError); // prints true
 * }
 * await manager.stop();
 * console.log(readPidFile(path)); // prints { pid: undefined, running: false }
 * ```
 */
export async function acquirePidFile(path: string, options: AcquirePidFileOptions = {}): Promise<PidFile> {
  const action = "acquire a PID file";
  const absolute = checkPath(action, path);
  checkType(action, "options", "object", options);
  const { replaces } = options;
  if (replaces !== undefined) {
    const isPid = Number.isInteger(replaces) && replaces > 0;
    checkNumber(action, "replaces", replaces, isPid, "a whole number above 0");
  }

  const { pid } = process;
  const text = [pid, processStat(pid)?.startedAt, ""].filter((line) => line !== undefined).join("\n");
  const own = { path: absolute, text };
  let holder: number | undefined;
  for (let attempt = 0; (holder = seizeFile(own, replaces)) !== undefined; attempt++) {
    if (holder !== replaces || attempt === ATTEMPTS) throw new AlreadyRunningError(holder, absolute);
    await new Promise<void>((wake) => startTimer(PAUSE, wake));
  }

  let isReleased = false;
  async function release(): Promise<void> {
    if (isReleased) return;
    releaseFile(own);
    isReleased = true;
  }
  return { path: absolute, pid, release, [Symbol.asyncDispose]: release };
}

/**
 * Tells whose PID file it is, and whether that process is running: one of another user is, a zombie is not, and neither
 * is another process that got the same id since.
 *
 * @returns No `pid` if there is no file, or none in its first line.
 * @throws {TypeError} If `path` is no string, or empty.
 * @throws {Error} Node's own, with its `code`, if the path is a directory, or cannot be read.
 */
export function readPidFile(path: string): PidFileStatus {
  return statusOfFile(checkPath("read a PID file", path));
}

function checkPath(action: string, path: string): string {
  checkType(action, "path", "string", path);
  check(path !== "", action, "path must not be empty", path);
  return resolve(path);
}
