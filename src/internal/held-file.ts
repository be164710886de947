/*
 * Files that one process holds, of all those that want to.
 *
 * Nothing here waits for another process: a lock would let a frozen one keep all others out. But without a lock there
 * is a moment between looking at a stale file and replacing it, in which somebody else may have replaced it.
 *
 * Hence who wants to change a file claims it first: makes a second file, whose name follows from that of the first and
 * from its text, which only one can do; and then looks at the first again. If the text is still the same, it stays so,
 * since whoever wants to change it needs that same claim; if not, the claim is void. To take over is to rename the
 * claim, which says who made it just as the file itself does: there is no moment with neither of them, or both.
 *
 * The text tells whether the holder is alive, and that of a dead one never comes back, so that no later file is taken
 * for the one that was seen. A claimant that died is superseded in the same way, by a claim to its claim. One that
 * lives has as good as won, even if it is frozen, unless its claim is void.
 */
import { createHash, randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  linkSync,
  lstatSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import type { PidFileStatus } from "../pid-file.ts";
import { processStat } from "./process-stat.ts";

/** The largest process id that `process.kill` takes. */
const LARGEST_PID = 2 ** 31 - 1;

/** How much of a file is read, in bytes. What we write is always shorter. */
const LONGEST = 64;

/** A file, or a claim to one; and what is in it when this process holds it. */
export interface HeldFile {
  readonly path: string;
  readonly text: string;
}

/**
 * Makes this process the holder of the file, unless there is one that lives.
 *
 * @param replaces - The holder that may be replaced although it lives.
 * @returns The id of the process in the way, which holds the file, or else is about to; nothing, if we hold it now.
 */
export function seizeFile(own: HeldFile, replaces?: number, ending = ""): number | undefined {
  const path = own.path + ending;
  for (;;) {
    const text = read(path);
    if (text === undefined) {
      if (create(path, own.text)) return undefined;
      continue;
    }
    const { running, pid } = statusOf(text);
    if (running && pid !== replaces) return pid;
    // A claim of the one to be replaced stands: it releases the file.
    const { claim, rival } = claimFile(own, ending, text);
    if (claim !== undefined) {
      useClaim(claim, () => renameSync(claim, path));
      return undefined;
    }
    if (rival !== undefined && read(path) === text) return rival;
  }
}

/** Removes the file if this process holds it, and nobody else is just taking it over. */
export function releaseFile(own: HeldFile): void {
  // Often there is nothing to release any more, nor a directory for a claim.
  if (read(own.path) !== own.text) return;
  const { claim } = claimFile(own, "", own.text);
  if (claim === undefined) return;
  useClaim(claim, () => unlinkSync(own.path));
  remove(claim);
}

export function statusOfFile(path: string): PidFileStatus {
  return statusOf(read(path) ?? "");
}

/** What has become of a claim: it is ours, or a rival's, or it was void, as the file has changed before. */
interface Claim {
  readonly claim?: string;
  readonly rival?: number;
}

/** Claims the file, or the claim, with this ending of the path, and this text. */
function claimFile(own: HeldFile, ending: string, text: string): Claim {
  // Not of the whole path, since it may have several; and of the same length, however many claims to claims there are.
  const claimEnding = `.${createHash("sha256").update(`${ending}\n${text}`).digest("hex").slice(0, 16)}`;
  const rival = seizeFile(own, undefined, claimEnding);
  if (rival !== undefined) return { rival };
  const claim = own.path + claimEnding;
  if (useClaim(claim, () => read(own.path + ending)) === text) return { claim };
  remove(claim);
  return {};
}

/** Gives up the claim if that for which it was made goes wrong. */
function useClaim<Result>(claim: string, action: () => Result): Result {
  try {
    return action();
  } catch (error) {
    remove(claim);
    throw error;
  }
}

/** Makes the file, whole; or says no, if there is one. */
function create(path: string, text: string): boolean {
  const whole = `${path}.${randomUUID()}`;
  const file = openSync(whole, "wx", 0o644);
  try {
    try {
      writeFileSync(file, text);
    } finally {
      closeSync(file);
    }
    linkSync(whole, path);
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw error;
  } finally {
    remove(whole);
  }
}

/** Removes a file of ours. One that is left behind does no harm. */
function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // What went wrong before matters more.
  }
}

/** Reads the beginning of a file; nothing, if there is none. */
function read(path: string): string | undefined {
  let file: number;
  try {
    // A pipe would keep us waiting for somebody to open its other end.
    file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
    // A symbolic link that leads to nothing is in the way, just as garbage is.
    return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ? "" : undefined;
  }
  try {
    const stat = fstatSync(file);
    // The message of reading one would not say which.
    if (stat.isDirectory()) openSync(path, "r+");
    // A takeover would replace a device such as /dev/null.
    if (!stat.isFile()) throw new Error(`Cannot read a PID from ${path}: it is no regular file`);
    const buffer = Buffer.alloc(LONGEST);
    return buffer.toString("latin1", 0, readSync(file, buffer));
  } finally {
    closeSync(file);
  }
}

function statusOf(text: string): PidFileStatus {
  const [first = "", second = ""] = text.split("\n");
  const pid = Number(first);
  if (!/^[1-9]\d*$/.test(first) || pid > LARGEST_PID) return { pid: undefined, running: false };
  return { pid, running: isRunning(pid, second) };
}

/** @param startedAt - What is no number is not known. */
function isRunning(pid: number, startedAt: string): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // One of another user is running, too.
    if (codeOf(error) !== "EPERM") return false;
  }
  const stat = processStat(pid);
  if (!stat) return true;
  return !/[ZX]/.test(stat.state) && (stat.startedAt === startedAt || !/^\d+$/.test(startedAt));
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
