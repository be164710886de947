import { getEventListeners } from "node:events";
import { StopReason, TaskAlreadyStartedError } from "allstop";
import { type Service, ServiceGroup, type ServiceGroupOptions } from "allstop/services";
import { ControlledTask, EventLog } from "allstop/testing";
import { describe, expect, test, vi } from "vitest";
import { type Run, start } from "./support/by-hand.ts";
import { inRealTime } from "./support/fake-time.ts";
import { Program } from "./support/program.ts";
import {
  type Call,
  ERROR,
  forget,
  gate,
  lines,
  OTHER,
  pass,
  REASON,
  rest,
  seen,
  service,
  slowly,
  stop,
  story,
  timeout,
  untilStopped,
  up,
  useServices,
  type Ways,
  whenNoted,
  without,
} from "./support/services.ts";
import { stubborn } from "./support/stubborn.ts";
import { hangs, nothing, rejecting, throwing } from "./support/ways.ts";

const BARE_ABORT = Object.assign(new Error("This operation was aborted"), { name: "AbortError" });

useServices();

describe("up, stage by stage", () => {
  test("within a stage all `init` at once, then all `run`, then wait for all `ready`; then the next", async () => {
    const [slowInit, slowReady] = [new ControlledTask(), new ControlledTask()];
    const group = new ServiceGroup([
      [service("a", { init: gate(slowInit) }), service("b", { ready: gate(slowReady) })],
      [service("c"), service("d")],
    ]);
    const run = start(group);
    expect(lines).toEqual(["init a", "init b"]);
    await rest();
    expect(seen("run")).toEqual([]);
    slowInit.return();
    await rest();
    expect(seen("init", "run", "ready")).toEqual(["init a", "init b", "run a", "run b", "ready a", "ready b"]);
    slowReady.return();
    await rest();
    expect(seen("init", "run", "ready").slice(6)).toEqual(["init c", "init d", "run c", "run d", "ready c", "ready d"]);
    await stop(run);
    expect(run.end).toBe("returned");
  });

  test("a stage is a service, or a list of services, or an empty list", async () => {
    const group = new ServiceGroup([service("a"), [], [service("b"), service("c")], [service("d")]]);
    const run = await up(group);
    expect(seen("ready")).toEqual(["ready a", "ready b", "ready c", "ready d"]);
    await stop(run);
    expect(seen("ended")).toEqual(["ended d", "ended b", "ended c", "ended a"]);
  });

  test("a service without `init` counts as initialised at its turn", async () => {
    const log = new EventLog();
    const slow = new ControlledTask();
    const group = new ServiceGroup(
      [
        [service("a", without("init")), service("b", { init: gate(slow) })],
        service("c", without("init")),
      ],
      { onEvent: log.observe },
    );
    const run = await up(group);
    expect(group.states).toEqual({ a: "initialized", b: "initializing", c: "pending" });
    slow.return();
    await rest();
    expect(story(log).filter((line) => line.startsWith("c"))).toEqual([
      "c: pending -> initialized",
      "c: initialized -> starting",
      "c: starting -> running",
    ]);
    await stop(run);
    expect(seen("finalize")).toEqual(["finalize c", "finalize b", "finalize a"]);
  });

  test("without `ready`, a service is ready as soon as `run` was called", async () => {
    const group = new ServiceGroup([service("a", without("ready")), service("b")]);
    whenNoted((line) => {
      if (line === "init b") expect(group.states).toEqual({ a: "running", b: "initializing" });
    });
    const run = await up(group);
    expect(group.states).toEqual({ a: "running", b: "running" });
    await stop(run);
  });

  test.each(["init", "run", "ready", "finalize"] as const)("a service needs no `%s`", async (call) => {
    const group = new ServiceGroup([service("a"), service("b", without(call)), service("c")]);
    const run = await up(group);
    expect(group.states).toEqual({ a: "running", b: "running", c: "running" });
    await stop(run);
    expect(group.states).toEqual({ a: "stopped", b: "stopped", c: "stopped" });
    expect(lines.filter((line) => line.startsWith(call))).toEqual(
      call === "finalize" ? ["finalize c", "finalize a"] : expect.not.arrayContaining([`${call} b`]),
    );
  });

  test("a service with none of the members is legal", async () => {
    const group = new ServiceGroup([{}, service("a"), [{}, Object.create(null)]]);
    const run = await up(group);
    expect(group.states).toEqual({ service: "running", a: "running", "service-2": "running", "service-3": "running" });
    await stop(run);
    expect(run.end).toBe("returned");
    expect(new Set(Object.values(group.states))).toEqual(new Set(["stopped"]));
  });

  test("one that is ephemeral and whose `run` ended cleanly counts as ready", async () => {
    const task = new ControlledTask();
    const group = new ServiceGroup([
      service("a", { ephemeral: true, run: gate(task), ready: hangs }),
      service("b"),
    ]);
    const run = await up(group);
    expect(group.states).toEqual({ a: "starting", b: "pending" });
    task.return();
    await rest();
    expect(group.states).toEqual({ a: "stopped", b: "running" });
    await pass(60_000);
    await stop(run);
    expect(run.end).toBe("returned");
  });

  test("any thenable of `init`, `run`, `ready` and `finalize` is awaited, and the value is ignored", async () => {
    const tasks = [stubborn(), stubborn(), stubborn()] as const;
    const thenable = (task: ControlledTask) => (): PromiseLike<unknown> => {
      const promise = gate(task)();
      return { then: (...args) => promise.then(() => false as never).then(...args) };
    };
    const [init, ready, finalize] = tasks.map(thenable);
    const group = new ServiceGroup([service("a", { init, ready, finalize, ...without("run") })]);
    const run = await up(group);
    for (const [task, state] of [[tasks[0], "starting"], [tasks[1], "running"]] as const) {
      expect(group.states).not.toEqual({ a: state });
      task.return();
      await rest();
      expect(group.states).toEqual({ a: state });
    }
    await stop(run);
    expect(run.end).toBe("running");
    tasks[2].return();
    await rest();
    expect(run.end).toBe("returned");
  });

  test("each method is called on its service, `finalize` without an argument", async () => {
    const calls: [string, unknown, unknown[]][] = [];
    class Database {
      init(...args: unknown[]): void {
        calls.push(["init", this, args]);
      }
      run(...args: [AbortSignal]): Promise<never> {
        calls.push(["run", this, args]);
        return untilStopped(...args);
      }
      ready(...args: unknown[]): void {
        calls.push(["ready", this, args]);
      }
      finalize(...args: unknown[]): void {
        calls.push(["finalize", this, args]);
      }
    }
    const database = new Database();
    await stop(await up(new ServiceGroup([database])));
    const signal = expect.any(AbortSignal);
    expect(calls).toEqual([
      ["init", database, [signal]],
      ["run", database, [signal]],
      ["ready", database, [signal]],
      ["finalize", database, []],
    ]);
  });
});

describe("signals", () => {
  function recorded(name: string, signals: Record<string, AbortSignal[]>, ways: Ways = {}): Service {
    const keep = (signal: AbortSignal): void => void (signals[name] ??= []).push(signal);
    const run = (signal: AbortSignal): PromiseLike<unknown> => {
      keep(signal);
      return untilStopped(signal);
    };
    return service(name, { init: keep, ready: keep, run, ...ways });
  }

  test("`init`, `run` and `ready` of a service get one signal, each service its own", async () => {
    const signals: Record<string, AbortSignal[]> = {};
    const run = await up(new ServiceGroup([[recorded("a", signals), recorded("b", signals)], recorded("c", signals)]));
    const all = Object.values(signals);
    expect(all.map(({ length }) => length)).toEqual([3, 3, 3]);
    expect(all.map((own) => new Set(own).size)).toEqual([1, 1, 1]);
    expect(new Set([...all.flat(), run.controller.signal]).size).toBe(4);
    await stop(run);
  });

  test("which aborts when it is its stage's turn to come down; for the last one, in the turn of the stop", async () => {
    const [b, c] = [stubborn(), stubborn()];
    const group = new ServiceGroup([
      service("a"),
      service("b", { run: gate(b) }),
      [service("c", { run: gate(c) }), service("d")],
    ]);
    const run = await up(group);
    run.controller.abort(REASON);
    expect(seen("told")).toEqual(["told c", "told d"]);
    await rest();
    expect(seen("told").slice(2)).toEqual([]);
    expect(group.states).toEqual({ a: "running", b: "running", c: "stopping", d: "stopped" });
    c.return();
    await rest();
    expect(seen("told").slice(2)).toEqual(["told b"]);
    b.return();
    await rest();
    expect(seen("told").slice(3)).toEqual(["told a"]);
    expect(run.end).toBe("returned");
  });

  test.each<[Call, Ways]>([
    ["init", { init: untilStopped }],
    ["ready", { ready: untilStopped }],
  ])("a stage still coming up is first: while it waits for `%s`", async (_, ways) => {
    const run = await up(new ServiceGroup([service("a"), [service("b", ways), service("c")], service("d")]));
    run.controller.abort(REASON);
    expect(seen("told")).toEqual(["told b", "told c"]);
    await rest();
    expect(seen("told").slice(2)).toEqual(["told a"]);
    expect(seen("init")).not.toContain("init d");
    expect(run.end).toBe("returned");
  });

  test.each([
    ["an error", REASON],
    ["a string", "deploy"],
    ["null", null],
    ["nothing", undefined],
  ])("its reason is that of the stop, untouched: %s", async (_, reason) => {
    const signals: Record<string, AbortSignal[]> = {};
    const group = new ServiceGroup([recorded("a", signals), recorded("b", signals)]);
    const run = await up(group);
    await stop(run, reason);
    for (const signal of Object.values(signals).flat()) expect(signal.reason).toBe(run.controller.signal.reason);
    expect(run.end).toBe("returned");
    expect(group.failures).toEqual([]);
  });

  test.each<[string, Ways, Error | undefined]>([
    ["a `run` that fails", { run: rejecting(ERROR) }, ERROR],
    ["a `run` that returns", { run: slowly(1) }, undefined],
    ["an `init` that fails", { init: rejecting(ERROR) }, ERROR],
    ["a `ready` that fails", { ready: throwing(ERROR) }, ERROR],
  ])("or a StopReason with the service that caused it: %s", async (_, ways, error) => {
    const signals: Record<string, AbortSignal[]> = {};
    const group = new ServiceGroup([recorded("a", signals), service("b", ways)], { name: "api" });
    const run = await up(group);
    const reason = signals["a"]?.[0]?.reason;
    expect(reason).toBeInstanceOf(StopReason);
    expect(reason.task).toBe("api/b");
    expect(reason.cause).toBe(error);
    expect("cause" in reason).toBe(error !== undefined);
    expect(run.end).toBe(error ?? "returned");
  });

  test("or one without a service, when all that was left was ephemeral", async () => {
    const signals: Record<string, AbortSignal[]> = {};
    const a = recorded("a", signals, without("run"));
    const run = await up(new ServiceGroup([a, service("b", { ephemeral: true, run: slowly(1) })]));
    expect(run.end).toBe("returned");
    const reason = signals["a"]?.[0]?.reason;
    expect(reason).toBeInstanceOf(StopReason);
    expect([reason.task, reason.cause]).toEqual([undefined, undefined]);
  });

  test("the first cause wins", async () => {
    const signals: Record<string, AbortSignal[]> = {};
    const failing = rejecting(ERROR);
    const run = start(new ServiceGroup([[recorded("a", signals), recorded("b", signals, { init: failing })]]));
    await rest();
    await stop(run);
    expect(signals["a"]?.[0]?.reason).toMatchObject({ task: "services/b", cause: ERROR });
  });
});

describe("down, from the last stage to the first", () => {
  test("the next only when every `run` of this one has ended; then the finalizers, one at a time", async () => {
    const [b, c, finalizer] = [stubborn(), stubborn(), stubborn()];
    const group = new ServiceGroup([
      service("a"),
      [service("b", { run: gate(b) }), service("c", { run: gate(c) })],
      service("d", { finalize: gate(finalizer) }),
    ]);
    const run = await up(group);
    forget();
    await stop(run);
    expect(lines).toEqual(["told d", "ended d", "told b", "told c"]);
    c.return();
    await rest();
    expect(lines.slice(4)).toEqual(["ended c"]);
    b.return();
    await rest();
    expect(lines.slice(5)).toEqual(["ended b", "told a", "ended a", "finalize d"]);
    expect(run.end).toBe("running");
    finalizer.return();
    await rest();
    expect(lines.slice(9)).toEqual(["finalize c", "finalize b", "finalize a"]);
    expect(run.end).toBe("returned");
  });

  test("in reverse order of when each `init` finished", async () => {
    const tasks = { a: new ControlledTask(), b: new ControlledTask(), c: new ControlledTask() };
    const stage = Object.entries(tasks).map(([name, task]) => service(name, { init: gate(task) }));
    const run = await up(new ServiceGroup([[...stage, service("d"), service("e", without("init"))]]));
    for (const task of [tasks.b, tasks.c, tasks.a]) {
      task.return();
      await rest();
    }
    await stop(run);
    expect(seen("finalize").map((line) => line.at(-1))).toEqual(["a", "c", "b", "e", "d"]);
  });

  test("a service whose `init` failed, or was cancelled, is not finalised", async () => {
    const group = new ServiceGroup([
      service("a"),
      [service("b", { init: rejecting(ERROR) }), service("c", { init: untilStopped }), service("d")],
    ]);
    const run = await up(group);
    expect(run.end).toBe(ERROR);
    expect(seen("finalize")).toEqual(["finalize d", "finalize a"]);
    expect(group.failures).toEqual([{ source: "b", error: ERROR }]);
  });

  const stages = (task: ControlledTask): Service[][] => [
    [service("a"), service("x", { run: gate(task), ...without("init", "ready", "finalize") })],
    [service("b"), service("c")],
    [service("d", { ready: hangs })],
  ];
  test.each<[string, (run: Run, task: ControlledTask) => unknown]>([
    ["stop", (run) => run.controller.abort()],
    ["failure", (_, task) => task.fail(ERROR)],
    ["return", (_, task) => task.return()],
    ["timeout", () => vi.advanceTimersByTime(60_000)],
  ])("the same order whatever caused it: %s", async (_, cause) => {
    const task = new ControlledTask();
    const run = await up(new ServiceGroup(stages(task)));
    cause(run, task);
    await rest();
    expect(run.end).not.toBe("running");
    const downs = seen("told", "ended", "finalize").filter((line) => !line.endsWith("x"));
    expect(downs).toEqual([
      "told d",
      "ended d",
      ...["told b", "told c", "ended b", "ended c"],
      ...["told a", "ended a"],
      ...["finalize d", "finalize c", "finalize b", "finalize a"],
    ]);
  });

  test("a finalizer that fails does not stop the next", async () => {
    const group = new ServiceGroup([
      service("a", { finalize: throwing(ERROR) }),
      service("b", { finalize: rejecting(OTHER) }),
      service("c", { finalize: rejecting(REASON) }),
    ]);
    const run = await up(group);
    await stop(run, REASON);
    expect(seen("finalize")).toEqual(["finalize c", "finalize b", "finalize a"]);
    expect(run.end).toBe(REASON);
    expect(group.failures.map(({ error }) => error)).toEqual([REASON, OTHER, ERROR]);
  });

  test("what ends because it was told to has not failed, however it says so", async () => {
    const whenTold = (error: (reason: unknown) => unknown) => (signal: AbortSignal): Promise<never> =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(error(signal.reason))));
    const group = new ServiceGroup([
      service("a", { run: whenTold((reason) => reason) }),
      service("b", { run: whenTold(() => BARE_ABORT) }),
      service("c", { run: whenTold((cause) => Object.assign(new Error("x", { cause }), { name: "AbortError" })) }),
      service("d", { run: slowly(0), ephemeral: true, ...without("ready") }),
      service("e", { init: whenTold(() => BARE_ABORT) }),
    ]);
    const run = await up(group);
    await stop(run);
    expect([run.end, group.failures]).toEqual(["returned", []]);
    expect(new Set(Object.values(group.states))).toEqual(new Set(["stopped"]));
  });

  test("a `run` that throws the reason why another group stopped, which this one does not, has failed", async () => {
    const reason = new StopReason("elsewhere");
    const group = new ServiceGroup([{ name: "db", run: async () => Promise.reject(reason) }]);
    await expect(group.run(new AbortController().signal)).rejects.toBe(reason);
    expect(group.failures).toEqual([{ source: "db", error: reason }]);
    expect(group.states).toEqual({ db: "failed" });
  });

  test("any other error while it comes down is a failure", async () => {
    const foreign = Object.assign(new Error("x", { cause: OTHER }), { name: "AbortError" });
    const onStop = (error: Error) => (signal: AbortSignal) => untilStopped(signal).catch(throwing(error));
    const group = new ServiceGroup([
      service("a", { run: onStop(ERROR) }),
      service("b", { run: onStop(foreign) }),
      service("c", { init: onStop(OTHER) }),
    ]);
    const run = await up(group);
    await stop(run);
    expect(run.end).toBe(OTHER);
    expect(group.failures).toEqual([
      { source: "c", error: OTHER },
      { source: "b", error: foreign },
      { source: "a", error: ERROR },
    ]);
  });
});

describe("a start that is abandoned", () => {
  test("a stop while a stage comes up abandons it at once; what is up is told without waiting for it", async () => {
    const init = stubborn();
    const group = new ServiceGroup([service("a"), [service("b", { init: gate(init) }), service("c")], service("d")]);
    const run = await up(group);
    await stop(run);
    expect(seen("told", "ended")).toEqual(["told b", "told c", "told a", "ended a"]);
    expect(group.states).toEqual({ a: "stopped", b: "initializing", c: "stopped", d: "pending" });
    expect([run.end, seen("finalize")]).toEqual(["running", []]);
    init.return();
    await rest();
    expect(seen("finalize")).toEqual(["finalize b", "finalize c", "finalize a"]);
    expect(group.states).toEqual({ a: "stopped", b: "stopped", c: "stopped", d: "pending" });
    expect(seen("run", "ready")).toEqual(["run a", "ready a"]);
    expect(run.end).toBe("returned");
  });

  test.each<[string, (task: ControlledTask) => void, unknown]>([
    ["fails", (task) => task.fail(ERROR), ERROR],
    ["returns", (task) => task.return(), "returned"],
  ])("so it is for any `run` that ends: it %s", async (_, end, expected) => {
    const [task, init] = [new ControlledTask(), stubborn()];
    const a = service("a", { run: gate(task) });
    const group = new ServiceGroup([[a, service("b")], service("c", { init: gate(init) })]);
    const run = await up(group);
    end(task);
    await rest();
    expect(seen("told", "ended")).toEqual(["ended a", "told c", "told a", "told b", "ended b"]);
    init.return();
    await rest();
    expect(seen("finalize")).toEqual(["finalize c", "finalize b", "finalize a"]);
    expect(run.end).toBe(expected);
  });

  test("an ephemeral one that returns abandons nothing", async () => {
    const init = new ControlledTask();
    const a = service("a", { ephemeral: true, run: slowly(1) });
    const run = await up(new ServiceGroup([a, service("b", { init: gate(init) })]));
    expect(seen("ended", "told")).toEqual(["ended a"]);
    init.return();
    await rest();
    expect([seen("run", "told"), run.end]).toEqual([["run a", "run b"], "running"]);
    await stop(run);
  });

  test("a `ready` that goes on is abandoned: how it ends counts for nothing, `run` does not wait for it", async () => {
    const [fails, returns] = [stubborn(), stubborn()];
    const a = service("a", { ready: gate(fails) });
    const group = new ServiceGroup([[a, service("b", { ready: gate(returns), ...without("run") })]]);
    const run = await up(group);
    await stop(run);
    expect(run.end).toBe("returned");
    fails.fail(ERROR);
    returns.return();
    await rest();
    expect([group.failures, group.states]).toEqual([[], { a: "stopped", b: "stopped" }]);
  });
});

describe("what brings it down", () => {
  test.each<[string, Ways, unknown]>([
    ["cleanly if it returned and is not ephemeral", { run: slowly(1) }, "returned"],
    ["as its failure if it threw", { run: throwing(ERROR) }, ERROR],
    ["as its failure if it rejected", { run: rejecting(ERROR) }, ERROR],
    ["as its failure if it rejected with an AbortError before the stop", { run: rejecting(BARE_ABORT) }, BARE_ABORT],
    ["as its failure also if it is ephemeral", { ephemeral: true, run: rejecting(ERROR) }, ERROR],
  ])("a `run` that ends brings the group down: %s", async (_, ways, end) => {
    const group = new ServiceGroup([[service("a"), service("b", ways)]]);
    const run = await up(group);
    expect(run.end).toBe(end);
    expect(group.states).toEqual({ a: "stopped", b: end === "returned" ? "stopped" : "failed" });
  });

  const ends = ["a", "b", "ready"];
  test.each(ends)("when it is up and every `run` has ended, all ephemeral, it comes down: %s last", async (last) => {
    const tasks: Record<string, ControlledTask> = { a: stubborn(), b: stubborn(), ready: stubborn() };
    const [a, b, ready] = Object.values(tasks).map(gate);
    const group = new ServiceGroup([
      service("x", without("run")),
      service("a", { ephemeral: true, run: a }),
      [service("b", { ephemeral: true, run: b }), service("c", { ready, ...without("run") })],
    ]);
    const run = await up(group);
    for (const [name, task] of Object.entries(tasks)) if (name !== last) task.return();
    await rest();
    expect([seen("told"), run.end]).toEqual([[], "running"]);
    tasks[last]?.return();
    await rest();
    expect([seen("told"), run.end]).toEqual([["told b", "told c", "told a", "told x"], "returned"]);
  });

  test.each<[string, Service[]]>([
    ["with services that only have other methods", [{ name: "a", init: nothing, ready: nothing }, { name: "b" }]],
    ["without any service", []],
  ])("a group without any `run` stays up until it is told to stop: %s", async (_, stages) => {
    const group = new ServiceGroup(stages);
    const run = await up(group);
    await group.ready();
    await pass(1_000_000);
    expect(run.end).toBe("running");
    await stop(run);
    expect(run.end).toBe("returned");
  });
});

describe("runs", () => {
  test("re-runnable: each `run` starts with fresh states and failures, signals, timeouts and events", async () => {
    const log = new EventLog();
    const signals = new Set<AbortSignal>();
    const errors = [ERROR, undefined, OTHER];
    let count = 0;
    const ready = (signal: AbortSignal): unknown => {
      signals.add(signal);
      const error = errors[count++];
      return error && Promise.reject(error);
    };
    const group = new ServiceGroup([service("a"), service("b", { ready }), service("c")], { onEvent: log.observe });
    const stories: string[][] = [];
    for (const error of errors) {
      const told = log.events.length;
      const run = start(group);
      expect(group.states).toEqual({ a: "initializing", b: "pending", c: "pending" });
      expect(group.failures).toEqual([]);
      await rest();
      expect(run.end).toBe(error ?? "running");
      await stop(run);
      expect(group.failures).toEqual(error ? [{ source: "b", error }] : []);
      expect(group.states).toEqual({ a: "stopped", b: error ? "failed" : "stopped", c: error ? "pending" : "stopped" });
      stories.push(story(log).slice(told));
    }
    expect(signals.size).toBe(3);
    expect(stories[2]).toEqual(stories[0]?.map((line) => line.replace("connection lost", "disk full")));
    expect(seen("finalize").map((line) => line.at(-1)).join("")).toBe("ba" + "cba" + "ba");
  });

  test("one error, thrown again in the next run, is the failure of that run, too", async () => {
    const log = new EventLog();
    const group = new ServiceGroup([service("a", { run: rejecting(ERROR) })], { onEvent: log.observe });
    for (const runs of [1, 2]) {
      const run = await up(group);
      expect(run.end).toBe(ERROR);
      expect(group.failures).toEqual([{ source: "a", error: ERROR }]);
      expect(log.events.filter(({ type }) => type === "service-failed").length).toBe(runs);
    }
  });

  test("a second `run` while one goes on rejects with `TaskAlreadyStartedError`, and changes nothing", async () => {
    const group = new ServiceGroup([service("a"), service("b")], { name: "backend" });
    const run = await up(group);
    const before = [...lines];
    for (const controller of [new AbortController(), run.controller]) {
      const second = start(group, controller);
      await rest();
      expect(second.end).toBeInstanceOf(TaskAlreadyStartedError);
      expect(second.end).toMatchObject({ task: "backend" });
    }
    start(group).controller.abort();
    await rest();
    expect([lines, group.states, run.end]).toEqual([before, { a: "running", b: "running" }, "running"]);
    await stop(run);
    expect(run.end).toBe("returned");
  });

  test("a `ready` that has not ended refuses no run once the `run` of its service has ended", async () => {
    const all: [Ways, unknown][] = [
      [{}, "returned"],
      [without("run"), "returned"],
      [{ ephemeral: true, run: slowly(1) }, "returned"],
      [{ run: rejecting(ERROR) }, ERROR],
    ];
    for (const [ways, end] of all) {
      const group = new ServiceGroup([[service("a", { ready: hangs, ...ways }), service("b")]]);
      for (const _ of [1, 2]) {
        const run = await up(group);
        await stop(run);
        expect(run.end).toBe(end);
      }
    }
  });

  test("a run may begin as soon as the last one has ended, also from where it is told", async () => {
    const group = new ServiceGroup([service("a"), service("b", { run: slowly(1) })]);
    const { signal } = new AbortController();
    await group.run(signal);
    await group.run(signal).then(() => group.run(signal));
    expect(seen("finalize").length).toBe(6);
  });
});

describe("what is left behind", () => {
  test("while it is up it has no timer and one listener on the signal it is given; afterwards neither", async () => {
    const group = new ServiceGroup([["a", "b", "c"].map((name) => service(name)), service("d")]);
    const run = await up(group);
    const left = (): number[] => [vi.getTimerCount(), getEventListeners(run.controller.signal, "abort").length];
    expect(left()).toEqual([0, 1]);
    await stop(run);
    expect([run.end, ...left()]).toEqual(["returned", 0, 0]);
  });

  test("a thousand services in a stage: no warning of too many listeners, and few timers", async () => {
    const names = Array.from({ length: 1_000 }, (_, index) => `s${index}`);
    const group = new ServiceGroup([names.map((name) => service(name)), service("last", { init: hangs })], {
      stopTimeout: 100,
    });
    const run = await up(group);
    expect(seen("run").length).toBe(1_000);
    expect(vi.getTimerCount()).toBeLessThan(5);
    await stop(run);
    await pass(100);
    expect(run.end).not.toBe("running");
    expect(seen("finalize")).toEqual(names.map((name) => `finalize ${name}`).reverse());
  });

  test("while it comes up, and down, it keeps the process alive; in between only its services do", async () => {
    await inRealTime(async () => {
      const program = new Program("fixtures/services-alone.ts");
      expect(await program.end()).toBe(0);
      expect([program.lines, program.stderr]).toEqual([["up", "down"], ""]);
    });
  });
});

describe("a ServiceGroup as a service of another", () => {
  function nested(ways: Ways = {}, options: ServiceGroupOptions = {}) {
    const inner = new ServiceGroup([service("b"), service("c", ways)], { name: "inner", ...options });
    const log = new EventLog();
    const outer = new ServiceGroup([service("a"), inner, service("d")], { name: "outer", onEvent: log.observe });
    return { inner, outer, log };
  }

  test("it takes its turn up, until its last stage is up, and down, with its finalizers", async () => {
    const ready = new ControlledTask();
    const { inner, outer } = nested({ ready: gate(ready) });
    const run = await up(outer);
    expect(seen("init", "run", "ready").map((line) => line.at(-1)).join("")).toBe("aaabbbccc");
    expect(outer.states).toEqual({ a: "running", inner: "starting", d: "pending" });
    ready.return();
    await rest();
    expect(outer.states).toEqual({ a: "running", inner: "running", d: "running" });
    expect(inner.states).toEqual({ b: "running", c: "running" });
    forget();
    await stop(run);
    await rest();
    expect(lines).toEqual([
      ...["told d", "ended d", "told c", "ended c", "told b", "ended b"],
      ...["finalize c", "finalize b"],
      ...["told a", "ended a", "finalize d", "finalize a"],
    ]);
    expect(run.end).toBe("returned");
  });

  test("its services are `outer/inner/db`, its `task` is `outer/inner`, `service` and `source` are bare", async () => {
    const reasons: Record<string, unknown> = {};
    const noting = (name: string) => (signal: AbortSignal) => untilStopped(signal).catch(() => {
      reasons[name] = signal.reason;
    });
    const log = new EventLog();
    const db = { name: "db", run: noting("db"), ready: rejecting(ERROR) };
    const inner = new ServiceGroup([{ name: "b", run: noting("b") }, db]);
    const outer = new ServiceGroup([{ name: "a", run: noting("a") }, inner], { name: "outer", onEvent: log.observe });
    const run = await up(outer);
    expect(run.end).toBe(ERROR);
    expect(reasons).toEqual({ a: expect.any(StopReason), b: expect.any(StopReason), db: expect.any(StopReason) });
    expect(reasons["a"]).toMatchObject({ task: "outer/services", cause: ERROR });
    expect(reasons["b"]).toMatchObject({ task: "outer/services/db", cause: ERROR });
    expect(log.events.filter(({ type }) => type === "service-failed")).toEqual([
      { type: "service-failed", task: "outer/services", service: "db", phase: "ready", error: ERROR },
      { type: "service-failed", task: "outer", service: "services", phase: "ready", error: ERROR },
    ]);
    expect([inner.failures, outer.failures]).toEqual([
      [{ source: "db", error: ERROR }],
      [{ source: "services", error: ERROR }],
    ]);
  });

  test("the reason of the stop goes through untouched, each service told at its turn", async () => {
    const reasons: unknown[] = [];
    const run = (signal: AbortSignal): Promise<unknown> => untilStopped(signal).catch((reason) => reasons.push(reason));
    const outer = new ServiceGroup([service("a", { run }), new ServiceGroup([service("b", { run })])]);
    const started = await up(outer);
    await stop(started, "deploy");
    expect([reasons, seen("told"), started.end]).toEqual([["deploy", "deploy"], ["told b", "told a"], "returned"]);
  });

  test("a failure of a service of the outer one brings the inner one down at its turn, as a stop", async () => {
    const [a, d] = [stubborn(), stubborn()];
    const inner = new ServiceGroup([service("b"), service("c")], { name: "inner" });
    const outer = new ServiceGroup([
      service("a", { run: gate(a) }),
      inner,
      service("d", { run: gate(d) }),
    ]);
    const run = await up(outer);
    a.fail(ERROR);
    await rest();
    expect([seen("told"), inner.states]).toEqual([["told d"], { b: "running", c: "running" }]);
    d.return();
    await rest();
    expect([run.end, inner.failures]).toEqual([ERROR, []]);
    expect(seen("told")).toEqual(["told d", "told c", "told b", "told a"]);
  });

  test("a service of it that returns brings both down, cleanly", async () => {
    for (const ready of [nothing, hangs]) {
      const log = new EventLog();
      const task = new ControlledTask();
      const c = service("c", { run: gate(task), ready });
      const inner = new ServiceGroup([service("b"), c], { name: "inner" });
      const outer = new ServiceGroup([service("a"), inner, service("d")], { onEvent: log.observe });
      const run = await up(outer);
      task.return();
      await rest();
      expect([run.end, inner.failures, outer.failures]).toEqual(["returned", [], []]);
      expect(outer.states).toEqual({ a: "stopped", inner: "stopped", d: ready === nothing ? "stopped" : "pending" });
      expect(log.events.filter(({ type }) => type === "service-failed")).toEqual([]);
    }
  });

  test("an ephemeral one that comes down cleanly before it was ready counts as ready", async () => {
    class Migration extends ServiceGroup {
      readonly ephemeral = true;
    }
    const inner = new Migration([service("b"), service("c", { run: slowly(3), ready: hangs })], { name: "inner" });
    const outer = new ServiceGroup([service("a"), inner, service("d")]);
    const run = await up(outer);
    expect(outer.states).toEqual({ a: "running", inner: "stopped", d: "running" });
    await stop(run);
    expect([run.end, outer.failures]).toEqual(["returned", []]);
  });

  test("its failure is reported once, also if its `ready` and its `run` tell of it at different times", async () => {
    const b = stubborn();
    const inner = new ServiceGroup([service("b", { run: gate(b) }), service("c", { init: throwing(ERROR) })]);
    const outer = new ServiceGroup([service("a"), inner]);
    const run = await up(outer);
    expect([outer.states, run.end]).toEqual([{ a: "running", services: "failed" }, "running"]);
    expect(seen("told")).toEqual(["told c", "told b"]);
    b.fail(OTHER);
    await rest();
    expect([run.end, outer.failures]).toEqual([ERROR, [{ source: "services", error: ERROR }]]);
    expect(inner.failures.map(({ error }) => error)).toEqual([ERROR, OTHER]);
  });

  test("what of it fails only while it comes down is its failure", async () => {
    const inner = new ServiceGroup([service("b", { finalize: throwing(ERROR) })]);
    const outer = new ServiceGroup([service("a"), inner, service("d")]);
    const run = await up(outer);
    await stop(run);
    expect([run.end, outer.failures]).toEqual([ERROR, [{ source: "services", error: ERROR }]]);
    expect(seen("told")).toEqual(["told d", "told b", "told a"]);
  });

  test("its timeouts are its own, and its `run` has the outer one's `stopTimeout`", async () => {
    const inner = new ServiceGroup([service("b", { run: hangs }), service("c", { run: hangs })], { stopTimeout: 100 });
    const outer = new ServiceGroup([service("a"), inner], { stopTimeout: 150 });
    const run = await up(outer);
    await stop(run);
    await pass(100);
    expect(inner.failures).toEqual([{ source: "c", error: timeout("c", "stop") }]);
    await pass(49);
    expect(seen("told")).toEqual(["told c", "told b"]);
    await pass(1);
    expect(seen("told").slice(2)).toEqual(["told a"]);
    expect(run.end).toEqual(timeout("services", "stop"));
    await pass(50);
    expect(outer.failures.length).toBe(1);
    const again = await up(outer);
    expect(again.end).toMatchObject({ name: "TaskAlreadyStartedError", task: "services/services" });
  });

  test("with an `onEvent` of its own, that one is told of its services", async () => {
    const own = new EventLog();
    const { outer, log } = nested({}, { onEvent: own.observe });
    await stop(await up(outer));
    await rest();
    expect(new Set(own.events.map((event) => "task" in event && event.task))).toEqual(new Set(["outer/inner"]));
    expect(new Set(log.events.map((event) => "task" in event && event.task))).toEqual(new Set(["outer"]));
  });

  test("it runs again whenever the outer one does", async () => {
    const { inner, outer, log } = nested();
    for (const runs of [1, 2, 3]) {
      const run = await up(outer);
      await rest();
      expect(inner.states).toEqual({ b: "running", c: "running" });
      await stop(run);
      await rest();
      expect([run.end, inner.states]).toEqual(["returned", { b: "stopped", c: "stopped" }]);
      expect(seen("finalize").length).toBe(4 * runs);
      expect(log.events.length % runs).toBe(0);
    }
  });
});
