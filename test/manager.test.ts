import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Manager, type ManagerOptions, ManagerStoppedError, ShutdownTimeoutError } from "allstop";
import { ControlledTask, EventLog } from "allstop/testing";
import { describe, expect, test, vi } from "vitest";
import { inRealTime, useFakeTime } from "./support/fake-time.ts";
import { settle } from "./support/settle.ts";
import { stubborn } from "./support/stubborn.ts";

useFakeTime();

const never = (): Promise<never> => new Promise(() => {});

describe("bad input is refused before anything starts, with the option and the value", () => {
  const refused: [ManagerOptions | unknown, ErrorConstructor, string][] = [
    [{ name: 5 }, TypeError, "name must be of type string, got 5"],
    [{ name: null }, TypeError, "name must be of type string, got null"],
    [{ signal: new AbortController() }, TypeError, "signal must be an AbortSignal, got [object AbortController]"],
    [{ signal: {} }, TypeError, "signal must be an AbortSignal, got [object Object]"],
    [{ signal: { aborted: false } }, TypeError, "signal must be an AbortSignal, got [object Object]"],
    [{ signal: new EventTarget() }, TypeError, "signal must be an AbortSignal, got [object EventTarget]"],
    [{ signal: null }, TypeError, "signal must be an AbortSignal, got null"],
    [{ signal: 0 }, TypeError, "signal must be an AbortSignal, got 0"],
    [{ limit: "4" }, TypeError, 'limit must be of type number, got "4"'],
    [{ limit: 4n }, TypeError, "limit must be of type number, got 4"],
    [{ limit: null }, TypeError, "limit must be of type number, got null"],
    [{ limit: 0 }, RangeError, "limit must be a whole number above 0, got 0"],
    [{ limit: -1 }, RangeError, "limit must be a whole number above 0, got -1"],
    [{ limit: 1.5 }, RangeError, "limit must be a whole number above 0, got 1.5"],
    [{ limit: 0.5 }, RangeError, "limit must be a whole number above 0, got 0.5"],
    [{ limit: NaN }, RangeError, "limit must be a whole number above 0, got NaN"],
    [{ limit: -Infinity }, RangeError, "limit must be a whole number above 0, got -Infinity"],
    [{ onEvent: {} }, TypeError, "onEvent must be of type function, got [object Object]"],
    [{ onEvent: null }, TypeError, "onEvent must be of type function, got null"],
    [{ onEvent: Object.create(null) }, TypeError, "onEvent must be of type function, got object"],
  ];
  for (const option of ["shutdownTimeout", "cleanupTimeout"]) {
    refused.push(
      [{ [option]: -1 }, RangeError, `${option} must be 0 or more milliseconds, got -1`],
      [{ [option]: -0.5 }, RangeError, `${option} must be 0 or more milliseconds, got -0.5`],
      [{ [option]: NaN }, RangeError, `${option} must be 0 or more milliseconds, got NaN`],
      [{ [option]: "20s" }, TypeError, `${option} must be of type number, got "20s"`],
      [{ [option]: Symbol("s") }, TypeError, `${option} must be of type number, got Symbol(s)`],
      [{ [option]: null }, TypeError, `${option} must be of type number, got null`],
    );
  }

  test.each(refused)("%o: %o %s", (options, Refusal, message) => {
    let thrown: unknown;
    try {
      new Manager(options as ManagerOptions);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(Refusal);
    expect(thrown).toHaveProperty("message", `Cannot create a Manager: ${message}`);
  });

  test("null as options is a TypeError", () => {
    expect(() => new Manager(null as never)).toThrow(TypeError);
  });

  test("an option that is undefined takes its default, and a bad one leaves no listener on the parent", () => {
    const parent = new AbortController();
    const listen = vi.spyOn(parent.signal, "addEventListener");
    const undefinedOptions = { name: undefined, signal: undefined, limit: undefined, onEvent: undefined };
    expect(new Manager({ ...undefinedOptions, shutdownTimeout: undefined, cleanupTimeout: undefined }).pending).toEqual([]);
    expect(() => new Manager({ signal: parent.signal, limit: 0 })).toThrow(RangeError);
    expect(() => new Manager({ signal: parent.signal, onEvent: 5 as never })).toThrow(TypeError);
    expect(listen).not.toHaveBeenCalled();
  });

  test.each([
    [undefined, "undefined"],
    [null, "null"],
    [5, "5"],
    ["http", '"http"'],
    [{ run: "later" }, "[object Object]"],
    [Promise.resolve(), "[object Promise]"],
  ])("%o is no task and no hook", async (value, shown) => {
    const manager = new Manager();
    const rule = `it must be a function or have a run method, got ${shown}`;
    expect(() => manager.run(value as never)).toThrow(new TypeError(`Cannot run a task: ${rule}`));
    const hook = `Cannot register a hook: it must be of type function, got ${shown}`;
    expect(() => manager.cleanup(value as never)).toThrow(new TypeError(hook));
    const stopped = manager.stop();
    expect(() => manager.run(value as never)).toThrow(TypeError);
    await stopped;
    expect(() => manager.cleanup(value as never)).toThrow(TypeError);
  });
});

test("a task is called as a method of its object, a function without this, a hook with nothing", async () => {
  const manager = new Manager();
  const calls: unknown[][] = [];
  const task = {
    async run(...args: unknown[]): Promise<void> {
      calls.push([this, ...args]);
    },
  };
  const callable = Object.assign(
    async function (this: unknown, ...args: unknown[]): Promise<void> {
      calls.push([this, ...args]);
    },
    { run: "not this" },
  );
  manager.runEphemeral(task, callable);
  manager.cleanup(function (this: unknown, ...args: unknown[]) {
    calls.push([this, ...args]);
  });
  await manager.wait();
  expect(calls).toEqual([[task, expect.any(AbortSignal)], [undefined, expect.any(AbortSignal)], [undefined]]);
});

test("pending names a task from before its run is called, the queued ones included", async () => {
  const manager = new Manager({ limit: 1 });
  const seen: (readonly string[])[] = [];
  const look = (name: string) => ({
    name,
    run: async () => void seen.push(manager.pending),
  });
  manager.runEphemeral(look("a"), look("b"));
  await manager.wait();
  expect(seen).toEqual([["a", "b"], ["b"]]);
  expect(manager.pending).toEqual([]);
});

test("the end of one manager's task does not touch another manager's", async () => {
  const outer = new Manager();
  const inner = new Manager({ signal: outer.signal });
  inner.run(async () => {});
  await inner.wait();
  expect(outer.signal.aborted).toBe(false);
  await outer.stop();
});

test("await using stops the group at the end of the block, and throws its first failure", async () => {
  const hook = vi.fn();
  const error = new Error("no");
  const block = async (fails: boolean): Promise<void> => {
    await using manager = new Manager();
    manager.cleanup(hook);
    manager.run(new ControlledTask());
    if (fails) manager.run(() => Promise.reject(error));
    await settle();
  };
  await block(false);
  expect(hook).toHaveBeenCalledOnce();
  await expect(block(true)).rejects.toBe(error);
});

test("an observer may act on the group, and a stop that it asks for is honoured", async () => {
  for (const type of ["task-started", "task-ended", "stopping", "cleanup-ended", "stopped"]) {
    const types: string[] = [];
    const late = vi.fn(async () => {});
    const manager: Manager = new Manager({
      limit: 1,
      onEvent(event) {
        types.push(event.type);
        if (event.type !== type) return;
        void manager.stop();
        if (event.type !== "task-started") expect(() => manager.runEphemeral(late)).toThrow(ManagerStoppedError);
      },
    });
    manager.cleanup(() => {});
    manager.runEphemeral(async () => {}, new ControlledTask(), new ControlledTask());
    await settle();
    await manager.stop();
    expect(late).not.toHaveBeenCalled();
    expect(types.filter((each) => each === "stopping")).toEqual(["stopping"]);
    expect(types.at(-1)).toBe("stopped");
  }
});

test("a task that an observer starts when another one ends does not overtake the queue", async () => {
  const order: string[] = [];
  const manager: Manager = new Manager({
    limit: 1,
    onEvent(event) {
      if (event.type === "task-started") order.push(event.task);
      if (event.type === "task-ended" && event.task === "a") manager.runEphemeral(named("late"));
    },
  });
  const named = (name: string) => ({ name, run: async () => {} });
  manager.runEphemeral(named("a"), named("b"), named("c"));
  await manager.wait();
  expect(order).toEqual(["a", "b", "c", "late"]);
});

test("a limit holds under tasks that start tasks, and its queue may run empty and fill again", async () => {
  const manager = new Manager({ limit: 3 });
  let running = 0;
  let most = 0;
  let ran = 0;
  const task = (depth: number) => async (): Promise<void> => {
    most = Math.max(most, ++running);
    ran++;
    if (depth > 0) manager.runEphemeral(task(depth - 1), task(depth - 1));
    for (let i = 0; i <= ran % 4; i++) await null;
    running--;
  };
  for (let round = 0; round < 3; round++) {
    manager.runEphemeral(...Array.from({ length: 20 }, () => task(3)));
    while (manager.pending.length > 0) await null;
  }
  await manager.wait();
  expect(most).toBe(3);
  expect(ran).toBe(3 * 20 * 15);
});

test("what the first task of a call starts in its turn does not overtake the others of the call", async () => {
  for (const limit of [1, 2]) {
    const order: string[] = [];
    const manager = new Manager({ limit });
    const task = (name: string, start?: string) => ({
      name,
      async run(): Promise<void> {
        order.push(name);
        if (start) manager.runEphemeral(task(start));
        await settle();
      },
    });
    manager.runEphemeral(task("a", "d"), task("b"), task("c"));
    expect(order.join("")).toBe("ab".slice(0, limit));
    await manager.wait();
    expect(order.join("")).toBe("abcd");
  }
});

test("the limit holds when a task, in its turn, starts another one that stops the group", async () => {
  const manager = new Manager({ limit: 1 });
  const started: string[] = [];
  const error = new Error("no");
  manager.runEphemeral(
    (signal) => {
      started.push("a");
      manager.run(() => {
        throw error;
      });
      return new ControlledTask().run(signal);
    },
    async () => void started.push("b"),
  );
  await expect(manager.wait()).rejects.toBe(error);
  expect(started).toEqual(["a"]);
});

test("a name that cannot be read or used refuses the whole call", async () => {
  const manager = new Manager();
  const run = vi.fn(async () => {});
  const unreadable = {
    get name(): string {
      throw new Error("unreadable");
    },
    run,
  };
  expect(() => manager.run(run, unreadable)).toThrow("unreadable");
  expect(() => manager.run(run, { name: Symbol("s"), run } as never)).toThrow(TypeError);
  const stops = {
    get name(): string {
      void manager.stop();
      return "stops";
    },
    run,
  };
  expect(() => manager.runEphemeral(run, stops)).toThrow(ManagerStoppedError);
  expect(run).not.toHaveBeenCalled();
  expect(manager.pending).toEqual([]);
  await manager.wait();
});

test("an observer that waits when a task ends does not take the place of what stopped the group", async () => {
  const error = new Error("no");
  for (const [start, end] of [["run", error], ["run", undefined], ["runEphemeral", error]] as const) {
    const manager: Manager = new Manager({ onEvent: (event) => event.type === "task-ended" && void manager.wait() });
    const task = new ControlledTask("cause");
    manager[start](task);
    if (end) task.fail(end);
    else task.return();
    await settle();
    expect(manager.signal.reason).toMatchObject({ task: "cause" });
    expect(manager.signal.reason.cause).toBe(end);
    await manager.wait().catch(() => {});
  }
  const idle: Manager = new Manager({ onEvent: (event) => event.type === "task-ended" && void idle.wait() });
  idle.runEphemeral(async () => {});
  await settle();
  expect(idle.signal.aborted).toBe(true);
});

test("a failure is in failures before it is told, and a stop reaches the running tasks before it drops the queue", async () => {
  const told: unknown[] = [];
  const manager: Manager = new Manager({
    limit: 1,
    onEvent: (event) => event.type === "task-ended" && told.push(event.outcome, manager.failures.length),
  });
  manager.runEphemeral((signal) => {
    signal.addEventListener("abort", () => told.push("heard"));
    return never();
  }, new ControlledTask());
  manager.run(() => Promise.reject(new Error("no")));
  const stopped = manager.wait();
  await vi.advanceTimersByTimeAsync(20_000);
  await expect(stopped).rejects.toThrow("no");
  expect(told).toEqual(["failed", 1, "heard", "skipped", 1]);
});

test("main and background tasks take no place of the limit", async () => {
  const log = new EventLog();
  const manager = new Manager({ limit: 1, onEvent: log.observe });
  manager.runEphemeral(new ControlledTask("ephemeral"));
  manager.run(new ControlledTask("a"), new ControlledTask("b"));
  manager.runBackground(new ControlledTask("background"));
  manager.runEphemeral(new ControlledTask("queued"));
  const tasks = ["ephemeral", "a", "b", "background"];
  expect(log.events).toMatchObject(tasks.map((task) => ({ type: "task-started", task })));
  await manager.stop();
});

test("of one call under a limit, a stop by the first starts what has a slot and skips the rest", async () => {
  const log = new EventLog();
  const manager = new Manager({ limit: 2, onEvent: log.observe });
  const [b, c, d] = [stubborn("b"), stubborn("c"), stubborn("d")];
  const a = {
    name: "a",
    async run(): Promise<void> {
      void manager.stop();
      await null;
    },
  };
  manager.runEphemeral(a, b, c, d);
  expect(await b.started).toHaveProperty("aborted", true);
  await settle();
  b.return();
  await manager.wait();
  expect(log.events).toMatchObject([
    { type: "task-started", task: "a" },
    { type: "stopping", pending: ["a", "b", "c", "d"] },
    { type: "task-started", task: "b" },
    { type: "task-ended", task: "c", outcome: "skipped" },
    { type: "task-ended", task: "d", outcome: "skipped" },
    { type: "task-ended", task: "a", outcome: "returned" },
    { type: "task-ended", task: "b", outcome: "returned" },
    { type: "stopped" },
  ]);
});

test("a timeout of Infinity, or above the 2^31-1 that setTimeout takes, is no limit", async () => {
  for (const timeout of [2 ** 31, Infinity]) {
    const manager = new Manager({ shutdownTimeout: timeout, cleanupTimeout: timeout });
    const [task, hook] = [stubborn("task"), stubborn("hook")];
    manager.run(task);
    manager.cleanup(() => hook.run(manager.signal));
    const stopped = manager.stop();
    await vi.advanceTimersByTimeAsync(2 ** 32);
    expect(manager.pending).toEqual(["task"]);
    task.return();
    await settle();
    await vi.advanceTimersByTimeAsync(2 ** 32);
    hook.return();
    await stopped;
    expect(manager.failures).toEqual([]);
  }
  const limited = new Manager({ shutdownTimeout: 2 ** 31 - 1 });
  limited.run(never);
  const stopped = limited.stop();
  await vi.advanceTimersByTimeAsync(2 ** 31 - 1);
  await expect(stopped).rejects.toThrow(ShutdownTimeoutError);
});

test("elapsed is in milliseconds: of a task and a hook since it started, of the end since the stop", async () => {
  const log = new EventLog();
  const manager = new Manager({ limit: 1, onEvent: log.observe });
  const [a, b, hook] = [stubborn("a"), stubborn("b"), stubborn("hook")];
  await vi.advanceTimersByTimeAsync(1_000);
  manager.runEphemeral(a, b);
  manager.cleanup(() => hook.run(manager.signal));
  await vi.advanceTimersByTimeAsync(10);
  a.return();
  await vi.advanceTimersByTimeAsync(20);
  const stopped = manager.stop();
  await vi.advanceTimersByTimeAsync(40);
  b.return();
  await vi.advanceTimersByTimeAsync(80);
  hook.return();
  await stopped;
  const elapsed = log.events.flatMap((event) => ("elapsed" in event ? [[event.type, event.elapsed]] : []));
  expect(elapsed).toEqual([
    ["task-ended", 10],
    ["task-ended", 60],
    ["cleanup-ended", 80],
    ["stopped", 120],
  ]);
});

test("without an observer the clock is not asked for the start of a task, its end, or the stop", async () => {
  await inRealTime(async () => {
    const now = vi.spyOn(performance, "now");
    for (const onEvent of [undefined, () => {}]) {
      now.mockClear();
      const manager = new Manager({ onEvent });
      manager.run(() => Promise.resolve());
      await manager.wait();
      expect(now.mock.calls.length > 0).toBe(onEvent !== undefined);
    }
    now.mockRestore();
  });
});

test("the signal of a task that has ended, and what listens to it, is kept by nobody, though others run", async () => {
  setFlagsFromString("--expose-gc");
  const gc: () => void = runInNewContext("gc");
  await inRealTime(async () => {
    const manager = new Manager();
    const task = new ControlledTask();
    manager.run(task);
    const signals: WeakRef<AbortSignal>[] = [];
    const remember = async (signal: AbortSignal): Promise<void> => void signals.push(new WeakRef(signal));
    manager.runEphemeral(remember, remember);
    manager.runEphemeral(remember);
    for (let i = 0; i < 2; i++) {
      // A WeakRef keeps what it refers to until the end of the turn.
      await new Promise((resolve) => setImmediate(resolve));
      gc();
    }
    expect(signals.map((signal) => signal.deref())).toEqual([undefined, undefined, undefined]);
    expect(manager.pending).toHaveLength(1);
    await manager.stop();
  });
});

test("a hook that ends while the rest are called after the timeout is told of, and the timeout is reported all the same", async () => {
  const manager = new Manager({ cleanupTimeout: 10 });
  let open = (): void => {};
  const gate = new Promise<void>((resolve) => (open = resolve));
  const last = vi.fn();
  manager.cleanup(last);
  manager.cleanup(() => open());
  manager.cleanup(function waitsForGate() {
    return gate;
  });
  const stopped = manager.stop();
  await vi.advanceTimersByTimeAsync(10);
  await expect(stopped).rejects.toMatchObject({ name: "CleanupTimeoutError", pending: [] });
  expect(last).toHaveBeenCalledOnce();
});

test("a hook that throws at once, after the timeout, does not hide it", async () => {
  const manager = new Manager({ cleanupTimeout: 10 });
  const error = new Error("at once");
  manager.cleanup(() => {
    throw error;
  });
  manager.cleanup(function hangs() {
    return never();
  });
  const stopped = manager.stop();
  await vi.advanceTimersByTimeAsync(10);
  await expect(stopped).rejects.toMatchObject({ name: "CleanupError", errors: [error] });
  expect(manager.failures[1]?.error).toMatchObject({ name: "CleanupTimeoutError", pending: ["hangs"] });
});

test("a stop drops a queue of any length", async () => {
  let skipped = 0;
  const manager = new Manager({
    limit: 1,
    onEvent(event) {
      if (event.type === "task-ended" && event.outcome === "skipped") skipped++;
    },
  });
  const task = new ControlledTask();
  manager.runEphemeral(task, ...Array<typeof task>(100_000).fill(task));
  await manager.stop();
  expect([skipped, manager.pending]).toEqual([100_000, []]);
});

test("errors of hooks are in the order of their calls, also when one fails that is no longer waited for", async () => {
  const manager = new Manager({ cleanupTimeout: 10 });
  const [first, second] = [new Error("first"), new Error("second")];
  let fail = (_: Error): void => {};
  const failure = new Promise<void>((_, reject) => (fail = reject));
  manager.cleanup(() => {
    fail(first);
    throw second;
  });
  manager.cleanup(() => failure);
  const stopped = manager.stop();
  await vi.advanceTimersByTimeAsync(10);
  await expect(stopped).rejects.toMatchObject({ name: "CleanupError", errors: [first, second] });
});

test("errors of hooks keep the order of their calls, and a hook that is registered twice runs twice", async () => {
  const manager = new Manager();
  let calls = 0;
  const hook = (): void => {
    throw new Error(`call ${++calls}`);
  };
  manager.cleanup(hook);
  manager.cleanup(hook);
  const errors = [new Error("call 1"), new Error("call 2")];
  await expect(manager.stop()).rejects.toMatchObject({ errors });
});

test("a failed cleanup comes after the failures of tasks, and wait() rejects with the first of all", async () => {
  const manager = new Manager();
  const error = new Error("task");
  manager.run(() => Promise.reject(error));
  manager.cleanup(() => Promise.reject("hook"));
  await expect(manager.wait()).rejects.toBe(error);
  expect(manager.failures.map((failure) => failure.source)).toEqual(["main", "cleanup"]);
});

test("the process is not held before somebody waits, and held from then on", () => {
  const hold = vi.fn();
  const release = vi.fn();
  vi.stubGlobal("setTimeout", () => ({ ref: hold, unref: release }));
  vi.stubGlobal("clearTimeout", () => {});
  const unwaited = new Manager();
  unwaited.run(never, () => {
    throw new Error("stops it");
  });
  expect([hold.mock.calls.length, release.mock.calls.length]).toEqual([0, 1]);
  void unwaited.wait();
  expect([hold.mock.calls.length, release.mock.calls.length]).toEqual([1, 1]);
  const waited = new Manager();
  waited.run(never);
  void waited.wait();
  void waited.stop();
  expect([hold.mock.calls.length, release.mock.calls.length]).toEqual([1, 1]);
  vi.unstubAllGlobals();
});

test("timers that are numbers, as in a browser, do as well", async () => {
  vi.stubGlobal("setTimeout", () => 5);
  vi.stubGlobal("clearTimeout", () => {});
  const manager = new Manager();
  manager.run(new ControlledTask(), () => {
    throw new Error("stops it");
  });
  await expect(manager.wait()).rejects.toThrow("stops it");
  vi.unstubAllGlobals();
});
