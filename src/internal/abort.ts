/*
 * The only file that adds listeners to signals, so that none is left behind.
 */

/**
 * Calls back when the signal aborts, or at once if it has aborted already.
 *
 * @returns What takes the listener off again.
 */
export function onAbort(signal: AbortSignal, listener: () => void): () => void {
  if (signal.aborted) listener();
  else signal.addEventListener("abort", listener);
  // By hand: Node forgets the option `signal` of the former when several listeners of one signal have it.
  return () => signal.removeEventListener("abort", listener);
}

/** Waits for `work` to end, but only until the signal aborts; how it ends after that is ignored. */
export async function untilAborted(signal: AbortSignal, work: unknown): Promise<void> {
  let unlisten!: () => void;
  const aborted = new Promise<void>((resolve) => (unlisten = onAbort(signal, resolve)));
  await Promise.race([work, aborted]).finally(unlisten);
}
