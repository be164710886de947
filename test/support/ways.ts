/* The ways in which what a test hands over may go: it ends, as these functions do, or the functions that they make. */

export function nothing(): void {}

export function hangs(): Promise<never> {
  return new Promise(() => {});
}

export function throwing(value: unknown): () => never {
  return () => {
    throw value;
  };
}

export function rejecting(value: unknown): () => Promise<never> {
  return () => Promise.reject(value);
}

/** What is thrown by what stops because of its signal, with that cause or, as some do, without one. */
export function abortError(cause?: unknown): Error {
  return Object.assign(new Error("aborted", { cause }), { name: "AbortError" });
}
