import { check } from "./check.ts";
import { afterTurn, startTimer, type Timer } from "./time.ts";

/** What a process does with signals; Node, Bun and Deno have it as `process`. */
interface SignalSource {
  on(signal: string, listener: () => void): unknown;
  removeListener(signal: string, listener: () => void): unknown;
}

/** Those that ask a program to end. */
export const END_SIGNALS: readonly string[] = ["SIGINT", "SIGTERM", "SIGQUIT"];

/** One Ctrl-C reaches a program up to three times in some 40 ms under `node --watch`, `tsx watch` and their like. */
export const REPEAT_WINDOW = 500;

/** All but the two that end or halt a process without asking it. */
const CATCHABLE = /^SIG(?!KILL|STOP)/;

/**
 * Listens for signals of the operating system.
 *
 * @returns What takes all listeners off again.
 * @throws {TypeError} If `signals` is no list of names that start with `SIG`, is empty, or has one nobody can catch.
 * @throws {Error} Where there is no process with signals.
 */
export function onOsSignal(
  action: string,
  signals: readonly string[],
  listener: (signal: string) => void,
): () => void {
  // Each knows its name, which `process.emit` does not tell.
  const listeners = new Map(Array.from(signals ?? [], (name) => [name, () => listener(name)]));
  const areNames = listeners.size > 0 && [...listeners.keys()].every((name) => CATCHABLE.test(name));
  check(areNames, action, "signals must be catchable, such as SIGTERM", signals);

  // A browser has no process, whatever the types of Node say, and nothing but these two methods is used of it.
  const source = globalThis.process as SignalSource | undefined;
  if (!source?.on) throw new Error(`Cannot ${action}: there is no process with signals`);

  listeners.forEach((listen, name) => {
    source.on(name, listen);
  });
  return () =>
    listeners.forEach((listen, name) => {
      source.removeListener(name, listen);
    });
}

/**
 * Calls back on each signal after the first, but not on repeats of that.
 *
 * @returns What takes the listeners off again, once no more repeats are to be expected.
 */
export function onSecondSignal(
  action: string,
  signals: readonly string[],
  listener: (signal: string) => void,
): () => void {
  let window: Timer | undefined;
  let isOver = false;
  let isReleased = false;
  const unlisten = onOsSignal(action, signals, (signal) => {
    if (isOver) listener(signal);
    window ??= startTimer(REPEAT_WINDOW, () =>
      // Those that came while the process was busy are heard only now.
      afterTurn(() => {
        isOver = true;
        if (isReleased) unlisten();
      }),
    );
    window.unref();
  });
  return () => {
    isReleased = true;
    if (isOver || !window) unlisten();
  };
}
