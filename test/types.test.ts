import { type LifecycleEvent, type Logger, logEvents, Manager, OsSignalTask, type Task, type TaskLike } from "allstop";
import { type GroupOptions, GroupTask } from "allstop/group";
import {
  type ComponentHealth,
  Health,
  type HealthComponent,
  type HealthComponentOptions,
  type HealthOptions,
  type HealthSnapshot,
  type HealthStatus,
  type HealthSubscribeOptions,
  type HealthWaitOptions,
} from "allstop/health";
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
import {
  type Service,
  ServiceGroup,
  type ServiceGroupOptions,
  type ServicePhase,
  type ServiceState,
  ServiceTimeoutError,
} from "allstop/services";
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
interface ServiceTold extends Told<"service-state"> {
  readonly service: string;
  readonly from: ServiceState;
  readonly to: ServiceState;
}
interface ServiceFailed extends Told<"service-failed"> {
  readonly service: string;
  readonly phase: ServicePhase;
  readonly error: Error;
}
interface HealthChanged {
  readonly type: "health-changed";
  readonly component: string;
  readonly from: HealthStatus;
  readonly to: HealthStatus;
  readonly detail?: string;
}
interface HealthRemoved {
  readonly type: "health-removed";
  readonly component: string;
}

test("an event of services or of health is known by its type, and has a service and a task, or a component", () => {
  expectTypeOf<EventOfType<"service-state">>().branded.toEqualTypeOf<ServiceTold>();
  expectTypeOf<EventOfType<"service-failed">>().branded.toEqualTypeOf<ServiceFailed>();
  expectTypeOf<EventOfType<"health-changed">>().branded.toEqualTypeOf<HealthChanged>();
  expectTypeOf<EventOfType<"health-removed">>().branded.toEqualTypeOf<HealthRemoved>();
  const describeEvent = (event: LifecycleEvent): string => {
    // @ts-expect-error Not every event has a component.
    void event.component;
    if (event.type === "service-failed") return `${event.task} ${event.service} ${event.phase} ${event.error.message}`;
    // @ts-expect-error What is removed has no status.
    if (event.type === "health-removed") void event.to;
    return event.type === "health-changed" ? `${event.component}: ${event.to} ${event.detail?.trim()}` : event.type;
  };
  const error = new Error("no");
  const failed = { type: "service-failed", task: "api/services", service: "db", phase: "init", error } as const;
  expect(describeEvent(failed)).toBe("api/services db init no");
  const changed = { type: "health-changed", component: "db", from: "healthy", to: "degraded" } as const;
  expect(describeEvent(changed)).toBe("db: degraded undefined");
});

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
    // @ts-expect-error An unknown option is a type error, and only that.
    () => new ServiceGroup([], { timeout: 5 }),
    // @ts-expect-error A service has no stop: it hears of it by its signal.
    () => new ServiceGroup([{ name: "db", stop: async () => {} }]),
    // @ts-expect-error An unknown option is a type error, and only that.
    () => new Health({ timeouts: 5 }),
    // @ts-expect-error An unknown option is a type error, and only that.
    () => new Health().component("db", { name: "db" }),
    // @ts-expect-error An unknown option is a type error, and only that.
    () => new Health().subscribe(undefined, () => {}, { names: ["db"] }),
    // @ts-expect-error An unknown option is a type error, and only that.
    () => new Health().waitUntil("starting", { timeout: 5, signal: AbortSignal.abort() }).catch(() => {}),
  ];
  for (const create of unknown) expect(create).not.toThrow();
});

test("an argument or option of a battery, if it has the wrong type, does not compile", async () => {
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
    // @ts-expect-error A group has stages.
    () => new ServiceGroup(),
    // @ts-expect-error One service is a list of one.
    () => new ServiceGroup({ name: "db" }),
    // @ts-expect-error A service is an object, which a function is not.
    () => new ServiceGroup([async () => {}]),
    // @ts-expect-error The name of a group is an option.
    () => new ServiceGroup("services", []),
    // @ts-expect-error A name is a string.
    () => new ServiceGroup([], { name: 5 }),
    // @ts-expect-error Durations are milliseconds.
    () => new ServiceGroup([], { stopTimeout: "15s" }),
    // @ts-expect-error Whoever is told is a function.
    () => new ServiceGroup([], { onEvent: "error" }),
    // @ts-expect-error Durations are milliseconds.
    () => new Health({ interval: "30s" }),
    // @ts-expect-error A name is a string.
    () => new Health({ name: 5 }),
    // @ts-expect-error A component has a name.
    () => new Health().component(),
    // @ts-expect-error A component has a name.
    () => new Health().component({ check: () => {} }),
    // @ts-expect-error A check is a function.
    () => new Health().component("db", { check: Promise.resolve() }),
    // @ts-expect-error Whether it is critical is a boolean.
    () => new Health().component("db", { critical: "yes" }),
    // @ts-expect-error There are four statuses.
    () => new Health().component("db").report("fine"),
    // @ts-expect-error The names come first, also when there are none.
    () => new Health().subscribe(() => {}),
  ];
  for (const create of wrong) expect(create).toThrow();
  // @ts-expect-error A policy decides at once.
  void new RestartTask(async () => {}, { policy: async () => true });
  // @ts-expect-error A delay is a number.
  void new RestartTask(async () => {}, { delay: () => "1s" });
  // @ts-expect-error A task that is restarted returns a promise.
  void new RestartTask(() => 3);
  // @ts-expect-error A run returns a promise: nobody could tell when it has ended.
  void new ServiceGroup([{ run() {} }]);
  // @ts-expect-error A detail is a text.
  void new Health().component("db").report("unhealthy", new Error("no"));
  // @ts-expect-error There are four statuses.
  await expect(new Health().waitUntil("fine")).rejects.toThrow(TypeError);
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
  const startTimeouts = { initTimeout: undefined, readyTimeout: undefined };
  const stopTimeouts = { stopTimeout: undefined, shutdownTimeout: undefined, finalizeTimeout: undefined };
  const services: ServiceGroupOptions = { name: undefined, ...startTimeouts, ...stopTimeouts, onEvent: undefined };
  const times = { interval: undefined, timeout: undefined };
  const health: HealthOptions = { name: undefined, ...times, onEvent: undefined };
  const component: HealthComponentOptions = { check: undefined, ...times, critical: undefined, dependsOn: undefined };
  const subscription: HealthSubscribeOptions = { signal: undefined };
  const waiting: HealthWaitOptions = { signal: undefined, names: undefined };
  using triggered = new SignalTriggerTask(() => {}, trigger);
  const tasks: Task[] = [
    new LoopTask(() => {}, loop),
    new PollTask(() => {}, poll),
    triggered,
    new RestartTask(async function db() {}, restart),
    new GroupTask("group", () => {}, group),
    new ControlledTask(undefined, controlled),
    new ServiceGroup([{ name: undefined, ephemeral: undefined }], services),
    new Health(health),
  ];
  const names = ["loop", "poll", "signal-trigger", "db", "group", "controlled", "services", "health"];
  expect(tasks.map((task) => task.name)).toEqual(names);
  const checked = new Health(health);
  checked.component("db", component);
  const listener = vi.fn();
  checked.subscribe(undefined, listener, subscription);
  void checked.waitUntil("healthy", waiting);
  checked.component("cache").report("healthy", undefined);
  expect(listener.mock.lastCall).toEqual([checked.snapshot()]);
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

test("what a service is, and what a ServiceGroup gives, is typed", async () => {
  type States = "pending" | "initializing" | "initialized" | "starting" | "running" | "stopping" | "stopped" | "failed";
  expectTypeOf<ServiceState>().toEqualTypeOf<States>();
  expectTypeOf<ServicePhase>().toEqualTypeOf<"init" | "run" | "ready" | "stop" | "finalize">();
  expectTypeOf<ServiceTimeoutError>().toExtend<Error & { readonly service: string; readonly phase: ServicePhase }>();
  expectTypeOf<Task>().toExtend<Service>();
  expectTypeOf<GroupTask | RestartTask | LoopTask | PollTask | SignalTriggerTask | Health>().toExtend<Service & Task>();
  expectTypeOf<ServiceGroup>().toExtend<Service & Task>();
  expectTypeOf<ServiceGroup["failures"]>().toEqualTypeOf<Manager["failures"]>();
  expectTypeOf<ServiceGroup["states"]>().toEqualTypeOf<Readonly<Record<string, ServiceState>>>();
  expectTypeOf<ServiceGroup["ready"]>().toEqualTypeOf<(signal?: AbortSignal) => Promise<void>>();
  expectTypeOf<ServiceGroup["run"]>().toEqualTypeOf<(signal: AbortSignal) => Promise<void>>();
  type Stages = ConstructorParameters<typeof ServiceGroup>[0];
  expectTypeOf<Stages>().toEqualTypeOf<readonly (Service | readonly Service[])[]>();
  expectTypeOf<Required<Service>["init" | "ready"]>().toEqualTypeOf<(signal: AbortSignal) => unknown>();
  expectTypeOf<Required<Service>["run"]>().toEqualTypeOf<(signal: AbortSignal) => PromiseLike<unknown>>();
  expectTypeOf<Required<Service>["finalize"]>().toEqualTypeOf<() => unknown>();

  class Database implements Service {
    init(): string {
      return "connected";
    }
    finalize(): void {}
  }
  class Server implements Service {
    readonly ephemeral = true;
    async run(signal: AbortSignal): Promise<boolean> {
      return signal.aborted;
    }
    ready(): boolean {
      return true;
    }
  }
  const stages = [new Database(), [new Server(), {}, new ServiceGroup([])], []] as const;
  const group = new ServiceGroup(stages);
  await Promise.all([group.run(AbortSignal.abort()), expect(group.ready()).rejects.toThrow()]);
  expect(group.states).toEqual({ Database: "pending", Server: "pending", service: "pending", services: "pending" });
  // @ts-expect-error The states are read only.
  expect(() => (group.states = {})).toThrow(TypeError);
  // @ts-expect-error The failures are read only.
  expect(() => (group.failures = [])).toThrow(TypeError);
  // @ts-expect-error So is each of the states.
  group.states["Database"] = "running";
  // @ts-expect-error So is each of the failures.
  group.failures[0] = undefined;
  expect([group.states["Database"], group.failures]).toEqual(["pending", []]);
});

test("how healthy something is, and what Health gives, is typed", () => {
  expectTypeOf<HealthStatus>().toEqualTypeOf<"healthy" | "degraded" | "starting" | "unhealthy">();
  interface One {
    readonly status: HealthStatus;
    readonly detail?: string;
    readonly since: number;
  }
  expectTypeOf<ComponentHealth>().toEqualTypeOf<One>();
  interface Whole {
    readonly status: HealthStatus;
    readonly components: Readonly<Record<string, ComponentHealth>>;
  }
  expectTypeOf<HealthSnapshot>().toEqualTypeOf<Whole>();
  expectTypeOf<Health["snapshot"]>().toEqualTypeOf<() => HealthSnapshot>();
  expectTypeOf<Health["component"]>().returns.toEqualTypeOf<HealthComponent>();
  expectTypeOf<Health["subscribe"]>().parameter(0).toEqualTypeOf<readonly string[] | undefined>();
  expectTypeOf<Health["subscribe"]>().parameter(1).toEqualTypeOf<(snapshot: HealthSnapshot) => void>();
  expectTypeOf<Health["subscribe"]>().returns.toEqualTypeOf<() => void>();
  expectTypeOf<Health["waitUntil"]>().parameter(0).toEqualTypeOf<HealthStatus>();
  expectTypeOf<Health["waitUntil"]>().returns.toEqualTypeOf<Promise<void>>();
  expectTypeOf<Required<HealthComponentOptions>["check"]>().toEqualTypeOf<
    ((signal: AbortSignal) => unknown) | undefined
  >();
  expectTypeOf<HealthComponent>().toExtend<Disposable & { readonly status: HealthStatus }>();
  expectTypeOf<Health>().toExtend<Task>();

  const health = new Health();
  using db = health.component("db", { check: async () => true, dependsOn: [] as const });
  // @ts-expect-error It may be that there is no such component.
  expect(() => health.snapshot().components["cache"].status).toThrow(TypeError);
  // @ts-expect-error A detail is there only if there is one to tell.
  const detail: string | null = health.snapshot().components["db"]?.detail;
  expect(detail).toBe(undefined);
  // @ts-expect-error A status is reported, not set.
  expect(() => (db.status = "healthy")).toThrow(TypeError);
  expect(db.status).toBe("starting");
});
