import { readFileSync } from "node:fs";

/** What Linux says of a process. */
export interface ProcessStat {
  /** `Z` and `X` are dead: it waits for its parent to ask how it ended. */
  readonly state: string;
  readonly group: number;
  /** When it started, in ticks since the system did, which tells it from another one that got its id later. */
  readonly startedAt: string;
}

/** Reads what there is to know of a process: nothing, if there is none with this id, or no `/proc`. */
export function processStat(pid: number | string): ProcessStat | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The second field is the title of the process, in brackets, and may have spaces and brackets itself.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state: String(fields[0]), group: Number(fields[2]), startedAt: String(fields[19]) };
  } catch {
    return undefined;
  }
}
