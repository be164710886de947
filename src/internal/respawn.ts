/** In the environment of a process that is to replace its parent: what that hands on. */
export const UPGRADE_MARK = "ALLSTOP_UPGRADE";

/** This program as it was started: its runtime, with the options and the arguments of both. */
export function ownCommand(): readonly string[] {
  return [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
}

/** Reads a mark, and takes it out of the environment, lest processes that this one starts find it, too. */
export function takeMark(name: string): string | undefined {
  const mark = process.env[name];
  delete process.env[name];
  return mark;
}
