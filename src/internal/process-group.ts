import { readdirSync } from "node:fs";
import { processStat } from "./process-stat.ts";

/** The groups that may live: the one state of a module, since a process has one end. */
const groups = new Set<number>();

function killAll(): void {
  for (const group of groups) signalGroup(group, "SIGKILL");
}

/**
 * Has a group of processes killed when this process ends before it, if that ends with an `exit` event.
 *
 * @returns What leaves the group alone from then on, as its id may become that of another.
 */
export function killAtExit(group: number): () => void {
  if (groups.size === 0) process.on("exit", killAll);
  groups.add(group);
  return () => {
    groups.delete(group);
    if (groups.size === 0) process.removeListener("exit", killAll);
  };
}

/** Sends a signal to all processes of a group; 0 is none. @returns Whether there is any such process, dead or alive. */
export function signalGroup(group: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-group, signal);
  } catch (error) {
    // Otherwise there are some, all of which belong to other users.
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

/**
 * @param group - The id of its first process, too, which is there, dead or alive.
 * @returns What tells whether any process of a group lives.
 */
export function watchGroup(group: number): () => boolean {
  // There is none, or that of another namespace, in which the ids are others.
  const isTold = processStat(group)?.group === group;
  let witness: string | undefined;
  const isAlive = (entry: string): boolean => {
    const stat = /^\d/.test(entry) ? processStat(entry) : undefined;
    return stat?.group === group && !/[ZX]/.test(stat.state);
  };
  return () => {
    if (!signalGroup(group, 0)) return false;
    if (witness !== undefined && isAlive(witness)) return true;
    // The dead can be signalled, too, until somebody asks how they ended; where nobody does, they stay for ever.
    if (!isTold) return true;
    const entries = new Set(readdirSync("/proc"));
    // What came meanwhile may have been started by one that was alive then, and has ended before its turn.
    witness = [...entries].find(isAlive) ?? readdirSync("/proc").find((entry) => !entries.has(entry) && isAlive(entry));
    return witness !== undefined;
  };
}
