import { getEventListeners } from "node:events";
import {
  type LifecycleEvent,
  Manager,
  type ManagerOptions,
  ShutdownTimeoutError,
  StopReason,
  type Task,
  TaskAlreadyStartedError,
} from "allstop";
import { ControlledTask, EventLog, type EventOfType } from "allstop/testing";
import { afterEach, beforeEach, describe, expect, expectTypeOf, test, vi } from "vitest";
import { inRealTime, useFakeTime } from "./support/fake-time.ts";
import { settle } from "./support/settle.ts";
import { thrownBy } from "./support/thrown-by.ts";

const unhandled = vi.fn();
let signals: AbortSignal[];

beforeEach(() => {
  signals = [];
  unhandled.mockClear();
  process.on("unhandledRejection", unhandled);
});

afterEach(async () => {
  await nextTurn();
  process.off("unhandledRejection", unhandled);
  expect(unhandled).not.toHaveBeenCalled();
  expect(signals.flatMap((signal) => getEventListeners(signal, "abort"))).toEqual([]);
});

// After the hooks above, so that its own, which ends the fake time, comes before theirs.
useFakeTime();

/** Lets Node find the rejections that nobody handles. It takes the real clock. */
async function nextTurn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

/** What a task can be run with by hand. No listener may be left on the signal at the end of the test. */
function control(): { signal: AbortSignal; abort: (reason?: unknown) => void } {
  const controller = new AbortController();
  signals.push(controller.signal);
  return { signal: controller.signal, abort: (reason) => controller.abort(reason) };
}

/** What has become of a promise, once all that is due has happened: how it settled and with what, or nothing yet. */
async function stateOf(promise: Promise<unknown>): Promise<unknown[]> {
  const state: unknown[] = [];
  promise.then(
    (value) => state.push("resolved", value),
    (thrown) => state.push("rejected", thrown),
  );
  await settle();
  return state;
}

const pending: unknown[] = [];
const resolved = ["resolved", undefined];
const error = new Error("no");
const values = [error, "x", "", 0, NaN, false, undefined, null, Symbol("s"), {}, () => {}, Promise.resolve()];

describe("ControlledTask", () => {
  const acts: Record<string, (task: ControlledTask, abort: () => void) => void> = {
    "return()": (task) => task.return(),
    "fail()": (task) => task.fail(error),
    "fail() again": (task) => task.fail(new Error("again")),
    "the stop": (_, abort) => abort(),
  };

  test("`started` resolves when it runs, with the signal it was given", async () => {
    const task = new ControlledTask();
    expect(await stateOf(task.started)).toEqual(pending);
    const { signal } = control();
    const run = task.run(signal);
    expect((await stateOf(task.started))[1]).toBe(signal);
    task.return();
    await run;
  });

  test("`started` waits, under a limit, for the task's turn, and gives the signal of its own", async () => {
    const manager = new Manager({ limit: 1 });
    const [first, second] = [new ControlledTask("first"), new ControlledTask("second")];
    manager.runEphemeral(first, second);
    expect(await first.started).not.toBe(manager.signal);
    expect(await stateOf(second.started)).toEqual(pending);
    first.return();
    const signal = await second.started;
    expect(signal).not.toBe(await first.started);
    expect(signal.aborted).toBe(false);
    const stopped = manager.stop("enough");
    expect(signal).toMatchObject({ aborted: true, reason: "enough" });
    await stopped;
  });

  test.each([false, true])("`aborted` resolves when it is told to stop (ignoreAbort: %s)", async (ignoreAbort) => {
    const task = new ControlledTask("task", { ignoreAbort });
    const { signal, abort } = control();
    const run = task.run(signal);
    expect(await stateOf(task.aborted)).toEqual(pending);
    abort();
    expect(await stateOf(task.aborted)).toEqual(resolved);
    task.return();
    await run;
  });

  test("it runs until the test ends it: `return()` ends it with a return", async () => {
    const task = new ControlledTask();
    const run = task.run(control().signal);
    await vi.advanceTimersByTimeAsync(1_000_000);
    expect(await stateOf(run)).toEqual(pending);
    task.return();
    expect(await stateOf(run)).toEqual(resolved);
    expect(await stateOf(task.aborted)).toEqual(pending);
  });

  test.each(values)("`fail()` ends it with a rejection: %o", async (value) => {
    const task = new ControlledTask();
    const run = task.run(control().signal);
    task.fail(value);
    const [how, thrown] = await stateOf(run);
    expect(how).toBe("rejected");
    expect(thrown).toBe(value);
    expect(await stateOf(task.aborted)).toEqual(pending);
  });

  test.each([undefined, error, "a word"])("it resolves when it is told to stop, with reason %o", async (reason) => {
    const task = new ControlledTask();
    const { signal, abort } = control();
    const run = task.run(signal);
    abort(reason);
    expect(await stateOf(run)).toEqual(resolved);
  });

  test.each(["return()", "fail()"])("%s before it runs ends it at once when it runs", async (end) => {
    for (const ignoreAbort of [false, true]) {
      const task = new ControlledTask("task", { ignoreAbort });
      acts[end]?.(task, () => {});
      expect(await stateOf(task.started)).toEqual(pending);
      const { signal } = control();
      const [how, thrown] = await stateOf(task.run(signal));
      expect(how).toBe(end === "fail()" ? "rejected" : "resolved");
      expect(thrown).toBe(end === "fail()" ? error : undefined);
      expect((await stateOf(task.started))[1]).toBe(signal);
    }
  });

  test("to fail before it runs is no unhandledRejection, also if it never runs", async () => {
    const [late, never] = [new ControlledTask(), new ControlledTask()];
    late.fail(error);
    never.fail(error);
    await inRealTime(nextTurn);
    expect(unhandled).not.toHaveBeenCalled();
    await expect(late.run(control().signal)).rejects.toBe(error);
  });

  test.each([
    ["return()", "fail()", resolved],
    ["fail()", "return()", ["rejected", error]],
    ["fail()", "fail() again", ["rejected", error]],
    ["fail()", "the stop", ["rejected", error]],
    ["the stop", "fail()", resolved],
  ])("what ends it first wins: %s, then %s", async (first, second, end) => {
    // How many of the two come before it runs, where it does not hear of a stop.
    for (const before of first === "the stop" ? [0, 1] : [0, 1, 2]) {
      for (const pause of [settle, () => null]) {
        const task = new ControlledTask();
        const { signal, abort } = control();
        let state = before === 0 ? stateOf(task.run(signal)) : undefined;
        acts[first]?.(task, abort);
        await pause();
        if (before === 1) state = stateOf(task.run(signal));
        acts[second]?.(task, abort);
        state ??= stateOf(task.run(signal));
        expect([before, await state]).toEqual([before, end]);
      }
    }
  });

  test("with a signal that has aborted it starts, is told to stop, and resolves", async () => {
    for (const options of [undefined, {}, { ignoreAbort: false }, { ignoreAbort: undefined }]) {
      const task = new ControlledTask("task", options);
      const { signal, abort } = control();
      abort();
      expect(await stateOf(task.run(signal))).toEqual(resolved);
      expect((await stateOf(task.started))[1]).toBe(signal);
      expect(await stateOf(task.aborted)).toEqual(resolved);
    }
  });

  test("with `ignoreAbort`, and a signal that has aborted, it is told to stop and goes on", async () => {
    for (const end of ["return()", "fail()"]) {
      const task = new ControlledTask("task", { ignoreAbort: true });
      const { signal, abort } = control();
      abort();
      const run = task.run(signal);
      expect(await stateOf(task.aborted)).toEqual(resolved);
      expect(await stateOf(run)).toEqual(pending);
      acts[end]?.(task, abort);
      expect(await stateOf(run)).toEqual(end === "fail()" ? ["rejected", error] : resolved);
    }
  });

  test("with `ignoreAbort` it goes on when it is told to stop, as a task that hangs does", async () => {
    const manager = new Manager({ shutdownTimeout: 100 });
    const hangs = new ControlledTask("hangs", { ignoreAbort: true });
    const late = new ControlledTask("late", { ignoreAbort: true });
    manager.run(hangs, late, new ControlledTask("hears"));
    const stopped = manager.stop();
    await Promise.all([hangs.aborted, late.aborted]);
    await vi.advanceTimersByTimeAsync(99);
    expect(manager.pending).toEqual(["hangs", "late"]);
    late.return();
    await vi.advanceTimersByTimeAsync(1);
    await expect(stopped).rejects.toThrow(new ShutdownTimeoutError(100, ["hangs"]));
    hangs.return();
  });

  test("its name is the one given, by default controlled", async () => {
    const manager = new Manager({ name: "api" });
    const tasks = [new ControlledTask("http"), new ControlledTask(), new ControlledTask(undefined, {})];
    expect(tasks.map((task) => task.name)).toEqual(["http", "controlled", "controlled"]);
    manager.run(...tasks);
    expect(manager.pending).toEqual(["api/http", "api/controlled", "api/controlled"]);
    await manager.stop();
  });

  test("it runs once: a second `run` rejects with TaskAlreadyStartedError, and leaves the first alone", async () => {
    const task = new ControlledTask("http");
    const [first, second] = [control(), control()];
    const run = task.run(first.signal);
    second.abort();
    const [how, refusal] = await stateOf(task.run(second.signal));
    expect(how).toBe("rejected");
    expect(refusal).toBeInstanceOf(TaskAlreadyStartedError);
    expect(refusal).toMatchObject({ task: "http", message: "Cannot run http: it has already started" });
    expect(await task.started).toBe(first.signal);
    expect(await stateOf(task.aborted)).toEqual(pending);
    expect(await stateOf(run)).toEqual(pending);
    task.return();
    expect(await stateOf(run)).toEqual(resolved);
  });

  test("it runs once: a second `run` is refused also after the end, and with a signal that has aborted", async () => {
    for (const end of ["return()", "fail()", "the stop"]) {
      const task = new ControlledTask();
      const { signal, abort } = control();
      const run = task.run(signal);
      acts[end]?.(task, abort);
      await stateOf(run);
      await expect(task.run(signal)).rejects.toThrow(TaskAlreadyStartedError);
      await expect(task.run(control().signal)).rejects.toThrow(TaskAlreadyStartedError);
    }
  });

  test("its TaskAlreadyStartedError has the full name under a named manager", async () => {
    const manager = new Manager({ name: "api" });
    const task = new ControlledTask("http");
    manager.run(task, task);
    const refusal = await manager.wait().catch((thrown: unknown) => thrown);
    expect(refusal).toBeInstanceOf(TaskAlreadyStartedError);
    expect(refusal).toMatchObject({ task: "api/http", message: "Cannot run api/http: it has already started" });
    expect(manager.failures).toEqual([{ source: "api/http", error: refusal }]);
  });

  test.each(["return()", "fail()", "the stop"])("it leaves no listener behind on its signal after %s", async (end) => {
    for (const ignoreAbort of [false, true]) {
      const task = new ControlledTask("task", { ignoreAbort });
      const { signal, abort } = control();
      const run = task.run(signal);
      await expect(task.run(signal)).rejects.toThrow(TaskAlreadyStartedError);
      expect(getEventListeners(signal, "abort").length).toBe(1);
      acts[end]?.(task, abort);
      task.return();
      await stateOf(run);
      expect(getEventListeners(signal, "abort").length).toBe(0);
    }
  });

  test.each<[args: unknown[], message: string]>([
    [[5], "name must be of type string, got 5"],
    [[null], "name must be of type string, got null"],
    [[Symbol("s")], "name must be of type string, got Symbol(s)"],
    [[{ ignoreAbort: true }], "name must be of type string, got [object Object]"],
    [["http", { ignoreAbort: 1 }], "ignoreAbort must be of type boolean, got 1"],
    [["http", { ignoreAbort: null }], "ignoreAbort must be of type boolean, got null"],
    [[undefined, { ignoreAbort: "yes" }], 'ignoreAbort must be of type boolean, got "yes"'],
  ])("a name that is no string, or an option of the wrong type, is a TypeError: %o", (args, message) => {
    const refusal = thrownBy(() => new ControlledTask(...(args as [])));
    expect(refusal).toBeInstanceOf(TypeError);
    expect(refusal).toHaveProperty("message", `Cannot create a ControlledTask: ${message}`);
  });

  test("it is a task, and its promises are typed by what they give", () => {
    expectTypeOf<ControlledTask>().toExtend<Task>();
    expectTypeOf<ControlledTask["started"]>().toEqualTypeOf<Promise<AbortSignal>>();
    expectTypeOf<ControlledTask["aborted"]>().toEqualTypeOf<Promise<void>>();
    expectTypeOf<ControlledTask["fail"]>().parameters.toEqualTypeOf<[error: unknown]>();
  });
});

describe("EventLog", () => {
  const started = (task: string): LifecycleEvent => ({ type: "task-started", manager: "", task, kind: "main" });
  const stopping: LifecycleEvent = { type: "stopping", manager: "", reason: "enough", pending: [] };
  const throws = (value: unknown) => (): never => {
    throw value;
  };

  test("`events` has all events so far, in order, as they were told", () => {
    const [log, other] = [new EventLog(), new EventLog()];
    expect(log.events).toEqual([]);
    const events = [started("a"), stopping, started("a"), started("b")];
    for (const [i, event] of events.entries()) {
      log.observe(event);
      expect(log.events.length).toBe(i + 1);
      expect(log.events[i]).toBe(event);
    }
    expect(log.events).toEqual(events);
    expect(other.events).toEqual([]);
  });

  test("`observe` is an `onEvent`, bound to the log", async () => {
    const log = new EventLog();
    const { observe } = log;
    const manager = new Manager({ name: "api", onEvent: observe });
    manager.run(new ControlledTask("http"));
    manager.cleanup(function closeDb() {});
    await manager.stop("enough");
    const elapsed = 0;
    expect(log.events).toEqual([
      { type: "task-started", manager: "api", task: "api/http", kind: "main" },
      { type: "stopping", manager: "api", reason: "enough", pending: ["api/http"] },
      { type: "task-ended", manager: "api", task: "api/http", kind: "main", outcome: "returned", elapsed },
      { type: "cleanup-ended", manager: "api", hook: "closeDb", elapsed },
      { type: "stopped", manager: "api", failures: [], elapsed },
    ]);
  });

  test("`until` gives the first event of its type, which has come already", async () => {
    const log = new EventLog();
    const events = [stopping, started("a"), started("b"), { ...stopping, pending: ["a"] }];
    events.forEach(log.observe);
    for (let i = 0; i < 2; i++) {
      expect(await log.until("task-started")).toBe(events[1]);
      expect(await log.until("stopping")).toBe(events[0]);
    }
  });

  test("`until` gives the first event of its type, when it comes", async () => {
    const log = new EventLog();
    const waiting = log.until("task-started");
    expect(await stateOf(waiting)).toEqual(pending);
    log.observe(stopping);
    expect(await stateOf(waiting)).toEqual(pending);
    const event = started("a");
    log.observe(event);
    log.observe(started("b"));
    expect(await waiting).toBe(event);
  });

  test("`until` gives the first event for which its predicate holds, which has come already", async () => {
    const log = new EventLog();
    const events = [started("a"), stopping, started("b"), { ...started("b"), manager: "api" }];
    events.forEach(log.observe);
    expect(await log.until("task-started", ({ task }) => task === "b")).toBe(events[2]);
  });

  test("`until` gives the first event for which its predicate holds, when it comes", async () => {
    const log = new EventLog();
    log.observe(started("a"));
    const waiting = log.until("task-started", ({ task }) => task === "b");
    const events = [started("c"), stopping, started("b"), { ...started("b"), manager: "api" }];
    for (const event of events) {
      expect(await stateOf(waiting)).toEqual(events.indexOf(event) > 2 ? ["resolved", events[2]] : pending);
      log.observe(event);
    }
    expect(await waiting).toBe(events[2]);
  });

  test("`until` asks its predicate only of events of its type, one by one, and no more once it holds", async () => {
    const log = new EventLog();
    const predicate = vi.fn(({ task }: EventOfType<"task-started">) => task === "c");
    const events = [started("a"), stopping, started("b")];
    events.forEach(log.observe);
    const waiting = log.until("task-started", predicate);
    [started("c"), started("c"), stopping].forEach(log.observe);
    expect(await waiting).toBe(log.events[3]);
    expect(predicate.mock.calls).toEqual([[events[0]], [events[2]], [log.events[3]]]);

    predicate.mockClear();
    expect(await log.until("task-started", predicate)).toBe(log.events[3]);
    log.observe(started("c"));
    expect(predicate).toHaveBeenCalledTimes(3);
  });

  test("several may wait, for the same event or for others", async () => {
    const log = new EventLog();
    const waiting = [
      log.until("task-started"),
      log.until("task-started"),
      log.until("task-started", ({ task }) => task === "b"),
      log.until("stopping"),
      log.until("task-started"),
    ];
    const [a, b] = [started("a"), started("b")];
    log.observe(a);
    const states = async (): Promise<unknown[]> => (await Promise.all(waiting.map(stateOf))).map(([, event]) => event);
    expect(await states()).toEqual([a, a, undefined, undefined, a]);
    log.observe(b);
    expect(await states()).toEqual([a, a, b, undefined, a]);
    log.observe(stopping);
    expect(await states()).toEqual([a, a, b, stopping, a]);
  });

  test.each(values)("`until` throws what its predicate throws of an event that has come already: %o", async (value) => {
    const log = new EventLog();
    log.observe(started("a"));
    const predicate = vi.fn(throws(value));
    const [how, thrown] = await stateOf(log.until("task-started", predicate));
    expect(how).toBe("rejected");
    expect(thrown).toBe(value);
    log.observe(started("b"));
    expect(predicate).toHaveBeenCalledOnce();
  });

  test.each(values)("`until` throws what its predicate throws of an event when it comes: %o", async (value) => {
    const log = new EventLog();
    const predicate = vi.fn(throws(value));
    const waiting = log.until("task-started", predicate);
    log.observe(stopping);
    log.observe(started("a"));
    log.observe(started("b"));
    const [how, thrown] = await stateOf(waiting);
    expect(how).toBe("rejected");
    expect(thrown).toBe(value);
    expect(predicate).toHaveBeenCalledOnce();
  });

  test("a predicate that throws changes nothing for the manager, nor for others who wait", async () => {
    const log = new EventLog();
    const manager = new Manager({ onEvent: log.observe });
    const task = new ControlledTask();
    const before = log.until("task-ended");
    const throwing = log.until("task-ended", throws(error));
    const after = log.until("task-ended");
    const later = log.until("stopped");
    manager.run(task);
    task.return();
    await expect(throwing).rejects.toBe(error);
    await manager.wait();
    expect(manager.failures).toEqual([]);
    expect(log.events.map(({ type }) => type)).toEqual(["task-started", "task-ended", "stopping", "stopped"]);
    const [, ended, , stopped] = log.events;
    expect(await before).toBe(ended);
    expect(await after).toBe(ended);
    expect(await later).toBe(stopped);
  });

  test("`until` is typed by the type of its event", () => {
    const log = new EventLog();
    const ended = log.until("task-ended", (event) => {
      expectTypeOf(event).toEqualTypeOf<EventOfType<"task-ended">>();
      return event.outcome === "failed";
    });
    expectTypeOf(ended).resolves.toEqualTypeOf<EventOfType<"task-ended">>();
    expectTypeOf(log.until("stopping")).resolves.toHaveProperty("reason").toEqualTypeOf<unknown>();
    expectTypeOf<EventOfType<"action-failed">["error"]>().toEqualTypeOf<Error>();
    // @ts-expect-error There is no event of this type.
    void log.until("task-end");
    // @ts-expect-error A stop has no outcome.
    void log.until("stopping", ({ outcome }) => outcome === "failed");
    expectTypeOf(log.events).toEqualTypeOf<readonly LifecycleEvent[]>();
    expectTypeOf(log.observe).toExtend<NonNullable<ManagerOptions["onEvent"]>>();
  });
});

test("the shutdown of a service can be tested in ten lines, without a sleep", async () => {
  const log = new EventLog();
  const manager = new Manager({ onEvent: log.observe });
  const [server, consumer] = [new ControlledTask("server", { ignoreAbort: true }), new ControlledTask("consumer")];
  manager.run(server, consumer);
  manager.cleanup(function closeDb() {});
  consumer.fail(error);
  await server.aborted;
  server.return();
  await expect(manager.wait()).rejects.toBe(error);
  expect(await log.until("stopping")).toMatchObject({ reason: new StopReason("consumer", error), pending: ["server"] });
  expect(log.events.map(({ type }) => type).slice(-3)).toEqual(["task-ended", "cleanup-ended", "stopped"]);
});
