/**
 * A new version of this program takes over from the old one, and no request is lost.
 *
 * @module
 */
/// <reference lib="esnext.disposable" preserve="true" />
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { type Server, Socket } from "node:net";
import { TaskAlreadyStartedError } from "./errors.ts";
import type { LifecycleEvent } from "./events.ts";
import { onAbort, untilAborted } from "./internal/abort.ts";
import { check, checkMilliseconds, checkType } from "./internal/check.ts";
import { observer } from "./internal/observer.ts";
import { onOsSignal } from "./internal/os-signals.ts";
import { type Place, placeOf } from "./internal/place.ts";
import { LINE, ownCommand, takeMark, UPGRADE_MARK } from "./internal/respawn.ts";
import { type ListenOptions as UpgradeListenOptions, Sockets } from "./internal/sockets.ts";
import { keepAlive, startTimer, type Timer } from "./internal/time.ts";
import type { Task } from "./task.ts";

/** What a parent answers a child that is ready. */
const GO_ON = "go on";
const GIVE_UP = "give up";

export type { UpgradeListenOptions };

export interface UpgradeOptions {
  /** @default "upgrade" */
  name?: string | undefined;
  /**
   * The names of the signals that start an upgrade. A program that reloads its configuration on SIGHUP takes another
   * one, such as SIGUSR2. @default ["SIGHUP"]
   */
  signals?: readonly string[] | undefined;
  /** How long the new process may take until it is ready, in milliseconds; `Infinity` is no limit. @default 60_000 */
  readyTimeout?: number | undefined;
  /**
   * What to start: a program and its arguments. A wrapper has to hand on its open files, as a shell does; npm, npx and
   * tsx do not. @default this program, with its arguments and the options of Node
   */
  command?: readonly string[] | undefined;
  /** Is told how upgrades go. @default `onEvent` of the manager that runs it */
  onEvent?: ((event: LifecycleEvent) => void) | undefined;
}

/** What a process says to the one that replaces it: the mark, as JSON. */
interface Legacy {
  readonly pid: number;
  /** Where the open files that it inherits listen, in their order. */
  readonly keys: string[];
}

/**
 * Replaces this program by a new process of it, say of its next version, without a moment in which nobody answers.
 *
 * On SIGHUP it starts the same command again, in the directory that was current at its construction, and hands on what
 * those servers listen with that listen by {@link UpgradeTask.listen}. The new process starts up while this one serves.
 * Once it has called {@link UpgradeTask.ready} it accepts connections, and this one no more: its task returns, so its
 * group stops and drains. Connections that nobody has accepted yet belong to the socket, and so are not lost.
 *
 * A new process that ends, or is not ready in time, is killed, and the old one serves on. So is one that is on its way
 * when the group stops. An upgrade is refused before this process is ready itself, during another one, while its own
 * parent drains, and after the stop. If the parent dies, the child goes on and takes over.
 *
 * It listens for its signals from its construction until the process ends, as a SIGHUP must not kill one that drains;
 * or until it is disposed of. (A terminal that is closed sends SIGHUP, too.) It runs once, and keeps the process alive
 * while it does.
 *
 * All servers at fixed places have to listen by it. It should be constructed before the program starts others. The new
 * process has the environment of this one, which goes before a changed `--env-file`. Whoever watches over the process
 * has to know that its id changes, as systemd does by a PID file; process 1 of a container must not upgrade, since its
 * end is that of the container.
 *
 * Events: `upgrade-started`, `upgrade-ready`, and `upgrade-failed`, of those refused, too. Not on Windows, where a
 * process cannot be given sockets in this way. The idea is that of tableflip, and of nginx before it.
 *
 * @example A server that survives its own upgrades
 * ```ts
 * import { createServer } from "node:http";
 * import { Manager } from "allstop";
 * import { HttpServerTask } from "allstop/http";
 * import { UpgradeTask } from "allstop/upgrade";
 *
 * const upgrade = new UpgradeTask();
 * const server = createServer((_, response) => response.end(`I am ${process.pid}`));
 * const http = new HttpServerTask(server, { host: "127.0.0.1", listen: upgrade.listen });
 * const manager = new Manager();
 * manager.run(upgrade, http);
 * await http.ready(); // and whatever else has to be ready
 * await upgrade.ready(); // from now on this process serves, and the old one, if any, stops
 * console.log(upgrade.parentPid); // prints undefined
 * await manager.stop(); // `kill -HUP` would do that after an upgrade
 * ```
 */
export class UpgradeTask implements Task, Disposable {
  readonly name: string;
  /** The id of the process that this one replaces; absent in one that was not started by an upgrade. */
  readonly parentPid: number | undefined;
  readonly #readyTimeout: number;
  readonly #command: readonly string[];
  /** As it is now: a program that changes its directory does so again. */
  readonly #cwd: string = process.cwd();
  readonly #unlisten: () => void;
  readonly #sockets: Sockets;
  /** The line to the parent, while that lives, and what that answers this process when it is ready. */
  #parent: Socket | undefined;
  #answer: Promise<string> | undefined;
  #ready: Promise<void> | undefined;
  #place: Place;
  #signal: AbortSignal | undefined;
  /** Why an upgrade cannot start now, if it cannot. */
  #refusal: string | undefined = "this process is not ready";
  #upgrade: Promise<void> | undefined;
  #onReplaced!: () => void;

  /**
   * @throws {TypeError} If an option has the wrong type, `signals` is no list of names of signals that can be caught,
   * or `command` no list of texts that begins with a program.
   * @throws {RangeError} If `readyTimeout` is below 0.
   */
  constructor(options: UpgradeOptions = {}) {
    const action = "create an UpgradeTask";
    checkType(action, "options", "object", options);
    const { name = "upgrade", signals = ["SIGHUP"], readyTimeout = 60_000, command = ownCommand(), onEvent } = options;
    checkType(action, "name", "string", name);
    checkMilliseconds(action, "readyTimeout", readyTimeout);
    const isCommand = Array.isArray(command) && command[0] && command.every((word) => typeof word === "string");
    check(isCommand, action, "command must be a list of strings", command);

    this.name = name;
    this.#readyTimeout = readyTimeout;
    this.#command = [...command];
    this.#place = { task: name, onEvent: observer(action, onEvent) };
    this.#unlisten = onOsSignal(action, signals, () => this.#onSignal());
    const mark = takeMark(UPGRADE_MARK);
    /* v8 ignore next -- there is one only in a process that an upgrade has started: upgrade-generations.test.ts */
    const legacy: Legacy | undefined = mark && JSON.parse(mark);
    this.#sockets = new Sockets(legacy?.keys);
    this.parentPid = legacy?.pid;
    /* v8 ignore next -- as above */
    if (legacy) this.#connect();
  }

  /**
   * Makes a server listen: at once, or, in a process that replaces another one, once this one is ready. There, if the
   * parent listens at an equal place, its socket is taken over, also one at any free port (`port: 0`); of several of
   * them, in the order of the calls.
   *
   * It is bound, so that it can be given to an `HttpServerTask` as it is.
   *
   * @param where - A `path` of a unix socket, or else a `port` (default: any free one) and a `host` (default: all).
   * @returns A promise that resolves when the server listens, or when it is sure to be told to later.
   * @throws What `server.listen` throws, or tells by its event `error`.
   */
  readonly listen = (server: Server, where: UpgradeListenOptions = {}): Promise<void> =>
    this.#sockets.listen(server, where);

  /**
   * Says that this process is able to serve. Call it when all has been started, and after the servers' `listen`.
   *
   * One that replaces another process accepts connections from now on, and that one stops.
   *
   * @returns A promise that resolves when this process serves; always the same one.
   * @throws The reason of the stop, if that came first, or what a new place to listen at fails with. The parent, which
   * has heard nothing then, serves on.
   * @throws {Error} If the parent has given this process up.
   */
  ready(): Promise<void> {
    return (this.#ready ??= this.#takeOver());
  }

  /**
   * @returns A promise that resolves when a new process has replaced this one, or when `signal` aborts.
   * @throws {TaskAlreadyStartedError} If it ran before.
   */
  async run(signal: AbortSignal): Promise<void> {
    const place = placeOf(signal, this.name, this.#place.onEvent);
    if (this.#signal) throw new TaskAlreadyStartedError(place.task);
    this.#signal = signal;
    this.#place = place;
    const alive = keepAlive();
    await untilAborted(signal, new Promise<void>((resolve) => (this.#onReplaced = resolve)));
    // A new process that the stop overtook has to end first.
    await this.#upgrade;
    clearTimeout(alive);
  }

  /** Stops listening for signals, which have their default action then. */
  [Symbol.dispose](): void {
    this.#unlisten();
  }

  /* v8 ignore start -- runs only in a process that an upgrade has started: upgrade-generations.test.ts */
  #connect(): void {
    const parent = new Socket({ fd: LINE });
    this.#parent = parent;
    this.#answer = new Promise((resolve) => {
      parent.on("data", (answer) => resolve(String(answer)));
      parent.on("close", () => {
        this.#parent = undefined;
        // It has ended, and nobody else is left to serve.
        resolve(GO_ON);
      });
    });
    // It ended in a hurry, which `close` tells.
    parent.on("error", () => {});
    parent.unref();
  }
  /* v8 ignore stop */

  async #takeOver(): Promise<void> {
    this.#signal?.throwIfAborted();
    const listen = await this.#sockets.open();
    this.#parent?.ref();
    this.#parent?.write(GO_ON);
    /* v8 ignore next -- there is a parent only in a process that an upgrade has started: upgrade-generations.test.ts */
    if ((await this.#answer) === GIVE_UP) throw new Error(`Cannot replace process ${this.parentPid}: it gave up`);
    this.#parent?.unref();
    // What listens now would be closed by nobody.
    this.#signal?.throwIfAborted();
    await listen();
    this.#refusal = undefined;
  }

  #onSignal(): void {
    const signal = this.#signal;
    /* v8 ignore next -- as above */
    const refusal = signal?.aborted ? "the group stops" : (this.#refusal ?? (this.#parent && "its parent is alive"));
    if (signal && !refusal) this.#upgrade = this.#startUpgrade(signal);
    else this.#tell("upgrade-failed", undefined, new Error(`Cannot upgrade: ${refusal ?? "the task does not run"}`));
  }

  async #startUpgrade(signal: AbortSignal): Promise<void> {
    this.#refusal = "another one is under way";
    let pid: number | undefined;
    try {
      const child = this.#spawn();
      // One that could not be started has no id, and says why.
      if (!child.pid) throw (await once(child, "error"))[0];
      pid = child.pid;
      this.#tell("upgrade-started", pid);
      await this.#untilReady(child, signal);
      this.#sockets.handOn();
      const line = lineOf(child);
      line.write(GO_ON);
      // It is closed by the end of this process, and must not put that off.
      line.unref();
      child.unref();
      this.#refusal = "this process has been replaced";
      this.#tell("upgrade-ready", pid);
      this.#onReplaced();
    } catch (error) {
      this.#refusal = undefined;
      // Nothing else is thrown here, by us or by Node.
      this.#tell("upgrade-failed", pid, error as Error);
    }
  }

  #spawn(): ChildProcess {
    const { keys, files } = this.#sockets.inheritance;
    const legacy: Legacy = { pid: process.pid, keys };
    const [file = "", ...args] = this.#command;
    return spawn(file, args, {
      cwd: this.#cwd,
      env: { ...process.env, [UPGRADE_MARK]: JSON.stringify(legacy) },
      stdio: ["inherit", "inherit", "inherit", "pipe", ...files],
    });
  }

  /** @throws {Error} Unless the child says that it is ready, in time and before the stop. It has been killed then. */
  async #untilReady(child: ChildProcess, signal: AbortSignal): Promise<void> {
    const line = lineOf(child);
    const ended = once(child, "exit");
    let timer: Timer | undefined;
    let unlisten: (() => void) | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        const fail = (why: string): void => reject(new Error(`The new process ${why} before it was ready`));
        ended.then(([code, killer]) => fail(killer ? `was killed by ${killer}` : `exited with code ${code}`), reject);
        // It has been killed, which its exit tells.
        line.on("error", () => {});
        line.on("data", () => resolve());
        timer = startTimer(this.#readyTimeout, () => fail(`timed out after ${this.#readyTimeout} ms`));
        unlisten = onAbort(signal, () => fail("was stopped"));
      });
    } catch (error) {
      // If it was started by what we started, it hears in this way that it is too late.
      line.end(GIVE_UP).unref();
      child.kill("SIGKILL");
      await ended.catch(() => {});
      throw error;
    } finally {
      clearTimeout(timer);
      unlisten?.();
    }
  }

  #tell(type: "upgrade-started" | "upgrade-ready" | "upgrade-failed", pid?: number, error?: Error): void {
    const { task, onEvent } = this.#place;
    // Which of the two an event has is a matter of its type.
    onEvent?.({ type, task, ...(pid && { pid }), ...(error && { error }) } as LifecycleEvent);
  }
}

/** The line to a child. It is open in both directions, whatever the type of `stdio` says. */
function lineOf(child: ChildProcess): Socket {
  return child.stdio[LINE] as Socket;
}
