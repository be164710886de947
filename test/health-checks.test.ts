import { runInNewContext } from "node:vm";
import { Manager, type Task } from "allstop";
import { Health, type HealthComponent, type HealthComponentOptions, type HealthOptions } from "allstop/health";
import { type ControlledTask, EventLog } from "allstop/testing";
import { describe, expect, test, vi } from "vitest";
import { type Run, start } from "./support/by-hand.ts";
import {
  brief,
  type Check,
  controlled,
  failure,
  listener,
  listening,
  LONGEST_DELAY,
  pass,
  remove,
  stop,
  useHealth,
} from "./support/health.ts";
import { microtasks } from "./support/microtasks.ts";
import { useNoWarnings } from "./support/process-events.ts";
import { settle } from "./support/settle.ts";
import { hangs, nothing, throwing } from "./support/ways.ts";

useHealth();
useNoWarnings();

/** The offsets, in microtasks, at which something comes after something else. */
const offsets = Array.from({ length: 21 }, (_, offset) => offset);

describe("A check", () => {
  test("runs first at once, in order, also when its component is registered while the task runs", async () => {
    const health = new Health();
    const called: string[] = [];
    const add = (name: string): HealthComponent => health.component(name, { check: () => void called.push(name) });
    add("a");
    health.component("unchecked");
    health.component("b", {
      check: () => {
        called.push("b");
        throw failure; // so that it has ended at once
      },
    });
    await pass(60_000, 10_000);
    expect(called).toEqual([]);
    const run = start(health);
    expect(called).toEqual(["a", "b"]);
    await settle();
    const c = add("c");
    expect([called, c.status]).toEqual([["a", "b", "c"], "starting"]);
    await settle();
    expect(c.status).toBe("healthy");
    await stop(run);
    const again = start(health);
    expect(called.slice(3)).toEqual(["a", "b", "c"]);
    await settle();
    await stop(again);
    add("d");
    await settle();
    expect(called.length).toBe(6);
  });

  test.each<[string, HealthOptions, HealthComponentOptions, starts: number[]]>([
    ["the pause after a check ended", { interval: 10 }, {}, [0, 17, 34]],
    ["the component's own, if it has one", { interval: 5 }, { interval: 20 }, [0, 27]],
    ["also none, which lets timers through", { interval: 5 }, { interval: 0 }, [0, 7, 14, 21, 28, 35]],
    ["30,000 ms by default", {}, {}, [0, 30_007]],
    ["so also if it is undefined", { interval: undefined }, { interval: undefined }, [0, 30_007]],
    ["in pieces, above 2^31-1 ms", {}, { interval: 2 ** 32 }, [0, 2 ** 32 + 7]],
  ])("has an `interval`: %s", async (_, options, ofComponent, starts) => {
    const actual: number[] = [];
    const zero = Date.now();
    const check = (): Promise<void> => {
      actual.push(Date.now() - zero);
      return new Promise((resolve) => setTimeout(resolve, 7));
    };
    const health = new Health(options);
    health.component("db", { check, ...ofComponent });
    const run = start(health);
    for (let i = 0; i < 20 && actual.length < starts.length; i++) {
      await settle();
      vi.advanceTimersToNextTimer();
    }
    expect(actual).toEqual(starts);
    run.controller.abort();
    await pass(7);
    expect(run.end).toBe("returned");
  });

  test("comes only once with an `interval` of Infinity, until the next run", async () => {
    const check = vi.fn();
    const health = new Health({ interval: Infinity });
    health.component("db", { check });
    for (const calls of [1, 2]) {
      const run = start(health);
      await pass(5 * LONGEST_DELAY, LONGEST_DELAY);
      expect(check).toHaveBeenCalledTimes(calls);
      await stop(run);
    }
  });

  const unreadable = new Proxy(new Error("x"), { get: throwing("cannot be read") });
  test.each<[string, Check, detail: unknown]>([
    ["throws an Error", throwing(failure), "refused"],
    ["rejects with one", () => Promise.reject(failure), "refused"],
    ["rejects later", () => microtasks(5).then(throwing(failure)), "refused"],
    ["throws an Error without a message", throwing(new Error()), ""],
    ["throws an Error of another realm", throwing(runInNewContext('new Error("refused")')), "refused"],
    ["throws an AbortError before the stop", throwing(new DOMException("aborted", "AbortError")), "aborted"],
    ["throws a string", throwing("x"), expect.stringContaining("x")],
    ["rejects with undefined", () => Promise.reject(undefined), expect.stringContaining("undefined")],
    ["throws null", throwing(null), expect.stringContaining("null")],
    ["throws an object without a prototype", throwing(Object.create(null)), expect.any(String)],
    ["throws what cannot be read", throwing(unreadable), expect.any(String)],
    ["returns what rejects when awaited", () => ({ then: (_: never, no: typeof throwing) => no(failure) }), "refused"],
    ["returns what throws when awaited", () => ({ then: throwing(failure) }), "refused"],
  ])("that %s makes its component unhealthy, with the error's message as `detail`", async (_, check, detail) => {
    const log = new EventLog();
    const health = new Health({ onEvent: log.observe, interval: 10 });
    const other = health.component("other", { check: nothing });
    const way = vi.fn<Check>(nothing).mockImplementationOnce(check);
    health.component("db", { check: way });
    const run = start(health);
    await settle();
    expect(health.snapshot().components["db"]).toMatchObject({ status: "unhealthy", detail });
    expect([run.end, other.status]).toEqual(["running", "healthy"]); // that is no failure of the task
    await pass(10);
    expect(health.snapshot().components["db"]).not.toHaveProperty("detail");
    const changes = { type: "health-changed", component: "db" };
    expect(log.events.filter((event) => "component" in event && event.component === "db")).toStrictEqual([
      { ...changes, from: "starting", to: "unhealthy", detail },
      { ...changes, from: "unhealthy", to: "healthy" },
    ]);
    await stop(run);
  });

  test.each<[string, unknown]>([
    ["nothing", undefined],
    ["false", false],
    ["an Error", failure],
    ["a status", "unhealthy"],
    ["a snapshot", { status: "unhealthy", detail: "x" }],
    ["a promise of an Error", Promise.resolve(failure)],
    ["what can be awaited", { then: (resolve: (value: unknown) => void) => resolve(false) }],
  ])("that ends well, also with %s, which is ignored, makes its component healthy", async (_, value) => {
    const health = new Health();
    const db = health.component("db", { check: () => value });
    db.report("unhealthy", "refused");
    const since = Date.now() + 5;
    await pass(5);
    const run = start(health);
    await settle();
    expect(health.snapshot()).toStrictEqual({ status: "healthy", components: { db: { status: "healthy", since } } });
    await stop(run);
  });

  test.each<[string, HealthOptions, HealthComponentOptions, number]>([
    ["5,000 ms by default", {}, {}, 5_000],
    ["so also if it is undefined", { timeout: undefined }, { timeout: undefined }, 5_000],
    ["that of the Health", { timeout: 20 }, {}, 20],
    ["its own", { timeout: 20 }, { timeout: 30 }, 30],
  ])("that times out makes its component unhealthy, and its signal aborts: %s", async (_, options, ofComponent, ms) => {
    const { check, calls, signals } = controlled();
    const health = new Health(options);
    const db = health.component("db", { check, ...ofComponent });
    const run = start(health);
    await pass(ms - 1, ms - 1);
    expect([db.status, signals[0]?.aborted]).toEqual(["starting", false]);
    await pass(1);
    expect(brief(health.snapshot())).toBe(`unhealthy: db unhealthy (timed out after ${ms} ms)`);
    expect(signals[0]?.reason).toEqual(new Error(`timed out after ${ms} ms`));
    expect(vi.getTimerCount()).toBe(0); // while it waits for the late one
    calls[0]?.return();
    await stop(run);
  });

  test.each([Infinity, LONGEST_DELAY + 1])("has no limit with a `timeout` of %s, above 2^31-1", async (timeout) => {
    const { check, calls } = controlled();
    const health = new Health();
    const db = health.component("db", { check, timeout });
    const run = start(health);
    await pass(3 * LONGEST_DELAY, LONGEST_DELAY);
    expect(db.status).toBe("starting");
    run.controller.abort();
    await pass(3 * LONGEST_DELAY, LONGEST_DELAY);
    expect(run.end).toBe("running"); // and `run` waits without limit, too
    calls[0]?.return();
    await settle();
    expect(run.end).toBe("returned");
  });

  test("that ends at once is in time, also with a `timeout` of 0", async () => {
    const health = new Health({ timeout: 0 });
    const db = health.component("db", { check: nothing });
    const run = start(health);
    await pass(5);
    expect(db.status).toBe("healthy");
    await stop(run);
  });

  test.each<[string, end: (call: ControlledTask | undefined) => void]>([
    ["return", (call) => call?.return()],
    ["failure", (call) => call?.fail(new Error("late"))],
  ])("counts for nothing after its timeout (a %s); the next one starts only once it has settled", async (_, end) => {
    const { check, calls, signals } = controlled();
    const { told, listen } = listener();
    const health = new Health({ timeout: 20, interval: 10 });
    const db = health.component("db", { check });
    health.subscribe(undefined, listen);
    const run = start(health);
    await pass(100);
    expect(calls.length).toBe(1); // they never overlap themselves
    db.report("degraded", "reported"); // the active way still works
    end(calls[0]);
    await pass(9);
    expect(calls.length).toBe(1);
    await pass(1);
    expect(calls.length).toBe(2);
    calls[1]?.return();
    await settle();
    expect(told).toEqual([
      "starting: db starting",
      "unhealthy: db unhealthy (timed out after 20 ms)",
      "degraded: db degraded (reported)",
      "healthy: db healthy",
    ]);
    expect(signals[1]?.aborted).toBe(false);
    await stop(run);
    expect(signals[1]?.aborted).toBe(false); // it has ended before
  });

  test("that is slow, or late, delays no other", async () => {
    const health = new Health({ interval: 10, timeout: 20 });
    const slow = controlled();
    const fast = vi.fn();
    health.component("slow", { check: slow.check });
    health.component("hung", { check: hangs });
    health.component("fast", { check: fast });
    health.component("dependent", { check: fast, dependsOn: ["slow"] });
    const run = start(health);
    for (let calls = 1; calls <= 6; calls++) {
      await settle();
      expect([fast.mock.calls.length, slow.calls.length]).toEqual([2 * calls, 1]);
      await pass(10);
    }
    await stop(run);
    slow.calls[0]?.return();
  });

  test("gets a signal of its own, which aborts at the stop with its reason, or when it is taken out", async () => {
    const [first, second, ended] = [controlled(), controlled(), controlled()];
    const health = new Health({ interval: 10, timeout: 20 });
    health.component("first", { check: first.check });
    const taken = health.component("second", { check: second.check });
    health.component("ended", { check: ended.check });
    const run = start(health);
    ended.calls[0]?.return();
    await pass(10);
    const signals = [first.signals, second.signals, ended.signals].flat();
    expect(new Set([run.controller.signal, ...signals]).size).toBe(5);
    expect(signals.map((signal) => signal.aborted)).toEqual([false, false, false, false]);
    remove(taken);
    expect(signals.map((signal) => signal.aborted)).toEqual([false, true, false, false]);
    run.controller.abort(failure);
    expect(signals.map((signal) => signal.aborted)).toEqual([true, true, false, true]); // the third had ended
    expect([first.signals[0]?.reason, ended.signals[1]?.reason]).toEqual([failure, failure]);
    for (const { calls } of [first, second, ended]) calls.at(-1)?.return();
    await stop(run);
  });

  test("of a component that was taken out counts for nothing, and is its last; `run` still waits for it", async () => {
    for (const end of ["return", "fail"] as const) {
      const { check, calls } = controlled();
      const log = new EventLog();
      const health = new Health({ interval: 10, timeout: 20, onEvent: log.observe });
      const db = health.component("db", { check });
      const run = start(health);
      remove(db);
      const again = health.component("db"); // the late one of the old counts for nothing for the new
      run.controller.abort();
      await settle();
      expect(run.end).toBe("running");
      calls[0]?.[end](failure);
      await pass(50);
      expect([run.end, calls.length, again.status, log.events.length]).toEqual(["returned", 1, "starting", 1]);
    }
  });

  test("of a component that was taken out in a pause, or late, never comes again, and leaves no timer", async () => {
    const [idle, late] = [controlled(), controlled()];
    const health = new Health({ interval: 10, timeout: 20 });
    const log = new EventLog();
    const components = [idle, late].map(({ check }, i) => health.component(`${i}`, { check }));
    const run = start(health);
    idle.calls[0]?.return();
    await settle();
    expect(vi.getTimerCount()).toBe(2);
    remove(components[0]);
    await settle();
    expect(vi.getTimerCount()).toBe(1);
    await pass(20);
    remove(components[1]);
    late.calls[0]?.return();
    await pass(50);
    expect([idle.calls.length, late.calls.length, log.events, vi.getTimerCount()]).toEqual([1, 1, [], 0]);
    await stop(run);
  });

  test("that takes its own component out, at once or later, is the last of it, and counts for nothing", async () => {
    for (const delay of [0, 1, 5]) {
      const log = new EventLog();
      const health = new Health({ interval: 10, timeout: 20, onEvent: log.observe });
      const check = vi.fn(async () => {
        if (delay) await microtasks(delay);
        remove(db);
      });
      const db = health.component("db", { check });
      const run = start(health);
      await pass(50);
      expect([check.mock.calls.length, vi.getTimerCount(), run.end]).toEqual([1, 0, "running"]);
      expect(log.events).toEqual([{ type: "health-removed", component: "db" }]);
      await stop(run);
    }
  });

  test("of a component that is registered again runs at once, and the old one's counts for nothing", async () => {
    const [old, fresh] = [controlled(), controlled()];
    const health = new Health({ interval: 10, timeout: 20 });
    const first = health.component("db", { check: old.check });
    const run = start(health);
    await pass(10);
    remove(first);
    const db = health.component("db", { check: fresh.check });
    expect(fresh.calls.length).toBe(1);
    await pass(10); // the old one's timeout
    expect(db.status).toBe("starting");
    fresh.calls[0]?.return();
    await settle();
    old.calls[0]?.fail(failure);
    await settle();
    expect([db.status, first.status]).toEqual(["healthy", "starting"]);
    await pass(10);
    expect([old.calls.length, fresh.calls.length]).toEqual([1, 2]);
    fresh.calls[1]?.return();
    await stop(run);
  });

  test("of an earlier run that is late never overlaps the first of the next, which waits for it", async () => {
    for (const end of ["return", "fail"] as const) {
      const { check, calls } = controlled();
      const health = new Health({ interval: 10, timeout: 20 });
      const db = health.component("db", { check });
      const other = vi.fn();
      health.component("other", { check: other });
      const runOnce = async (): Promise<void> => {
        const run = start(health);
        await pass(30);
        await stop(run);
      };
      await runOnce();
      await runOnce();
      expect([calls.length, other.mock.calls.length]).toEqual([1, 8]);
      db.report("degraded");
      const run = start(health);
      await settle();
      calls[0]?.[end](failure);
      await settle();
      expect([calls.length, db.status]).toEqual([2, "degraded"]); // at once, then
      calls[1]?.return();
      await settle();
      expect(db.status).toBe("healthy");
      await stop(run);
    }
  });

  test("of a component that a check or a listener registers as the run starts never overlaps itself", async () => {
    const ways: [string, (health: Health, add: () => void) => void][] = [
      ["a check", (health, add) => void health.component("first", { check: add })],
      [
        "a listener told of a check",
        (health, add) => {
          health.component("first", { check: throwing(failure) });
          health.subscribe(undefined, ({ status }) => status === "unhealthy" && add());
        },
      ],
    ];
    for (const [way, arrange] of ways) {
      const health = new Health({ interval: 10, timeout: 20 });
      const { check, calls } = controlled();
      let isAdded = false;
      arrange(health, () => {
        if (isAdded) return;
        isAdded = true;
        health.component("added", { check });
      });
      const run = start(health);
      for (let i = 1; i < 4; i++) {
        await settle();
        expect([way, calls.length]).toEqual([way, i]);
        calls[i - 1]?.return();
        await pass(10);
      }
      run.controller.abort();
      calls[3]?.return();
      await pass(50);
      expect([way, run.end, calls.length, vi.getTimerCount()]).toEqual([way, "returned", 4, 0]);
    }
  });

  test("of a component whose registration is what starts the run never overlaps itself", async () => {
    const health = new Health({ interval: 10, timeout: 20 });
    const { check, calls } = controlled();
    let run: Run | undefined;
    health.subscribe(undefined, ({ status }) => {
      if (status === "starting") run ??= start(health);
    });
    health.component("db", { check });
    await settle();
    calls[0]?.return();
    await pass(10);
    expect(calls.length).toBe(2);
    calls[1]?.return();
    await settle();
    if (run) await stop(run);
  });

  test("of each of 1,000 components, or 1,000 checks of one, print no MaxListenersExceededWarning", async () => {
    const health = new Health();
    for (let i = 0; i < 1_000; i++) health.component(`${i}`, { check: nothing });
    const run = start(health);
    await settle();
    expect([listening(run.controller.signal), health.snapshot().status]).toEqual([1, "healthy"]);
    await stop(run);

    const check = vi.fn();
    const busy = new Health({ interval: 0 });
    busy.component("busy", { check });
    const long = start(busy);
    for (let i = 0; i < 1_000; i++) {
      await microtasks(20);
      vi.advanceTimersToNextTimer();
    }
    expect(check.mock.calls.length).toBeGreaterThan(999);
    await stop(long);
  });

  test("that ends in the turn of its timeout is told as one thing, in time or not", async () => {
    for (const isFirst of [true, false]) {
      for (const offset of offsets) {
        const { check, calls } = controlled();
        const { told, listen } = listener();
        const health = new Health({ interval: 10, timeout: 20 });
        health.component("db", { check });
        health.subscribe(undefined, listen);
        const run = start(health);
        await pass(19);
        const acts = [() => calls[0]?.return(), () => vi.advanceTimersByTime(1)];
        for (const act of isFirst ? acts : acts.reverse()) {
          act();
          await microtasks(offset);
        }
        await pass(5);
        expect([isFirst, offset, told.length]).toEqual([isFirst, offset, 2]);
        await stop(run);
      }
    }
  });
});

describe("A stop", () => {
  test("changes no status and `run` waits for a check in flight until its end, which counts for nothing", async () => {
    for (const end of ["return", "fail"] as const) {
      const [first, second] = [controlled(), controlled()];
      const log = new EventLog();
      const health = new Health({ interval: 10, timeout: 20, onEvent: log.observe });
      health.component("first", { check: first.check });
      health.component("second", { check: second.check }).report("degraded", "slow");
      const { told, listen } = listener();
      const run = start(health);
      await pass(10);
      const before = [JSON.stringify(health.snapshot()), log.events.length];
      health.subscribe(undefined, listen);
      run.controller.abort(failure);
      await pass(5);
      first.calls[0]?.[end](failure);
      await settle();
      expect(run.end).toBe("running"); // for the second
      second.calls[0]?.[end](failure);
      await settle();
      expect([run.end, vi.getTimerCount(), told.length]).toEqual(["returned", 0, 1]);
      expect([JSON.stringify(health.snapshot()), log.events.length]).toEqual(before);
    }
  });

  test("lets `run` resolve at the timeout of a check in flight at the latest; no timer is left", async () => {
    const health = new Health({ interval: 10, timeout: 20 });
    const log = new EventLog();
    health.component("db", { check: hangs, timeout: 30 });
    const wallet = health.component("wallet", { check: hangs });
    wallet.report("healthy");
    const run = start(health);
    await pass(10);
    const before = JSON.stringify(health.snapshot());
    health.subscribe(undefined, () => log.observe({ type: "health-removed", component: "x" }));
    run.controller.abort();
    await pass(19);
    expect(run.end).toBe("running");
    await pass(1);
    expect([run.end, vi.getTimerCount(), log.events.length]).toEqual(["returned", 0, 1]);
    expect(JSON.stringify(health.snapshot())).toBe(before);
  });

  test("of a task that waits for a late check, in a pause, or without checks, lets `run` resolve at once", async () => {
    for (const check of [hangs, nothing, undefined]) {
      const health = new Health({ interval: 10, timeout: 20 });
      health.component("db", { check });
      const run = start(health);
      await pass(25);
      expect([run.end, listening(run.controller.signal)]).toEqual(["running", 1]);
      await stop(run);
    }
  });

  test("before `run` lets it resolve without a check", async () => {
    const check = vi.fn();
    const health = new Health();
    health.component("db", { check });
    const controller = new AbortController();
    controller.abort();
    for (let i = 0; i < 2; i++) await stop(start(health, controller));
    expect(check).not.toHaveBeenCalled();
  });

  test("lets reports come, and be told, as before", async () => {
    const health = new Health();
    const { told, listen } = listener();
    const db = health.component("db", { check: nothing });
    health.subscribe(undefined, listen);
    const run = start(health);
    await settle();
    await stop(run);
    db.report("unhealthy", "gone");
    expect(told.at(-1)).toBe("unhealthy: db unhealthy (gone)");
  });

  /** What happens before the stop: each step is followed by all that it brings, the last by but some microtasks. */
  const moments = [
    "start",
    "start register",
    "start end",
    "start fail",
    "start end pause",
    "start end pause end",
    "start timeout",
    "start timeout end",
    "start timeout fail pause",
    "start timeout stop start",
    "start timeout stop start end",
    "start timeout stop end start",
    "start remove",
    "start end remove register",
  ];
  test.each(moments)("at every microtask after %j: no check starts any more, and no status changes", async (steps) => {
    for (const offset of offsets) {
      const stopped: boolean[] = [];
      let controller = new AbortController();
      let run: Run | undefined;
      const { check, calls } = controlled();
      const health = new Health({ interval: 10, timeout: 20 });
      const options: HealthComponentOptions = {
        check: (signal) => {
          stopped.push(controller.signal.aborted);
          return check(signal);
        },
      };
      const db = health.component("db", options);
      const acts: Record<string, () => unknown> = {
        start: () => (run = start(health, (controller = new AbortController()))),
        register: () => health.component("other", options),
        remove: () => remove(db),
        end: () => calls.forEach((call) => call.return()),
        fail: () => calls.forEach((call) => call.fail(failure)),
        pause: () => vi.advanceTimersByTime(10),
        timeout: () => vi.advanceTimersByTime(20),
        stop: () => controller.abort(),
      };
      for (const [i, step] of steps.split(" ").entries()) {
        if (i) await settle();
        acts[step]?.();
      }
      await microtasks(offset);
      controller.abort();
      const before = JSON.stringify(health.snapshot());
      await settle();
      acts["end"]?.();
      await pass(50, 10);
      expect([offset, run?.end, vi.getTimerCount()]).toEqual([offset, "returned", 0]);
      expect([offset, stopped.includes(true), JSON.stringify(health.snapshot())]).toEqual([offset, false, before]);
    }
  });

  type Callback = (health: Health, stop: () => void, check: Check, signal: AbortSignal) => unknown;
  test.each<[string, Callback]>([
    ["the first check", (health, stop) => health.component("a", { check: stop })],
    [
      "a listener told of a check that throws",
      (health, stop) => {
        health.component("a", { check: throwing(failure) });
        health.subscribe(["a"], ({ status }) => status === "unhealthy" && stop());
      },
    ],
    [
      "a listener told of a registration",
      (health, stop, check) => {
        health.subscribe(undefined, ({ components }) => "late" in components && stop());
        health.component("a", { check: () => void health.component("late", { check }) });
      },
    ],
    [
      "a listener told at once",
      (health, stop) => health.component("a", { check: () => void health.subscribe([], stop) }),
    ],
    [
      "the abort of a check that is taken out",
      (health, stop) => {
        const a = health.component("a", {
          check: (signal) => {
            signal.addEventListener("abort", stop);
            queueMicrotask(() => remove(a));
            return hangs();
          },
        });
      },
    ],
    ["the wait for a status", (health, stop) => health.waitUntil("starting").then(stop)],
    [
      "an older listener of the run's signal, which registers a component",
      (health, stop, check, signal) => {
        signal.addEventListener("abort", () => void health.component("late", { check }), { once: true });
        health.component("a", { check: () => queueMicrotask(stop) });
      },
    ],
    [
      "the abort of a check, which registers a component",
      (health, stop, check) => {
        const registers: Check = (signal) => {
          signal.addEventListener("abort", () => void health.component("late", { check }));
          queueMicrotask(stop);
        };
        health.component("a", { check: registers });
      },
    ],
  ])("within %s: no check starts any more, also not one that is due or registered then", async (_, arrange) => {
    const health = new Health({ interval: 10, timeout: 20 });
    const controller = new AbortController();
    const stopped: boolean[] = [];
    const check = (): void => void stopped.push(controller.signal.aborted);
    arrange(health, () => controller.abort(), check, controller.signal);
    health.component("b", { check });
    health.component("c", { check });
    const run = start(health, controller);
    await pass(50);
    expect([run.end, stopped.includes(true), stopped.length <= 2]).toEqual(["returned", false, true]);
  });

  test("within a listener told of a timeout, or the abort of that check, lets `run` resolve at once", async () => {
    for (const way of ["listener", "abort"]) {
      const health = new Health({ interval: 10, timeout: 20 });
      const controller = new AbortController();
      const check: Check = (signal) => {
        if (way === "abort") signal.addEventListener("abort", () => controller.abort());
        return hangs();
      };
      const db = health.component("db", { check });
      health.subscribe(undefined, ({ status }) => way === "listener" && status === "unhealthy" && controller.abort());
      const run = start(health, controller);
      await pass(20);
      expect([way, run.end, db.status, vi.getTimerCount()]).toEqual([way, "returned", "unhealthy", 0]);
    }
  });
});

describe("`run`", () => {
  test("may be called again after it ended, as soon as its promise settles", async () => {
    const check = vi.fn();
    const health = new Health({ interval: 10 });
    health.component("db", { check });
    for (let i = 1; i <= 3; i++) {
      const [first, second] = [new AbortController(), new AbortController()];
      const again = health.run(first.signal).then(() => health.run(second.signal));
      await settle();
      first.abort();
      await settle();
      await pass(10);
      second.abort();
      await expect(again).resolves.toBeUndefined();
      expect(check).toHaveBeenCalledTimes(3 * i);
    }
  });

  test("rejects while one goes on with `TaskAlreadyStartedError`, and leaves that alone", async () => {
    const { check, calls } = controlled();
    const health = new Health({ name: "vitals", interval: 10, timeout: 20 });
    health.component("db", { check });
    const first = start(health);
    const isRefused = async (): Promise<void> => {
      const second = start(health);
      second.controller.abort(failure);
      await settle();
      expect(second.end).toMatchObject({ name: "TaskAlreadyStartedError", task: "vitals" });
      expect([first.end, calls.length]).toEqual(["running", 1]);
    };
    await isRefused();
    await isRefused();
    first.controller.abort();
    await settle();
    await isRefused(); // the check is still waited for
    calls[0]?.return();
    await settle();
    expect(first.end).toBe("returned");
    const next = start(health);
    await settle();
    calls[1]?.return();
    await stop(next);
  });

  test("is that of a task with the name `health`, or its own; under a manager with its full name", async () => {
    const manager = new Manager({ name: "api" });
    const health: Task = new Health({ name: undefined });
    const named: Task = new Health({ name: "vitals" });
    expect([health.name, named.name]).toEqual(["health", "vitals"]);
    manager.run(named, health, health);
    expect(manager.pending).toEqual(["api/vitals", "api/health", "api/health"]);
    await expect(manager.wait()).rejects.toMatchObject({ name: "TaskAlreadyStartedError", task: "api/health" });
    expect(manager.failures.map(({ source }) => source)).toEqual(["api/health"]);
  });
});
