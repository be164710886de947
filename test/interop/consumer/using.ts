/*
 * A program of a user with `using` declarations. It is compiled, never run.
 */
import { Manager, OsSignalTask } from "allstop";

export async function main(): Promise<void> {
  await using manager = new Manager();
  using signals = new OsSignalTask();
  manager.run(signals);
  await manager.wait();
}
