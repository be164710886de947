import { PanicError } from "../errors.ts";

/**
 * The error as it is; anything else that was thrown as a {@link PanicError}. Errors of another realm, which Node's own
 * are under Jest, are no instances of this realm's `Error`, but have a stack.
 */
export function toError(thrown: unknown): Error {
  try {
    if (thrown instanceof Error || typeof (thrown as Error).stack === "string") return thrown as Error;
  } catch {
    // It has no properties at all, or none that can be read.
  }
  return new PanicError(thrown);
}

/**
 * Tells whether a task rejected only because it was told to stop: with the reason itself, as `fetch` does, or with an
 * `AbortError` whose cause is that reason, as `node:timers/promises` does, or absent, as a bare `abort()` does.
 */
export function isEcho(thrown: unknown, reason: unknown): boolean {
  try {
    const error = thrown as Error;
    return error === reason || (error.name === "AbortError" && (error.cause ?? reason) === reason);
  } catch {
    return false;
  }
}
