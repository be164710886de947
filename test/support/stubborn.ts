import { ControlledTask } from "allstop/testing";

/** A task, or the work of a hook, that goes on after the stop, until the test ends it. */
export function stubborn(name?: string): ControlledTask {
  return new ControlledTask(name, { ignoreAbort: true });
}
