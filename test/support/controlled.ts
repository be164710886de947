import type { Task } from "allstop";

/** A task that ends only when the test says so. */
export class Controlled implements Task {
  readonly name: string;
  /** The signal it was given; absent until it runs. */
  signal: AbortSignal | undefined;
  /** Ends it with a return. */
  return: () => void = () => {};
  /** Ends it with a rejection. */
  fail: (error: unknown) => void = () => {};
  readonly #end: Promise<void>;

  constructor(name = "controlled") {
    this.name = name;
    this.#end = new Promise((resolve, reject) => {
      this.return = resolve;
      this.fail = reject;
    });
  }

  run(signal: AbortSignal): Promise<void> {
    this.signal = signal;
    return this.#end;
  }
}

/** Lets all that is due in this turn happen: 50 microtasks, which no chain of the library's comes near. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 50; i++) await null;
}

/** Rejects with the signal's reason when it aborts. */
export function untilStopped(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
}
