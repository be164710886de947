import { ServiceGroup, type ServiceGroupOptions, ServiceTimeoutError } from "allstop/services";
import { ControlledTask, EventLog } from "allstop/testing";
import { describe, expect, test, vi } from "vitest";
import { start } from "./support/by-hand.ts";
import {
  ERROR,
  gate,
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
  up,
  useServices,
  type Ways,
  without,
} from "./support/services.ts";
import { stubborn } from "./support/stubborn.ts";
import { hangs, throwing } from "./support/ways.ts";

useServices();

describe("timeouts", () => {
  const allowances: [phase: string, option: keyof ServiceGroupOptions, standard: number, ways: Ways][] = [
    ["init", "initTimeout", 60_000, { init: hangs }],
    ["ready", "readyTimeout", 60_000, { ready: hangs }],
    ["stop", "stopTimeout", 15_000, { run: hangs }],
    ["finalize", "finalizeTimeout", 5_000, { finalize: hangs }],
  ];

  test.each(allowances)("they name service and phase: %s, for `%s`, %i by default", async (phase, option, ms, ways) => {
    const options = [{}, { [option]: undefined }, { [option]: 70 }];
    for (const [index, milliseconds] of [ms, ms, 70].entries()) {
      const log = new EventLog();
      const group = new ServiceGroup([[service("a"), service("b", ways)]], { ...options[index], onEvent: log.observe });
      const run = await up(group);
      if (phase === "stop" || phase === "finalize") await stop(run);
      await pass(milliseconds - 1);
      expect(group.failures).toEqual([]);
      await pass(1);
      const error = group.failures[0]?.error;
      expect(error).toBeInstanceOf(ServiceTimeoutError);
      expect(error).toMatchObject({ name: "ServiceTimeoutError", message: `The ${phase} of b timed out` });
      expect({ ...error }).toEqual({ service: "b", phase });
      expect(group.failures).toEqual([{ source: "b", error }]);
      await pass(60_000);
      expect(run.end).toBe(error);
      expect(group.states).toMatchObject({ a: "stopped", b: "failed" });
      const told = log.events.filter(({ type }) => type === "service-failed");
      expect(told).toEqual([{ type: "service-failed", task: "services", service: "b", phase, error }]);
      expect(group.failures.length).toBe(1);
    }
  });

  test("`shutdownTimeout` is 18_000 by default", async () => {
    for (const options of [{}, { shutdownTimeout: undefined }]) {
      const group = new ServiceGroup([service("a", { run: hangs }), service("b", { run: hangs })], options);
      const run = await up(group);
      await stop(run);
      await pass(17_999);
      expect(group.failures.map(({ source }) => source)).toEqual(["b"]);
      await pass(1);
      expect(group.failures.map(({ source }) => source)).toEqual(["b", "a"]);
      expect(run.end).toBe(group.failures[0]?.error);
    }
  });

  test.each(["init", "ready"] as const)("timeouts are absolute (no event extends them): `%s`", async (call) => {
    const after = (milliseconds: number) => (): Promise<void> =>
      new Promise((resolve) => setTimeout(resolve, milliseconds));
    const group = new ServiceGroup(
      [
        service("first", { [call]: after(90) }),
        [service("a", { [call]: after(60) }), service("b", { [call]: hangs }), service("c", { [call]: after(99) })],
      ],
      { [`${call}Timeout`]: 100, stopTimeout: 0 },
    );
    const run = await up(group);
    await pass(90);
    await pass(99);
    expect(group.failures).toEqual([]);
    await pass(1);
    expect(group.failures).toEqual([{ source: "b", error: timeout("b", call) }]);
    await pass(1);
    expect(run.end).toBe(group.failures[0]?.error);
  });

  test("all that are too slow are named", async () => {
    const group = new ServiceGroup([["a", "b"].map((name) => service(name, { ready: hangs }))], { readyTimeout: 100 });
    const run = await up(group);
    await pass(100);
    expect(group.failures).toEqual(["a", "b"].map((source) => ({ source, error: timeout(source, "ready") })));
    expect(run.end).toBe(group.failures[0]?.error);
  });

  test("an `init` that hangs beyond its timeout and `stopTimeout` is reported once, as `init`", async () => {
    const stage = [service("a"), service("b", { init: hangs })];
    const group = new ServiceGroup([stage], { initTimeout: 50, stopTimeout: 70 });
    const run = await up(group);
    await pass(50);
    expect(group.failures).toEqual([{ source: "b", error: timeout("b", "init") }]);
    await pass(69);
    expect([run.end, seen("finalize")]).toEqual(["running", []]);
    await pass(1);
    expect(run.end).toBe(group.failures[0]?.error);
    expect([group.failures.length, seen("finalize")]).toEqual([1, ["finalize a"]]);
  });

  test.each([
    ["run", "stop"],
    ["finalize", "finalize"],
  ] as const)("a `%s` that fails after it was given up is only an event", async (call, phase) => {
    const log = new EventLog();
    const task = stubborn();
    const group = new ServiceGroup([service("a", { [call]: gate(task) })], {
      stopTimeout: 100,
      finalizeTimeout: 100,
      onEvent: log.observe,
    });
    const run = await up(group);
    await stop(run);
    await pass(100);
    expect(run.end).toEqual(timeout("a", phase));
    task.fail(ERROR);
    await rest();
    expect(story(log).slice(-2)).toEqual([
      `a failed to ${phase}: The ${phase} of a timed out`,
      `a failed to ${call}: connection lost`,
    ]);
    expect(group.failures).toEqual([{ source: "a", error: run.end }]);
    expect(group.states).toEqual({ a: "failed" });
  });

  test("a `ready` that ends after its timeout counts for nothing", async () => {
    for (const end of [(task: ControlledTask) => task.return(), (task: ControlledTask) => task.fail(ERROR)]) {
      const log = new EventLog();
      const [ready, task] = [stubborn(), stubborn()];
      const group = new ServiceGroup(
        [service("a", { run: gate(task), ready: gate(ready) })],
        { readyTimeout: 100, onEvent: log.observe },
      );
      const run = await up(group);
      await pass(100);
      const told = story(log);
      end(ready);
      await rest();
      expect(story(log)).toEqual(told);
      task.return();
      await rest();
      expect(group.failures).toEqual([{ source: "a", error: timeout("a", "ready") }]);
      expect(run.end).toBe(group.failures[0]?.error);
    }
  });

  test.each([Infinity, 2 ** 31])("a timeout of %d is no limit", async (limit) => {
    const tasks = { init: stubborn(), ready: stubborn(), run: stubborn(), finalize: stubborn() };
    const { init, ready, run: stopped, finalize } = tasks;
    const group = new ServiceGroup(
      [service("a", { init: gate(init), ready: gate(ready), run: gate(stopped), finalize: gate(finalize) })],
      { initTimeout: limit, readyTimeout: limit, stopTimeout: limit, shutdownTimeout: limit, finalizeTimeout: limit },
    );
    const run = start(group);
    for (const task of [init, ready, stopped, finalize]) {
      await rest();
      if (task === stopped) run.controller.abort(REASON);
      vi.advanceTimersByTime(2 ** 31 - 1);
      await rest();
      task.return();
    }
    await rest();
    expect([run.end, group.failures]).toEqual(["returned", []]);
    expect(group.states).toEqual({ a: "stopped" });
  });

  test("with timeouts of 0, what ends at once is in time, and what does not is given up", async () => {
    const options = { initTimeout: 0, readyTimeout: 0, stopTimeout: 0, shutdownTimeout: 0, finalizeTimeout: 0 };
    const good = new ServiceGroup([service("a"), service("b", without("init", "ready"))], options);
    const run = await up(good);
    await pass(10);
    expect(good.states).toEqual({ a: "running", b: "running" });
    await stop(run);
    expect(run.end).toBe("returned");
    for (const [phase, , , ways] of allowances) {
      const bad = await up(new ServiceGroup([service("a", ways)], options));
      if (phase === "stop" || phase === "finalize") await stop(bad);
      await pass(3);
      expect(bad.end).toEqual(timeout("a", phase));
    }
  });
});

describe("on the way down", () => {
  test("what does not end within `stopTimeout` is reported, and does not hold up the rest", async () => {
    const log = new EventLog();
    const group = new ServiceGroup([service("a"), [service("b", { run: hangs }), service("c")]], {
      stopTimeout: 100,
      onEvent: log.observe,
    });
    const run = await up(group);
    await stop(run);
    await pass(99);
    expect(seen("told")).toEqual(["told b", "told c"]);
    await pass(1);
    expect(seen("told", "finalize").slice(2)).toEqual(["told a", "finalize c", "finalize b", "finalize a"]);
    const error = timeout("b", "stop");
    expect(run.end).toEqual(error);
    expect(group.failures).toEqual([{ source: "b", error: run.end }]);
    expect(story(log).slice(-7)).toEqual([
      "b: running -> stopping",
      "c: running -> stopping",
      "c: stopping -> stopped",
      "b: stopping -> failed",
      "b failed to stop: The stop of b timed out",
      "a: running -> stopping",
      "a: stopping -> stopped",
    ]);
  });

  test("`stopTimeout` is for each stage, from when it is told", async () => {
    const group = new ServiceGroup([service("a", { run: hangs }), service("b", { run: hangs })], { stopTimeout: 100 });
    const run = await up(group);
    await pass(1_000);
    await stop(run);
    await pass(100);
    expect(group.failures).toEqual([{ source: "b", error: timeout("b", "stop") }]);
    await pass(99);
    expect(group.failures.length).toBe(1);
    await pass(1);
    expect(group.failures.slice(1)).toEqual([{ source: "a", error: timeout("a", "stop") }]);
    expect(run.end).toBe(group.failures[0]?.error);
  });

  test("it counts from the stop also while `ready` is still waited for", async () => {
    const group = new ServiceGroup([service("a"), service("b", { run: hangs, ready: hangs })], { stopTimeout: 100 });
    const run = await up(group);
    await stop(run);
    await pass(99);
    expect([seen("told"), run.end]).toEqual([["told b"], "running"]);
    await pass(1);
    expect(seen("told")).toEqual(["told b", "told a"]);
    expect(run.end).toEqual(timeout("b", "stop"));
  });

  test("`shutdownTimeout` bounds the whole way down; a `stopTimeout` is cut to what is left of it", async () => {
    const stuck = { run: hangs, finalize: hangs };
    const group = new ServiceGroup(["a", "b", "c"].map((name) => service(name, stuck)), {
      stopTimeout: 100,
      shutdownTimeout: 150,
    });
    const run = await up(group);
    await stop(run);
    await pass(100);
    expect(seen("told")).toEqual(["told c", "told b"]);
    await pass(49);
    expect([seen("told"), seen("finalize"), group.failures.length]).toEqual([["told c", "told b"], [], 1]);
    await pass(1);
    expect(seen("told", "finalize").slice(2)).toEqual(["told a", "finalize c", "finalize b", "finalize a"]);
    expect(group.failures).toEqual([
      ...["c", "b", "a"].map((source) => ({ source, error: timeout(source, "stop") })),
      ...["c", "b", "a"].map((source) => ({ source, error: timeout(source, "finalize") })),
    ]);
    expect(run.end).toBe(group.failures[0]?.error);
  });

  test("when `shutdownTimeout` passes in the finalizers, the rest are called in order, not waited for", async () => {
    const finalize = slowly(20);
    const group = new ServiceGroup(
      [service("a"), service("b", { finalize }), service("c"), service("d", { finalize: hangs }), service("e")],
      { shutdownTimeout: 150 },
    );
    const run = await up(group);
    await stop(run);
    expect(seen("finalize")).toEqual(["finalize e", "finalize d"]);
    await pass(149);
    expect([seen("finalize").length, run.end]).toEqual([2, "running"]);
    await pass(1);
    expect(seen("finalize").slice(2)).toEqual(["finalize c", "finalize b", "finalize a"]);
    expect(group.failures.map(({ source }) => source)).toEqual(["d", "b"]);
    expect(group.states).toEqual({ a: "stopped", b: "failed", c: "stopped", d: "failed", e: "stopped" });
    expect(run.end).toEqual(timeout("d", "finalize"));
  });

  test("a `shutdownTimeout` counts from the stop, however long the group was up", async () => {
    const run = await up(new ServiceGroup([service("a", { run: hangs })], { shutdownTimeout: 100 }));
    await pass(1_000);
    await stop(run);
    await pass(99);
    expect(run.end).toBe("running");
    await pass(1);
    expect(run.end).toEqual(timeout("a", "stop"));
  });

  test("`finalizeTimeout` is for each finalizer", async () => {
    const finalize = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 90));
    const names = ["a", "b", "c"];
    const group = new ServiceGroup(
      [...names.map((name) => service(name, { finalize })), service("d", { finalize: hangs })],
      { finalizeTimeout: 100 },
    );
    const run = await up(group);
    await stop(run);
    await pass(99);
    expect(seen("finalize")).toEqual(["finalize d"]);
    await pass(1);
    expect(group.failures).toEqual([{ source: "d", error: timeout("d", "finalize") }]);
    await pass(3 * 90);
    expect(seen("finalize")).toEqual(["finalize d", "finalize c", "finalize b", "finalize a"]);
    expect([group.failures.length, run.end]).toEqual([1, group.failures[0]?.error]);
  });
});

describe("an `init` that is given up", () => {
  test("`run` waits for an abandoned `init` at most `stopTimeout`, before the finalizers", async () => {
    const log = new EventLog();
    const group = new ServiceGroup([service("a"), [service("b", { init: hangs }), service("c")]], {
      stopTimeout: 100,
      onEvent: log.observe,
    });
    const run = await up(group);
    await stop(run);
    await pass(99);
    expect([seen("finalize"), run.end]).toEqual([[], "running"]);
    await pass(1);
    expect(seen("finalize")).toEqual(["finalize c", "finalize a"]);
    expect(run.end).toEqual(timeout("b", "stop"));
    expect(group.failures).toEqual([{ source: "b", error: run.end }]);
    expect(story(log).slice(-2)).toEqual(["b: initializing -> failed", "b failed to stop: The stop of b timed out"]);
  });

  test("it waits for all of them at the same time, and while the rest comes down", async () => {
    const stuck = { run: hangs };
    const group = new ServiceGroup(
      [service("a", stuck), [service("b", { init: hangs }), service("c", { init: hangs })]],
      { stopTimeout: 100 },
    );
    const run = await up(group);
    await stop(run);
    await pass(100);
    expect(group.failures.map(({ source }) => source).sort()).toEqual(["a", "b", "c"]);
    expect(run.end).toBe(group.failures[0]?.error);
  });

  test("that wait, too, is cut by `shutdownTimeout`", async () => {
    const run = await up(new ServiceGroup([service("a", { init: hangs })], { stopTimeout: 100, shutdownTimeout: 50 }));
    await stop(run);
    await pass(49);
    expect(run.end).toBe("running");
    await pass(1);
    expect(run.end).toEqual(timeout("a", "stop"));
  });

  test("one that finishes later still is finalised then, never leaked", async () => {
    const init = stubborn();
    const group = new ServiceGroup([[service("a"), service("b", { init: gate(init) })]], { stopTimeout: 100 });
    const run = await up(group);
    await stop(run);
    await pass(100);
    expect(run.end).toEqual(timeout("b", "stop"));
    expect(seen("finalize")).toEqual(["finalize a"]);
    await pass(1_000);
    init.return();
    await rest();
    expect(seen("finalize")).toEqual(["finalize a", "finalize b"]);
    expect(seen("run")).toEqual([]);
    expect(group.states).toEqual({ a: "stopped", b: "failed" });
    expect(group.failures.length).toBe(1);
  });

  test("or in its turn, when the finalizers of others go on", async () => {
    const [init, finalizer] = [stubborn(), stubborn()];
    const a = service("a", { finalize: gate(finalizer) });
    const group = new ServiceGroup([service("x"), [a, service("b", { init: gate(init) })]], { stopTimeout: 100 });
    const run = await up(group);
    await stop(run);
    await pass(100);
    init.return();
    await rest();
    expect(seen("finalize")).toEqual(["finalize a"]);
    finalizer.return();
    await rest();
    expect(seen("finalize")).toEqual(["finalize a", "finalize b", "finalize x"]);
    expect(run.end).toEqual(timeout("b", "stop"));
  });

  test("its failure is only an event", async () => {
    const log = new EventLog();
    const [init, other] = [stubborn(), stubborn()];
    const group = new ServiceGroup(
      [[service("a", { init: gate(init) }), service("b", { init: gate(other), finalize: throwing(OTHER) })]],
      { stopTimeout: 100, onEvent: log.observe },
    );
    const run = await up(group);
    await stop(run);
    await pass(100);
    const { failures } = group;
    const told = story(log).length;
    init.fail(ERROR);
    await rest();
    other.return();
    await rest();
    expect(story(log).slice(told)).toEqual(["a failed to init: connection lost", "b failed to finalize: disk full"]);
    expect(seen("finalize")).toEqual(["finalize b"]);
    expect(group.failures).toEqual(failures);
    expect(run.end).toBe(failures[0]?.error);
  });

  test("or between `initTimeout` and `stopTimeout`: it is finalised in order, its failure only told", async () => {
    const log = new EventLog();
    const [init, other] = [stubborn(), stubborn()];
    const group = new ServiceGroup(
      [[service("a", { init: gate(init) }), service("b", { init: gate(other) }), service("c")]],
      { initTimeout: 50, onEvent: log.observe },
    );
    const run = await up(group);
    await pass(50);
    init.return();
    other.fail(OTHER);
    await rest();
    expect(seen("finalize")).toEqual(["finalize a", "finalize c"]);
    expect(group.failures.map(({ error }) => error)).toEqual([timeout("a", "init"), timeout("b", "init")]);
    expect(group.states).toEqual({ a: "failed", b: "failed", c: "stopped" });
    expect(story(log).at(-1)).toBe("b failed to init: disk full");
    expect(run.end).toBe(group.failures[0]?.error);
  });
});
