/*
 * A test of a user, which uses all that allstop/testing exports. It is compiled, never run.
 */
import { type LifecycleEvent, Manager, type Task, type TaskOutcome } from "allstop";
import { type ControlledOptions, ControlledTask, EventLog, type EventOfType } from "allstop/testing";

const deaf: ControlledOptions = { ignoreAbort: true };

// What is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults: Task[] = [
  new ControlledTask(),
  new ControlledTask(undefined, undefined),
  new ControlledTask("server", { ignoreAbort: undefined }),
];

// @ts-expect-error An unknown option is a type error.
export const withUnknown = new ControlledTask("server", { timeout: 1 });

export async function test(): Promise<void> {
  const log = new EventLog();
  const { observe } = log;
  const manager = new Manager({ onEvent: observe });
  const server = new ControlledTask("server", deaf);
  const consumer = new ControlledTask();
  manager.run(server, consumer);

  const signal: AbortSignal = await server.started;
  consumer.fail(new Error("connection lost"));
  consumer.fail("anything");
  const aborted: void = await server.aborted;
  server.return();

  const ended: EventOfType<"task-ended"> = await log.until("task-ended", ({ task, outcome }) => task === outcome);
  const outcome: TaskOutcome = ended.outcome;
  const failures = (await log.until("stopped")).failures.map(({ error }) => error.message);
  const attempt: number = (await log.until("task-restarting", (event) => event.delay > 0)).attempt;
  const events: readonly LifecycleEvent[] = log.events;
  console.log(signal.aborted, aborted, server.name.toUpperCase(), outcome, failures, attempt, events.length);

  // @ts-expect-error No event has this type.
  await log.until("task-began");
  // @ts-expect-error Nor has an event of this type a task.
  await log.until("stopped", ({ task }) => task === "server");
}
