/// <reference lib="esnext.disposable" preserve="true" />
import { TaskAlreadyStartedError } from "./errors.ts";
import { untilAborted } from "./internal/abort.ts";
import { checkType } from "./internal/check.ts";
import { END_SIGNALS, onOsSignal, REPEAT_WINDOW } from "./internal/os-signals.ts";
import { keepAlive, startTimer, type Timer } from "./internal/time.ts";
import type { Task } from "./task.ts";

export interface OsSignalOptions {
  /**
   * The names of the signals that end the task.
   * @default ["SIGINT", "SIGTERM", "SIGQUIT"]
   */
  signals?: readonly string[] | undefined;
  /**
   * Called once, with the name of the signal, and waited for until the group stops. What it throws is the failure.
   * @default undefined
   */
  onSignal?: ((signal: string) => unknown) | undefined;
}

/**
 * A task that returns when the operating system sends a signal, and so stops its group.
 *
 * It listens from its construction on, so that a signal during the start is not lost, and keeps the process alive while
 * it runs. Repeats of the signal within 500 ms are the same one (a watcher passes one Ctrl-C on several times) and are
 * swallowed. Then its listeners are gone: a second Ctrl-C has its default action, which ends a process whose cleanup
 * hangs. A stop without a signal removes them at once. One instance runs once.
 *
 * Whoever constructs it runs it, or disposes of it; until then it swallows a first signal. (Worker threads get none.)
 *
 * The idea is that of `signal.NotifyContext` in Go.
 *
 * @example Until Ctrl-C, or `kill`
 * ```ts
 * import { Manager, OsSignalTask } from "allstop";
 *
 * const manager = new Manager();
 * manager.run(new OsSignalTask({ onSignal: (name) => console.log(`got ${name}`) }));
 * setTimeout(() => process.kill(process.pid, "SIGTERM"), 10); // somebody stops us
 * await manager.wait(); // prints got SIGTERM
 * ```
 */
export class OsSignalTask implements Task, Disposable {
  readonly name = "os-signal";
  readonly #onSignal: ((signal: string) => unknown) | undefined;
  readonly #unlisten: () => void;
  #received: string | undefined;
  #window: Timer | undefined;
  #started = false;
  #wake!: () => void;
  readonly #reception = new Promise<void>((resolve) => {
    this.#wake = resolve;
  });

  /**
   * @throws {TypeError} If `signals` is no list of names that start with `SIG`, is empty, or has one that nobody can
   * catch, such as SIGKILL; or if `onSignal` is no function.
   * @throws {Error} Where there is no process with signals, as in a browser.
   */
  constructor(options: OsSignalOptions = {}) {
    const action = "create an OsSignalTask";
    checkType(action, "options", "object", options);
    const { signals = END_SIGNALS, onSignal } = options;
    if (onSignal !== undefined) checkType(action, "onSignal", "function", onSignal);

    this.#onSignal = onSignal;
    this.#unlisten = onOsSignal(action, signals, (signal) => this.#receive(signal));
  }

  /** The name of the first signal, as soon as it has been received. */
  get received(): string | undefined {
    return this.#received;
  }

  /**
   * @returns A promise that resolves on the first signal, once `onSignal` is done, or when `signal` aborts.
   * @throws {TaskAlreadyStartedError} If it ran before, or was disposed of.
   */
  async run(signal: AbortSignal): Promise<void> {
    if (this.#started) throw new TaskAlreadyStartedError(this.name);
    this.#started = true;
    const alive = keepAlive();
    try {
      await untilAborted(signal, this.#reception);
      // It has been received, since nothing else ends this wait before the stop.
      if (!signal.aborted) await untilAborted(signal, this.#onSignal?.(this.#received as string));
    } finally {
      clearTimeout(alive);
      if (this.#received === undefined) this.#unlisten();
    }
  }

  /** Takes the listeners off again when it was never run. Does nothing otherwise. */
  [Symbol.dispose](): void {
    if (this.#started) return;
    this.#started = true;
    clearTimeout(this.#window);
    this.#unlisten();
  }

  #receive(signal: string): void {
    if (this.#received !== undefined) return;
    this.#received = signal;
    this.#window = startTimer(REPEAT_WINDOW, this.#unlisten);
    this.#window.unref?.();
    this.#wake();
  }
}
