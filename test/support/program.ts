import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import { compile } from "./bundle.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** A real process that runs a TypeScript program of this folder, and ends with the test that started it. */
export class Program {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #ended: Promise<unknown>;
  #closed = false;
  #notify: () => void = () => {};
  stderr = "";

  /** @param path - Relative to `test/`. */
  constructor(path: string, args: readonly string[] = [], env: Record<string, string> = {}) {
    const program = compile(path);
    this.#child = spawn(process.execPath, [program, ...args], {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
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
    this.#ended = once(this.#child, "close").then(() => {
      this.#closed = true;
      rmSync(program);
      this.#notify();
    });
    onTestFinished(() => void this.#child.kill("SIGKILL"));
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
      await new Promise<void>((resolve) => {
        this.#notify = resolve;
      });
    }
  }

  send(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Resolves, once it has ended and all its output is here, with its exit code, or the signal that killed it. */
  async end(): Promise<number | NodeJS.Signals | null> {
    await this.#ended;
    return this.#child.exitCode ?? this.#child.signalCode;
  }
}
