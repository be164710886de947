import { getEventListeners } from "node:events";
import {
  type LifecycleEvent,
  logEvents,
  Manager,
  type ManagerOptions,
  StopReason,
  type Task,
  TaskAlreadyStartedError,
} from "allstop";
import { type GroupOptions, GroupTask } from "allstop/group";
import { Health } from "allstop/health";
import { LoopTask, PollTask, SignalTriggerTask } from "allstop/repeat";
import { RestartLimitError, RestartTask } from "allstop/restart";
import { ServiceGroup } from "allstop/services";
import { ControlledTask, EventLog } from "allstop/testing";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { useFakeTime } from "./support/fake-time.ts";
import { useNoUnhandledRejections } from "./support/process-events.ts";
import { settle } from "./support/settle.ts";
import {
  actionFailed,
  cleaned,
  ended,
  gaveUp,
  goes,
  restarted,
  restarting,
  started,
  stopped,
  stopping,
  told,
} from "./support/told.ts";
import { hangs } from "./support/ways.ts";

useNoUnhandledRejections();
useFakeTime();

/** Stops what a test runs by hand; whatever that is, it must leave no listener on the signal. */
let outer: AbortController;

beforeEach(() => {
  outer = new AbortController();
});

afterEach(() => {
  expect(getEventListeners(outer.signal, "abort")).toEqual([]);
  expect(process.listenerCount("SIGUSR2")).toBe(0);
});

const error = new Error("no");
const fails = async (): Promise<never> => {
  throw error;
};

describe("groups that restart", () => {
  test("new RestartTask(new GroupTask(...)) restarts all of a group when one member fails", async () => {
    const log = new EventLog();
    const manager = new Manager({ name: "api", onEvent: log.observe });
    const members: ControlledTask[] = [];
    const fill = (child: Manager): void => {
      members.splice(0, 2, new ControlledTask("a"), new ControlledTask("b"));
      child.run(...members);
      child.cleanup(function close() {});
    };
    manager.run(new RestartTask(new GroupTask("group", fill), { delay: 10 }));
    manager.cleanup(function closeAll() {});
    for (let run = 1; run <= 2; run++) {
      members[0]?.fail(error);
      await vi.advanceTimersByTimeAsync(10);
    }
    const reason = new Error("enough");
    await manager.stop(reason);

    const [a, b] = ["api/group/a", "api/group/b"];
    const failed = [
      started(a),
      started(b),
      ended(a, error),
      stopping("api/group", new StopReason(a, error), b),
      ended(b),
      cleaned("api/group", "close"),
      stopped("api/group", { source: a, error }),
    ];
    expect(told(log)).toStrictEqual([
      started("api/group"),
      ...failed,
      restarting("api/group", 1, 10, error),
      restarted("api/group", 1),
      ...failed,
      restarting("api/group", 2, 10, error),
      restarted("api/group", 2),
      started(a),
      started(b),
      stopping("api", reason, "api/group"),
      stopping("api/group", reason, a, b),
      ended(a),
      ended(b),
      cleaned("api/group", "close"),
      stopped("api/group"),
      ended("api/group"),
      cleaned("api", "closeAll"),
      stopped("api"),
    ]);
  });

  test("a group that stops by itself is not restarted, unless the policy is always", async () => {
    for (const policy of ["on-failure", "always"] as const) {
      const fill = vi.fn((manager: Manager) => manager.run(async () => {}));
      const manager = new Manager();
      manager.runEphemeral(new RestartTask(new GroupTask("group", fill), { policy, delay: 10, maxRestarts: 2 }));
      const end = manager.wait().catch((error: unknown) => error);
      await vi.advanceTimersByTimeAsync(100);
      expect(fill.mock.calls.length).toBe(policy === "always" ? 3 : 1);
      expect(await end).toEqual(policy === "always" ? new RestartLimitError("group", 2) : undefined);
    }
  });

  test("a group is restarted, too, when its function fails, after the hooks that it has given", async () => {
    const closes = vi.fn();
    const fill = vi.fn(async (manager: Manager) => {
      manager.cleanup(closes);
      await null;
      if (fill.mock.calls.length < 3) throw error;
      expect(closes.mock.calls.length).toBe(2);
      manager.run(new ControlledTask("x"));
    });
    const group = new GroupTask("group", fill);
    const run = new RestartTask(group, { delay: 10 }).run(outer.signal);
    await vi.advanceTimersByTimeAsync(20);
    expect(fill.mock.calls.length).toBe(3);
    expect(group.failures).toEqual([]);
    outer.abort();
    await run;
    expect(closes.mock.calls.length).toBe(3);
  });

  test("a RestartTask in a GroupTask in a RestartTask: the inner gives up, the outer begins anew", async () => {
    const log = new EventLog();
    const manager = new Manager({ name: "api", onEvent: log.observe });
    const x = vi.fn(fails);
    const inner = new RestartTask({ name: "x", run: x }, { maxRestarts: 1, delay: 5 });
    const group = new GroupTask("group", (child) => child.run(inner));
    manager.run(new RestartTask(group, { maxRestarts: 1, delay: 10 }));
    await vi.advanceTimersByTimeAsync(20);
    const innerLimit = new RestartLimitError("api/group/x", 1, error);
    const outerLimit = new RestartLimitError("api/group", 1, innerLimit);
    await expect(manager.wait()).rejects.toStrictEqual(outerLimit);
    expect(x.mock.calls.length).toBe(4);

    const failed = [
      started("api/group/x"),
      restarting("api/group/x", 1, 5, error),
      restarted("api/group/x", 1),
      gaveUp("api/group/x", 1, error),
      ended("api/group/x", innerLimit),
      stopping("api/group", new StopReason("api/group/x", innerLimit)),
      stopped("api/group", { source: "api/group/x", error: innerLimit }),
    ];
    expect(told(log)).toStrictEqual([
      started("api/group"),
      ...failed,
      restarting("api/group", 1, 10, innerLimit),
      restarted("api/group", 1),
      ...failed,
      gaveUp("api/group", 1, innerLimit),
      ended("api/group", outerLimit),
      stopping("api", new StopReason("api/group", outerLimit)),
      stopped("api", { source: "api/group", error: outerLimit }),
    ]);
  });

  test.each([
    ["while it runs", "waits", 0],
    ["in the inner delay", "fails", 2],
    ["in the outer delay", "fails", 20],
  ])("a stop %s ends a restarted group of a restarted loop at once, and nothing restarts", async (_, way, at) => {
    const signals: AbortSignal[] = [];
    const action = vi.fn((signal: AbortSignal) => {
      signals.push(signal);
      return way === "fails" ? fails() : new ControlledTask().run(signal);
    });
    const inner = new RestartTask(new LoopTask(action), { maxRestarts: 1, delay: 10 });
    const group = new GroupTask("group", (manager) => manager.run(inner));
    const task = new RestartTask(group, { delay: 100 });
    const reason = { because: "of this" };
    const run = task.run(outer.signal);
    await vi.advanceTimersByTimeAsync(at);
    const calls = action.mock.calls.length;
    expect(calls).toBe(at < 10 ? 1 : 2);
    outer.abort(reason);
    await (at < 10 ? run : run.catch((thrown: unknown) => expect(thrown).toBeInstanceOf(RestartLimitError)));
    await vi.advanceTimersByTimeAsync(1_000);
    expect(action.mock.calls.length).toBe(calls);
    expect([task.status, inner.status]).toEqual(["stopped", "stopped"]);
    if (way === "waits") expect(signals[0]?.reason).toBe(reason);
  });
});

describe("groups in groups", () => {
  /** Three groups, one in another, each with a hook of its own; x is in the innermost, y in the one around it. */
  function nest(
    options: ManagerOptions,
    groupOptions?: GroupOptions,
  ): { manager: Manager; groups: GroupTask[]; x: ControlledTask } {
    const x = new ControlledTask("x");
    const c = new GroupTask("c", (manager) => {
      manager.cleanup(function closeC() {});
      manager.run(x);
    }, groupOptions);
    const b = new GroupTask("b", (manager) => {
      manager.cleanup(function closeB() {});
      manager.run(c, new ControlledTask("y"));
    }, groupOptions);
    const a = new GroupTask("a", (manager) => {
      manager.cleanup(function closeA() {});
      manager.run(b);
    }, groupOptions);
    const manager = new Manager(options);
    manager.cleanup(function closeAll() {});
    manager.run(a);
    return { manager, groups: [a, b, c], x };
  }

  const starts = [started("a"), started("a/b"), started("a/b/c"), started("a/b/c/x"), started("a/b/y")];

  test("a GroupTask three deep stops inside out, hooks of the inner before hooks of the outer", async () => {
    const log = new EventLog();
    const { manager, groups } = nest({ onEvent: log.observe });
    const reason = new Error("enough");
    await manager.stop(reason);
    expect(told(log)).toStrictEqual([
      ...starts,
      stopping("", reason, "a"),
      stopping("a", reason, "a/b"),
      stopping("a/b", reason, "a/b/c", "a/b/y"),
      stopping("a/b/c", reason, "a/b/c/x"),
      ended("a/b/c/x"),
      ended("a/b/y"),
      cleaned("a/b/c", "closeC"),
      stopped("a/b/c"),
      ended("a/b/c"),
      cleaned("a/b", "closeB"),
      stopped("a/b"),
      ended("a/b"),
      cleaned("a", "closeA"),
      stopped("a"),
      ended("a"),
      cleaned("", "closeAll"),
      stopped(""),
    ]);
    expect(groups.map((group) => group.failures)).toEqual([[], [], []]);
  });

  test.each([
    ["the outermost manager", false],
    ["all of them, and nothing is told twice", true],
  ])("a failure three deep goes from inside out, with the names a/b/c, as told to %s", async (_, all) => {
    const log = new EventLog();
    const options = { onEvent: log.observe };
    const { manager, groups, x } = nest(options, all ? options : undefined);
    x.fail(error);
    await expect(manager.wait()).rejects.toBe(error);
    expect(told(log)).toStrictEqual([
      ...starts,
      ended("a/b/c/x", error),
      stopping("a/b/c", new StopReason("a/b/c/x", error)),
      cleaned("a/b/c", "closeC"),
      stopped("a/b/c", { source: "a/b/c/x", error }),
      ended("a/b/c", error),
      stopping("a/b", new StopReason("a/b/c", error), "a/b/y"),
      ended("a/b/y"),
      cleaned("a/b", "closeB"),
      stopped("a/b", { source: "a/b/c", error }),
      ended("a/b", error),
      stopping("a", new StopReason("a/b", error)),
      cleaned("a", "closeA"),
      stopped("a", { source: "a/b", error }),
      ended("a", error),
      stopping("", new StopReason("a", error)),
      cleaned("", "closeAll"),
      stopped("", { source: "a", error }),
    ]);
    expect(groups.map((group) => group.failures)).toEqual([
      [{ source: "a/b", error }],
      [{ source: "a/b/c", error }],
      [{ source: "a/b/c/x", error }],
    ]);
    expect(manager.failures).toEqual([{ source: "a", error }]);
  });
});

describe("what repeats and restarts, in a group", () => {
  test("a PollTask beside a queue of jobs takes no place of the limit: each goes on as if it were alone", async () => {
    const manager = new Manager({ limit: 1 });
    const seen: string[] = [];
    const note = (what: string): void => void seen.push(`${what} ${performance.now() - startedAt}`);
    const startedAt = performance.now();
    const job = (name: string) => async () => {
      note(name);
      await new Promise((resolve) => setTimeout(resolve, 130));
    };
    manager.run(new PollTask(() => note("poll"), { interval: 100 }));
    manager.runEphemeral(job("a"), job("b"), job("c"));
    await vi.advanceTimersByTimeAsync(460);
    await manager.stop();
    expect(seen).toEqual(["a 0", "poll 100", "b 130", "poll 200", "c 260", "poll 300", "poll 400"]);
  });

  test("a PollTask as an ephemeral task takes one place until the stop, also between its ticks", async () => {
    const log = new EventLog();
    const manager = new Manager({ limit: 2, onEvent: log.observe });
    const poll = vi.fn();
    const jobs = ["a", "b"].map((name) => new ControlledTask(name));
    manager.runEphemeral(new PollTask(poll, { interval: 100 }), ...jobs);
    await vi.advanceTimersByTimeAsync(250);
    expect(told(log)).toStrictEqual([started("poll", "ephemeral"), started("a", "ephemeral")]);
    jobs[0]?.return();
    await jobs[1]?.started;
    jobs[1]?.return();
    const end = manager.wait();
    await vi.advanceTimersByTimeAsync(250);
    expect(poll.mock.calls.length).toBe(5);
    expect(manager.pending).toEqual(["poll"]);
    void manager.stop();
    await end;
  });

  test("a RestartTask as an ephemeral task keeps its place while it restarts; a clean end stops nothing", async () => {
    const log = new EventLog();
    const manager = new Manager({ name: "api", limit: 1, onEvent: log.observe });
    const job = vi.fn(async () => {
      if (job.mock.calls.length === 1) throw error;
    });
    manager.runEphemeral(new RestartTask({ name: "job", run: job }, { delay: 10 }), { name: "next", run: fails });
    await vi.advanceTimersByTimeAsync(9);
    expect(manager.pending).toEqual(["api/job", "api/next"]);
    await vi.advanceTimersByTimeAsync(1);
    await expect(manager.wait()).rejects.toBe(error);
    expect(told(log).slice(0, -2)).toStrictEqual([
      started("api/job", "ephemeral"),
      restarting("api/job", 1, 10, error),
      restarted("api/job", 1),
      ended("api/job", "returned", "ephemeral"),
      started("api/next", "ephemeral"),
      ended("api/next", error, "ephemeral"),
    ]);
  });

  test("a RestartTask as an ephemeral task: when it gives up, that stops the group", async () => {
    const manager = new Manager({ name: "api" });
    const other = new ControlledTask("other");
    manager.run(other);
    manager.runEphemeral(new RestartTask({ name: "job", run: fails }, { maxRestarts: 2, delay: 10 }));
    await vi.advanceTimersByTimeAsync(19);
    expect(manager.signal.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    const limit = new RestartLimitError("api/job", 2, error);
    expect((await other.started).reason).toStrictEqual(new StopReason("api/job", limit));
    await expect(manager.wait()).rejects.toStrictEqual(limit);
    expect(manager.failures).toEqual([{ source: "api/job", error: limit }]);
  });

  test("a LoopTask in a RestartTask begins anew after an action that failed, initial delay and all", async () => {
    const log = new EventLog();
    const manager = new Manager({ name: "api", onEvent: log.observe });
    const [times, startedAt] = [[] as number[], performance.now()];
    const action = (): void => {
      times.push(performance.now() - startedAt);
      if (times.length === 3) throw error;
    };
    const loop = new LoopTask(action, { name: "loop", initialDelay: 50, delay: 10 });
    manager.run(new RestartTask(loop, { delay: 100 }));
    await vi.advanceTimersByTimeAsync(235);
    await manager.stop(error);
    expect(times).toEqual([50, 60, 70, 220, 230]);
    expect(told(log)).toStrictEqual([
      started("api/loop"),
      restarting("api/loop", 1, 100, error),
      restarted("api/loop", 1),
      stopping("api", error, "api/loop"),
      ended("api/loop"),
      stopped("api"),
    ]);
  });

  test("a LoopTask that goes on after errors is not restarted, however often its action fails", async () => {
    const log = new EventLog();
    const manager = new Manager({ name: "api", onEvent: log.observe });
    const loop = new LoopTask(fails, { name: "loop", delay: 10, onError: "continue" });
    manager.run(new RestartTask(loop, { maxRestarts: 0 }));
    await vi.advanceTimersByTimeAsync(25);
    await manager.stop(error);
    const failed = actionFailed("api/loop", error);
    const end = [stopping("api", error, "api/loop"), ended("api/loop"), stopped("api")];
    expect(told(log)).toStrictEqual([started("api/loop"), failed, failed, failed, ...end]);
  });

  test("a SignalTriggerTask in a GroupTask listens in every run of that, and its listeners go with each", async () => {
    const reload = vi.fn(() => {
      if (reload.mock.calls.length === 1) throw error;
    });
    const once = new SignalTriggerTask(reload, { signals: ["SIGUSR2"] });
    for (const make of [() => once, () => new SignalTriggerTask(reload, { signals: ["SIGUSR2"] })]) {
      reload.mockClear();
      const group = new GroupTask("group", (child) => child.run(make()));
      const manager = new Manager();
      manager.run(new RestartTask(group, { delay: 10 }));
      process.emit("SIGUSR2");
      await vi.advanceTimersByTimeAsync(5);
      expect(group.failures).toEqual([{ source: "group/signal-trigger", error }]);
      expect(process.listenerCount("SIGUSR2")).toBe(0);
      await vi.advanceTimersByTimeAsync(5);
      expect(process.listenerCount("SIGUSR2")).toBe(1);
      for (let calls = 2; calls <= 3; calls++) {
        process.emit("SIGUSR2");
        await settle();
        expect(reload.mock.calls.length).toBe(calls);
      }
      await manager.stop();
      expect(process.listenerCount("SIGUSR2")).toBe(0);
    }
  });

  test("of deadlines that pass together the inner one is first: it names the culprit, its hooks before the outer", async () => {
    const hooks: string[] = [];
    const group = new GroupTask("group", (child) => {
      child.run({ name: "deaf", run: hangs });
      child.cleanup(() => hooks.push("inner"));
    });
    const log = new EventLog();
    const manager = new Manager({ name: "api", onEvent: log.observe });
    manager.run(group);
    manager.cleanup(() => hooks.push("outer"));
    const end = manager.stop();
    await vi.advanceTimersByTimeAsync(20_000);
    await expect(end).rejects.toMatchObject({ name: "ShutdownTimeoutError", pending: ["api/group/deaf"] });
    expect(hooks).toEqual(["inner", "outer"]);
    expect(await log.until("shutdown-timed-out")).toMatchObject({ manager: "api/group", pending: ["api/group/deaf"] });
  });

  test("a group that hangs is given up by the outer one at its own timeout, and named", async () => {
    const manager = new Manager({ name: "api", shutdownTimeout: 100 });
    const closes = vi.fn();
    manager.run(new GroupTask("group", (child) => child.run({ name: "deaf", run: hangs }), { shutdownTimeout: 1_000 }));
    manager.cleanup(closes);
    const end = manager.stop();
    await vi.advanceTimersByTimeAsync(100);
    await expect(end).rejects.toMatchObject({ name: "ShutdownTimeoutError", pending: ["api/group"] });
    expect(closes).toHaveBeenCalledOnce();
    await vi.advanceTimersByTimeAsync(900);
    expect(manager.failures.length).toBe(1);
  });
});

type OnEvent = (event: LifecycleEvent) => unknown;

/** A battery that tells of one thing when it runs, and then goes on until it is told to stop; and what it tells. */
interface Battery {
  readonly make: (name: string, onEvent?: OnEvent) => Task;
  readonly event: (task: string) => LifecycleEvent;
  /** What it tells of its stop. */
  readonly end?: (task: string) => LifecycleEvent[];
}

/** Whether that group tells it, of a service. */
function isOf(group: string, event: LifecycleEvent): boolean {
  return event.type === "service-state" && event.task === group;
}

const goesOn = { onError: "continue" } as const;
const batteries: Record<string, Battery> = {
  LoopTask: {
    make: (name, onEvent) => new LoopTask(fails, { name, onEvent, ...goesOn, delay: 1_000 }),
    event: (task) => actionFailed(task, error),
  },
  PollTask: {
    make: (name, onEvent) => new PollTask(fails, { name, onEvent, ...goesOn, interval: 1_000, runAtStart: true }),
    event: (task) => actionFailed(task, error),
  },
  SignalTriggerTask: {
    make(name, onEvent) {
      const task = new SignalTriggerTask(fails, { name, onEvent, ...goesOn, signals: ["SIGUSR2"] });
      // As the signal would, but only this one.
      process.listeners("SIGUSR2").at(-1)?.("SIGUSR2");
      return task;
    },
    event: (task) => actionFailed(task, error),
  },
  RestartTask: {
    make: (name, onEvent) => new RestartTask({ name, run: fails }, { onEvent, delay: 1_000 }),
    event: (task) => restarting(task, 1, 1_000, error),
  },
  ServiceGroup: {
    make(name, onEvent) {
      const db = { name: "db", init: (signal: AbortSignal) => new ControlledTask().run(signal) };
      // The first stage is empty, so that it tells of nothing before `run` has returned, as the others do.
      return new ServiceGroup([[], db], { name, onEvent });
    },
    event: (task) => ({ type: "service-state", task, service: "db", from: "pending", to: "initializing" }),
    end: (task) => goes(task, "db", "initializing", "stopped"),
  },
  Health: {
    make(name, onEvent) {
      const health = new Health({ name, onEvent });
      health.component("db", { check: fails });
      return health;
    },
    event: () => ({ type: "health-changed", component: "db", from: "starting", to: "unhealthy", detail: "no" }),
  },
};

describe.each(Object.entries(batteries))("Where its events go: %s", (_, { make, event, end: endOf = () => [] }) => {
  let log: EventLog;
  let own: EventLog;
  let manager: Manager;

  beforeEach(() => {
    log = new EventLog();
    own = new EventLog();
    manager = new Manager({ name: "api", onEvent: log.observe });
  });

  afterEach(async () => {
    await manager.stop();
    expect(manager.failures).toEqual([]);
  });

  test("given no `onEvent`, they go to that of the manager that runs it, and `task` is the full name", async () => {
    manager.run(make("consumer"));
    await settle();
    expect(told(log)).toStrictEqual([started("api/consumer"), event("api/consumer")]);
    await manager.stop(error);
    const consumer = "api/consumer";
    const end = [stopping("api", error, consumer), ...endOf(consumer), ended(consumer), stopped("api")];
    expect(told(log).slice(2)).toStrictEqual(end);
  });

  test("given an `onEvent` of its own, they go there, with the full name, and not to the manager's", async () => {
    manager.run(make("consumer", own.observe));
    await settle();
    expect(own.events).toStrictEqual([event("api/consumer")]);
    expect(told(log)).toStrictEqual([started("api/consumer")]);
  });

  test("nothing is told twice, also when its own `onEvent` is the manager's", async () => {
    manager.run(make("consumer", log.observe));
    await settle();
    expect(told(log)).toStrictEqual([started("api/consumer"), event("api/consumer")]);
  });

  test.each(["runEphemeral", "runBackground"] as const)("%s does as run does", async (start) => {
    manager[start](make("consumer"));
    await settle();
    expect(log.events[1]).toStrictEqual(event("api/consumer"));
  });

  test("under a manager without a name, the full name is its own; without an `onEvent`, nobody is told", async () => {
    const unnamed = new Manager({ onEvent: log.observe });
    const unwatched = new Manager({ name: "unwatched" });
    unnamed.run(make("consumer"));
    unwatched.run(make("consumer"));
    await settle();
    expect(told(log)).toStrictEqual([started("consumer"), event("consumer")]);
    await Promise.all([unnamed.stop(), unwatched.stop()]);
  });

  test("run by hand, with a signal that no manager gave, it has its own name and no observer", async () => {
    const runs = [make("consumer", own.observe), make("consumer")].map((task) => task.run(outer.signal));
    await settle();
    expect(own.events).toStrictEqual([event("consumer")]);
    outer.abort();
    await Promise.all(runs);
  });

  test("behind AbortSignal.any, too, it has its own name and no observer", async () => {
    manager.run(async function parent(signal) {
      const any = AbortSignal.any([signal, outer.signal]);
      await Promise.all([make("consumer").run(any), make("consumer", own.observe).run(any)]);
    });
    await settle();
    expect(told(log)).toStrictEqual([started("api/parent")]);
    expect(own.events).toStrictEqual([event("consumer")]);
  });

  test("inside a function that hands its signal on, also after an await, it has that function's name", async () => {
    manager.run(
      (signal) => make("consumer").run(signal),
      async function parent(signal) {
        await null;
        await make("consumer").run(signal);
      },
    );
    await settle();
    const [main, parent] = ["api/main", "api/parent"];
    expect(told(log)).toStrictEqual([started(main), started(parent), event(main), event(parent)]);
  });

  test("inside an action that hands its signal on, it has the name and the observer of that task", async () => {
    manager.run(new LoopTask((signal) => make("consumer").run(signal), { name: "loop" }));
    manager.run(new LoopTask((signal) => make("consumer").run(signal), { name: "own", onEvent: own.observe }));
    await settle();
    expect(told(log)).toStrictEqual([started("api/loop"), started("api/own"), event("api/loop")]);
    expect(own.events).toStrictEqual([event("api/own")]);
  });

  test("as a member of a group it is api/group/x, and the group hands on the manager's observer", async () => {
    manager.run(new GroupTask("group", (child) => child.run(make("x"))));
    await settle();
    const x = "api/group/x";
    expect(told(log)).toStrictEqual([started("api/group"), started(x), event(x)]);
  });

  test("a group's own `onEvent` gets the events of its members; the outer manager's does not", async () => {
    manager.run(new GroupTask("group", (child) => child.run(make("x")), { onEvent: own.observe }));
    await settle();
    const reason = new Error("enough");
    await manager.stop(reason);
    const [group, x] = ["api/group", "api/group/x"];
    const end = [stopping(group, reason, x), ...endOf(x), ended(x), stopped(group)];
    expect(told(own)).toStrictEqual([started(x), event(x), ...end]);
    expect(told(log)).toStrictEqual([started(group), stopping("api", reason, group), ended(group), stopped("api")]);
  });

  test("a member's own `onEvent` goes before that of its group and of the outer manager", async () => {
    const members = new EventLog();
    const fill = (child: Manager): void => child.run(make("x", own.observe));
    manager.run(new GroupTask("group", fill, { onEvent: members.observe }));
    await settle();
    expect(own.events).toStrictEqual([event("api/group/x")]);
    expect(told(members)).toStrictEqual([started("api/group/x")]);
    expect(told(log)).toStrictEqual([started("api/group")]);
  });

  test("as a service it is api/services/x, and the ServiceGroup hands on the manager's observer", async () => {
    manager.run(new ServiceGroup([make("x")]));
    await settle();
    const others = told(log).filter((event) => !isOf("api/services", event));
    expect(log.events).toContainEqual(goes("api/services", "x", "initialized", "starting")[0]);
    expect(others).toStrictEqual([started("api/services"), event("api/services/x")]);
  });

  test("the own `onEvent` of a ServiceGroup also serves its services, but for one that has its own", async () => {
    const other = new EventLog();
    manager.run(new ServiceGroup([[make("x"), make("y", other.observe)]], { onEvent: own.observe }));
    await settle();
    const theirs = own.events.filter((event) => !isOf("api/services", event));
    expect(own.events).toContainEqual(goes("api/services", "y", "initialized", "starting")[0]);
    expect(theirs).toStrictEqual([event("api/services/x")]);
    expect(other.events).toStrictEqual([event("api/services/y")]);
    expect(told(log)).toStrictEqual([started("api/services")]);
  });

  test("as a service of a service, in a group that restarts, it has one name, and nothing is told twice", async () => {
    const inner = new ServiceGroup([make("x")], { name: "inner" });
    const outer = new ServiceGroup([inner], { name: "outer", onEvent: log.observe });
    manager.run(new GroupTask("group", (child) => child.run(new RestartTask(outer)), { onEvent: log.observe }));
    await settle();
    const [group, task] = ["api/group", "api/group/outer"];
    const others = told(log).filter((event) => !isOf(task, event) && !isOf(`${task}/inner`, event));
    expect(log.events.filter((event) => isOf(`${task}/inner`, event)).length).toBeGreaterThan(1);
    expect(others).toStrictEqual([started(group), started(task), event(`${task}/inner/x`)]);
  });

  test("inside a RestartTask it has that task's name, which is its own, and the observer of the manager", async () => {
    manager.run(new RestartTask(make("x")), new RestartTask(new RestartTask((signal) => make("y").run(signal))));
    await settle();
    const [x, main] = ["api/x", "api/restart"];
    expect(told(log)).toStrictEqual([started(x), started(main), event(x), event(main)]);
  });

  test("the own `onEvent` of a RestartTask also serves what it runs, if that has none of its own", async () => {
    const other = new EventLog();
    manager.run(
      new RestartTask(make("x"), { onEvent: own.observe }),
      new RestartTask(make("y", other.observe), { onEvent: own.observe }),
    );
    await settle();
    expect(own.events).toStrictEqual([event("api/x")]);
    expect(other.events).toStrictEqual([event("api/y")]);
    expect(told(log)).toStrictEqual([started("api/x"), started("api/y")]);
  });

  test("through groups and restarts, run after run, it has one name, and nothing is told twice", async () => {
    const members: ControlledTask[] = [];
    const inner = new GroupTask("inner", (child) => {
      members.push(new ControlledTask("y"));
      child.run(make("x"), ...members.slice(-1));
    });
    const restart = new RestartTask(inner, { delay: 10, onEvent: own.observe });
    manager.run(new GroupTask("group", (child) => child.run(restart)));
    await settle();
    members[0]?.fail(error);
    await vi.advanceTimersByTimeAsync(10);
    const [group, x, y] = ["api/group/inner", "api/group/inner/x", "api/group/inner/y"];
    expect(told(own)).toStrictEqual([
      ...[started(x), started(y), event(x)],
      ended(y, error),
      stopping(group, new StopReason(y, error), x),
      ...endOf(x),
      ended(x),
      stopped(group, { source: y, error }),
      restarting(group, 1, 10, error),
      restarted(group, 1),
      ...[started(x), started(y), event(x)],
    ]);
    expect(told(log)).toStrictEqual([started("api/group"), started(group)]);
  });

  const observers: Record<string, OnEvent> = {
    throws() {
      throw error;
    },
    rejects: fails,
    "returns a thenable that throws": () => ({
      then() {
        throw error;
      },
    }),
  };
  test.each(Object.entries(observers))("an `onEvent` that %s changes nothing", async (_, onEvent) => {
    // (No spy, since that would handle what is rejected.)
    const events: LifecycleEvent[] = [];
    const observer: OnEvent = (event) => {
      events.push(event);
      return onEvent(event);
    };
    const watched = new Manager({ name: "api", onEvent: observer });
    const group = new GroupTask("group", (child) => child.run(make("y")), { onEvent: observer });
    watched.run(make("consumer"), make("own", observer), group);
    const run = make("x", observer).run(outer.signal);
    await settle();
    expect(watched.pending).toEqual(["api/consumer", "api/own", "api/group"]);
    await watched.stop();
    outer.abort();
    await run;
    const others = events.flatMap((event) => ("manager" in event ? [] : { task: "", ...event }));
    const tasks = ["api/consumer", "api/group/y", "api/own", "x"];
    const expected = tasks.flatMap((task) => [event(task), ...endOf(task)]).map((event) => ({ task: "", ...event }));
    expect(others.sort((a, b) => a.task.localeCompare(b.task))).toStrictEqual(expected);
    expect(watched.failures).toEqual([]);
    expect(group.failures).toEqual([]);
  });
});

/** A Health whose check reports how it ends, also when that is late. */
function lateReport(late: ControlledTask): Task {
  const health = new Health({ name: "x" });
  const check = (signal: AbortSignal) => late.run(signal).catch((error: Error) => db.report("degraded", error.message));
  const db = health.component("db", { check });
  return health;
}

describe("Where its events go: what a manager has given up", () => {
  test.each<[string, (late: ControlledTask) => Task]>([
    ["a group, of a member that ends late", (late) => new GroupTask("x", (child) => child.run(late))],
    ["an action that fails late", (late) => new LoopTask((signal) => late.run(signal), { name: "x", ...goesOn })],
    ["a service that fails late", (late) => new ServiceGroup([new ControlledTask("first"), late], { name: "x" })],
    ["a report that comes late", (late) => lateReport(late)],
  ])("what a task does after the deadline of its manager is told to nobody: %s", async (_, make) => {
    const late = new ControlledTask("late", { ignoreAbort: true });
    const log = new EventLog();
    const manager = new Manager({ shutdownTimeout: 100, onEvent: log.observe });
    manager.run(make(late));
    await late.started;
    const end = manager.stop();
    await vi.advanceTimersByTimeAsync(100);
    await expect(end).rejects.toMatchObject({ pending: ["x"] });
    const events = told(log);
    expect(events.at(-1)?.type).toBe("stopped");
    late.fail(error);
    await settle();
    expect(told(log)).toStrictEqual(events);
  });
});

describe("full names", () => {

  test.each<[string, Task]>([
    ["LoopTask", new LoopTask(() => {}, { name: "x", delay: 10 })],
    ["PollTask", new PollTask(() => {}, { name: "x", interval: 10 })],
    ["RestartTask", new RestartTask(new ControlledTask("x"))],
    ["GroupTask", new GroupTask("x", (child) => child.run(new ControlledTask()))],
    ["ServiceGroup", new ServiceGroup([new ControlledTask()], { name: "x" })],
    ["Health", new Health({ name: "x" })],
    ["ControlledTask", new ControlledTask("x")],
  ])("TaskAlreadyStartedError carries the full name under a named manager: %s", async (_, task) => {
    const manager = new Manager({ name: "a" });
    manager.run(new GroupTask("b", (child) => child.run(task, task)));
    await expect(manager.wait()).rejects.toStrictEqual(new TaskAlreadyStartedError("a/b/x"));
  });

  test("RestartLimitError carries the full name under a named manager, and its own by hand", async () => {
    const make = (): Task => new RestartTask({ name: "x", run: fails }, { maxRestarts: 0 });
    const manager = new Manager({ name: "a" });
    manager.run(new GroupTask("b", (child) => child.run(make())));
    await expect(manager.wait()).rejects.toStrictEqual(new RestartLimitError("a/b/x", 0, error));
    await expect(make().run(outer.signal)).rejects.toStrictEqual(new RestartLimitError("x", 0, error));
  });
});

test("logEvents turns each event of theirs into one line, at the level that it deserves", async () => {
  const lines: string[] = [];
  const log = new EventLog();
  const level = (name: string) => (message: string, fields: object) => {
    lines.push(`${name}: ${message}`);
    expect({ ...fields }).toStrictEqual(log.events.at(-1));
  };
  const write = logEvents({ debug: level("debug"), info: level("info"), warn: level("warn"), error: level("error") });
  const manager = new Manager({
    name: "api",
    onEvent(event) {
      log.observe(event);
      write(event);
    },
  });
  let runs = 0;
  const flaky = async (signal: AbortSignal): Promise<void> => {
    if (++runs !== 2) throw error;
    await new Promise((resolve) => setTimeout(resolve, 100));
    signal.throwIfAborted();
    throw error;
  };
  const flakyTask = new RestartTask({ name: "flaky", run: flaky }, { maxRestarts: 1, delay: 10, healthyAfter: 50 });
  manager.run(new LoopTask(fails, { delay: 1_000, onError: "continue" }), flakyTask);
  await vi.advanceTimersByTimeAsync(200);
  await expect(manager.wait()).rejects.toBeInstanceOf(RestartLimitError);
  expect(lines).toEqual([
    "info: task-started api/loop",
    "info: task-started api/flaky",
    "error: action-failed api/loop",
    "warn: task-restarting api/flaky",
    "info: task-restarted api/flaky",
    "info: task-healthy api/flaky",
    "warn: task-restarting api/flaky",
    "info: task-restarted api/flaky",
    "error: task-gave-up api/flaky",
    "error: task-ended api/flaky failed",
    "info: stopping api",
    "info: task-ended api/loop returned",
    "error: stopped api",
  ]);
  expect(lines.length).toBe(log.events.length);
});

test("logEvents turns each event of services and of health into one line, at the level that it deserves", async () => {
  const lines: string[] = [];
  const level = (name: string) => (message: string) => lines.push(`${name}: ${message}`);
  const logger = { debug: level("debug"), info: level("info"), warn: level("warn"), error: level("error") };
  const health = new Health({ interval: 10 });
  const failsLater = (): Promise<never> => new Promise((_, reject) => setTimeout(reject, 5, error));
  const check = vi.fn(async () => {}).mockImplementationOnce(failsLater);
  const db = health.component("db", { check });
  const web = { name: "web", run: () => new Promise((_, reject) => setTimeout(reject, 20, error)) };
  const manager = new Manager({ name: "api", onEvent: logEvents(logger) });
  manager.run(new ServiceGroup([health, web]));
  await vi.advanceTimersByTimeAsync(17);
  db[Symbol.dispose]();
  await vi.advanceTimersByTimeAsync(3);
  await expect(manager.wait()).rejects.toBe(error);
  expect(lines).toEqual([
    "info: task-started api/services",
    "info: service-state api/services health initialized",
    "info: service-state api/services health starting",
    "info: service-state api/services health running",
    "info: service-state api/services web initialized",
    "info: service-state api/services web starting",
    "info: service-state api/services web running",
    "warn: health-changed db unhealthy",
    "info: health-changed db healthy",
    "info: health-removed db",
    "info: service-state api/services web failed",
    "error: service-failed api/services web",
    "info: service-state api/services health stopping",
    "info: service-state api/services health stopped",
    "error: task-ended api/services failed",
    "info: stopping api",
    "error: stopped api",
  ]);
});
