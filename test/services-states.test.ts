import { getEventListeners } from "node:events";
import { Manager, PanicError, StopReason } from "allstop";
import { LoopTask } from "allstop/repeat";
import { type Service, ServiceGroup } from "allstop/services";
import { ControlledTask, EventLog } from "allstop/testing";
import { describe, expect, test } from "vitest";
import { start } from "./support/by-hand.ts";
import { microtasks } from "./support/microtasks.ts";
import {
  endsWhenStopped,
  ERROR,
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
import { thrownBy } from "./support/thrown-by.ts";
import { hangs, nothing, rejecting, throwing } from "./support/ways.ts";

useServices();

describe("states", () => {
  test("each change of `states`, from pending to stopped, is a `service-state` event", async () => {
    const log = new EventLog();
    const tasks = { init: stubborn(), ready: stubborn(), run: stubborn() };
    const { init, ready, run: task } = tasks;
    const ways = { init: gate(init), ready: gate(ready), run: gate(task) };
    const group: ServiceGroup = new ServiceGroup([service("a", ways)], {
      name: "api",
      onEvent(event) {
        log.observe(event);
        expect("to" in event && event.to).toBe(group.states["a"]);
      },
    });
    expect(group.states).toEqual({ a: "pending" });
    const run = await up(group);
    expect(group.states).toEqual({ a: "initializing" });
    init.return();
    await rest();
    expect(group.states).toEqual({ a: "starting" });
    ready.return();
    await rest();
    expect(group.states).toEqual({ a: "running" });
    await stop(run);
    expect(group.states).toEqual({ a: "stopping" });
    task.return();
    await rest();
    const order = ["pending", "initializing", "initialized", "starting", "running", "stopping", "stopped"];
    expect(log.events).toEqual(
      order.slice(1).map((to, index) => ({ type: "service-state", task: "api", service: "a", from: order[index], to })),
    );
  });

  test.each<[string, Ways, string[]]>([
    ["without `init`", without("init"), ["initialized", "starting", "running", "stopping", "stopped"]],
    [
      "without `ready`",
      without("ready"),
      ["initializing", "initialized", "starting", "running", "stopping", "stopped"],
    ],
    ["without `run`", without("run"), ["initializing", "initialized", "starting", "running", "stopped"]],
    ["with nothing", without("init", "run", "ready", "finalize"), ["initialized", "starting", "running", "stopped"]],
    ["with an `init` that is cancelled", { init: untilStopped }, ["initializing", "stopped"]],
    ["with an `init` that goes on to its end", { init: endsWhenStopped }, ["initializing", "stopped"]],
    [
      "with a `ready` that is cancelled",
      { ready: untilStopped },
      ["initializing", "initialized", "starting", "stopping", "stopped"],
    ],
    [
      "with neither `run` nor a `ready` that ends",
      { ready: hangs, ...without("run") },
      ["initializing", "initialized", "starting", "stopped"],
    ],
    ["with an `init` that fails", { init: throwing(ERROR) }, ["initializing", "failed"]],
    ["with a `run` that fails", { run: throwing(ERROR) }, ["initializing", "initialized", "starting", "failed"]],
    [
      "with a finalizer that fails",
      { finalize: throwing(ERROR) },
      ["initializing", "initialized", "starting", "running", "stopping", "stopped", "failed"],
    ],
  ])("a service %s goes its way", async (_, ways, way) => {
    const log = new EventLog();
    const run = await up(new ServiceGroup([service("a", ways)], { onEvent: log.observe }));
    await stop(run);
    expect(log.events.flatMap((event) => ("to" in event ? event.to : []))).toEqual(way);
  });

  test("never begun stays `pending`; what was initialised becomes `stopped` at its stage's turn", async () => {
    const group = new ServiceGroup([
      service("a"),
      [service("b"), service("c", { init: untilStopped }), service("d", without("init"))],
      service("e"),
    ]);
    const run = await up(group);
    run.controller.abort(REASON);
    const states = { a: "running", b: "stopped", c: "initializing", d: "stopped", e: "pending" };
    expect(group.states).toEqual(states);
    await rest();
    expect(group.states).toEqual({ ...states, a: "stopped", c: "stopped" });
  });

  test("`stopped` means that `run` has ended", async () => {
    const task = new ControlledTask();
    const group = new ServiceGroup([
      service("a", without("run")),
      service("b", { ephemeral: true, run: slowly(1) }),
      service("c", { run: (signal) => task.run(signal).then(slowly(3)) }),
    ]);
    const run = await up(group);
    expect(group.states).toEqual({ a: "running", b: "stopped", c: "running" });
    run.controller.abort(REASON);
    whenNoted((line) => {
      if (line === "ended c") expect(group.states).toEqual({ a: "running", b: "stopped", c: "stopping" });
    });
    await rest();
    expect(run.end).toBe("returned");
    expect(group.states).toEqual({ a: "stopped", b: "stopped", c: "stopped" });
  });

  test("`failed` is final", async () => {
    const log = new EventLog();
    const task = stubborn();
    const group = new ServiceGroup(
      [service("a", { run: gate(task), ready: rejecting(ERROR), finalize: slowly(1) })],
      { onEvent: log.observe },
    );
    const run = await up(group);
    expect(group.states).toEqual({ a: "failed" });
    task.return();
    await rest();
    expect(run.end).toBe(ERROR);
    expect(seen("finalize")).toEqual(["finalize a"]);
    expect(log.events.filter((event) => "from" in event && event.from === "failed")).toEqual([]);
    expect(group.states).toEqual({ a: "failed" });
  });

  test("`states` has every service, in the order in which they were given, as a copy", () => {
    const group = new ServiceGroup([[service("b"), service("a")], service("__proto__")]);
    expect(Object.entries(group.states)).toEqual(["b", "a", "__proto__"].map((name) => [name, "pending"]));
    (group.states as Record<string, string>)["b"] = "failed";
    expect(group.states["b"]).toBe("pending");
  });

  test("an `onEvent` that throws or rejects changes nothing", async () => {
    for (const onEvent of [throwing(ERROR), rejecting(ERROR)]) {
      const group = new ServiceGroup([service("a"), service("b")], { onEvent });
      const run = await up(group);
      expect(group.states).toEqual({ a: "running", b: "running" });
      await stop(run);
      expect([run.end, group.failures]).toEqual(["returned", []]);
    }
  });

  test("under a manager, `task` is the group's full name, and so it goes for what its services tell", async () => {
    const log = new EventLog();
    const manager = new Manager({ name: "api", onEvent: log.observe });
    const fails = new LoopTask(throwing(ERROR), { name: "db", delay: 1_000, onError: "continue" });
    const cache = { name: "cache", ready: rejecting(OTHER) };
    manager.run(new ServiceGroup([fails, cache]));
    await manager.wait().catch(nothing);
    const [first] = log.events.filter(({ type }) => type === "service-state");
    expect(first).toEqual({
      type: "service-state",
      task: "api/services",
      service: "db",
      from: "pending",
      to: "initialized",
    });
    const failed = log.events.filter(({ type }) => /^(action|service)-failed$/.test(type));
    expect(failed).toEqual([
      { type: "action-failed", task: "api/services/db", error: ERROR },
      { type: "service-failed", task: "api/services", service: "cache", phase: "ready", error: OTHER },
    ]);
    expect(manager.failures).toEqual([{ source: "api/services", error: OTHER }]);
  });

  test("with an `onEvent` of its own, that one is told, and the manager is not", async () => {
    const [own, managers] = [new EventLog(), new EventLog()];
    const manager = new Manager({ onEvent: managers.observe });
    const fails = new LoopTask(throwing(ERROR), { name: "db", delay: 1_000, onError: "continue" });
    manager.run(new ServiceGroup([fails], { onEvent: own.observe, name: "mine" }));
    await rest();
    await manager.stop();
    expect(own.events.map(({ type }) => type)).toContain("action-failed");
    expect(own.events.map((event) => "task" in event && event.task)).toContain("mine/db");
    expect(new Set(managers.events.map(({ type }) => type))).toEqual(
      new Set(["task-started", "stopping", "task-ended", "stopped"]),
    );
  });
});

describe("failures", () => {
  const values: [shown: string, value: unknown][] = [
    ["an error", ERROR],
    ["a string", "x"],
    ["undefined", undefined],
    ["null", null],
    ["a number", 0],
  ];
  const ends: [how: string, end: (value: unknown) => () => unknown][] = [
    ["throws", throwing],
    ["rejects with", rejecting],
    ["rejects later with", (value) => () => microtasks(3).then(throwing(value))],
  ];

  const ways = (["init", "run", "ready", "finalize"] as const).flatMap((call) =>
    ends.map(([how, end]) => [call, how, end] as const),
  );
  test.each(ways)("whatever `%s` %s is its failure; what is no Error arrives as a PanicError", async (call, _, end) => {
    for (const [shown, value] of values) {
      const log = new EventLog();
      const group = new ServiceGroup([service("a"), service("b", { [call]: end(value) })], { onEvent: log.observe });
      const run = await up(group);
      if (call === "finalize") await stop(run);
      const error = group.failures[0]?.error;
      if (value === ERROR) expect(error).toBe(ERROR);
      else expect([shown, error, error?.cause]).toEqual([shown, expect.any(PanicError), value]);
      expect(group.failures).toEqual([{ source: "b", error }]);
      expect(run.end).toBe(error);
      const told = log.events.filter(({ type }) => type === "service-failed");
      expect(told).toEqual([{ type: "service-failed", task: "services", service: "b", phase: call, error }]);
      expect(group.states).toEqual({ a: "stopped", b: "failed" });
      const finalized = call === "init" ? ["finalize a"] : ["finalize b", "finalize a"];
      expect(seen("finalize").slice(-finalized.length)).toEqual(finalized);
    }
  });

  test.each([undefined, 5, null, {}])("a `run` that returns %j fails with a TypeError with its name", async (value) => {
    const group = new ServiceGroup([{ name: "db", run: () => value as never }], { name: "api" });
    const run = await up(group);
    expect(run.end).toBeInstanceOf(TypeError);
    expect(String(run.end)).toMatch(/^TypeError: Cannot run api\/db: it must return a promise, got /);
    expect(group.failures).toEqual([{ source: "db", error: run.end }]);
  });

  test("the first failure is the group's; `failures` holds all in order, each a `service-failed` event", async () => {
    const log = new EventLog();
    const late = (error: Error) => (signal: AbortSignal) => untilStopped(signal).catch(throwing(error));
    const errors = { a: new Error("a"), b: new Error("b"), c: new Error("c"), d: new Error("d") };
    const group = new ServiceGroup(
      [
        service("a", { finalize: throwing(errors.a) }),
        service("b", { run: late(errors.b) }),
        [service("c", { run: late(errors.c) }), service("d", { ready: rejecting(errors.d) })],
      ],
      { onEvent: log.observe },
    );
    const { failures } = group;
    const run = await up(group);
    expect(run.end).toBe(errors.d);
    const all = (["d", "c", "b", "a"] as const).map((source) => ({ source, error: errors[source] }));
    expect(group.failures).toEqual(all);
    expect(failures).toEqual([]);
    expect(new Set(log.events.map(({ type }) => type))).toEqual(new Set(["service-state", "service-failed"]));
    expect(log.events.filter(({ type }) => type === "service-failed")).toEqual(
      all.map(({ source, error }, index) => {
        const phase = ["ready", "run", "run", "finalize"][index];
        return { type: "service-failed", task: "services", service: source, phase, error };
      }),
    );
  });

  test("`failures` is a copy, up to date while it runs", async () => {
    const group = new ServiceGroup([service("a", { run: hangs }), service("b", { run: rejecting(ERROR) })]);
    const run = await up(group);
    expect(run.end).toBe("running");
    (group.failures as unknown[]).length = 0;
    expect(group.failures).toEqual([{ source: "b", error: ERROR }]);
    await pass(15_000);
    expect(run.end).toBe(ERROR);
  });

  test("it is told at once: first the state, then the failure, then the others", async () => {
    const group = new ServiceGroup([service("a"), service("b", { run: rejecting(ERROR) })], {
      onEvent(event) {
        if ("service" in event) lines.push(`${event.service} ${"to" in event ? event.to : event.type}`);
      },
    });
    await up(group);
    const from = lines.indexOf("b failed");
    expect(lines.slice(from, from + 6)).toEqual([
      "b failed",
      "b service-failed",
      "told b",
      "a stopping",
      "told a",
      "ended a",
    ]);
  });

  test("one error of both `run` and `ready` of a service is reported once, of two services twice", async () => {
    const log = new EventLog();
    const both = { run: rejecting(ERROR), ready: rejecting(ERROR) };
    const group = new ServiceGroup([[service("a", both), service("b", { run: rejecting(ERROR) })]], {
      onEvent: log.observe,
    });
    const run = await up(group);
    expect(run.end).toBe(ERROR);
    expect(group.failures).toEqual(["a", "b"].map((source) => ({ source, error: ERROR })));
    expect(log.events.filter(({ type }) => type === "service-failed").length).toBe(2);
  });

  test("two errors of a service are two failures", async () => {
    const task = stubborn();
    const ways = { run: gate(task), finalize: rejecting(OTHER) };
    const group = new ServiceGroup([service("a", ways), service("b", { run: slowly(1) })]);
    const run = await up(group);
    task.fail(ERROR);
    await rest();
    expect(group.failures).toEqual([ERROR, OTHER].map((error) => ({ source: "a", error })));
    expect(run.end).toBe(ERROR);
  });
});

describe("ready()", () => {
  interface Waiting {
    readonly promise: Promise<void>;
    end: unknown;
  }

  function waiting(promise: Promise<void>): Waiting {
    const result: Waiting = { promise, end: "waiting" };
    promise.then(
      () => (result.end = "ready"),
      (error) => (result.end = error),
    );
    return result;
  }

  test("resolves when the last stage is up, at once if it is", async () => {
    const ready = stubborn();
    const group = new ServiceGroup([service("a"), [service("b", { ready: gate(ready) }), service("c")]]);
    const states = group.ready().then(() => group.states);
    const run = await up(group);
    const first = waiting(group.ready());
    await rest();
    expect(first.end).toBe("waiting");
    ready.return();
    expect(await states).toEqual({ a: "running", b: "running", c: "running" });
    const second = waiting(group.ready());
    await rest();
    expect([first.end, second.end]).toEqual(["ready", "ready"]);
    await stop(run);
  });

  test.each<[string, Ways, unknown]>([
    ["the failure", { ready: rejecting(ERROR) }, ERROR],
    ["the failure of an `init`", { init: throwing(ERROR) }, ERROR],
    ["the stop's reason", { ready: untilStopped }, REASON],
    ["a StopReason, if a service returned", { run: slowly(0), ready: hangs }, expect.any(StopReason)],
  ])("if the group comes down first, it rejects with %s", async (_, ways, expected) => {
    const group = new ServiceGroup([service("a"), service("b", ways)]);
    const early = waiting(group.ready());
    const run = await up(group);
    const later = waiting(group.ready());
    await stop(run);
    expect(early.end).toEqual(expected);
    if (expected === REASON) expect(later.end).toBe(REASON);
  });

  test("rejects while the group comes down, also if it was up, with the reason of the stop", async () => {
    const task = stubborn();
    const a = service("a", { run: endsWhenStopped });
    const group = new ServiceGroup([[a, service("b", { run: gate(task) })]]);
    const run = await up(group);
    const before = waiting(group.ready());
    await stop(run);
    // What ends because of the stop is not its reason.
    expect(seen("ended")).toEqual(["ended a"]);
    const during = waiting(group.ready());
    await rest();
    expect([before.end, during.end]).toEqual(["ready", REASON]);
    task.fail(ERROR);
    await rest();
    expect(run.end).toBe(ERROR);
  });

  test("rejects with the first failure, of several", async () => {
    const [task, finalizer] = [stubborn(), stubborn()];
    const a = service("a", { run: gate(task), finalize: gate(finalizer) });
    const group = new ServiceGroup([a, service("b", { run: throwing(ERROR) })]);
    const run = await up(group);
    const first = waiting(group.ready());
    task.fail(OTHER);
    await rest();
    const second = waiting(group.ready());
    await rest();
    expect([first.end, second.end, group.failures.length, run.end]).toEqual([ERROR, ERROR, 2, "running"]);
    finalizer.return();
    await rest();
    expect(run.end).toBe(ERROR);
  });

  test("may be called before `run` (and between two runs: it waits for the next)", async () => {
    const group = new ServiceGroup([service("a")]);
    for (const _ of [1, 2]) {
      const ready = waiting(group.ready());
      await pass(100_000);
      expect(ready.end).toBe("waiting");
      const run = await up(group);
      expect(ready.end).toBe("ready");
      await stop(run);
    }
  });

  test("a run with a signal that has aborted rejects it, with the reason", async () => {
    const group = new ServiceGroup([service("a")]);
    const ready = waiting(group.ready());
    const controller = new AbortController();
    controller.abort(REASON);
    const run = start(group, controller);
    await rest();
    expect([ready.end, run.end]).toEqual([REASON, "returned"]);
  });

  test("is never an `unhandledRejection`", async () => {
    const group = new ServiceGroup([service("a", { init: throwing(ERROR) })]);
    const [early, signal] = [group.ready(), AbortSignal.abort(REASON)];
    void group.ready(signal);
    const run = await up(group);
    expect(run.end).toBe(ERROR);
    // Nobody hears of any of these; see useNoUnhandledRejections().
    expect(early).toBeInstanceOf(Promise);
  });

  test("`ready(signal)` ends the waiting with the signal's reason, and leaves no listener behind", async () => {
    const group = new ServiceGroup([service("a")]);
    const [first, second, third] = [new AbortController(), new AbortController(), new AbortController()];
    const waits = [first, second, third].map(({ signal }) => waiting(group.ready(signal)));
    const count = (): number[] => [first, second, third].map(({ signal }) => getEventListeners(signal, "abort").length);
    expect(count()).toEqual([1, 1, 1]);
    first.abort(REASON);
    await rest();
    expect([count(), waits[0]?.end]).toEqual([[0, 1, 1], REASON]);
    const run = await up(group);
    expect([count(), waits.map(({ end }) => end)]).toEqual([[0, 0, 0], [REASON, "ready", "ready"]]);
    second.abort(OTHER);
    const late = [waiting(group.ready(second.signal)), waiting(group.ready(third.signal))];
    await rest();
    expect([count(), late.map(({ end }) => end)]).toEqual([[0, 0, 0], [OTHER, "ready"]]);
    await stop(run);
    const failed = waiting(group.ready(third.signal));
    const again = start(group, first);
    await rest();
    expect([count(), failed.end, again.end]).toEqual([[0, 0, 0], REASON, "returned"]);
  });
});

describe("names and bad input", () => {
  class Database {
    run(signal: AbortSignal): Promise<never> {
      return untilStopped(signal);
    }
  }
  const { Anonymous } = { Anonymous: class {} };
  Object.defineProperty(Anonymous, "name", { value: "" });
  const named = (name: string): Service => ({ name });
  const inner = (): ServiceGroup => new ServiceGroup([]);

  test.each<[string, (Service | Service[])[], string[]]>([
    ["its class's name", [new Database()], ["Database"]],
    ["`service` without a class", [{}, new Anonymous(), Object.create(null)], ["service", "service-2", "service-3"]],
    ["a number when taken", [new Database(), [{}, new Database()]], ["Database", "service", "Database-2"]],
    ["not what is given to another, before", [named("Database"), new Database()], ["Database", "Database-2"]],
    ["or later", [new Database(), new Database(), named("Database")], ["Database-2", "Database-3", "Database"]],
    [
      "also with a number",
      [new Database(), new Database(), named("Database-2")],
      ["Database", "Database-3", "Database-2"],
    ],
    ["that of nested groups", [inner(), [inner(), inner()]], ["services", "services-2", "services-3"]],
    ["a name that is undefined is none", [{ name: undefined }, new Database()], ["service", "Database"]],
  ])("a default name: %s", (_, stages, names) => {
    expect(Object.keys(new ServiceGroup(stages).states)).toEqual(names);
  });

  test("a default name is that of failures, events, timeouts and reasons, too", async () => {
    const log = new EventLog();
    const cache = (): object => new (class Cache {
      finalize = hangs;
    })();
    const group = new ServiceGroup([cache(), [cache(), {}]], { onEvent: log.observe, finalizeTimeout: 100 });
    const run = await up(group);
    await stop(run);
    await pass(200);
    const late = (source: string): unknown => ({ source, error: timeout(source, "finalize") });
    expect(group.failures).toEqual([late("Cache-2"), late("Cache")]);
    expect(story(log)).toContain("Cache-2 failed to finalize: The finalize of Cache-2 timed out");
    expect(run.end).toBe(group.failures[0]?.error);
  });

  test.each<[string, unknown, string]>([
    ["a name given twice", [named("db"), named("db")], 'names must be unique and not empty, got "db"'],
    ["also in one stage", [[named("web"), named("db"), named("db")]], 'names must be unique and not empty, got "db"'],
    ["an empty name", [named("")], 'names must be unique and not empty, got ""'],
    ["a string for a service", ["db"], 'a service must be of type object, got "db"'],
    ["a function", [async () => {}], "a service must be of type object, got "],
    ["a number, in a list", [[named("db"), 5]], "a service must be of type object, got 5"],
    ["undefined", [undefined], "a service must be of type object, got undefined"],
    ["null", [named("db"), null], "a service must be of type object, got "],
    ["true", [[true]], "a service must be of type object, got true"],
  ])("refused at once with a TypeError: %s", (_, stages, message) => {
    const error = thrownBy(() => new ServiceGroup(stages as never));
    expect(error).toBeInstanceOf(TypeError);
    expect(error).toMatchObject({ message: expect.stringContaining(`Cannot create a ServiceGroup: ${message}`) });
  });

  test.each([undefined, null, named("db"), "db", 5])("refused with a TypeError: stages that are %j", (stages) => {
    expect(thrownBy(() => new ServiceGroup(stages as never))).toBeInstanceOf(TypeError);
  });

  const timeouts = ["initTimeout", "readyTimeout", "stopTimeout", "shutdownTimeout", "finalizeTimeout"] as const;
  test.each<[object, ErrorConstructor, string]>([
    ...timeouts.flatMap((option): [object, ErrorConstructor, string][] => [
      [{ [option]: -1 }, RangeError, `${option} must be 0 or more milliseconds, got -1`],
      [{ [option]: NaN }, RangeError, `${option} must be 0 or more milliseconds, got NaN`],
      [{ [option]: "1s" }, TypeError, `${option} must be of type number, got "1s"`],
      [{ [option]: null }, TypeError, `${option} must be of type number, got null`],
    ]),
    [{ name: 5 }, TypeError, "name must be of type string, got 5"],
    [{ name: null }, TypeError, "name must be of type string, got null"],
    [{ onEvent: 5 }, TypeError, "onEvent must be of type function, got 5"],
  ])("refused at once: %o, with a %o that says why", (options, Refusal, message) => {
    const error = thrownBy(() => new ServiceGroup([], options));
    expect(error).toBeInstanceOf(Refusal);
    expect(error).toMatchObject({ message: `Cannot create a ServiceGroup: ${message}` });
  });

  test("what was checked is what counts: to change the stages or the options later changes nothing", async () => {
    const stages = [[service("a", { ready: hangs })]];
    const options = { readyTimeout: 100 };
    const group = new ServiceGroup(stages, options);
    stages[0]?.push(service("b"));
    stages.push([service("c")]);
    options.readyTimeout = 5;
    const run = await up(group);
    await pass(99);
    expect(group.states).toEqual({ a: "starting" });
    await pass(1);
    expect(run.end).toEqual(timeout("a", "ready"));
  });

  test("its name is `services` by default", () => {
    expect(new ServiceGroup([]).name).toBe("services");
    expect(new ServiceGroup([], { name: undefined }).name).toBe("services");
    expect(new ServiceGroup([], { name: "backend" }).name).toBe("backend");
  });
});
