import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import {
  type LifecycleEvent,
  Manager,
  ShutdownTimeoutError,
  StopReason,
  type Task,
  TaskAlreadyStartedError,
} from "allstop";
import { GroupTask } from "allstop/group";
import { Health, type HealthComponent, type HealthStatus } from "allstop/health";
import { LoopTask, PollTask, SignalTriggerTask } from "allstop/repeat";
import { RestartLimitError, RestartTask } from "allstop/restart";
import { type Service, ServiceGroup, type ServiceState, ServiceTimeoutError } from "allstop/services";
import { ControlledTask, EventLog } from "allstop/testing";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { useFakeTime } from "./support/fake-time.ts";
import { useNoUnhandledRejections } from "./support/process-events.ts";
import { settle } from "./support/settle.ts";
import { stubborn } from "./support/stubborn.ts";
import {
  actionFailed,
  cleaned,
  ended,
  gaveUp,
  goes,
  restarted,
  restarting,
  serviceFailed,
  started,
  stopped,
  stopping,
  told,
} from "./support/told.ts";

useNoUnhandledRejections();
useFakeTime();

let log: EventLog;
let manager: Manager;
/** Stops what a test runs by hand; whatever that is, it must leave no listener on the signal. */
let outer: AbortController;
/** What was called of the services that note it, in order. */
let calls: string[];

beforeEach(() => {
  log = new EventLog();
  manager = new Manager({ name: "api", onEvent: log.observe });
  outer = new AbortController();
  calls = [];
});

afterEach(() => {
  expect(getEventListeners(outer.signal, "abort")).toEqual([]);
  expect(process.listenerCount("SIGUSR2")).toBe(0);
});

const error = new Error("no");
const reason = new Error("enough");
const fails = async (): Promise<never> => {
  throw error;
};

/** A service that notes its calls; unless another `run` is given, it runs until it is told to stop. */
function noting(name: string, more: Service = {}): Service {
  const run = more.run ?? ((signal: AbortSignal) => new ControlledTask().run(signal));
  return {
    name,
    init: async () => void calls.push(`init ${name}`),
    finalize: async () => void calls.push(`finalize ${name}`),
    ...more,
    run(signal) {
      calls.push(`run ${name}`);
      return Promise.resolve(run(signal)).finally(() => calls.push(`end ${name}`));
    },
  };
}

/** What a service that is alone in its stage tells of its start. */
function comesUp(group: string, service: string): LifecycleEvent[] {
  return goes(group, service, "pending", "initializing", "initialized", "starting", "running");
}

function comesDown(group: string, service: string): LifecycleEvent[] {
  return goes(group, service, "running", "stopping", "stopped");
}

describe("a ServiceGroup as a task of a Manager", () => {
  test("it starts in order, stops in reverse, and is down before the manager's hooks", async () => {
    const ready = async (): Promise<void> => {};
    const finalize = async (): Promise<void> => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      calls.push("finalize worker");
    };
    const group = new ServiceGroup([noting("db"), [noting("web", { ready }), noting("worker", { ready, finalize })]]);
    manager.run(group);
    manager.cleanup(function close() {
      calls.push("close");
    });
    await group.ready();
    const end = manager.stop(reason);
    await vi.advanceTimersByTimeAsync(5);
    await end;

    const services = "api/services";
    const both = (...states: [ServiceState, ...ServiceState[]]): LifecycleEvent[] =>
      ["web", "worker"].flatMap((name) => goes(services, name, ...states));
    expect(told(log)).toStrictEqual([
      started(services),
      ...comesUp(services, "db"),
      ...both("pending", "initializing"),
      ...both("initializing", "initialized"),
      ...both("initialized", "starting"),
      ...both("starting", "running"),
      stopping("api", reason, services),
      ...both("running", "stopping"),
      ...both("stopping", "stopped"),
      ...comesDown(services, "db"),
      ended(services),
      cleaned("api", "close"),
      stopped("api"),
    ]);
    expect(calls).toEqual([
      ...["init db", "run db", "init web", "init worker", "run web", "run worker"],
      ...["end web", "end worker", "end db", "finalize worker", "finalize web", "finalize db", "close"],
    ]);
  });

  test("a service that fails brings the group down, and that the manager: each reason has a full name", async () => {
    const [db, web] = [new ControlledTask("db"), new ControlledTask("web")];
    const group = new ServiceGroup([db, web]);
    const beside = new ControlledTask("beside");
    manager.run(group, beside);
    await group.ready();
    db.fail(error);
    await expect(manager.wait()).rejects.toBe(error);

    expect((await web.started).reason).toStrictEqual(new StopReason("api/services/db", error));
    expect((await beside.started).reason).toStrictEqual(new StopReason("api/services", error));
    expect(group.failures).toStrictEqual([{ source: "db", error }]);
    expect(manager.failures).toStrictEqual([{ source: "api/services", error }]);
    const services = "api/services";
    expect(told(log).slice(-9)).toStrictEqual([
      ...goes(services, "web", "starting", "running"),
      ...goes(services, "db", "running", "failed"),
      serviceFailed(services, "db", "run", error),
      ...comesDown(services, "web"),
      ended(services, error),
      stopping("api", new StopReason(services, error), "api/beside"),
      ended("api/beside"),
      stopped("api", { source: services, error }),
    ]);
  });

  test("the manager gets the first failure, the group has all", async () => {
    const second = new Error("second");
    const db = { name: "db", run: fails, finalize: () => Promise.reject(second) };
    const group = new ServiceGroup([db]);
    manager.run(group);
    await expect(manager.wait()).rejects.toBe(error);
    expect(manager.failures).toStrictEqual([{ source: "api/services", error }]);
    expect(group.failures).toStrictEqual([
      { source: "db", error },
      { source: "db", error: second },
    ]);
  });

  test.each<[string, unknown]>([
    ["an error", reason],
    ["no error at all", { because: "of this" }],
    ["undefined, which is no reason", undefined],
  ])("the reason of the stop reaches each service untouched: %s", async (_, given) => {
    const services = [new ControlledTask("db"), new ControlledTask("web")];
    const group = new ServiceGroup(services);
    manager.run(group);
    await group.ready();
    await manager.stop(given);
    for (const { started } of services) expect((await started).reason).toBe(manager.signal.reason);
    if (given !== undefined) expect(manager.signal.reason).toBe(given);
  });

  test("a service that returns is a clean end of the group, which as a main task stops the manager", async () => {
    const [db, web] = [new ControlledTask("db"), new ControlledTask("web")];
    manager.run(new ServiceGroup([db, web]));
    await web.started;
    web.return();
    await manager.wait();
    expect((await db.started).reason).toStrictEqual(new StopReason("api/services/web"));
    expect(manager.signal.reason).toStrictEqual(new StopReason("api/services"));
  });

  test("as an ephemeral task a group of ephemeral services comes down by itself, and stops nothing", async () => {
    const job = noting("job", { ephemeral: true, run: async () => {} });
    const beside = new ControlledTask("beside");
    manager.run(beside);
    manager.runEphemeral(new ServiceGroup([job]));
    await settle();
    expect(manager.pending).toEqual(["api/beside"]);
    expect((await beside.started).aborted).toBe(false);
    expect(told(log).at(-1)).toStrictEqual(ended("api/services", "returned", "ephemeral"));
    expect(calls).toEqual(["init job", "run job", "end job", "finalize job"]);
    await manager.stop();
  });

  test("in the background it keeps no manager alive, which stops it once its other tasks have ended", async () => {
    const group = new ServiceGroup([noting("db")]);
    const work = new ControlledTask("work");
    manager.runBackground(group);
    manager.runEphemeral(work);
    const end = manager.wait();
    await group.ready();
    expect(group.states).toEqual({ db: "running" });
    work.return();
    await end;
    expect(group.states).toEqual({ db: "stopped" });
  });

  test("the defaults nest: services are given up before the group would be, stage after stage", async () => {
    const deaf = [stubborn("db"), stubborn("web")];
    const group = new ServiceGroup(deaf);
    const closes = vi.fn();
    manager.run(group);
    manager.cleanup(closes);
    await group.ready();
    const end = manager.stop().catch((thrown: unknown) => thrown);
    await vi.advanceTimersByTimeAsync(17_999);
    expect(closes).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1);
    const timeouts = ["web", "db"].map((name) => new ServiceTimeoutError(name, "stop"));
    expect(await end).toStrictEqual(timeouts[0]);
    expect(group.failures.map((failure) => failure.error)).toStrictEqual(timeouts);
    expect(manager.failures).toStrictEqual([{ source: "api/services", error: timeouts[0] }]);
    expect(closes).toHaveBeenCalledOnce();
  });

  test("given up by the manager, it still finalizes, and what it tells then is told to nobody", async () => {
    const deaf = stubborn("web");
    const impatient = new Manager({ name: "api", shutdownTimeout: 100, onEvent: log.observe });
    const group = new ServiceGroup([noting("db"), deaf], { stopTimeout: 1_000 });
    impatient.run(group);
    await group.ready();
    const end = impatient.stop();
    await vi.advanceTimersByTimeAsync(100);
    await expect(end).rejects.toStrictEqual(new ShutdownTimeoutError(100, ["api/services"]));
    const events = told(log);
    expect(events.at(-1)?.type).toBe("stopped");
    await vi.advanceTimersByTimeAsync(900);
    expect(told(log)).toStrictEqual(events);
    expect(group.failures).toStrictEqual([{ source: "web", error: new ServiceTimeoutError("web", "stop") }]);
    expect(calls).toEqual(["init db", "run db", "end db", "finalize db"]);
    deaf.fail(error);
    await settle();
    expect(told(log)).toStrictEqual(events);
    expect(impatient.failures.length).toBe(1);
  });

  test.each<[string, (late: ControlledTask) => Task, LifecycleEvent]>([
    ["a service", (late) => late, serviceFailed("api/services", "db", "run", error)],
    [
      "a task in it",
      (late) => new LoopTask((signal) => late.run(signal), { name: "db", onError: "continue" }),
      actionFailed("api/services/db", error),
    ],
  ])("what the group has given up is told of, as long as the manager hears it: %s", async (_, make, event) => {
    const [late, beside] = [stubborn("db"), stubborn("beside")];
    manager.run(new ServiceGroup([make(late)], { stopTimeout: 10 }), beside);
    await late.started;
    const end = manager.stop().catch((thrown: unknown) => thrown);
    await vi.advanceTimersByTimeAsync(10);
    const timeout = new ServiceTimeoutError("db", "stop");
    expect(told(log).at(-1)).toStrictEqual(ended("api/services", timeout));
    late.fail(error);
    await settle();
    beside.return();
    expect(await end).toStrictEqual(timeout);
    expect(manager.failures.length).toBe(1);
    const last = [ended("api/beside"), stopped("api", { source: "api/services", error: timeout })];
    expect(told(log).slice(-3)).toStrictEqual([event, ...last]);
  });

  test("a stop in the middle of an init waits for that, and finalizes it before what came up before it", async () => {
    const init = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
    const group = new ServiceGroup([noting("db"), noting("web", { init }), noting("later")]);
    manager.run(group);
    await settle();
    const end = manager.stop();
    await vi.advanceTimersByTimeAsync(4);
    expect(calls).toEqual(["init db", "run db", "end db"]);
    await vi.advanceTimersByTimeAsync(1);
    await end;
    expect(calls.slice(3)).toEqual(["finalize web", "finalize db"]);
    expect(group.states).toEqual({ db: "stopped", web: "stopped", later: "pending" });
  });

  test("an init that group and manager have given up is finalized when it ends, which is told to nobody", async () => {
    let finish!: () => void;
    const init = (): Promise<void> => new Promise((resolve) => (finish = resolve));
    const finalize = vi.fn(fails);
    const group = new ServiceGroup([noting("db"), { name: "web", init, finalize }], { stopTimeout: 10 });
    manager.run(group);
    await settle();
    const end = manager.stop();
    await vi.advanceTimersByTimeAsync(10);
    const timeout = new ServiceTimeoutError("web", "stop");
    await expect(end).rejects.toStrictEqual(timeout);
    expect(calls.at(-1)).toBe("finalize db");
    const events = told(log);
    expect(finalize).not.toHaveBeenCalled();
    finish();
    await settle();
    expect(finalize).toHaveBeenCalledOnce();
    expect(told(log)).toStrictEqual(events);
    expect(group.failures).toStrictEqual([{ source: "web", error: timeout }]);
  });

  test("run with a signal that has aborted, as after a failure in the same call, it starts nothing", async () => {
    const group = new ServiceGroup([noting("db")]);
    manager.run(() => {
      throw error;
    }, group);
    await expect(manager.wait()).rejects.toBe(error);
    expect(calls).toEqual([]);
    expect(group.states).toEqual({ db: "pending" });
    expect(told(log).filter(({ type }) => type === "service-state")).toEqual([]);
  });
});

describe("a ServiceGroup in a GroupTask", () => {
  test("its name is api/group/services, and what it tells goes through the group to the manager", async () => {
    const services = new ServiceGroup([noting("db")]);
    manager.run(
      new GroupTask("group", (child) => {
        child.run(services);
        child.cleanup(function close() {
          calls.push("close");
        });
      }),
    );
    await services.ready();
    await manager.stop(reason);
    const [group, name] = ["api/group", "api/group/services"];
    expect(told(log)).toStrictEqual([
      started(group),
      started(name),
      ...comesUp(name, "db"),
      stopping("api", reason, group),
      stopping(group, reason, name),
      ...comesDown(name, "db"),
      ended(name),
      cleaned(group, "close"),
      stopped(group),
      ended(group),
      stopped("api"),
    ]);
    expect(calls).toEqual(["init db", "run db", "end db", "finalize db", "close"]);
  });

  test("a service that fails is the failure of each, from inside out", async () => {
    const services = new ServiceGroup([{ name: "db", init: fails }]);
    const group = new GroupTask("group", (child) => child.run(services));
    manager.run(group);
    await expect(manager.wait()).rejects.toBe(error);
    const [task, name] = ["api/group", "api/group/services"];
    expect(told(log)).toStrictEqual([
      started(task),
      started(name),
      ...goes(name, "db", "pending", "initializing", "failed"),
      serviceFailed(name, "db", "init", error),
      ended(name, error),
      stopping(task, new StopReason(name, error)),
      stopped(task, { source: name, error }),
      ended(task, error),
      stopping("api", new StopReason(task, error)),
      stopped("api", { source: task, error }),
    ]);
    expect([services, group].map(({ failures }) => failures)).toStrictEqual([
      [{ source: "db", error }],
      [{ source: name, error }],
    ]);
  });
});

describe("a ServiceGroup in a RestartTask", () => {
  test("a service that fails restarts the whole group, in order, with fresh states and failures", async () => {
    const dbs: ControlledTask[] = [];
    const db = noting("db", {
      run(signal) {
        expect([services.states, services.failures]).toEqual([{ db: "starting", web: "pending" }, []]);
        dbs.push(new ControlledTask("db"));
        return (dbs.at(-1) as ControlledTask).run(signal);
      },
    });
    const services = new ServiceGroup([db, noting("web")]);
    const task = new RestartTask(services, { delay: 10 });
    expect(task.name).toBe("services");
    manager.run(task);
    for (let run = 1; run <= 2; run++) {
      await services.ready();
      expect(services.states).toEqual({ db: "running", web: "running" });
      dbs[run - 1]?.fail(error);
      await settle();
      expect(services.states).toEqual({ db: "failed", web: "stopped" });
      expect(services.failures).toStrictEqual([{ source: "db", error }]);
      await vi.advanceTimersByTimeAsync(10);
    }
    await manager.stop(reason);

    const name = "api/services";
    const run = [
      ...comesUp(name, "db"),
      ...comesUp(name, "web"),
      ...goes(name, "db", "running", "failed"),
      serviceFailed(name, "db", "run", error),
      ...comesDown(name, "web"),
    ];
    expect(told(log)).toStrictEqual([
      started(name),
      ...run,
      restarting(name, 1, 10, error),
      restarted(name, 1),
      ...run,
      restarting(name, 2, 10, error),
      restarted(name, 2),
      ...comesUp(name, "db"),
      ...comesUp(name, "web"),
      stopping("api", reason, name),
      ...comesDown(name, "web"),
      ...comesDown(name, "db"),
      ended(name),
      stopped("api"),
    ]);
    const start = ["init db", "run db", "init web", "run web"];
    const finalizers = ["finalize web", "finalize db"];
    const failed = [...start, "end db", "end web", ...finalizers];
    expect(calls).toEqual([...failed, ...failed, ...start, "end web", "end db", ...finalizers]);
  });

  test.each<[string, Service, LifecycleEvent[], Error]>([
    ["init", { init: fails }, goes("api/services", "db", "pending", "initializing", "failed"), error],
    [
      "run",
      { run: fails },
      goes("api/services", "db", "pending", "initialized", "starting", "running", "failed"),
      error,
    ],
    ["ready", { ready: fails }, goes("api/services", "db", "pending", "initialized", "starting", "failed"), error],
    [
      "init",
      { init: (signal) => new ControlledTask().run(signal) },
      goes("api/services", "db", "pending", "initializing", "failed"),
      new ServiceTimeoutError("db", "init"),
    ],
    [
      "ready",
      { ready: (signal) => new ControlledTask().run(signal) },
      goes("api/services", "db", "pending", "initialized", "starting", "failed"),
      new ServiceTimeoutError("db", "ready"),
    ],
  ])("what fails in %s is begun again, until it is given up: %o", async (phase, service, states, failure) => {
    const group = new ServiceGroup([{ name: "db", ...service }], { initTimeout: 5, readyTimeout: 5 });
    manager.run(new RestartTask(group, { delay: 10, maxRestarts: 1 }));
    await vi.advanceTimersByTimeAsync(20);
    const limit = new RestartLimitError("api/services", 1, failure);
    await expect(manager.wait()).rejects.toStrictEqual(limit);
    const run = [...states, serviceFailed("api/services", "db", phase as "init", failure)];
    expect(told(log)).toStrictEqual([
      started("api/services"),
      ...run,
      restarting("api/services", 1, 10, failure),
      restarted("api/services", 1),
      ...run,
      gaveUp("api/services", 1, failure),
      ended("api/services", limit),
      stopping("api", new StopReason("api/services", limit)),
      stopped("api", { source: "api/services", error: limit }),
    ]);
  });

  test("it can be run again after it ended by itself, whatever ended it: a return, a stop, a failure", async () => {
    const end = vi.fn(async () => {});
    const group = new ServiceGroup([noting("job", { ephemeral: true, run: end })], { name: "jobs" });
    const always = new RestartTask(group, { policy: "always", delay: 10, maxRestarts: 1 });
    const first = always.run(outer.signal).catch((thrown: unknown) => thrown);
    await vi.advanceTimersByTimeAsync(10);
    expect(await first).toStrictEqual(new RestartLimitError("jobs", 1));
    outer.abort();
    await always.run(outer.signal);
    await group.run(outer.signal);
    expect(end).toHaveBeenCalledTimes(2);
    end.mockRejectedValueOnce(error);
    outer = new AbortController();
    await expect(group.run(outer.signal)).rejects.toBe(error);
    await group.run(outer.signal);
    expect(end).toHaveBeenCalledTimes(4);
    const run = ["init job", "run job", "end job", "finalize job"];
    expect(calls).toEqual([...run, ...run, ...run, ...run]);
    expect([group.states, group.failures]).toEqual([{ job: "stopped" }, []]);
  });

  test("ready() waits for the next run while the group is to be restarted", async () => {
    const run = vi.fn((signal: AbortSignal) => new ControlledTask().run(signal)).mockRejectedValueOnce(error);
    const group = new ServiceGroup([{ name: "db", run, ready: async () => {} }]);
    manager.run(new RestartTask(group, { delay: 10 }));
    await expect(group.ready()).rejects.toBe(error);
    const ready = vi.fn();
    await settle();
    const next = group.ready().then(ready);
    await vi.advanceTimersByTimeAsync(9);
    expect(ready).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1);
    await next;
    await manager.stop();
  });

  test("while something of the last run has not ended it is refused, by its full name, and tried again", async () => {
    const deaf = stubborn();
    const runs = (signal: AbortSignal): Promise<void> => new ControlledTask().run(signal);
    const db = vi.fn(runs).mockImplementationOnce((signal) => deaf.run(signal));
    const web = vi.fn(runs).mockRejectedValueOnce(error);
    const services = [{ name: "db", run: db }, { name: "web", run: web }];
    const group = new ServiceGroup(services, { stopTimeout: 5 });
    manager.run(new RestartTask(group, { delay: 10 }));
    await vi.advanceTimersByTimeAsync(15);
    const refused = new TaskAlreadyStartedError("api/services");
    expect(told(log).at(-1)).toStrictEqual(restarting("api/services", 2, 10, refused));
    expect(db).toHaveBeenCalledOnce();
    deaf.return();
    await vi.advanceTimersByTimeAsync(10);
    expect(group.states).toEqual({ db: "running", web: "running" });
    expect(group.failures).toEqual([]);
    await manager.stop();
  });

  test("a stop in the delay starts nothing of it, and its states stay as the last run left them", async () => {
    const group = new ServiceGroup([noting("db"), { name: "web", run: fails }]);
    manager.run(new RestartTask(group, { delay: 10 }));
    await vi.advanceTimersByTimeAsync(9);
    const length = calls.length;
    await manager.stop();
    await vi.advanceTimersByTimeAsync(10);
    expect(calls.length).toBe(length);
    expect(group.states).toEqual({ db: "stopped", web: "failed" });
    expect(group.failures).toStrictEqual([{ source: "web", error }]);
  });
});

/** All that are services by their shape, each by the name it has by default. */
const batteries: Record<string, () => Task> = {
  loop: () => new LoopTask(() => {}, { delay: 1_000 }),
  poll: () => new PollTask(() => {}, { interval: 1_000 }),
  "signal-trigger": () => new SignalTriggerTask(() => {}, { signals: ["SIGUSR2"] }),
  restart: () => new RestartTask((signal) => new ControlledTask().run(signal)),
  group: () => new GroupTask("group", (child) => child.run(new ControlledTask("member"))),
  controlled: () => new ControlledTask(),
  health: () => new Health(),
  services: () => new ServiceGroup([new ControlledTask("inner")]),
};

describe("batteries as services", () => {
  test("each battery is a service: all in one group are up one after the other, and down in reverse", async () => {
    const names = Object.keys(batteries);
    const group = new ServiceGroup(Object.values(batteries).map((make) => make()), { onEvent: log.observe });
    const run = group.run(outer.signal);
    await group.ready();
    expect(group.states).toEqual(Object.fromEntries(names.map((name) => [name, "running"])));
    outer.abort(reason);
    await run;
    expect(group.states).toEqual(Object.fromEntries(names.map((name) => [name, "stopped"])));
    expect(group.failures).toEqual([]);
    const ofGroup = log.events.filter((event) => event.type === "service-state" && event.task === "services");
    expect(ofGroup).toStrictEqual([
      ...names.flatMap((name) => goes("services", name, "pending", "initialized", "starting", "running")),
      ...names.reverse().flatMap((name) => comesDown("services", name)),
    ]);
  });

  test.each(Object.entries(batteries))("%s is told of the stop when its turn comes", async (name, make) => {
    const later = stubborn("later");
    const group = new ServiceGroup([make(), later]);
    manager.run(group);
    await group.ready();
    const end = manager.stop(reason);
    await settle();
    expect(group.states).toEqual({ [name]: "running", later: "stopping" });
    later.return();
    await end;
    expect(group.states).toEqual({ [name]: "stopped", later: "stopped" });
  });

  test("a nested group's default name gets a number when taken; that of another battery is given, and refused", () => {
    const nested = (): ServiceGroup => new ServiceGroup([new ControlledTask()]);
    expect(new ServiceGroup([nested(), [nested()]]).states).toEqual({ services: "pending", "services-2": "pending" });
    const message = 'Cannot create a ServiceGroup: names must be unique and not empty, got "controlled"';
    expect(() => new ServiceGroup([new ControlledTask(), new ControlledTask()])).toThrow(new TypeError(message));
  });

  test("a GroupTask as a service: its members and its manager are below api/services/group", async () => {
    const member = new ControlledTask("member");
    const group = new ServiceGroup([new GroupTask("group", (child) => child.run(member))]);
    manager.run(group);
    await member.started;
    await group.ready();
    await manager.stop(reason);
    const [services, name] = ["api/services", "api/services/group"];
    expect(told(log)).toStrictEqual([
      started(services),
      ...goes(services, "group", "pending", "initialized", "starting"),
      started(`${name}/member`),
      ...goes(services, "group", "starting", "running"),
      stopping("api", reason, services),
      ...goes(services, "group", "running", "stopping"),
      stopping(name, reason, `${name}/member`),
      ended(`${name}/member`),
      stopped(name),
      ...goes(services, "group", "stopping", "stopped"),
      ended(services),
      stopped("api"),
    ]);
  });

  test("a RestartTask as a service restarts it alone; only its giving up brings the group down", async () => {
    const db = new RestartTask({ name: "db", run: fails }, { maxRestarts: 1, delay: 10 });
    const group = new ServiceGroup([noting("cache"), db]);
    manager.run(group);
    await group.ready();
    await vi.advanceTimersByTimeAsync(10);
    const [services, name] = ["api/services", "api/services/db"];
    const limit = new RestartLimitError(name, 1, error);
    await expect(manager.wait()).rejects.toStrictEqual(limit);
    const theirs = told(log).filter((event) => "task" in event && event.task !== services);
    expect(theirs).toStrictEqual([restarting(name, 1, 10, error), restarted(name, 1), gaveUp(name, 1, error)]);
    expect(group.failures).toStrictEqual([{ source: "db", error: limit }]);
    expect(calls).toEqual(["init cache", "run cache", "end cache", "finalize cache"]);
  });

  test.each<[string, Task]>([
    ["loop", new LoopTask(fails)],
    ["poll", new PollTask(fails, { interval: 1 })],
    ["restart", new RestartTask(async () => fails(), { policy: "never" })],
    ["group", new GroupTask("group", fails)],
    ["services", new ServiceGroup([{ run: () => settle().then(() => fails()) }])],
  ])("a battery that fails is a service that fails: %s", async (name, task) => {
    const group = new ServiceGroup([noting("db"), task]);
    manager.run(group);
    await vi.advanceTimersByTimeAsync(1);
    await expect(manager.wait()).rejects.toBe(error);
    expect(group.failures).toStrictEqual([{ source: name, error }]);
    expect(log.events).toContainEqual(serviceFailed("api/services", name, "run", error));
    expect(calls).toEqual(["init db", "run db", "end db", "finalize db"]);
  });

  test("what runs again does so in a group that does; what runs once is refused, by its full name", async () => {
    for (const [name, make] of Object.entries(batteries)) {
      const group = new ServiceGroup([name === "services" ? new ServiceGroup([noting("inner")]) : make()]);
      for (let run = 1; run <= 2; run++) {
        outer = new AbortController();
        const end = group.run(outer.signal).catch((thrown: unknown) => thrown);
        if (name !== "controlled" || run === 1) await group.ready();
        await settle();
        outer.abort();
        const refused = new TaskAlreadyStartedError("services/controlled");
        expect(await end).toStrictEqual(name === "controlled" && run === 2 ? refused : undefined);
      }
    }
  });
});

describe("a ServiceGroup as a service of another", () => {
  test("the next stage starts when the nested group is up, which comes down before the stage under it", async () => {
    const nested = new ServiceGroup([noting("a"), noting("b")], { name: "nested" });
    const group = new ServiceGroup([noting("db"), nested, noting("web")]);
    manager.run(group);
    await group.ready();
    await manager.stop(reason);
    const [services, name] = ["api/services", "api/services/nested"];
    expect(told(log)).toStrictEqual([
      started(services),
      ...comesUp(services, "db"),
      ...goes(services, "nested", "pending", "initialized", "starting"),
      ...comesUp(name, "a"),
      ...comesUp(name, "b"),
      ...goes(services, "nested", "starting", "running"),
      ...comesUp(services, "web"),
      stopping("api", reason, services),
      ...comesDown(services, "web"),
      ...goes(services, "nested", "running", "stopping"),
      ...comesDown(name, "b"),
      ...comesDown(name, "a"),
      ...goes(services, "nested", "stopping", "stopped"),
      ...comesDown(services, "db"),
      ended(services),
      stopped("api"),
    ]);
    const end = ["end web", "end b", "end a", "finalize b", "finalize a", "end db", "finalize web", "finalize db"];
    expect(calls.slice(-end.length)).toEqual(end);
  });

  test.each([
    ["run", "once it is up"],
    ["ready", "while it comes up"],
  ] as const)("a failure in it goes from inside out, told once in each: of its %s %s", async (phase, when) => {
    const b = new ControlledTask("b");
    const ready = when === "once it is up" ? async () => {} : () => new Promise(() => {});
    const nested = new ServiceGroup([noting("a"), [b, { name: "c", ready }]], { name: "nested" });
    const group = new ServiceGroup([noting("db"), nested]);
    manager.run(group);
    await b.started;
    await settle();
    b.fail(error);
    await expect(manager.wait()).rejects.toBe(error);
    const failed = log.events.filter(({ type }) => type === "service-failed");
    const [services, name] = ["api/services", "api/services/nested"];
    expect(failed).toStrictEqual([
      serviceFailed(name, "b", "run", error),
      serviceFailed(services, "nested", phase, error),
    ]);
    expect([nested, group].map(({ failures }) => failures)).toStrictEqual([
      [{ source: "b", error }],
      [{ source: "nested", error }],
    ]);
    expect(manager.failures).toStrictEqual([{ source: services, error }]);
    expect(nested.states).toEqual({ a: "stopped", b: "failed", c: "stopped" });
    expect(group.states).toEqual({ db: "stopped", nested: "failed" });
    expect(calls.slice(-4)).toEqual(["end a", "finalize a", "end db", "finalize db"]);
  });

  test("the reason in each names the service that caused it, by its full name, wherever that is", async () => {
    const [db, a] = [new ControlledTask("db"), new ControlledTask("a")];
    const b = new ControlledTask("b");
    const nested = new ServiceGroup([[a, b]], { name: "nested" });
    manager.run(new ServiceGroup([db, nested]));
    await b.started;
    b.fail(error);
    await expect(manager.wait()).rejects.toBe(error);
    expect((await a.started).reason).toStrictEqual(new StopReason("api/services/nested/b", error));
    expect((await db.started).reason).toStrictEqual(new StopReason("api/services/nested", error));
  });

  test("a failure of the outer one stops the nested group for that very reason", async () => {
    const [db, a] = [new ControlledTask("db"), new ControlledTask("a")];
    manager.run(new ServiceGroup([db, new ServiceGroup([a])]));
    await a.started;
    await settle();
    db.fail(error);
    await expect(manager.wait()).rejects.toBe(error);
    expect((await a.started).reason).toStrictEqual(new StopReason("api/services/db", error));
  });

  test("a nested group that comes down by itself ends cleanly, and, if it is ephemeral, alone", async () => {
    for (const ephemeral of [false, true]) {
      const job = { name: "job", ephemeral: true, run: async () => {} };
      const nested = new ServiceGroup([job], { name: "nested" });
      const db = new ControlledTask("db");
      const wrapped: Service = { name: "nested", ephemeral, run: (signal) => nested.run(signal) };
      const group = new ServiceGroup([db, wrapped]);
      const end = group.run(outer.signal);
      await settle();
      expect((await db.started).aborted).toBe(!ephemeral);
      outer.abort();
      await end;
      outer = new AbortController();
    }
  });

  test("it is restarted alone inside a RestartTask, with a name below that of its group", async () => {
    const flaky = vi.fn((signal: AbortSignal) => new ControlledTask().run(signal)).mockRejectedValueOnce(error);
    const nested = new ServiceGroup([{ name: "flaky", run: flaky }], { name: "nested" });
    const group = new ServiceGroup([noting("db"), new RestartTask(nested, { delay: 10 })]);
    manager.run(group);
    await vi.advanceTimersByTimeAsync(10);
    const name = "api/services/nested";
    const theirs = told(log).filter((event) => "task" in event && event.task === name);
    const up = goes(name, "flaky", "pending", "initialized", "starting", "running");
    const failed = [...goes(name, "flaky", "running", "failed"), serviceFailed(name, "flaky", "run", error)];
    expect(theirs).toStrictEqual([...up, ...failed, restarting(name, 1, 10, error), restarted(name, 1), ...up]);
    await manager.stop();
    expect(calls).toEqual(["init db", "run db", "end db", "finalize db"]);
  });

  test("a nested group that comes down cleanly while it comes up has not failed", async () => {
    const job = new ControlledTask("job");
    const nested = new ServiceGroup([[job, { name: "never", ready: () => new Promise(() => {}) }]], { name: "nested" });
    const group = new ServiceGroup([noting("db"), nested, noting("web")]);
    manager.run(group);
    await job.started;
    await settle();
    job.return();
    await manager.wait();
    expect([group.failures, manager.failures]).toEqual([[], []]);
    expect(group.states).toEqual({ db: "stopped", nested: "stopped", web: "pending" });
    expect(calls).toEqual(["init db", "run db", "end db", "finalize db"]);
  });

  test("the outer group gives up a nested one that hangs, at its own timeout, by its name", async () => {
    const nested = new ServiceGroup([noting("a"), stubborn("b")], { name: "nested", stopTimeout: 30 });
    const group = new ServiceGroup([stubborn("deaf"), noting("db"), nested], { stopTimeout: 20 });
    manager.run(group);
    await group.ready();
    const end = manager.stop().catch((thrown: unknown) => thrown);
    await vi.advanceTimersByTimeAsync(20);
    expect(group.failures).toStrictEqual([{ source: "nested", error: new ServiceTimeoutError("nested", "stop") }]);
    expect(nested.failures).toEqual([]);
    expect(calls.slice(-1)).toEqual(["end db"]);
    await vi.advanceTimersByTimeAsync(10);
    const late = new ServiceTimeoutError("b", "stop");
    expect(nested.failures).toStrictEqual([{ source: "b", error: late }]);
    expect(calls.slice(-2)).toEqual(["end a", "finalize a"]);
    expect(told(log).at(-1)).toStrictEqual(serviceFailed("api/services", "nested", "run", late));
    await vi.advanceTimersByTimeAsync(10);
    expect(await end).toStrictEqual(group.failures[0]?.error);
    expect(group.failures.map(({ source }) => source)).toEqual(["nested", "deaf"]);
    expect(calls.at(-1)).toBe("finalize db");
  });
});

/** A Health with a database that is checked, and an API that depends on it and reports; what the checks find. */
function makeHealth(check: () => unknown, options?: { onEvent?: (event: LifecycleEvent) => unknown }): {
  health: Health;
  api: HealthComponent;
} {
  const health = new Health({ interval: 100, ...options });
  health.component("db", { check });
  return { health, api: health.component("api", { dependsOn: ["db"] }) };
}

function changed(component: string, from: HealthStatus, to: HealthStatus, detail?: string): LifecycleEvent {
  return { type: "health-changed", component, from, to, ...(detail !== undefined && { detail }) };
}

const turnsHealthy = changed("db", "starting", "healthy");
const reported = changed("api", "starting", "healthy");
const turnsUnhealthy = [changed("db", "healthy", "unhealthy", "no"), changed("api", "healthy", "degraded")];

describe("a Health in what runs it", () => {
  let check: ReturnType<typeof vi.fn<() => unknown>>;

  beforeEach(() => {
    check = vi.fn();
  });

  /** Lets it be healthy at 0 ms, and unhealthy at 100 ms, under the manager of the test. */
  async function goThrough(task: Task, api: HealthComponent): Promise<void> {
    manager.run(task);
    await settle();
    api.report("healthy");
    check.mockImplementation(fails);
    await vi.advanceTimersByTimeAsync(100);
    await manager.stop(reason);
    expect(manager.failures).toEqual([]);
  }

  test.each<[string, (health: Health) => Task, string[]]>([
    ["a Manager", (health) => health, ["api/health"]],
    ["a GroupTask", (health) => new GroupTask("g", (child) => child.run(health)), ["api/g", "api/g/health"]],
    ["a RestartTask", (health) => new RestartTask(health), ["api/health"]],
    ["a ServiceGroup", (health) => new ServiceGroup([health]), ["api/services"]],
    ["a service", (health) => new ServiceGroup([{ name: "x", run: (signal) => health.run(signal) }]), ["api/services"]],
  ])("in %s its events go to the manager; a stop changes no status", async (_, make, names) => {
    const { health, api } = makeHealth(check);
    await goThrough(make(health), api);
    const theirs = told(log).filter(({ type }) => type.startsWith("health-"));
    expect(theirs).toStrictEqual([turnsHealthy, reported, ...turnsUnhealthy]);
    const starts = told(log).filter(({ type }) => type === "task-started");
    expect(starts).toStrictEqual(names.map((name) => started(name)));
    expect(health.snapshot()).toMatchObject({ status: "unhealthy", components: { api: { status: "degraded" } } });
  });

  test("its own `onEvent` goes before that of the manager, and of the group that it is a service of", async () => {
    const [own, services] = [new EventLog(), new EventLog()];
    const { health, api } = makeHealth(check, { onEvent: own.observe });
    await goThrough(new ServiceGroup([health], { onEvent: services.observe }), api);
    expect(own.events).toStrictEqual([turnsHealthy, reported, ...turnsUnhealthy]);
    expect([...services.events, ...log.events].filter(({ type }) => type.startsWith("health-"))).toEqual([]);
  });

  test("an `onEvent` of the group serves it, if it has none of its own", async () => {
    const services = new EventLog();
    const { health, api } = makeHealth(check);
    await goThrough(new ServiceGroup([health], { onEvent: services.observe }), api);
    const theirs = services.events.filter(({ type }) => type.startsWith("health-"));
    expect(theirs).toStrictEqual([turnsHealthy, reported, ...turnsUnhealthy]);
    expect(log.events.filter(({ type }) => type.startsWith("health-"))).toEqual([]);
  });

  test("without an `onEvent` of its own it tells the manager that runs it, while it does", async () => {
    const own = new EventLog();
    for (const onEvent of [undefined, own.observe]) {
      const { health, api } = makeHealth(check, { ...(onEvent && { onEvent }) });
      const [first, second] = [new EventLog(), new EventLog()];
      api.report("degraded");
      for (const { observe } of [first, second]) {
        const next = new Manager({ onEvent: observe });
        next.run(health);
        api.report("healthy");
        await next.stop();
        api.report("unhealthy");
      }
      const theirs = [first, second].map(({ events }) => events.filter(({ type }) => type.startsWith("health-")));
      const again = changed("api", "unhealthy", "healthy");
      expect(theirs).toStrictEqual(onEvent ? [[], []] : [[changed("api", "degraded", "healthy")], [again]]);
    }
    expect(own.events.map((event) => ("to" in event ? event.to : ""))).toEqual(
      ["degraded", "healthy", "unhealthy", "healthy", "unhealthy"],
    );
  });

  test("once its own run has ended it tells nobody, also while the manager goes on", async () => {
    const { health, api } = makeHealth(check);
    const job = new ControlledTask("job");
    manager.run(new ControlledTask("beside"));
    manager.runEphemeral(new ServiceGroup([health, job]));
    await job.started;
    job.return();
    await settle();
    expect(manager.pending).toEqual(["api/beside"]);
    api.report("unhealthy");
    expect(health.snapshot().status).toBe("unhealthy");
    await manager.stop();
    const theirs = told(log).filter(({ type }) => type.startsWith("health-"));
    expect(theirs).toStrictEqual([turnsHealthy]);
  });

  test("in the stage after the database it checks that only while it is up", async () => {
    const db = noting("db");
    const health = new Health({ interval: 10 });
    health.component("db", { check: () => calls.push("check") });
    const group = new ServiceGroup([db, health, noting("web")]);
    manager.run(group);
    await group.ready();
    await vi.advanceTimersByTimeAsync(15);
    await manager.stop();
    expect(calls).toEqual([
      ...["init db", "run db", "check", "init web", "run web", "check"],
      ...["end web", "end db", "finalize web", "finalize db"],
    ]);
    expect(group.states).toEqual({ db: "stopped", health: "stopped", web: "stopped" });
  });

  test("a service that reports how it is, and waits for what it needs, tells the story in order", async () => {
    const { health, api } = makeHealth(check);
    const web: Service = {
      name: "web",
      ready: (signal) => health.waitUntil("healthy", { signal, names: ["db"] }),
      async run(signal) {
        api.report("healthy");
        await new ControlledTask().run(signal);
        api.report("unhealthy", "stops");
      },
    };
    manager.run(new ServiceGroup([health, web], { name: "services" }));
    await settle();
    await manager.stop(reason);
    const services = "api/services";
    expect(told(log)).toStrictEqual([
      started(services),
      ...goes(services, "health", "pending", "initialized", "starting", "running"),
      turnsHealthy,
      ...goes(services, "web", "pending", "initialized", "starting"),
      reported,
      ...goes(services, "web", "starting", "running"),
      stopping("api", reason, services),
      ...goes(services, "web", "running", "stopping"),
      changed("api", "healthy", "unhealthy", "stops"),
      ...goes(services, "web", "stopping", "stopped"),
      ...comesDown(services, "health"),
      ended(services),
      stopped("api"),
    ]);
  });

  test("a check that goes on holds up the stop of the group until its timeout, and then fails nothing", async () => {
    const health = new Health({ timeout: 50 });
    const late = stubborn();
    health.component("db", { check: (signal) => late.run(signal) });
    const group = new ServiceGroup([noting("db"), health]);
    manager.run(group);
    await late.started;
    const end = manager.stop();
    await vi.advanceTimersByTimeAsync(49);
    expect(group.states).toEqual({ db: "running", health: "stopping" });
    await vi.advanceTimersByTimeAsync(1);
    await end;
    late.fail(error);
    await settle();
    expect(health.snapshot().status).toBe("starting");
  });

  test("it may be run again by a RestartTask around its group, and goes on where it was", async () => {
    const { health, api } = makeHealth(check);
    const db = vi.fn((signal: AbortSignal) => new ControlledTask().run(signal));
    db.mockImplementationOnce(() => new Promise((_, reject) => setTimeout(reject, 50, error)));
    const group = new ServiceGroup([{ name: "db", run: db }, health]);
    manager.run(new RestartTask(group, { delay: 10 }));
    await settle();
    api.report("healthy");
    await vi.advanceTimersByTimeAsync(50);
    expect(group.states).toEqual({ db: "failed", health: "stopped" });
    expect(check).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(10);
    expect(check).toHaveBeenCalledTimes(2);
    expect(health.snapshot().status).toBe("healthy");
    await manager.stop();
    const theirs = told(log).filter(({ type }) => type.startsWith("health-"));
    expect(theirs).toStrictEqual([turnsHealthy, reported]);
  });

  test("a removal is told where its changes are", async () => {
    const { health, api } = makeHealth(check);
    api[Symbol.dispose]();
    manager.run(new ServiceGroup([health]));
    await settle();
    const other = health.component("other");
    other[Symbol.dispose]();
    await manager.stop();
    const theirs = told(log).filter(({ type }) => type.startsWith("health-"));
    expect(theirs).toStrictEqual([turnsHealthy, { type: "health-removed", component: "other" }]);
  });
});

describe("at every moment of the start of groups in groups", () => {
  let services: ServiceGroup;
  /** What each service runs, now or next. */
  let tasks: Record<string, ControlledTask>;
  /** All that is told, and all that is called, until everything is up. */
  let start: LifecycleEvent[];
  let starts: string[];
  let moments: number;

  /** Runs a group that restarts, in which are a nested one and a GroupTask, under the manager of the test. */
  function begin(onEvent: (event: LifecycleEvent) => void = log.observe): void {
    tasks = Object.fromEntries(["db", "a", "b", "c", "m", "web"].map((name) => [name, new ControlledTask(name)]));
    const run = (name: string, more?: Service): Service & Task => {
      const next = (signal: AbortSignal): Promise<void> => {
        const task = tasks[name] as ControlledTask;
        return task.run(signal).finally(() => (tasks[name] = new ControlledTask(name)));
      };
      return noting(name, { ...more, run: next }) as Service & Task;
    };
    /** Takes some time, so that there is a stop in the middle. */
    const slowly = (name: string): Service => ({
      async init() {
        calls.push(`init ${name}`);
        for (let i = 0; i < 10; i++) await null;
      },
    });
    const nested = new ServiceGroup([run("a", slowly("a")), [run("b"), run("c")]], { name: "nested" });
    const m = run("m");
    // A manager starts what it has accepted, also when it was stopped meanwhile (law 1).
    const member = { name: "m", run: async (signal: AbortSignal) => void (signal.aborted || (await m.run(signal))) };
    const group = new GroupTask("group", (child) => child.run(member));
    services = new ServiceGroup([run("db", slowly("db")), nested, group, run("web", { ready: async () => {} })]);
    manager = new Manager({ name: "api", onEvent });
    manager.run(new RestartTask(services, { delay: 10 }));
  }

  /** Forgets all that was, before it begins again. */
  function clear(): void {
    log = new EventLog();
    calls = [];
  }

  beforeEach(async () => {
    let isUp = false;
    begin();
    void services.ready().then(() => (isUp = true));
    for (moments = 0; !isUp; moments++) await null;
    start = told(log);
    starts = [...calls];
    await manager.stop();
    expect(moments).toBeGreaterThan(20);
    expect(start.length).toBeGreaterThan(20);
    clear();
  });

  /** Checks that what was begun came down in order, in each group, and was finalized in order, once. */
  function expectDown(failed?: string): void {
    const of = (call: string): string[] =>
      calls.flatMap((each) => (each.startsWith(`${call} `) ? [each.slice(call.length + 1)] : []));
    const [runs, ends] = [of("run"), of("end")];
    assert.deepEqual([...ends].sort(), [...runs].sort());
    // What failed came first, and the two of one stage come down together.
    const inOrder = (name: string): boolean => name !== failed && name !== "c";
    const isNested = (name: string): boolean => ["a", "b", "c"].includes(name);
    const isOuter = (name: string): boolean => !isNested(name);
    for (const isOf of failed === undefined ? [inOrder] : [isNested, isOuter]) {
      const isOne = (name: string): boolean => isOf(name) && inOrder(name);
      assert.deepEqual(ends.filter(isOne), runs.filter(isOne).reverse());
    }
    // The nested group finalizes its own when its turn comes; the outer one when all are down.
    const order = of("init").reverse();
    assert.deepEqual(of("finalize"), [...order.filter(isNested), ...order.filter(isOuter)]);
  }

  /** Checks all that came of a stop at this moment. */
  function expectStopped(moment: number): void {
    const events = told(log);
    const at = events.findIndex(({ type }) => type === "stopping");
    assert.deepEqual(events.slice(0, at), start.slice(0, at), `before ${moment}`);
    const [before, after] = [calls.slice(0, calls.indexOf("stop")), calls.slice(calls.indexOf("stop") + 1)];
    assert.deepEqual(before, starts.slice(0, before.length));
    assert.deepEqual(after.filter((call) => /^(init|run)/.test(call)), [], `after ${moment}`);
    expectDown();
    for (const event of events.slice(at)) {
      if (event.type === "service-state") assert.match(event.to, /^stop/, `at ${moment}`);
      assert.ok(!["task-started", "service-failed", "task-restarting", "ready"].includes(event.type), event.type);
    }
    assert.deepEqual(events.slice(-2), [ended("api/services"), stopped("api")]);
    assert.deepEqual(Object.values(services.states).filter((state) => state !== "pending" && state !== "stopped"), []);
    assert.deepEqual([services.failures, manager.failures], [[], []]);
  }

  test("a stop starts nothing more, takes down what is up in reverse, finalizes what was initialized", async () => {
    for (let moment = 0; moment <= moments; moment++) {
      clear();
      begin();
      for (let i = 0; i < moment; i++) await null;
      calls.push("stop");
      await manager.stop(reason);
      expectStopped(moment);
    }
  });

  test("so does a stop by an observer, in the middle of what it is told", async () => {
    for (let moment = 1; moment < start.length; moment++) {
      clear();
      begin((event) => {
        log.observe(event);
        if (log.events.length !== moment) return;
        calls.push("stop");
        void manager.stop(reason);
      });
      await log.until("stopping");
      await manager.stop();
      expectStopped(moment);
    }
  });

  test.each([
    ["db", "db"],
    ["c", "nested"],
    ["m", "group"],
    ["web", "web"],
  ])("a failure of %s is the only one, takes all down in order, and then all begin anew", async (name, source) => {
    for (let moment = 0; moment <= moments; moment++) {
      clear();
      begin();
      for (let i = 0; i < moment; i++) await null;
      tasks[name]?.fail(error);
      await log.until("task-restarting");
      assert.deepEqual(services.failures, [{ source, error }], `at ${moment}`);
      expectDown(name);
      const failed = told(log).filter(({ type }) => type === "service-failed" || type === "task-restarting");
      expect(failed).toStrictEqual([
        ...(source === "nested" ? [serviceFailed("api/services/nested", name, "run", error)] : []),
        serviceFailed("api/services", source, expect.stringMatching(/^(run|ready)$/), error),
        restarting("api/services", 1, 10, error),
      ]);
      const before = log.events.length;
      const called = calls.length;
      vi.advanceTimersByTime(10);
      await services.ready();
      const again = told(log).slice(before);
      assert.deepEqual(again, [restarted("api/services", 1), ...start.slice(1)]);
      assert.deepEqual(calls.slice(called), starts);
      await manager.stop();
    }
  });

  test("a stop on the way down from a failure begins nothing anew, and passes that on", async () => {
    for (let moment = 0; ; moment++) {
      clear();
      begin();
      await services.ready();
      tasks["db"]?.fail(error);
      for (let i = 0; i < moment; i++) await null;
      const isOver = told(log).some(({ type }) => type === "task-restarting");
      const end = await manager.stop().catch((thrown: unknown) => thrown);
      vi.advanceTimersByTime(10);
      await settle();
      assert.deepEqual(calls.slice(0, starts.length), starts);
      assert.deepEqual(calls.slice(starts.length).filter((call) => /^(init|run)/.test(call)), []);
      expectDown("db");
      assert.equal(told(log).at(-1)?.type, "stopped");
      assert.equal(end, isOver ? undefined : error, `at ${moment}`);
      if (isOver) break;
    }
  });

  const observers: Record<string, (event: LifecycleEvent) => unknown> = {
    throws() {
      throw error;
    },
    rejects: fails,
  };
  test.each(Object.entries(observers))("an observer that %s changes nothing of it", async (_, observe) => {
    begin((event) => {
      log.observe(event);
      return observe(event);
    });
    await services.ready();
    expect(told(log)).toStrictEqual(start);
    calls.push("stop");
    await manager.stop();
    expectStopped(start.length);
  });
});
