import { fstatSync } from "node:fs";

/** In the environment of a process that is to replace its parent: what that hands on. */
export const UPGRADE_MARK = "ALLSTOP_UPGRADE";

/** The open file, after the standard ones, that a process has with such a mark, and the other end of its parent. */
export const LINE = 3;

/** This program as it was started: its runtime, with the options and the arguments of both. */
export function ownCommand(): readonly string[] {
  return [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
}

/**
 * Reads a mark. It counts only for the process that has the line, too: not for others that this one started before it
 * took the mark out of the environment. (A process that `fork` made has a line of another kind there.)
 */
export function markOf(name: string): string | undefined {
  try {
    /* v8 ignore start -- those of the tests are made by fork; others are those that they start: daemon.test.ts */
    return process.channel || !fstatSync(LINE).isSocket() ? undefined : process.env[name];
  } catch {
    return undefined;
  }
  /* v8 ignore stop */
}

/** Reads a mark, and takes it out of the environment. */
export function takeMark(name: string): string | undefined {
  const mark = markOf(name);
  delete process.env[name];
  return mark;
}
