/*
 * A program of a user, which uses all that the root entry exports. It is compiled, never run.
 */
import {
  CleanupError,
  CleanupTimeoutError,
  type Failure,
  type LifecycleEvent,
  logEvents,
  type Logger,
  Manager,
  type ManagerOptions,
  ManagerStoppedError,
  type OsSignalOptions,
  OsSignalTask,
  PanicError,
  ShutdownTimeoutError,
  StopReason,
  type Task,
  TaskAlreadyStartedError,
  type TaskKind,
  type TaskLike,
  type TaskOutcome,
} from "allstop";

const parent = new AbortController();

const options: ManagerOptions = {
  name: "api",
  signal: parent.signal,
  shutdownTimeout: 20_000,
  cleanupTimeout: 5_000,
  limit: 16,
  onEvent: observe,
};

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults = new Manager({
  name: undefined,
  signal: undefined,
  shutdownTimeout: undefined,
  cleanupTimeout: undefined,
  limit: undefined,
  onEvent: undefined,
});

// @ts-expect-error An unknown option is a type error.
export const withUnknown = new Manager({ timeout: 1 });

export class Named implements Task {
  readonly name = "named";

  async run(signal: AbortSignal): Promise<number> {
    signal.throwIfAborted();
    return 1;
  }
}

export class Unnamed implements Task {
  async run(): Promise<void> {}
}

const thenable: TaskLike = () => ({ then: (resolve) => Promise.resolve().then(resolve as () => never) });
const logger: Logger = console;

export async function main(): Promise<void> {
  const manager: AsyncDisposable & Manager = new Manager(options);

  manager.run();
  manager.run(new Named(), new Unnamed(), { run: async () => "a value" }, async (signal) => signal.aborted);
  manager.run(new OsSignalTask(), thenable);
  manager.runEphemeral(async () => {}, new Named());
  manager.runBackground((signal) => new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve())));
  manager.cleanup(() => {});
  manager.cleanup(async () => 1);
  // @ts-expect-error A task returns a promise.
  manager.run(() => 1);

  const pending: readonly string[] = manager.pending;
  const signal: AbortSignal = manager.signal;
  signal.addEventListener("abort", () => console.log(explain(signal.reason), pending));

  const waited: Promise<void> = manager.wait();
  const stopped: Promise<void> = manager.stop();
  await Promise.all([waited, stopped, manager.stop("a reason"), manager[Symbol.asyncDispose]()]);

  const failures: readonly Failure[] = manager.failures;
  for (const { source, error } of failures) console.log(source.toUpperCase(), error.message, explain(error));
}

export const signalOptions: OsSignalOptions = {
  signals: ["SIGTERM"],
  onSignal: (signal) => console.log(signal.toLowerCase()),
};

export function listen(): string | undefined {
  const task: Task & Disposable = new OsSignalTask(signalOptions);
  task[Symbol.dispose]();
  const named: "os-signal" = new OsSignalTask({ signals: undefined, onSignal: undefined }).name;
  return new OsSignalTask().received ?? named;
}

export const observers: ((event: LifecycleEvent) => void)[] = [logEvents(console), logEvents(logger)];

/** What each error has to say to a program. */
export function explain(error: unknown): string | readonly string[] | undefined {
  if (error instanceof StopReason) {
    const task: string | undefined = error.task;
    const code: string = error.code;
    return error.cause instanceof Error ? error.cause.message : (task ?? code);
  }
  if (error instanceof ManagerStoppedError) return String(error.cause);
  if (error instanceof TaskAlreadyStartedError) return error.task;
  if (error instanceof PanicError) return `${error.cause} ${error.origin ?? "task"}`;
  if (error instanceof ShutdownTimeoutError) return error.pending;
  if (error instanceof CleanupTimeoutError) return error.pending;
  if (error instanceof CleanupError) return error.errors.map((each: Error) => each.message);
  return undefined;
}

export const errors: Error[] = [
  new StopReason(),
  new StopReason("api/http", new Error("port in use")),
  new ManagerStoppedError("run a task", new StopReason()),
  new TaskAlreadyStartedError("os-signal"),
  new PanicError("oops"),
  new PanicError(undefined, "unhandledRejection"),
  new ShutdownTimeoutError(20_000, ["api/http"]),
  new CleanupTimeoutError(5_000, ["close"]),
  new CleanupError([new Error("close")]),
];

/** An event is told apart by its type; to forget one is an error of the compiler. */
function observe(event: LifecycleEvent): void {
  switch (event.type) {
    case "task-started":
      return note(event.manager, event.task, event.kind satisfies TaskKind);
    case "task-ended":
      return note(event.task, event.kind, event.outcome satisfies TaskOutcome, event.error?.message, event.elapsed);
    case "stopping":
      return note(event.manager, explain(event.reason), ...event.pending);
    case "shutdown-timed-out":
    case "cleanup-timed-out":
      return note(event.manager, event.error.message, ...event.pending);
    case "cleanup-ended":
      return note(event.manager, event.hook, event.error?.message, event.elapsed.toFixed());
    case "stopped":
      return note(event.manager, event.elapsed, ...event.failures.map((failure) => failure.source));
    case "action-failed":
      return note(event.task, event.error.message);
    case "task-restarting":
      return note(event.task, event.attempt.toFixed(), event.delay.toFixed(), event.error?.message);
    case "task-restarted":
      return note(event.task, event.attempt.toFixed());
    case "task-healthy":
      return note(event.task);
    case "task-gave-up":
      return note(event.task, event.restarts.toFixed(), event.error?.message);
    case "service-state":
      return note(event.task, event.service, event.from, event.to);
    case "service-failed":
      return note(event.task, event.service, event.phase, event.error.message);
    case "health-changed":
      return note(event.component, event.from, event.to, event.detail?.toUpperCase());
    case "health-removed":
      return note(event.component);
    case "http-drained":
      return note(event.task, event.requests.toFixed(), event.destroyed.toFixed(), event.elapsed.toFixed());
    case "child-started":
    case "child-stop-timed-out":
    case "upgrade-started":
    case "upgrade-ready":
      return note(event.task, event.pid.toFixed());
    case "child-exited":
      return note(event.task, event.pid.toFixed(), event.exitCode?.toFixed(), event.signal?.toLowerCase());
    case "upgrade-failed":
      return note(event.task, event.pid?.toFixed(), event.error.message);
    default:
      return event satisfies never;
  }
}

function note(...what: readonly unknown[]): void {
  console.log(what.length, ...what);
}

export const kinds: Record<TaskKind, number> = { main: 1, ephemeral: 2, background: 3 };
export const outcomes: Record<TaskOutcome, number> = { returned: 1, failed: 2, cancelled: 3, skipped: 4 };
