import { onAbort } from "./abort.ts";

/** The longest delay that `setTimeout` takes. A longer one would pass after 1 ms. */
const LONGEST_DELAY = 2 ** 31 - 1;

export type Timer = ReturnType<typeof setTimeout>;

/** Calls back once after so many milliseconds, or never, if that is more than `setTimeout` takes: it is no limit. */
export function startTimer(milliseconds: number, onPassed: () => void): Timer {
  return setTimeout(milliseconds > LONGEST_DELAY ? () => {} : onPassed, Math.min(milliseconds, LONGEST_DELAY));
}

/** Keeps the process alive until `clearTimeout`, as neither a pending promise nor a signal listener does. */
export function keepAlive(): Timer {
  return setInterval(() => {}, LONGEST_DELAY);
}

/**
 * Waits so many milliseconds, however many they are, but only until the signal aborts. None is a macrotask, too, which
 * lets timers and signals through; where there is a `setImmediate`, without the millisecond that `setTimeout` takes.
 */
export async function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  const isImmediate = milliseconds <= 0 && (globalThis as { setImmediate?: unknown }).setImmediate;
  let timer!: never;
  let unlisten!: () => void;
  await new Promise<void>((resolve) => {
    timer = (isImmediate ? setImmediate : setTimeout)(resolve, Math.min(milliseconds, LONGEST_DELAY)) as never;
    unlisten = onAbort(signal, resolve);
  });
  (isImmediate ? clearImmediate : clearTimeout)(timer);
  unlisten();
  if (milliseconds > LONGEST_DELAY && !signal.aborted) await sleep(milliseconds - LONGEST_DELAY, signal);
}

/** Calls back once all that has arrived by now has been read. It is no promise, lest what it throws is a rejection. */
export function afterTurn(callback: () => void): void {
  setImmediate(callback);
}
