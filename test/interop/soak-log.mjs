/*
 * What the processes of the soak say, and which of them there are.
 */
import { readdirSync, readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

/** How long something may take that has to come, in milliseconds. */
const PATIENCE = 60_000;

/** The lines of a file, each a JSON object, as they are written. */
export class Log {
  events = [];
  /** Rejects when the file cannot be read, or with what `check` throws. */
  ended;
  #isOver = false;
  #waiting = new Set();

  /** @param check - Is told each event, and throws if it must not be. */
  constructor(path, check) {
    this.ended = this.#read(path, check);
  }

  stop() {
    this.#isOver = true;
  }

  /** Waits for an event for which this holds, of those from so many on. */
  async until(what, holds, from = 0) {
    const past = this.events.slice(from).find(holds);
    if (past) return past;
    const late = new AbortController();
    try {
      return await Promise.race([
        new Promise((resolve) => this.#waiting.add({ holds, resolve })),
        sleep(PATIENCE, undefined, { signal: late.signal, ref: false }).then(() => {
          throw new Error(`There was no ${what} for ${PATIENCE} ms`);
        }),
      ]);
    } finally {
      late.abort();
    }
  }

  async #read(path, check) {
    const file = await open(path, "a+");
    const buffer = Buffer.alloc(1 << 20);
    let rest = Buffer.alloc(0);
    try {
      while (!this.#isOver) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
        if (!bytesRead) {
          await sleep(5);
          continue;
        }
        rest = Buffer.concat([rest, buffer.subarray(0, bytesRead)]);
        const end = rest.lastIndexOf("\n") + 1;
        const lines = rest.subarray(0, end).toString().split("\n").filter(Boolean);
        rest = rest.subarray(end);
        for (const line of lines) this.#hear(JSON.parse(line), check);
      }
    } finally {
      await file.close();
    }
  }

  #hear(event, check) {
    this.events.push(event);
    check(event);
    for (const waiter of this.#waiting) {
      if (!waiter.holds(event)) continue;
      this.#waiting.delete(waiter);
      waiter.resolve(event);
    }
  }
}

/** The living processes that have this in their environment, as those have that these started. */
export function processesWith(variable) {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && isLiving(name))
    .filter((pid) => read(pid, "environ").split("\0").includes(variable))
    .map((pid) => {
      const [, name, , , group] = /^\d+ \((.*)\) (\S) (\d+) (\d+)/s.exec(read(pid, "stat")) ?? [];
      return { pid: Number(pid), name, group: Number(group) };
    });
}

/** Whether a process lives: a zombie does not. */
export function isLiving(pid) {
  return /^\d+ \(.*\) [^ZX]/s.test(read(pid, "stat"));
}

function read(pid, what) {
  try {
    return readFileSync(`/proc/${pid}/${what}`, "latin1");
  } catch {
    return ""; // It has ended meanwhile.
  }
}
