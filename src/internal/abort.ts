/*
 * The only file that adds listeners to signals, so that none is left behind.
 */

/**
 * Calls back when the signal aborts, or at once if it has aborted already.
 *
 * @param until - Takes the listener off again when it aborts.
 */
export function onAbort(signal: AbortSignal, until: AbortSignal, listener: () => void): void {
  if (signal.aborted) return listener();
  signal.addEventListener("abort", listener);
  // Not by the option `signal` of the former: Node forgets it when several listeners of one signal have it.
  until.addEventListener("abort", () => signal.removeEventListener("abort", listener));
}

/** Waits for `work` to end, but only until the signal aborts; how it ends after that is ignored. */
export async function untilAborted(signal: AbortSignal, work: unknown): Promise<void> {
  const over = new AbortController();
  const aborted = new Promise<void>((resolve) => onAbort(signal, over.signal, resolve));
  try {
    await Promise.race([work, aborted]);
  } finally {
    over.abort();
  }
}
