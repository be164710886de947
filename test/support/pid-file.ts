import { type ChildProcess, spawn } from "node:child_process";
import fs, { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type AcquirePidFileOptions,
  AlreadyRunningError,
  acquirePidFile,
  type PidFile,
  readPidFile,
} from "allstop/pid-file";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";

export const me: number = process.pid;

/** As no process can have it, it is that of one that has ended. */
export const dead: number = 99_999_999;

/** What a file may be like before somebody acquires it. */
export const kinds: [string, string | undefined][] = [
  ["fresh", undefined],
  ["stale", `${dead}\n123\n`],
  ["empty", ""],
  ["garbage", "no pid\n"],
];

/** What the library calls of `node:fs` for such a file. */
export const CALLS: readonly string[] = [
  "closeSync",
  "fstatSync",
  "linkSync",
  "lstatSync",
  "openSync",
  "readSync",
  "renameSync",
  "unlinkSync",
  "writeFileSync",
];

/** Those of them that others can notice, or that notice what others did; between two others nothing can go wrong. */
const VISIBLE = ["linkSync", "lstatSync", "openSync", "renameSync", "unlinkSync"];

type Hook = (call: number, name: string, argument: unknown) => void;

let onCall: ((name: string, argument: unknown) => void) | undefined;

/** A file in a folder of its own for each test, and processes that are there, as all of which this one can act. */
export class Scene {
  adam = 0;
  berta = 0;
  carl = 0;
  folder = "";
  path = "";
  /** How many files are open. */
  opened = 0;

  constructor() {
    let living: ChildProcess[];
    const originals = new Map<string, unknown>();
    const calls = fs as unknown as Record<string, (...args: unknown[]) => unknown>;
    beforeAll(() => {
      living = Array.from({ length: 3 }, () => spawn("sleep", ["100"]));
      [this.adam = 0, this.berta = 0, this.carl = 0] = living.map(({ pid = 0 }) => pid);
      for (const name of [...CALLS, "readFileSync"]) {
        const original = calls[name];
        originals.set(name, original);
        calls[name] = (...args) => {
          const result = called(name, args[0], () => original?.(...args));
          if (name === "openSync") this.opened++;
          if (name === "closeSync") this.opened--;
          return result;
        };
      }
      syncBuiltinESMExports();
    });
    afterAll(() => {
      for (const child of living) child.kill("SIGKILL");
      Object.assign(calls, Object.fromEntries(originals));
      syncBuiltinESMExports();
    });
    beforeEach(() => {
      this.folder = mkdtempSync(join(tmpdir(), "allstop-pid-file-"));
      this.path = join(this.folder, "app.pid");
    });
    afterEach(() => rmSync(this.folder, { recursive: true }));
  }

  /** The names of all that is there. */
  get files(): string[] {
    return readdirSync(this.folder);
  }

  /** What is in the file. */
  get text(): string | undefined {
    return existsSync(this.path) ? readFileSync(this.path, "latin1") : undefined;
  }

  /** Begins anew with this file, or none. */
  putBack(text: string | undefined): void {
    for (const name of this.files) rmSync(join(this.folder, name));
    if (text !== undefined) writeFileSync(this.path, text);
  }

  expectHeldBy(pid: number): void {
    expect(readPidFile(this.path)).toEqual({ pid, running: true });
    expect(this.files).toEqual(["app.pid"]);
  }

  /** Exactly one has won, and the others know who. */
  expectOneOf(outcomes: readonly unknown[]): void {
    const { pid } = readPidFile(this.path);
    expect([...outcomes].sort()).toEqual([...Array(outcomes.length - 1).fill(pid), "won"]);
  }

  /** Acquires the file as another process. */
  hold(pid: number): Promise<PidFile> {
    return as(pid, () => acquirePidFile(this.path));
  }

  /** Acquires the file as another process: resolves with `won`, or the id of the one that is running. */
  acquire(pid: number, hook?: Hook, options?: AcquirePidFileOptions): Promise<unknown> {
    return as(pid, () => acquirePidFile(this.path, options), hook).then(
      () => "won",
      (error: unknown) => (error instanceof AlreadyRunningError ? error.pid : error),
    );
  }
}

/** Tells of a call, but not of those that come of that, nor of those that Node makes for this one. */
function called<Result>(name: string, argument: unknown, call: () => Result): Result {
  const hook = onCall;
  onCall = undefined;
  try {
    hook?.(name, argument);
    return call();
  } finally {
    onCall = hook;
  }
}

/** Acts as another process; with something that happens before its calls, of all of them or those that matter. */
export function as<Result>(pid: number, action: () => Result, hook?: Hook, calls: readonly string[] = VISIBLE): Result {
  const before = onCall;
  let call = 0;
  onCall = hook && ((name, argument) => calls.includes(name) && hook(++call, name, argument));
  return withPid(pid, action, () => (onCall = before));
}

/** Does something where nothing is known of processes but whether they are there. */
export function withoutProc<Result>(action: () => Result): Result {
  const before = onCall;
  onCall = (_, path) => {
    if (String(path).startsWith("/proc/")) throw Object.assign(new Error("ENOENT"), { code: "ENOENT" });
  };
  return withPid(process.pid, action, () => (onCall = before));
}

function withPid<Result>(pid: number, action: () => Result, onEnd: () => void): Result {
  const before = process.pid;
  Object.defineProperty(process, "pid", { value: pid, configurable: true, enumerable: true });
  try {
    return action();
  } finally {
    Object.defineProperty(process, "pid", { value: before, configurable: true, enumerable: true });
    onEnd();
  }
}

/** At this call it is frozen, and something else happens. */
export function frozenAt(moment: number, onReached: () => void, meanwhile: () => void): Hook {
  return (call) => {
    if (call !== moment) return;
    onReached();
    meanwhile();
  };
}

/** A process that is killed before this call makes none any more. */
export function killedAt(moment: number, onReached: () => void): Hook {
  return (call) => {
    if (call < moment) return;
    onReached();
    throw new Error("killed");
  };
}

/** Goes through all moments of something, those before each of its calls, until there is none any more. */
export async function atEachMoment(round: (moment: number, onReached: () => void) => Promise<void>): Promise<number> {
  for (let moment = 1; ; moment++) {
    let isReached = false;
    await round(moment, () => (isReached = true));
    if (!isReached) return moment - 1;
  }
}

/** When a process started, as its file says. */
export function startOf(pid: number): string {
  return readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ")[19] ?? "";
}
