/// <reference lib="esnext.disposable" preserve="true" />
/**
 * Three tasks that call an action again and again: after its last run, on the ticks of a clock, on a signal.
 *
 * @module
 */
import { TaskAlreadyStartedError } from "./errors.ts";
import type { LifecycleEvent } from "./events.ts";
import { onAbort } from "./internal/abort.ts";
import { check, checkMilliseconds, checkType } from "./internal/check.ts";
import { failureOf } from "./internal/failure.ts";
import { type Observer, observer } from "./internal/observer.ts";
import { onOsSignal } from "./internal/os-signals.ts";
import { callInPlace, placeOf } from "./internal/place.ts";
import { sleep } from "./internal/time.ts";
import type { Task } from "./task.ts";

/**
 * What is called again and again, and waited for. It gets a signal of its own, which aborts when its task is told to
 * stop.
 */
export type Action = (signal: AbortSignal) => unknown;

/** What all three have in common. */
export interface RepeatOptions {
  /** @default "loop", "poll" or "signal-trigger" */
  name?: string | undefined;
  /**
   * What an action that fails does: `"stop"` makes its error the failure of the task; `"continue"` reports it as the
   * event `action-failed`, and goes on.
   * @default "stop"
   */
  onError?: "stop" | "continue" | undefined;
  /** Is told of `action-failed`. @default `onEvent` of the manager that runs the task */
  onEvent?: ((event: LifecycleEvent) => void) | undefined;
}

/** What is the same, whatever triggers the action: who may run it when, and what becomes of its errors. */
abstract class RepeatTask implements Task {
  declare readonly name: string;
  readonly #action: Action;
  readonly #onError: "stop" | "continue";
  readonly #onEvent: Observer | undefined;
  readonly #repeat: Repeat;
  #running = false;

  constructor(what: string, action: Action, options: RepeatOptions, fallback: string, repeat: Repeat) {
    const { name = fallback, onError = "stop", onEvent } = options;
    checkType(what, "action", "function", action);
    checkType(what, "name", "string", name);
    checkType(what, "onError", "string", onError);
    const isKnown = onError === "stop" || onError === "continue";
    check(isKnown, what, 'onError must be "stop" or "continue"', onError, RangeError);
    this.name = name;
    this.#action = action;
    this.#onError = onError;
    this.#onEvent = observer(what, onEvent);
    this.#repeat = repeat;
  }

  /**
   * @returns A promise that resolves when `signal` has aborted and the action has ended.
   * @throws What the action throws, unless `onError` says otherwise.
   * @throws {TaskAlreadyStartedError} If it is running.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { task, onEvent } = placeOf(signal, this.name, this.#onEvent);
    if (this.#running) throw new TaskAlreadyStartedError(task);
    this.#running = true;
    const act = async (): Promise<boolean> => {
      try {
        if (!signal.aborted) await callInPlace({ task, onEvent }, signal, this.#action);
      } catch (thrown) {
        const error = failureOf(thrown, signal);
        if (error) {
          if (this.#onError === "stop") throw error;
          onEvent?.({ type: "action-failed", task, error });
        }
      }
      return !signal.aborted;
    };
    try {
      await this.#repeat(act, signal);
    } finally {
      this.#running = false;
    }
  }
}

/** Waits for the trigger, then calls `act`, as long as that says to go on. */
type Repeat = (act: () => Promise<boolean>, signal: AbortSignal) => Promise<void>;

export interface LoopOptions extends RepeatOptions {
  /** Milliseconds between the end of an action and the start of the next one. @default 0 */
  delay?: number | undefined;
  /** Milliseconds before the first action. @default 0 */
  initialDelay?: number | undefined;
}

/**
 * Calls the action again when its last run has ended, until it is told to stop. Without a `delay`, timers and signals
 * still have their turn in between.
 *
 * It may run again after a run has ended.
 *
 * @example A consumer that survives a bad message
 * ```ts
 * import { Manager } from "allstop";
 * import { LoopTask } from "allstop/repeat";
 *
 * const manager = new Manager({
 *   onEvent: (event) => event.type === "action-failed" && console.log(`${event.task}: ${event.error.message}`),
 * });
 * const queue = ["first", "bad", "last"];
 * function consume() {
 *   const message = queue.shift(); // best, wait for it, and pass on the action's signal
 *   if (message === "bad") throw new Error("no such order");
 *   console.log(message);
 *   if (message === "last") manager.stop();
 * }
 * manager.run(new LoopTask(consume, { name: "consumer", onError: "continue" }));
 * await manager.wait();
 * // prints first
 * // prints consumer: no such order
 * // prints last
 * ```
 */
export class LoopTask extends RepeatTask {
  /**
   * @throws {TypeError} If the action is no function, or an option has the wrong type.
   * @throws {RangeError} If a delay is below 0, or `onError` is not known.
   */
  constructor(action: Action, options: LoopOptions = {}) {
    const what = "create a LoopTask";
    const { delay = 0, initialDelay = 0 } = options;
    super(what, action, options, "loop", async (act, signal) => {
      if (initialDelay > 0) await sleep(initialDelay, signal);
      while (await act()) await sleep(delay, signal);
    });
    checkMilliseconds(what, "initialDelay", initialDelay);
    checkMilliseconds(what, "delay", delay);
  }
}

export interface PollOptions extends RepeatOptions {
  /** Milliseconds between the starts of two actions. */
  interval: number;
  /** Whether the first action starts at once, instead of one interval later. @default false */
  runAtStart?: boolean | undefined;
}

/**
 * Calls the action on every tick of a clock, until it is told to stop.
 *
 * The ticks form a grid that does not drift: they are so many intervals after the start, however long the actions
 * take. Actions never overlap. If one takes longer than the interval, a single run catches up for all the ticks it
 * missed, and the next is on the grid again: with an interval of 100 and one action of 250 at 100, 350, 400, 500.
 *
 * It may run again after a run has ended, on a grid of its own.
 *
 * @example Twice, 10 ms apart
 * ```ts
 * import { Manager } from "allstop";
 * import { PollTask } from "allstop/repeat";
 *
 * const manager = new Manager();
 * let polls = 0;
 * function poll() {
 *   console.log(`poll ${++polls}`);
 *   if (polls === 2) manager.stop();
 * }
 * manager.run(new PollTask(poll, { interval: 10, runAtStart: true }));
 * await manager.wait();
 * // prints poll 1
 * // prints poll 2
 * ```
 */
export class PollTask extends RepeatTask {
  /**
   * @throws {TypeError} If the action is no function, or an option has the wrong type.
   * @throws {RangeError} If the interval is not above 0, or `onError` is not known.
   */
  constructor(action: Action, options: PollOptions) {
    const what = "create a PollTask";
    const { interval, runAtStart = false } = options;
    super(what, action, options, "poll", async (act, signal) => {
      const startedAt = performance.now();
      if (runAtStart) await act();
      let tick = 0;
      do {
        // Counted from the start each time, lest the lateness of timers add up.
        await sleep(startedAt + ++tick * interval - performance.now(), signal);
        // This one stands for all that have passed; but a timer may also be a millisecond early.
        tick = Math.max(tick, Math.floor((performance.now() - startedAt) / interval));
      } while (await act());
    });
    checkType(what, "interval", "number", interval);
    check(interval > 0, what, "interval must be above 0 milliseconds", interval, RangeError);
    checkType(what, "runAtStart", "boolean", runAtStart);
  }
}

export interface SignalTriggerOptions extends RepeatOptions {
  /**
   * The names of the signals that trigger the action.
   * @default ["SIGHUP"]
   */
  signals?: readonly string[] | undefined;
}

/**
 * Calls the action whenever the operating system sends a signal, until it is told to stop.
 *
 * It listens from its construction until its run ends, so that a signal during the start is not lost, and keeps the
 * process alive while it runs. However many signals arrive during an action, they cause exactly one more. After its
 * end, and so during cleanup, they have their default action again, which of SIGHUP is to end the process.
 *
 * Whoever constructs it runs it, or disposes of it; until then it swallows the signals, also when the stop came before
 * its turn. It may run again after a run has ended, and then listens again.
 *
 * @example Reads the configuration anew on SIGHUP, and keeps the old one if the new one is bad
 * ```ts
 * import { Manager } from "allstop";
 * import { SignalTriggerTask } from "allstop/repeat";
 *
 * let config = { port: 80 };
 * const manager = new Manager({
 *   onEvent: (event) => {
 *     if (event.type !== "action-failed") return;
 *     console.log(`${event.task}: ${event.error.name}, still on port ${config.port}`);
 *     manager.stop();
 *   },
 * });
 * function reload() {
 *   config = JSON.parse("{ port: oops"); // what the file says
 * }
 * manager.run(new SignalTriggerTask(reload, { name: "reload", onError: "continue" }));
 * process.kill(process.pid, "SIGHUP"); // somebody has edited it
 * await manager.wait(); // prints reload: SyntaxError, still on port 80
 * ```
 */
export class SignalTriggerTask extends RepeatTask implements Disposable {
  /** Ends the listening that began with the construction; absent from the first run on, null once disposed of. */
  #unlisten: (() => void) | null | undefined;

  /**
   * @throws {TypeError} If the action is no function, an option has the wrong type, or `signals` is no list of names
   * that start with `SIG`, is empty, or has one that nobody can catch, such as SIGKILL.
   * @throws {RangeError} If `onError` is not known.
   * @throws {Error} Where there is no process with signals, as in a browser.
   */
  constructor(action: Action, options: SignalTriggerOptions = {}) {
    const what = "create a SignalTriggerTask";
    const { signals = ["SIGHUP"] } = options;
    let received!: Promise<void>;
    let receive!: () => void;
    const renew = (): void => {
      received = new Promise((resolve) => (receive = resolve));
    };
    const listen = (): (() => void) => {
      renew();
      return onOsSignal(what, signals, () => receive());
    };
    super(what, action, options, "signal-trigger", async (act, signal) => {
      if (this.#unlisten === null) throw new TaskAlreadyStartedError(this.name);
      const unlisten = this.#unlisten ?? listen();
      this.#unlisten = undefined;
      const unfollow = onAbort(signal, () => receive());
      const over = new AbortController();
      void sleep(Infinity, over.signal); // keeps the process alive
      try {
        do {
          await received;
          renew();
        } while (await act());
      } finally {
        over.abort();
        unfollow();
        unlisten();
      }
    });
    this.#unlisten = listen();
  }

  /** Takes the listeners off again when it was never run. Does nothing otherwise. */
  [Symbol.dispose](): void {
    if (!this.#unlisten) return;
    this.#unlisten();
    this.#unlisten = null;
  }
}
