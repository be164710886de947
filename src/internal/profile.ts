import { sleep } from "./time.ts";

/** Profiles this thread for so many milliseconds, or until the signal aborts; returns what a `.cpuprofile` holds. */
export async function cpuProfile(milliseconds: number, signal: AbortSignal): Promise<string> {
  // Only here, so that the rest works where there is no inspector.
  const { Session } = await import("node:inspector/promises");
  const session = new Session();
  session.connect();
  try {
    await session.post("Profiler.enable");
    await session.post("Profiler.start");
    await sleep(milliseconds, signal);
    const { profile } = await session.post("Profiler.stop");
    return JSON.stringify(profile);
  } finally {
    session.disconnect();
  }
}
