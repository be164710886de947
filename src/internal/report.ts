import { inspect } from "node:util";
import type { Failure } from "../errors.ts";
import { show } from "./check.ts";
import { afterTurn } from "./time.ts";

/** What a program says on stderr of how it ends. Nobody may hear it: that stderr is gone is not worth a failure. */
export class Report {
  readonly #told = new Set<Failure>();
  #unwritten = 0;
  readonly #ignore = (): void => {};

  /** Tells those of the failures that have not been told. */
  tell(failures: readonly Failure[]): void {
    for (const failure of failures) {
      if (this.#told.has(failure)) continue;
      this.#told.add(failure);
      void this.say(`${failure.source}: ${textOf(failure.error)}`);
    }
  }

  /** @returns A promise that resolves when it has been written, after all that was written before, or cannot be. */
  say(text: string): Promise<void> {
    const { stderr } = process;
    // Else the failure to write would be an uncaught error, to be told on stderr, and so on without end.
    if (!this.#unwritten++) stderr.on("error", this.#ignore);
    return new Promise((resolve) => {
      stderr.write(`${text}\n`, () => {
        resolve();
        // The event of the failure comes only after this.
        afterTurn(() => {
          if (!--this.#unwritten) stderr.off("error", this.#ignore);
        });
      });
    });
  }
}

/** As `console.error` shows it, but with all its causes, however deep; any value can be shown. */
function textOf(error: Error): string {
  try {
    return inspect(error, { depth: 1 + levelsOf(error), colors: process.stderr.hasColors?.() });
  } catch {
    return show(error);
  }
}

/** How deep causes, and the errors inside of errors, are below each other. */
function levelsOf(value: unknown, seen: Set<unknown> = new Set()): number {
  if (!(value instanceof Error) || seen.has(value)) return 0;
  seen.add(value);
  let levels = levelsOf(value.cause, seen);
  // They are one level deeper, in a list.
  for (const each of value instanceof AggregateError ? value.errors : []) {
    levels = Math.max(levels, 1 + levelsOf(each, seen));
  }
  return 1 + levels;
}
