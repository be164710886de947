import { type Failure, PanicError } from "../errors.ts";
import { untilAborted } from "./abort.ts";
import { failureOf } from "./failure.ts";
import { placeOf } from "./place.ts";

/**
 * Listens, from its construction until it is released, to the errors that nobody caught, with which Node would end the
 * process. Of those during its run the first is the failure of that; all others are handed on.
 */
export class UncaughtErrors {
  readonly name: string;
  readonly #onOther: (failure: Failure) => void;
  #source: string;
  #signal: AbortSignal = new AbortController().signal;
  #fail: ((error: Error) => void) | undefined;
  /** Two promises may be rejected with one error, and a rejection may be told as an exception, too, before. */
  #last: unknown = this;

  readonly #onException = (cause: unknown, origin = "uncaughtException"): void => this.#receive(cause, origin);
  readonly #onRejection = (cause: unknown): void => this.#receive(cause, "unhandledRejection");

  constructor(name: string, onOther: (failure: Failure) => void) {
    this.#source = this.name = name;
    this.#onOther = onOther;
    process.on("uncaughtException", this.#onException);
    process.on("unhandledRejection", this.#onRejection);
  }

  async run(signal: AbortSignal): Promise<void> {
    this.#source = placeOf(signal, this.name).task;
    this.#signal = signal;
    const failed = new Promise<never>((_, reject) => {
      this.#fail = reject;
    });
    await untilAborted(signal, failed);
  }

  release(): void {
    process.off("uncaughtException", this.#onException);
    process.off("unhandledRejection", this.#onRejection);
  }

  #receive(cause: unknown, origin: string): void {
    const isEcho = !failureOf(cause, this.#signal);
    if (isEcho || (cause === this.#last && cause instanceof Object)) return;
    this.#last = cause;
    const error = new PanicError(cause, origin);
    // Once it has been told to stop, nobody waits for what it fails with.
    const fail = this.#signal.aborted ? undefined : this.#fail;
    this.#fail = undefined;
    if (fail) fail(error);
    else this.#onOther({ source: this.#source, error });
  }
}
