/*
 * A program of a user, which uses all that allstop/main exports. It is compiled, never run.
 */
import { Manager, type ManagerOptions, PanicError, type Task } from "allstop";
import { runMain, type RunMainOptions, type UncaughtErrorOptions, UncaughtErrorTask } from "allstop/main";

const options: RunMainOptions = {
  name: "shop",
  signal: new AbortController().signal,
  shutdownTimeout: 10_000,
  cleanupTimeout: 1_000,
  limit: 4,
  onEvent: (event) => console.log(event.type.toUpperCase()),
  signals: ["SIGINT", "SIGTERM", "SIGHUP"],
  exitTimeout: Infinity,
};

// They are those of a manager, and two more.
export const ofManager: ManagerOptions = options;
export const more: Omit<RunMainOptions, keyof ManagerOptions> = { signals: ["SIGUSR2"] as const, exitTimeout: 0 };

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults: Promise<void> = runMain(() => {}, { name: undefined, signals: undefined, exitTimeout: undefined });
export const uncaughtDefaults: UncaughtErrorOptions = { name: undefined };

export async function main(): Promise<void> {
  // @ts-expect-error There is nothing to run.
  await runMain();
  // @ts-expect-error An unknown option is a type error.
  await runMain(setUp, { timeout: 1 });
  await runMain(async (manager) => manager.wait());
  const result: void = await runMain(setUp, options);
  return result;
}

async function setUp(manager: Manager): Promise<string> {
  const task: Task = new UncaughtErrorTask();
  const named = new UncaughtErrorTask({ name: "errors" });
  // @ts-expect-error Its name is final.
  named.name = "other";
  manager.runBackground(task, named);
  const run: Promise<void> = new UncaughtErrorTask(uncaughtDefaults).run(manager.signal);
  await run.catch((error) => error instanceof PanicError && console.log(error.origin?.toUpperCase(), error.cause));
  return named.name;
}
