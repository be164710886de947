import { PanicError } from "../errors.ts";

/**
 * The error as it is; anything else that was thrown as a {@link PanicError}. Errors of another realm, which Node's own
 * are under Jest, are no instances of this realm's `Error`, but have a stack.
 */
export function toError(thrown: unknown): Error {
  try {
    if (thrown instanceof Error || typeof (thrown as Partial<Error>).stack === "string") return thrown as Error;
  } catch {
    // Neither `undefined` nor a revoked proxy lets itself be looked at.
  }
  return new PanicError(thrown);
}

/**
 * Tells whether a task rejected only because it was told to stop: with the reason itself, as `fetch` does, or with an
 * `AbortError` whose cause is that reason, as `node:timers/promises` does, or absent, as a bare `abort()` does.
 *
 * @param error - What {@link toError} makes of `thrown`, which may be something that cannot even be looked at.
 */
export function isEcho(thrown: unknown, error: Error, reason: unknown): boolean {
  return thrown === reason || (error.name === "AbortError" && (error.cause ?? reason) === reason);
}
