/**
 * A program that goes on in the background.
 *
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, closeSync, constants, openSync, writeSync } from "node:fs";
import { constants as system } from "node:os";
import { resolve } from "node:path";
import type { Readable } from "node:stream";
import { check, checkMilliseconds, checkNumber, checkType } from "./internal/check.ts";
import { LINE, markOf, ownCommand, takeMark, UPGRADE_MARK } from "./internal/respawn.ts";
import { startTimer } from "./internal/time.ts";

/** In the environment of the process that goes on in the background. */
const DAEMON_MARK = "ALLSTOP_DAEMON";

export interface DaemonizeOptions {
  /**
   * Where the daemon works, lest it keep a disk from being unmounted. An upgrade starts the new process there, too: if
   * Node has options such as `--env-file` with relative paths, let it be the directory of the start. @default "/"
   */
  cwd?: string | undefined;
  /** The file to append its output to. @default its output is dropped */
  stdout?: string | undefined;
  /** The file to append its errors to. @default they are dropped */
  stderr?: string | undefined;
  /** Which permissions the files that it makes do not get, its logs included. @default 0o027 */
  umask?: number | undefined;
  /** How long it may take until it is ready, in milliseconds; `Infinity` is no limit. @default 30_000 */
  readyTimeout?: number | undefined;
}

/** Which of the two processes this is. */
export type Daemon =
  | {
      readonly role: "parent";
      /** The id of the daemon. */
      readonly pid: number;
      /** How its start went: 0 if it is ready. */
      readonly exitCode: number;
    }
  | {
      readonly role: "child";
      /** Tells the parent that the daemon is up. Never throws, also when nobody listens any more. */
      ready(): void;
    };

/**
 * Starts this program again as a daemon: in a session of its own, without a terminal.
 *
 * The same command runs up to the same call, which in the daemon gives the role `child`. The other process, of role
 * `parent`, waits until the daemon says that it is ready, and is to end then. Its `process.exitCode` has been set to 0,
 * or else to the daemon's own (128 + n if signal n killed it; 1 if it ended with 0 all the same, or was not ready in
 * time and so was killed, with its process group). Then stderr says why, and which log tells more.
 *
 * In a process that an `UpgradeTask` started, it is the `child` at once, as its parent was; so call it before you
 * construct that. Call it once: a second call starts a daemon of the daemon. What a daemon that is not ready in time
 * has started in groups of their own, as a `ChildProcessTask` does, lives on. Not on Windows. After `daemon(3)`.
 *
 * @returns What this process is. The daemon is in `cwd`, with the `umask`.
 * @throws {TypeError} If an option has the wrong type.
 * @throws {RangeError} If `umask` is no whole number from 0 to 0o777, or `readyTimeout` is below 0.
 * @throws Node's own error if a log cannot be opened, or `cwd` not be entered. Nothing has been started then.
 *
 * @example A program that starts itself, and says how that went
 * ```ts
 * import { daemonize } from "allstop/daemon";
 *
 * const daemon = await daemonize({ readyTimeout: 10_000 });
 * if (daemon.role === "parent") {
 *   console.log(`started: ${daemon.exitCode === 0}`); // prints started: true
 * } else {
 *   daemon.ready(); // once it serves; here it has nothing to do, and ends
 * }
 * ```
 */
export async function daemonize(options: DaemonizeOptions = {}): Promise<Daemon> {
  const action = "daemonize";
  checkType(action, "options", "object", options);
  const { cwd = "/", stdout, stderr, umask = 0o027, readyTimeout = 30_000 } = options;
  checkType(action, "cwd", "string", cwd);
  check(cwd > "", action, "cwd must not be empty", cwd, RangeError);
  if (stdout !== undefined) checkType(action, "stdout", "string", stdout);
  if (stderr !== undefined) checkType(action, "stderr", "string", stderr);
  checkNumber(action, "umask", umask, Number.isInteger(umask) && umask >= 0 && umask <= 0o777, "from 0 to 0o777");
  checkMilliseconds(action, "readyTimeout", readyTimeout);

  /* v8 ignore start -- the rest runs in a daemon, or in one that an upgrade has started, as those of the tests */
  // The parent was the daemon, and so this process is in its place.
  if (markOf(UPGRADE_MARK)) return { role: "child", ready() {} };
  if (!takeMark(DAEMON_MARK)) return start(cwd, stdout, stderr, umask, readyTimeout);
  process.chdir(cwd);
  return { role: "child", ready: lineToParent() };
}

/** @returns What says that this process is ready: once, as the number of the file is given to another one then. */
function lineToParent(): () => void {
  let isOpen = true;
  return () => {
    if (!isOpen) return;
    isOpen = false;
    try {
      writeSync(LINE, "1");
    } catch {
      // The parent has gone.
    }
    closeSync(LINE);
  };
}
/* v8 ignore stop */

async function start(
  cwd: string,
  stdout: string | undefined,
  stderr: string | undefined,
  umask: number,
  readyTimeout: number,
): Promise<Daemon> {
  // The daemon is going to enter it, but might have nobody to tell that it cannot.
  accessSync(`${cwd}/.`, constants.X_OK);
  const child = spawnDaemon(stdout, stderr, umask);
  // One that could not be started has no id, and says why.
  if (!child.pid) throw (await once(child, "error"))[0];
  const { pid } = child;
  const { exitCode, why } = await outcome(child, pid, readyTimeout);
  if (why) {
    const log = stderr ?? stdout;
    const hint = log === undefined ? "name a log with the option stderr" : `see ${resolve(log)}`;
    console.error(`Daemon ${pid} ${why}: ${hint}`);
  }
  process.exitCode = exitCode;
  return { role: "parent", pid, exitCode };
}

function spawnDaemon(stdout: string | undefined, stderr: string | undefined, umask: number): ChildProcess {
  const files: number[] = [];
  // For the logs, and for the daemon, which inherits it.
  const previous = process.umask(umask);
  const open = (log: string | undefined): number | "ignore" => {
    if (log === undefined) return "ignore";
    files.push(openSync(log, "a"));
    return files.at(-1) as number;
  };
  try {
    const [file = "", ...args] = ownCommand();
    return spawn(file, args, {
      detached: true,
      // A mark of the other kind is not this one's, or it would not be here.
      env: { ...process.env, [UPGRADE_MARK]: undefined, [DAEMON_MARK]: "1" },
      stdio: ["ignore", open(stdout), open(stderr), "pipe"],
    });
  } finally {
    process.umask(previous);
    files.forEach(closeSync);
  }
}

/** Waits until a daemon is ready, or has ended; if it is not ready in time, by force. */
async function outcome(child: ChildProcess, pid: number, timeout: number): Promise<{ exitCode: number; why?: string }> {
  // The other end of the line can only be written to.
  const line = child.stdio[LINE] as Readable;
  let timedOut = false;
  const timer = startTimer(timeout, () => {
    timedOut = true;
    process.kill(-pid, "SIGKILL");
  });
  const isReady = await new Promise<boolean>((resolve) => {
    line.on("data", () => resolve(!timedOut));
    // After its exit, its id and that of its group are another's.
    child.on("exit", () => clearTimeout(timer));
    child.on("close", () => resolve(false));
  });
  clearTimeout(timer);
  line.destroy();
  child.unref();
  const { exitCode, signalCode } = child;
  if (isReady) return { exitCode: 0 };
  if (timedOut) return { exitCode: 1, why: `was not ready within ${timeout} ms` };
  if (signalCode) {
    return { exitCode: 128 + system.signals[signalCode], why: `was killed by ${signalCode} before it was ready` };
  }
  return { exitCode: exitCode || 1, why: `exited with code ${exitCode} before it was ready` };
}
