/*
 * A program of a user, which uses all that allstop/restart exports. It is compiled, never run.
 */
import { type LifecycleEvent, Manager, type Task } from "allstop";
import {
  backoff,
  type BackoffOptions,
  type RestartDelay,
  RestartLimitError,
  type RestartOptions,
  type RestartPolicy,
  type RestartStatus,
  RestartTask,
  type RunEnd,
} from "allstop/restart";

const growth: BackoffOptions = { base: 100, factor: 1.5, max: 60_000, jitter: 0 };
const delay: (attempt: number) => number = backoff(growth);
const unlessWrong: RestartDelay = (attempt, error) => (error?.name === "TypeError" ? Infinity : attempt * 10);
const delays: RestartDelay[] = [1_000, delay, unlessWrong];
const unlessDone = ({ outcome, error }: RunEnd): boolean => outcome === "failed" && error?.message !== "done";
const policies: RestartPolicy[] = ["on-failure", "always", "never", unlessDone, (end) => end.error !== undefined];

const options: RestartOptions = {
  policy: unlessDone,
  maxRestarts: 10,
  within: 60_000,
  delay: backoff(),
  healthyAfter: 10_000,
  onEvent: observe,
};

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults: Task = new RestartTask(async () => {}, {
  policy: undefined,
  maxRestarts: undefined,
  within: undefined,
  delay: undefined,
  healthyAfter: undefined,
  onEvent: undefined,
});
export const withDefaultGrowth = backoff({ base: undefined, factor: undefined, max: undefined, jitter: undefined });

export const withErrors = [
  // @ts-expect-error An unknown option is a type error.
  new RestartTask(async () => {}, { retries: 1 }),
  // @ts-expect-error A policy is one of those that there are, or a function.
  new RestartTask(async () => {}, { policy: "sometimes" }),
  // @ts-expect-error A task returns a promise.
  new RestartTask(() => 1),
];

export async function main(): Promise<void> {
  const manager = new Manager();
  const task = new RestartTask(async (signal) => signal.throwIfAborted(), options);
  manager.run(task, new RestartTask(task), new RestartTask({ name: "db", run: async () => "a value" }));
  for (const policy of policies) for (const delay of delays) manager.run(new RestartTask(task, { policy, delay }));
  const statuses: Record<RestartStatus, number> = { stopped: 0, running: 1, restarting: -1 };
  console.log(task.name.toUpperCase(), statuses[task.status], task.restarts.toFixed());
  const value: unknown = await task.run(manager.signal);
  await manager.wait().catch((error: unknown) => {
    if (!(error instanceof RestartLimitError)) throw error;
    console.log(value, error.task.toUpperCase(), error.restarts.toFixed(), error.cause, error.name);
  });
}

export const errors: Error[] = [new RestartLimitError("db", 3), new RestartLimitError("db", 3, new Error("refused"))];

function observe(event: LifecycleEvent): void {
  if (event.type !== "task-gave-up") return;
  console.log(event.task.toUpperCase(), event.restarts.toFixed(), event.error?.message);
}
