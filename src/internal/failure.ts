import { PanicError } from "../errors.ts";

/**
 * Tells what failed when this was thrown: the error as it is, or a {@link PanicError} if it is none. Nothing failed if
 * it was thrown only because the signal had aborted: that is its reason, as `fetch` throws it, or an `AbortError` whose
 * cause is that reason, as of `node:timers/promises`, or absent, as of a bare `abort()`.
 *
 * Errors of another realm, which Node's own are under Jest, are no instances of this realm's `Error`, but have a stack,
 * by which they are known.
 */
export function failureOf(thrown: unknown): Error;
export function failureOf(thrown: unknown, signal: AbortSignal): Error | undefined;
export function failureOf(thrown: unknown, signal?: AbortSignal): Error | undefined {
  const error = thrown as Error | undefined;
  let isError;
  try {
    isError = error instanceof Error || (thrown as Error | undefined)?.stack;
    if (
      signal?.aborted &&
      (error === signal.reason || (error?.name === "AbortError" && (error.cause ?? signal.reason) === signal.reason))
    ) {
      return undefined;
    }
  } catch {
    // It has no properties that can be read.
  }
  return isError ? error : new PanicError(thrown);
}
