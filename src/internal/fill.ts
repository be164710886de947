import { type Failure, ManagerStoppedError, ShutdownTimeoutError, StopReason } from "../errors.ts";
import type { Manager } from "../manager.ts";
import { untilAborted } from "./abort.ts";
import { failureOf } from "./failure.ts";
import { startTimer } from "./time.ts";

/** The run of a manager that a function fills with tasks and hooks, which takes its time, and may fail. */
export class Fill {
  readonly #manager: Manager;
  readonly #source: string;
  readonly #shutdownTimeout: number;
  /** That of the function, and how many of the manager's came before. */
  #failed: { readonly failure: Failure; readonly index: number } | undefined;

  /** @param source - How the function is called in failures. */
  constructor(manager: Manager, source: string, shutdownTimeout = 20_000) {
    this.#manager = manager;
    this.#source = source;
    this.#shutdownTimeout = shutdownTimeout;
  }

  /** Those of the manager, and that of the function, in order. */
  get failures(): readonly Failure[] {
    const failures = [...this.#manager.failures];
    if (this.#failed) failures.splice(this.#failed.index, 0, this.#failed.failure);
    return failures;
  }

  /** @returns A promise that resolves when the group has ended; whatever failed is among the failures. */
  async run(fill: (manager: Manager) => unknown): Promise<void> {
    const filled = this.#call(fill);
    await untilAborted(this.#manager.signal, filled);

    // Told to stop meanwhile, it has as long for that as the tasks have, and the hooks wait for it.
    const late = new AbortController();
    const deadline = startTimer(this.#shutdownTimeout, () => late.abort());
    await untilAborted(late.signal, filled);
    clearTimeout(deadline);
    if (late.signal.aborted) {
      this.#fail("shutdown", new ShutdownTimeoutError(this.#shutdownTimeout, [this.#source]));
    }
    await this.#manager.wait().catch(() => {});
  }

  async #call(fill: (manager: Manager) => unknown): Promise<void> {
    const manager = this.#manager;
    try {
      await fill(manager);
    } catch (thrown) {
      const error = failureOf(thrown, manager.signal);
      const isRefused = manager.signal.aborted && error instanceof ManagerStoppedError;
      // It may have waited for the group itself, which has told then.
      const isKnown = manager.failures.some((failure) => failure.error === error);
      if (error && !isRefused && !isKnown) this.#fail(this.#source, error);
    }
  }

  #fail(source: string, error: Error): void {
    this.#failed ??= { failure: { source, error }, index: this.#manager.failures.length };
    this.#manager.stop(new StopReason(this.#source, error));
  }
}
