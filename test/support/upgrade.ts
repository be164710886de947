import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { type ClientRequest, request } from "node:http";
import { connect, createServer, type Server } from "node:net";
import { join } from "node:path";
// Not the global one, which may be faked.
import { setImmediate } from "node:timers/promises";
import type { LifecycleEvent } from "allstop";
import { EventLog } from "allstop/testing";
import { type UpgradeOptions, UpgradeTask } from "allstop/upgrade";
import { afterEach, beforeEach, expect, vi } from "vitest";
import type { Plan } from "../fixtures/upgrade.ts";
import { type Run, start, useRunsByHand } from "./by-hand.ts";
import { send, useOsSignals } from "./os-signals.ts";
import { Program } from "./program.ts";

/** The machine may be busy. */
const PATIENTLY = { interval: 2, timeout: 20_000 };

const subjects: Subject[] = [];
const servers: Server[] = [];

/** Checks after every test of a file that nothing of the tasks that it ran is left in this process. */
export function useUpgrades(): void {
  // Their checks come after the one below.
  useRunsByHand();
  useOsSignals();
  let before: string[];
  const isOurs = (name: string): boolean => /^(Pipe|Process|TCP)/.test(name);
  const left = (): string[] => process.getActiveResourcesInfo().filter(isOurs).sort();
  beforeEach(() => {
    before = left();
  });
  afterEach(async () => {
    for (const subject of subjects.splice(0)) await subject.leave();
    for (const server of servers.splice(0)) server.close();
    if (vi.isFakeTimers()) expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
    // The line to a process that has ended is gone a little later.
    await vi.waitFor(() => expect(left()).toEqual(before), PATIENTLY);
  });
}

/** A server that says hello, until the end of the test. */
export function greeter(): Server {
  const server = createServer((socket) => socket.end("hello"));
  servers.push(server);
  return server;
}

/** A task in this process, whose new processes are scripts of a shell that talk to it by hand. */
export class Subject {
  readonly log = new EventLog();
  readonly task: UpgradeTask;
  #run: Run | undefined;

  /** @param script - What a new process does. What it writes to the file 3, its parent hears, which answers there. */
  constructor(script = "", options: UpgradeOptions = {}) {
    this.task = new UpgradeTask({ command: ["sh", "-c", script], onEvent: this.log.observe, ...options });
    subjects.push(this);
  }

  /** How its run has ended, or `"running"`. */
  get now(): unknown {
    return this.#run?.end;
  }

  /** Runs it, and says that this process is ready. */
  async start(): Promise<this> {
    this.#run = start(this.task);
    await this.task.ready();
    return this;
  }

  /** Starts an upgrade, and waits until it has gone wrong, or well. */
  async upgrade(): Promise<LifecycleEvent> {
    const count = this.log.events.length;
    send("SIGHUP");
    const { events } = this.log;
    const isOver = ({ type }: LifecycleEvent): boolean => type === "upgrade-ready" || type === "upgrade-failed";
    for (;;) {
      const found = events.slice(count).find(isOver);
      if (found) return found;
      await setImmediate();
    }
  }

  stop(): void {
    this.#run?.controller.abort(new Error("enough"));
  }

  /** Resolves with how it has ended. */
  async end(): Promise<unknown> {
    while (this.now === "running") await setImmediate();
    return this.now;
  }

  async leave(): Promise<void> {
    this.stop();
    await this.end();
    this.task[Symbol.dispose]();
    for (const event of this.log.events) if (event.type === "upgrade-ready") kill(event.pid);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}

export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** Waits until there is something. */
export function until<Found>(find: () => Found | undefined | false): Promise<Found> {
  return vi.waitUntil(find, PATIENTLY) as Promise<Found>;
}

/** What a file holds by now; nothing, if it is not there. */
export function textOf(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/** Where one listens: the address of a server. */
export type Address = string | { readonly address: string; readonly port: number };

/** A request whose last byte is missing, so that it is answered when the test says so. */
export class HeldRequest {
  readonly #request: ClientRequest;
  readonly #answer: Promise<string>;

  constructor(address: Address) {
    const options = { method: "POST", agent: false, headers: { "content-length": 1 } };
    if (typeof address === "string") this.#request = request({ ...options, socketPath: address });
    else this.#request = request({ ...options, host: address.address, port: address.port });
    this.#answer = once(this.#request, "response").then(async ([response]) => `${await once(response, "data")}`);
    // That is told when it is awaited.
    this.#answer.catch(() => {});
    this.#request.flushHeaders();
  }

  /** Who answers it. */
  answer(): Promise<string> {
    this.#request.end("x");
    return this.#answer;
  }
}

/** Who answers there: the id of a process; or the code of the error. */
export async function who(address: Address): Promise<number | string> {
  try {
    return Number(await new HeldRequest(address).answer());
  } catch (error) {
    return (error as { code: string }).code;
  }
}

/** Whether somebody listens there, though perhaps nobody accepts. */
export async function isOpen(address: Address): Promise<boolean> {
  const socket = typeof address === "string" ? connect(address) : connect(address.port, address.address);
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** The service of the fixture, and all its generations. */
export class Generations {
  readonly program: Program;
  readonly #plan: string;

  constructor(folder: string, plan: Plan) {
    this.#plan = join(folder, "plan");
    this.plan(plan);
    const env = { PLAN: this.#plan, GREETING: "hello" };
    this.program = new Program("fixtures/upgrade.ts", ["one", "two words"], env, { cwd: folder });
  }

  /** Says what the next generations do. */
  plan(plan: Plan): void {
    writeFileSync(this.#plan, JSON.stringify(plan));
  }

  /** All that one has said, by the first words of the lines. */
  lines(pid: number): string[] {
    const own = this.program.lines.filter((line) => line.startsWith(`${pid} `));
    return own.map((line) => line.slice(`${pid} `.length).trim());
  }

  /** What one has told of its upgrades. */
  events(pid: number): { type: string; pid: number; error?: string }[] {
    const lines = this.lines(pid).filter((line) => line.startsWith("upgrade-"));
    return lines.map((line) => JSON.parse(line.slice(line.indexOf(" "))));
  }

  /** Waits until one has said that; returns what it said with it. */
  async says<Fact = unknown>(pid: number, text: string): Promise<Fact> {
    const line = await this.program.line(`${pid} ${text} `);
    return JSON.parse(line.slice(`${pid} ${text} `.length) || "null");
  }

  /** What one has found at its start. */
  started(pid: number): Promise<{ inherited: unknown }> {
    return this.says(pid, "started");
  }

  /** Waits until one is ready; returns where it listens. */
  async ready(pid: number): Promise<Address[]> {
    const { isSame, addresses } = await this.says<{ isSame: boolean; addresses: Address[] }>(pid, "ready");
    expect(isSame).toBe(true);
    return addresses;
  }

  /** Sends one a SIGHUP; returns the event that this comes to. */
  async hup(pid: number): Promise<{ type: string; pid: number; error?: string }> {
    const count = this.events(pid).length;
    process.kill(pid, "SIGHUP");
    return until(() => this.events(pid)[count]);
  }

  /** Starts an upgrade of one, once its own parent has ended; returns the id of the next one. */
  async upgrade(pid: number): Promise<number> {
    for (;;) {
      const { type, pid: next, error } = await this.hup(pid);
      if (type === "upgrade-started") return next;
      expect(error).toContain("its parent is alive");
    }
  }
}
