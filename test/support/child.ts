import { execFileSync } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
// Not the global ones, which may be faked.
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import type { LifecycleEvent } from "allstop";
import { type ChildProcessOptions, ChildProcessTask } from "allstop/child";
import { EventLog } from "allstop/testing";
import { afterEach, beforeEach, expect, onTestFinished, vi } from "vitest";
import { type Run, start, useRunsByHand } from "./by-hand.ts";
import { settle } from "./settle.ts";

/** Checks after every test of a file that nothing of what it ran by hand is left in this process. */
export function useChildren(): void {
  useRunsByHand();
  let before: unknown;
  const left = (): unknown => ({
    exit: process.listeners("exit"),
    processes: process.getActiveResourcesInfo().filter((name) => name === "ProcessWrap"),
  });
  beforeEach(() => {
    before = left();
  });
  afterEach(async () => {
    if (vi.isFakeTimers()) expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
    // The handle of a process that has ended is gone in the next turn.
    await setImmediate();
    await setImmediate();
    expect(left()).toEqual(before);
  });
}

/** The ids of the living processes of a group, which are found where there is a /proc. */
export function living(group: number): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      const [state = "Z", , of] = pid > 0 ? statOf(pid) : [];
      return Number(of) === group && state !== "Z" && state !== "X";
    });
}

/** The state of a process, its parent and its group; nothing, if there is none. */
export function statOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\) /, "").split(" ").slice(0, 3);
  } catch {
    return [];
  }
}

export function kill(pid: number, signal: NodeJS.Signals = "SIGKILL"): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended by itself.
  }
}

/** What programs print into a pipe of the test's, which has no handle that would keep anything alive. */
export class Output {
  /** The end to write to. */
  readonly fd: number;
  readonly #reader: number;
  readonly #buffer: Buffer = Buffer.alloc(4_096);
  #text = "";
  #isOpen = true;

  constructor() {
    const folder = mkdtempSync(join(tmpdir(), "allstop-child-"));
    const path = join(folder, "pipe");
    execFileSync("mkfifo", [path]);
    this.#reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    this.fd = openSync(path, "w");
    rmSync(folder, { recursive: true });
    onTestFinished(() => {
      this.#close();
      closeSync(this.#reader);
    });
  }

  /** What has been printed so far. */
  get lines(): readonly string[] {
    this.#read();
    return this.#text.split("\n").slice(0, -1);
  }

  /** Waits until there are such lines; returns the last of them. */
  async line(...texts: string[]): Promise<string> {
    let found: string | undefined;
    for (const text of texts) {
      while ((found = this.lines.find((line) => line.includes(text))) === undefined) await sleep(1);
    }
    return found ?? "";
  }

  /** All lines, once nobody is left who could write another. */
  async all(): Promise<readonly string[]> {
    this.#close();
    while (this.#read()) await sleep(1);
    return this.lines;
  }

  /** Reads what is there; tells whether there may come more. */
  #read(): boolean {
    try {
      const count = readSync(this.#reader, this.#buffer);
      this.#text += this.#buffer.toString("utf8", 0, count);
      return count > 0;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      return true;
    }
  }

  #close(): void {
    if (this.#isOpen) closeSync(this.fd);
    this.#isOpen = false;
  }
}

/** A program, the task that runs it, and a run of that. */
export class Child {
  readonly log = new EventLog();
  readonly output = new Output();
  readonly controller = new AbortController();
  readonly task: ChildProcessTask;
  readonly #run: Run;
  readonly #over: Promise<void>;
  /** What lived of its group when the run had settled. */
  #left: number[] = [];

  constructor(command: string, args: readonly string[], options: ChildProcessOptions = {}) {
    const stdio: ChildProcessOptions["stdio"] = ["ignore", this.output.fd, "ignore"];
    const task = new ChildProcessTask(command, args, { stdio, onEvent: this.log.observe, ...options });
    let over!: () => void;
    this.#over = new Promise((resolve) => (over = resolve));
    const run = (signal: AbortSignal): Promise<void> => {
      return task.run(signal).finally(() => {
        this.#left = this.pid > 0 ? living(this.pid) : [];
        over();
      });
    };
    this.task = task;
    this.#run = start({ run }, this.controller);
    onTestFinished(() => {
      if (this.now === "running") kill(-this.pid);
    });
  }

  /** The id of its process, which is that of its group, too; 0 if it was not started. */
  get pid(): number {
    const [event] = this.log.events;
    return event?.type === "child-started" ? event.pid : 0;
  }

  /** What it rejected with, `"returned"`, or `"running"`. */
  get now(): unknown {
    return this.#run.end;
  }

  /** The types of what was told. */
  get told(): string[] {
    return this.log.events.map(({ type }) => type);
  }

  stop(): void {
    this.controller.abort(new Error("enough"));
  }

  /** Waits for its end; tells what it rejected with, or `"returned"`. Nothing of its group may live then. */
  async end(): Promise<unknown> {
    await this.#over;
    await settle();
    expect(this.#left).toEqual([]);
    return this.now;
  }
}

/** Runs a script. */
export function shell(script: string, options: ChildProcessOptions = {}): Child {
  return new Child("sh", ["-c", script], options);
}

export function exited(task: string, pid: number, exitCode: number | null, signal: string | null): LifecycleEvent {
  return { type: "child-exited", task, pid, exitCode, signal };
}
