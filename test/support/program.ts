import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
// Not the global one, which may be faked.
import { setImmediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import { compiledPath } from "./bundle.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** In the environment of a program and so in that of all processes that it starts, unless it gives them another. */
const MARK = "ALLSTOP_TEST";

/** The ids of the processes, dead ones aside, that have this mark in their environment; none where there is no /proc. */
function processesOf(mark: string): number[] {
  if (!existsSync("/proc")) return [];
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      try {
        // What has ended, and is still there for its parent to ask, has none.
        return pid > 0 && readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(`${MARK}=${mark}`);
      } catch {
        return false; // It has ended meanwhile, or is that of another user.
      }
    });
}

export interface ProgramOptions {
  /** @default the root of the repository */
  cwd?: string;
  /** What comes on its standard input: nothing, or what `write` is given. @default "ignore" */
  stdin?: "ignore" | "pipe";
}

/**
 * A real process that runs a TypeScript program of this folder, and ends with the test that started it, as do all the
 * processes that it starts itself.
 */
export class Program {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #ended: Promise<unknown>;
  readonly #exited: Promise<unknown>;
  readonly #mark: string = randomUUID();
  #closed = false;
  #waiting: (() => void)[] = [];
  stderr = "";

  /** @param path - Relative to `test/`. */
  constructor(
    path: string,
    args: readonly string[] = [],
    env: Record<string, string> = {},
    { cwd = root, stdin = "ignore" }: ProgramOptions = {},
  ) {
    this.#child = spawn(process.execPath, [compiledPath(path), ...args], {
      cwd,
      env: { ...process.env, FORCE_COLOR: undefined, ...env, [MARK]: this.#mark },
      stdio: [stdin, "pipe", "pipe"],
    });
    const { stdout, stderr } = this.#child;
    if (stdout === null || stderr === null) throw new Error("The program has no output");
    createInterface(stdout).on("line", (line) => {
      this.#lines.push(line);
      this.#notify();
    });
    stderr.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
    });
    this.#exited = once(this.#child, "exit");
    this.#ended = once(this.#child, "close").then(() => {
      this.#closed = true;
      this.#notify();
    });
    onTestFinished(async () => {
      this.#child.kill("SIGKILL");
      for (let pids; (pids = this.processes).length > 0; await setImmediate()) {
        for (const pid of pids) killIfAlive(pid);
      }
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** The ids of all living processes that it has started, itself included. */
  get processes(): readonly number[] {
    return processesOf(this.#mark);
  }

  /** What it has printed so far. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** Resolves with the first line that holds the text, which may have been printed already. */
  async line(text: string): Promise<string> {
    for (;;) {
      const found = this.#lines.find((line) => line.includes(text));
      if (found !== undefined) return found;
      if (this.#closed) {
        throw new Error(`It ended without a line that holds "${text}":\n${this.#lines.join("\n")}\n${this.stderr}`);
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #notify(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  send(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Writes a line to its standard input, if that is a pipe. */
  write(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** Resolves, once it has ended and all its output is here, with its exit code, or the signal that killed it. */
  async end(): Promise<number | NodeJS.Signals | null> {
    await this.#ended;
    return this.exit();
  }

  /** As `end`, but does not wait for output: processes that it has started may go on writing. */
  async exit(): Promise<number | NodeJS.Signals | null> {
    await this.#exited;
    return this.#child.exitCode ?? this.#child.signalCode;
  }
}

function killIfAlive(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
