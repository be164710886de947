/*
 * A program of a user with `using` declarations. It is compiled, never run.
 */
import { Manager, OsSignalTask } from "allstop";
import { Health } from "allstop/health";
import { SignalTriggerTask } from "allstop/repeat";

export async function main(): Promise<void> {
  await using manager = new Manager();
  using signals = new OsSignalTask();
  using reload = new SignalTriggerTask(() => {});
  using cache = new Health().component("cache");
  cache.report("healthy");
  manager.run(signals, reload);
  await manager.wait();
}
