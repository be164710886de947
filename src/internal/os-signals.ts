/** What a process does with signals; Node, Bun and Deno have it as `process`. */
interface SignalSource {
  on(signal: string, listener: () => void): unknown;
  removeListener(signal: string, listener: () => void): unknown;
}

/**
 * Listens for signals of the operating system.
 *
 * @returns What takes all listeners off again.
 * @throws {TypeError} If `signals` is no list of names that start with `SIG`, or empty.
 * @throws {RangeError} If one of them cannot be listened for, as SIGKILL cannot; none is then.
 * @throws {Error} Where there is no process with signals.
 */
export function onOsSignal(action: string, signals: readonly string[], listener: (signal: string) => void): () => void {
  const isSignal = (name: unknown): boolean => typeof name === "string" && name.startsWith("SIG");
  if (!Array.isArray(signals) || signals.length === 0 || !Array.from(signals).every(isSignal)) {
    const shown = JSON.stringify(signals);
    throw new TypeError(`Cannot ${action}: signals must be a list of names such as SIGTERM, got ${shown}`);
  }

  // A browser has no process, whatever the types of Node say, and nothing but these two methods is used of it.
  const source = globalThis.process as SignalSource | undefined;
  if (typeof source?.on !== "function") throw new Error(`Cannot ${action}: there is no process that receives signals`);

  // Each knows its name, which `process.emit` does not tell.
  const listeners = Array.from(new Set(signals), (name) => [name, () => listener(name)] as const);
  const unlisten = (): void => listeners.forEach(([name, listen]) => void source.removeListener(name, listen));
  for (const [name, listen] of listeners) {
    try {
      source.on(name, listen);
    } catch (cause) {
      unlisten();
      throw new RangeError(`Cannot ${action}: signals must be ones to listen for, got ${name}`, { cause });
    }
  }
  return unlisten;
}
