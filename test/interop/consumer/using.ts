/*
 * A program of a user with `using` declarations. It is compiled, never run.
 */
import { Manager, OsSignalTask } from "allstop";
import { SignalTriggerTask } from "allstop/repeat";

export async function main(): Promise<void> {
  await using manager = new Manager();
  using signals = new OsSignalTask();
  using reload = new SignalTriggerTask(() => {});
  manager.run(signals, reload);
  await manager.wait();
}
