import { type LifecycleEvent, type Logger, logEvents, Manager, OsSignalTask, type Task, type TaskLike } from "allstop";
import { type GroupOptions, GroupTask } from "allstop/group";
import {
  type Action,
  type LoopOptions,
  LoopTask,
  type PollOptions,
  PollTask,
  type RepeatOptions,
  type SignalTriggerOptions,
  SignalTriggerTask,
} from "allstop/repeat";
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
import { type ControlledOptions, ControlledTask, EventLog, type EventOfType } from "allstop/testing";
import { expect, expectTypeOf, test, vi } from "vitest";

// What must not compile is held by the compiler: `npm run check` fails if a @ts-expect-error finds nothing to expect.

test("a task must return a promise", async () => {
  const manager = new Manager();
  const silent = { run(): void {} };
  const tasks: (() => void)[] = [
    // @ts-expect-error A function that returns a value is no task: nobody could tell when it has ended.
    () => manager.run(() => 3),
    // @ts-expect-error Nor is one that returns nothing.
    () => manager.run(() => {}),
    // @ts-expect-error Nor is an object whose run returns nothing.
    () => manager.runEphemeral(silent),
    // @ts-expect-error Nor is one without a run.
    () => manager.run({ start: async () => {} }),
    // @ts-expect-error A promise is no task: it was started by somebody else, and nobody can tell it to stop.
    () => manager.runBackground(Promise.resolve()),
    // @ts-expect-error A task gets one argument, its signal.
    () => manager.run(async (signal: AbortSignal, more: string) => `${signal.aborted}${more}`),
    // @ts-expect-error A name is a string.
    () => manager.run({ name: 5, run: async () => {} }),
  ];
  expect(tasks.length).toBe(7);
  expect(() => tasks[3]?.()).toThrow(TypeError);
  expect(() => tasks[4]?.()).toThrow(TypeError);
  manager.run(...[async () => {}, () => ({ then: () => null as never }), { run: async () => 5 }].slice(0, 1));
  await manager.stop();
});

test("an unknown option, or one of the wrong type, does not compile", () => {
  // @ts-expect-error An unknown option is a type error, and only that.
  expect(() => new Manager({ timeout: 5 })).not.toThrow();
  // @ts-expect-error Durations are milliseconds.
  expect(() => new Manager({ shutdownTimeout: "20s" })).toThrow(TypeError);
  // @ts-expect-error An AbortController is not its signal.
  expect(() => new Manager({ signal: new AbortController() })).toThrow(TypeError);
  // @ts-expect-error A name is an option. (Only the compiler knows what options are.)
  expect(() => new Manager("api")).not.toThrow();
  // @ts-expect-error One signal is a list of one.
  expect(() => new OsSignalTask({ signals: "SIGINT" })).toThrow(TypeError);
  // @ts-expect-error An unknown option is a type error, and only that.
  using signals = new OsSignalTask({ signals: ["SIGUSR2"], name: "x" });
  expect(signals.name).toBe("os-signal");
  expect(new Manager({ name: undefined, limit: undefined, signal: undefined, onEvent: undefined })).toBeTruthy();
});

test("a hook is a function, and what is read cannot be written", async () => {
  const manager = new Manager();
  // @ts-expect-error A promise is no hook.
  expect(() => manager.cleanup(Promise.resolve())).toThrow(TypeError);
  // @ts-expect-error The signal is read only.
  const { signal }: { signal: undefined } = manager;
  expect(signal).toBeInstanceOf(AbortSignal);
  // @ts-expect-error Pending is read only.
  expect(() => (manager.pending = [])).toThrow(TypeError);
  // @ts-expect-error Failures cannot be added.
  expect(manager.failures.push({ source: "x", error: new Error("x") })).toBe(1);
  expect(manager.failures).toEqual([]);
  await manager.stop();
});

test("a logger has four methods", () => {
  // @ts-expect-error Three of them are missing.
  expect(() => logEvents({ info: () => {} })).toThrow(TypeError);
  expectTypeOf(console).toExtend<Logger>();
});

test("a task is a class, an object or a function, whose result is ignored", async () => {
  class Consumer implements Task {
    async run(signal: AbortSignal): Promise<boolean> {
      return signal.aborted;
    }
  }
  const tasks: TaskLike[] = [new Consumer(), { name: "x", run: async () => 5 }, async () => {}, () => Promise.all([])];
  const manager = new Manager();
  manager.runEphemeral(...tasks);
  await manager.wait();
  expect(manager.failures).toEqual([]);
});

test("an event is known by its type", async () => {
  const seen = vi.fn();
  const onEvent = (event: LifecycleEvent): void => {
    // @ts-expect-error Not every event has a task.
    void event.task;
    if (event.type === "task-ended") {
      expectTypeOf(event.outcome).toEqualTypeOf<"returned" | "failed" | "cancelled" | "skipped">();
      expectTypeOf(event.error).toEqualTypeOf<Error | undefined>();
      seen(event.outcome);
    }
  };
  const manager = new Manager({ onEvent });
  manager.run(async () => {});
  await manager.wait();
  expect(seen.mock.calls).toEqual([["returned"]]);
});

interface Told<Type extends string> {
  readonly type: Type;
  readonly task: string;
}
interface ActionFailed extends Told<"action-failed"> {
  readonly error: Error;
}
interface Restarting extends Told<"task-restarting"> {
  readonly attempt: number;
  readonly delay: number;
  readonly error?: Error;
}
interface Restarted extends Told<"task-restarted"> {
  readonly attempt: number;
}
interface GaveUp extends Told<"task-gave-up"> {
  readonly restarts: number;
  readonly error?: Error;
}

test("an event of a battery is known by its type, and has a task but no manager", () => {
  expectTypeOf<EventOfType<"action-failed">>().branded.toEqualTypeOf<ActionFailed>();
  expectTypeOf<EventOfType<"task-restarting">>().branded.toEqualTypeOf<Restarting>();
  expectTypeOf<EventOfType<"task-restarted">>().branded.toEqualTypeOf<Restarted>();
  expectTypeOf<EventOfType<"task-healthy">>().branded.toEqualTypeOf<Told<"task-healthy">>();
  expectTypeOf<EventOfType<"task-gave-up">>().branded.toEqualTypeOf<GaveUp>();
  const describeEvent = (event: LifecycleEvent): string => {
    // @ts-expect-error Not every event has a manager.
    void event.manager;
    if (event.type === "task-restarting") return `${event.task}: ${event.attempt.toFixed()} ${event.delay.toFixed()}`;
    return event.type === "action-failed" ? `${event.task}: ${event.error.message}` : event.type;
  };
  expect(describeEvent({ type: "action-failed", task: "poll", error: new Error("no") })).toBe("poll: no");
  expect(describeEvent({ type: "task-restarting", task: "db", attempt: 1, delay: 10 })).toBe("db: 1 10");
});

test("an unknown option of a battery does not compile", () => {
  const action: Action = () => {};
  const unknown = [
    // @ts-expect-error An unknown option is a type error, and only that.
    () => new LoopTask(action, { interval: 5 }),
    // @ts-expect-error An unknown option is a type error, and only that.
    () => new PollTask(action, { interval: 5, delay: 5 }),
    // @ts-expect-error An unknown option is a type error, and only that.
    () => new SignalTriggerTask(action, { signals: ["SIGUSR2"], onSignal: () => {} })[Symbol.dispose](),
    // @ts-expect-error An unknown option is a type error, and only that.
    () => new RestartTask(async () => {}, { name: "db" }),
    // @ts-expect-error An unknown option is a type error, and only that.
    () => backoff({ initial: 5 }),
    // @ts-expect-error The name of a group is its first argument.
    () => new GroupTask("group", () => {}, { name: "group" }),
    // @ts-expect-error Its parent is the manager that runs it.
    () => new GroupTask("group", () => {}, { signal: new AbortController().signal }),
    // @ts-expect-error An unknown option is a type error, and only that.
    () => new ControlledTask("controlled", { onEvent: () => {} }),
  ];
  for (const create of unknown) expect(create).not.toThrow();
});

test("an argument or option of a battery, if it has the wrong type, does not compile", () => {
  const action: Action = () => {};
  const wrong = [
    // @ts-expect-error A poll has an interval.
    () => new PollTask(action, {}),
    // @ts-expect-error A poll has an interval.
    () => new PollTask(action),
    // @ts-expect-error Durations are milliseconds.
    () => new LoopTask(action, { delay: "1s" }),
    // @ts-expect-error There are two ways to treat an error.
    () => new LoopTask(action, { onError: "ignore" }),
    // @ts-expect-error One signal is a list of one.
    () => new SignalTriggerTask(action, { signals: "SIGHUP" }),
    // @ts-expect-error An action is a function.
    () => new LoopTask({ run: async () => {} }),
    // @ts-expect-error A number is no task.
    () => new RestartTask(5),
    // @ts-expect-error There are three policies by name.
    () => new RestartTask(async () => {}, { policy: "sometimes" }),
    // @ts-expect-error A count is a number.
    () => new RestartTask(async () => {}, { maxRestarts: "3" }),
    // @ts-expect-error A group has a name.
    () => new GroupTask(() => {}),
    // @ts-expect-error A group is filled by a function.
    () => new GroupTask("group"),
    // @ts-expect-error Whether it ignores the stop is a boolean.
    () => new ControlledTask("controlled", { ignoreAbort: "yes" }),
    // @ts-expect-error A name is a string.
    () => new ControlledTask({ ignoreAbort: true }),
  ];
  for (const create of wrong) expect(create).toThrow();
  // @ts-expect-error A policy decides at once.
  void new RestartTask(async () => {}, { policy: async () => true });
  // @ts-expect-error A delay is a number.
  void new RestartTask(async () => {}, { delay: () => "1s" });
  // @ts-expect-error A task that is restarted returns a promise.
  void new RestartTask(() => 3);
});

test("an option of a battery may be undefined: it takes its default", () => {
  const repeat = { name: undefined, onError: undefined, onEvent: undefined } satisfies RepeatOptions;
  const loop: LoopOptions = { ...repeat, delay: undefined, initialDelay: undefined };
  const poll: PollOptions = { ...repeat, interval: 5, runAtStart: undefined };
  const trigger: SignalTriggerOptions = { ...repeat, signals: undefined };
  const limits = { maxRestarts: undefined, within: undefined, healthyAfter: undefined };
  const restart: RestartOptions = { ...limits, policy: undefined, delay: undefined, onEvent: undefined };
  const backoffOptions: BackoffOptions = { base: undefined, factor: undefined, max: undefined, jitter: undefined };
  const timeouts = { shutdownTimeout: undefined, cleanupTimeout: undefined };
  const group: GroupOptions = { ...timeouts, limit: undefined, onEvent: undefined };
  const controlled: ControlledOptions = { ignoreAbort: undefined };
  using triggered = new SignalTriggerTask(() => {}, trigger);
  const tasks: Task[] = [
    new LoopTask(() => {}, loop),
    new PollTask(() => {}, poll),
    triggered,
    new RestartTask(async function db() {}, restart),
    new GroupTask("group", () => {}, group),
    new ControlledTask(undefined, controlled),
  ];
  expect(tasks.map((task) => task.name)).toEqual(["loop", "poll", "signal-trigger", "db", "group", "controlled"]);
  expect(backoff(backoffOptions)(1)).toBeGreaterThan(0);
  // @ts-expect-error There is no interval by default.
  expect(() => new PollTask(() => {}, { interval: undefined })).toThrow(TypeError);
});

test("what a battery takes and gives is typed", () => {
  expectTypeOf<Action>().toEqualTypeOf<(signal: AbortSignal) => unknown>();
  expectTypeOf<RunEnd>().toEqualTypeOf<{ readonly outcome: "returned" | "failed"; readonly error?: Error }>();
  expectTypeOf<RestartStatus>().toEqualTypeOf<"stopped" | "running" | "restarting">();
  expectTypeOf<"on-failure" | "always" | "never" | ((end: RunEnd) => boolean)>().toEqualTypeOf<RestartPolicy>();
  expectTypeOf<number | ((attempt: number, error: Error | undefined) => number)>().toEqualTypeOf<RestartDelay>();
  expectTypeOf(backoff()).toExtend<RestartDelay>();
  expectTypeOf<RestartTask>().toHaveProperty("status").toEqualTypeOf<RestartStatus>();
  expectTypeOf<RestartTask>().toHaveProperty("restarts").toEqualTypeOf<number>();
  expectTypeOf<RestartLimitError>().toExtend<Error & { readonly task: string; readonly restarts: number }>();
  expectTypeOf<SignalTriggerTask>().toExtend<Disposable>();
  expectTypeOf<GroupTask["failures"]>().toEqualTypeOf<Manager["failures"]>();
  expectTypeOf<ConstructorParameters<typeof GroupTask>[1]>().toEqualTypeOf<(manager: Manager) => unknown>();
  expectTypeOf<EventLog["observe"]>().toEqualTypeOf<(event: LifecycleEvent) => void>();

  const restarting = new RestartTask(async () => {});
  // @ts-expect-error The status is read only.
  expect(() => (restarting.status = "running")).toThrow(TypeError);
  // @ts-expect-error The count is read only.
  expect(() => (restarting.restarts = 0)).toThrow(TypeError);
});
