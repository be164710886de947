/*
 * A program of a user, which uses all that allstop/child exports. It is compiled, never run.
 */
import { openSync } from "node:fs";
import { type LifecycleEvent, Manager, type Task } from "allstop";
import { ChildExitError, ChildProcessTask, type ChildProcessOptions } from "allstop/child";
import { RestartTask } from "allstop/restart";

const options: ChildProcessOptions = {
  name: "worker",
  cwd: "/srv",
  env: { ...process.env, LEVEL: "debug", UNSET: undefined },
  stdio: ["ignore", openSync("worker.log", "a"), "inherit"],
  stopSignal: "SIGINT",
  stopTimeout: Infinity,
  onEvent: observe,
};

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults: Task = new ChildProcessTask("worker", undefined, {
  name: undefined,
  cwd: undefined,
  env: undefined,
  stdio: undefined,
  stopSignal: undefined,
  stopTimeout: undefined,
  onEvent: undefined,
});

export const withErrors = [
  // @ts-expect-error A command is needed.
  new ChildProcessTask(),
  // @ts-expect-error The arguments are a list.
  new ChildProcessTask("worker", "--verbose"),
  // @ts-expect-error An unknown option is a type error.
  new ChildProcessTask("worker", [], { shell: true }),
  // @ts-expect-error A signal is one that there is.
  new ChildProcessTask("worker", [], { stopSignal: "SIGSTOPPED" }),
];

export async function main(args: readonly string[]): Promise<void> {
  const manager = new Manager();
  const task = new ChildProcessTask("worker", args, options);
  manager.run(task, new RestartTask(new ChildProcessTask("cache", [], { env: process.env, stdio: "ignore" })));
  console.log(task.name.toUpperCase());
  const run: Promise<void> = task.run(manager.signal);
  await run;
  await manager.wait().catch((error: unknown) => {
    if (!(error instanceof ChildExitError)) throw error;
    const { command, exitCode, signal }: { command: string; exitCode: number | null; signal: string | null } = error;
    console.log(command.toUpperCase(), exitCode?.toFixed(), signal?.toLowerCase(), error.name);
    // @ts-expect-error What has happened does not change.
    error.exitCode = 0;
  });
}

export const errors: Error[] = [
  new ChildExitError("worker", 3, null),
  new ChildExitError("worker", null, "SIGKILL", 10_000),
];

function observe(event: LifecycleEvent): void {
  if (event.type === "child-exited") console.log(event.task, event.pid.toFixed(), event.exitCode ?? event.signal);
}
