import { check } from "./check.ts";

/** What a process does with signals; Node, Bun and Deno have it as `process`. */
interface SignalSource {
  on(signal: string, listener: (signal: string) => void): unknown;
  removeListener(signal: string, listener: (signal: string) => void): unknown;
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
  const names = new Set(Array.isArray(signals) ? signals : []);
  const areSignals = Array.from(names).every((name: unknown) => typeof name === "string" && name.startsWith("SIG"));
  check(areSignals && names.size > 0, action, "signals must be a list of one or more names such as SIGTERM", signals);

  // A browser has no process, whatever the types of Node say, and nothing but these two methods is used of it.
  const source = globalThis.process as SignalSource | undefined;
  if (typeof source?.on !== "function") throw new Error(`Cannot ${action}: there is no process that receives signals`);

  const unlisten = (): void => names.forEach((name) => void source.removeListener(name, listener));
  for (const name of names) {
    try {
      source.on(name, listener);
    } catch (cause) {
      unlisten();
      throw new RangeError(`Cannot ${action}: signals must be ones that can be listened for, got ${name}`, { cause });
    }
  }
  return unlisten;
}
