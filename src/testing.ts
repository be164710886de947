/**
 * For tests of how a service starts and stops, without a sleep: a task that ends when the test says so, and a log of
 * events to wait on.
 *
 * @module
 */
import { TaskAlreadyStartedError } from "./errors.ts";
import type { LifecycleEvent } from "./events.ts";
import { onAbort } from "./internal/abort.ts";
import { checkType } from "./internal/check.ts";
import { placeOf } from "./internal/place.ts";
import type { Task } from "./task.ts";

export interface ControlledOptions {
  /** Whether it goes on when it is told to stop, as a task that hangs does. @default false */
  ignoreAbort?: boolean | undefined;
}

/**
 * A task that runs until the test, or the stop, ends it. It runs once.
 *
 * After `MockService` of swift-service-lifecycle.
 *
 * @example The server is told to stop when the consumer fails, and the database is closed after both
 * ```ts
 * import assert from "node:assert";
 * import { Manager } from "allstop";
 * import { ControlledTask, EventLog } from "allstop/testing";
 *
 * const log = new EventLog();
 * const manager = new Manager({ onEvent: log.observe });
 * const server = new ControlledTask("server", { ignoreAbort: true });
 * const consumer = new ControlledTask("consumer");
 * manager.run(server, consumer);
 * manager.cleanup(function closeDatabase() {});
 *
 * consumer.fail(new Error("connection lost"));
 * await server.aborted; // it was told, and takes its time
 * server.return();
 * await assert.rejects(manager.wait(), { message: "connection lost" });
 * console.log(log.events.map(({ type }) => type).slice(-3).join(", ")); // prints task-ended, cleanup-ended, stopped
 * ```
 */
export class ControlledTask implements Task {
  readonly name: string;
  /** Resolves when it runs, with the signal it was given. */
  readonly started: Promise<AbortSignal>;
  /** Resolves when it is told to stop. */
  readonly aborted: Promise<void>;
  readonly #ignoreAbort: boolean;
  readonly #ended: Promise<void>;
  #isStarted = false;
  #start!: (signal: AbortSignal) => void;
  #abort!: () => void;
  #return!: () => void;
  #fail!: (error: unknown) => void;

  /** @throws {TypeError} If the name is no string, or an option has the wrong type. */
  constructor(name = "controlled", { ignoreAbort = false }: ControlledOptions = {}) {
    const action = "create a ControlledTask";
    checkType(action, "name", "string", name);
    checkType(action, "ignoreAbort", "boolean", ignoreAbort);
    this.name = name;
    this.#ignoreAbort = ignoreAbort;
    this.started = new Promise((resolve) => (this.#start = resolve));
    this.aborted = new Promise((resolve) => (this.#abort = resolve));
    this.#ended = new Promise((resolve, reject) => {
      this.#return = resolve;
      this.#fail = reject;
    });
    // To fail before it runs is no unhandled rejection.
    this.#ended.catch(() => {});
  }

  /**
   * @returns A promise that resolves after `return()`, or when `signal` aborts, unless it ignores that.
   * @throws The error given to `fail()`.
   * @throws {TaskAlreadyStartedError} If it ran before.
   */
  async run(signal: AbortSignal): Promise<void> {
    if (this.#isStarted) throw new TaskAlreadyStartedError(placeOf(signal, this.name).task);
    this.#isStarted = true;
    this.#start(signal);
    const unlisten = onAbort(signal, () => {
      this.#abort();
      if (!this.#ignoreAbort) this.#return();
    });
    await this.#ended.finally(unlisten);
  }

  /** Ends it with a return; at once when it runs, if it does not yet. What ends it first wins. */
  return(): void {
    this.#return();
  }

  /** Ends it with a rejection; at once when it runs, if it does not yet. What ends it first wins. */
  fail(error: unknown): void {
    this.#fail(error);
  }
}

/** The event of this type, of all that {@link LifecycleEvent} may be. */
export type EventOfType<Type extends LifecycleEvent["type"]> = Extract<LifecycleEvent, { readonly type: Type }>;

/**
 * Keeps all events, and tells when one has come.
 *
 * @example Waits for a task to end
 * ```ts
 * import { Manager } from "allstop";
 * import { EventLog } from "allstop/testing";
 *
 * const log = new EventLog();
 * const manager = new Manager({ onEvent: log.observe });
 * manager.runEphemeral(async function warmUp() {});
 * const { outcome } = await log.until("task-ended", ({ task }) => task === "warmUp");
 * console.log(outcome); // prints returned
 * await manager.stop();
 * console.log(log.events.length); // prints 4
 * ```
 */
export class EventLog {
  readonly #events: LifecycleEvent[] = [];
  readonly #waiting = new Set<(event: LifecycleEvent) => void>();

  /** All events so far, in order. */
  get events(): readonly LifecycleEvent[] {
    return this.#events;
  }

  /** An `onEvent`, bound to the log. */
  readonly observe: (event: LifecycleEvent) => void = (event) => {
    this.#events.push(event);
    for (const tell of this.#waiting) tell(event);
  };

  /**
   * Waits for the first event of this type for which the predicate holds, which may have come already.
   *
   * @throws What the predicate throws.
   */
  async until<Type extends LifecycleEvent["type"]>(
    type: Type,
    predicate: (event: EventOfType<Type>) => boolean = () => true,
  ): Promise<EventOfType<Type>> {
    const matches = (event: LifecycleEvent): event is EventOfType<Type> =>
      // It is one of them if it has their type, which the compiler does not see as long as it does not know which.
      event.type === type && predicate(event as EventOfType<Type>);
    const past = this.#events.find(matches);
    if (past) return past;
    return new Promise((resolve, reject) => {
      const tell = (event: LifecycleEvent): void => {
        try {
          if (!matches(event)) return;
          resolve(event);
        } catch (thrown) {
          reject(thrown);
        }
        this.#waiting.delete(tell);
      };
      this.#waiting.add(tell);
    });
  }
}
