import { onAbort } from "./abort.ts";
import type { Observer } from "./observer.ts";

/** Where a task stands: its full name, and who is told of what happens there. */
export interface Place {
  readonly task: string;
  readonly onEvent: Observer | undefined;
}

export const PLACE: unique symbol = Symbol();

/** A signal that knows the place of the task it was given to. (A WeakMap would cost more than the signal itself.) */
export interface PlacedSignal<P extends Place = Place> extends AbortSignal {
  [PLACE]?: P;
}

/**
 * Finds out where the task stands that was given this signal: below the manager that gave it, or else by itself. Its
 * own observer goes before that of the manager.
 */
export function placeOf(signal: PlacedSignal, task: string, onEvent?: Observer): Place {
  const { task: name = task, onEvent: observer } = signal[PLACE] ?? {};
  return { task: name, onEvent: onEvent ?? observer };
}

/** Calls with a signal of the call's own, which stands in this place and follows the given one until that is over. */
export async function callInPlace<Result>(
  place: Place,
  signal: AbortSignal,
  call: (signal: AbortSignal) => Result,
): Promise<Awaited<Result>> {
  const controller = new AbortController();
  const unlisten = onAbort(signal, () => controller.abort(signal.reason));
  (controller.signal as PlacedSignal)[PLACE] = place;
  try {
    return await call(controller.signal);
  } finally {
    unlisten();
  }
}
