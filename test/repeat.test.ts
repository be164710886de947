import { getEventListeners } from "node:events";
import { runInNewContext } from "node:vm";
import { type LifecycleEvent, Manager, type Task, TaskAlreadyStartedError } from "allstop";
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
import { ControlledTask, EventLog } from "allstop/testing";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { compile } from "./support/bundle.ts";
import { type Run, start, useRunsByHand } from "./support/by-hand.ts";
import { inRealTime, useFakeTime } from "./support/fake-time.ts";
import { microtasks } from "./support/microtasks.ts";
import {
  listeners,
  newListeners,
  processesWithoutSignals,
  send,
  useOsSignals,
  withProcess,
} from "./support/os-signals.ts";
import { Program } from "./support/program.ts";
import { settle } from "./support/settle.ts";
import { thrownBy } from "./support/thrown-by.ts";
import { abortError, nothing, rejecting, throwing } from "./support/ways.ts";

const LONGEST_DELAY = 2 ** 31 - 1;

/** The offsets, in microtasks, at which something comes after something else. */
const offsets = Array.from({ length: 21 }, (_, offset) => offset);

let zero: number;

useRunsByHand();
useOsSignals();
useFakeTime();

beforeEach(() => {
  zero = performance.now();
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

/** Stops a run, which must return at once, and take its timers with it. */
async function stop(run: Run, reason?: Error): Promise<void> {
  run.controller.abort(reason);
  await settle();
  expect([run.end, vi.getTimerCount()]).toEqual(["returned", 0]);
}

/** An action whose runs last until the test ends them. */
function controlled(): { readonly action: Action; readonly calls: ControlledTask[] } {
  const calls: ControlledTask[] = [];
  const action: Action = (signal) => {
    calls.push(new ControlledTask("call", { ignoreAbort: true }));
    return calls.at(-1)?.run(signal);
  };
  return { action, calls };
}

/** Milliseconds since the test began. */
function now(): number {
  return performance.now() - zero;
}

/** Lets time pass, with all that is due in each millisecond. */
async function pass(milliseconds: number): Promise<void> {
  for (let i = 0; i <= milliseconds; i++) {
    vi.advanceTimersByTime(i && 1);
    await settle();
    vi.advanceTimersByTime(0); // what was put off by a macrotask
    await settle();
  }
}

/** Makes each of the kinds below call its action, unless that is running. */
function fire(): void {
  vi.advanceTimersByTime(10);
  send();
}

async function fireAndSettle(times = 1): Promise<void> {
  for (let i = 0; i < times; i++) {
    fire();
    await settle();
  }
}

const usr2: SignalTriggerOptions = { signals: ["SIGUSR2"] };
const kinds: [kind: string, name: string, create: (action: Action, options?: RepeatOptions) => Task][] = [
  ["A LoopTask", "loop", (action, options) => new LoopTask(action, { delay: 10, initialDelay: 10, ...options })],
  ["A PollTask", "poll", (action, options) => new PollTask(action, { interval: 10, ...options })],
  ["A SignalTriggerTask", "signal-trigger", (action, more) => new SignalTriggerTask(action, { ...usr2, ...more })],
];
const failure = new Error("no");

describe.each(kinds)("%s", (_, name, create) => {
  test("calls its action again and again, whatever it returns, and never while it is still running", async () => {
    const ends: (() => void)[] = [];
    const values = [5, false, failure, Promise.resolve(), { then: (resolve: () => void) => void ends.push(resolve) }];
    const action = vi.fn(() => values[action.mock.calls.length - 1]);
    const run = start(create(action));
    await settle();
    expect(action).not.toHaveBeenCalled();
    await fireAndSettle(8);
    expect([run.end, action.mock.calls.length]).toEqual(["running", 5]);
    ends[0]?.();
    await settle();
    await fireAndSettle(2);
    expect(action.mock.calls.length).toBeGreaterThan(5);
    await stop(run);
  });

  test("calls no action once the signal has aborted, not even the first, and `run` resolves", async () => {
    const action = vi.fn();
    const task = create(action);
    const controller = new AbortController();
    controller.abort(failure);
    for (let i = 0; i < 2; i++) {
      send();
      await stop(start(task, controller));
    }
    await fireAndSettle();
    expect(action).not.toHaveBeenCalled();
  });

  /** What happens in the turn of the stop, and how many times it has been fired before. */
  const moments: [string, fired: number, last: (start: () => void, end: () => void) => void][] = [
    ["its start", NaN, (start) => start()],
    ["its start after a signal", NaN, (start) => [send(), start()]],
    ["a trigger", 0, () => fire()],
    ["a delay", 0, () => vi.advanceTimersByTime(5)],
    ["an action", 1, nothing],
    ["the end of an action", 1, (_, end) => end()],
    ["an end and a trigger", 1, (_, end) => [end(), fire()]],
    ["the end of an action with a trigger waiting", 2, (_, end) => end()],
  ];
  test.each(moments)(
    "starts no action after a stop around %s, not even later in the same turn, and `run` resolves, after the action",
    async (_, fired, last) => {
      for (const offset of offsets) {
        const controller = new AbortController();
        const stopped: boolean[] = [];
        let run: Run | undefined;
        let end: (() => void) | undefined;
        const task = create(() => {
          stopped.push(controller.signal.aborted);
          return new Promise<void>((resolve) => (end = () => [resolve(), (end = undefined)]));
        });
        const begin = (): void => void (run = start(task, controller));
        if (fired >= 0) begin();
        await settle();
        await fireAndSettle(fired);
        last(begin, () => end?.());
        await microtasks(offset);
        controller.abort();
        await settle();
        expect([offset, run?.end]).toEqual([offset, end ? "running" : "returned"]); // and no later
        end?.();
        await fireAndSettle();
        expect([offset, run?.end, vi.getTimerCount()]).toEqual([offset, "returned", 0]);
        expect(stopped).not.toContain(true);
      }
    },
  );

  test("starts no action after a stop by the action itself, or by what it left behind", async () => {
    for (const when of ["called", "ended"]) {
      const controller = new AbortController();
      const action = vi.fn(() => {
        send();
        if (when === "called") controller.abort();
        else queueMicrotask(() => controller.abort());
      });
      const run = start(create(action), controller);
      await fireAndSettle();
      expect([run.end, action.mock.calls.length, vi.getTimerCount()]).toEqual(["returned", 1, 0]);
    }
  });

  test("gives each action its own signal, which follows the task's with its reason; no end aborts it", async () => {
    const seen: AbortSignal[] = [];
    const { action, calls } = controlled();
    const task = create((signal) => {
      seen.push(signal);
      return seen.length === 3 ? action(signal) : undefined;
    });
    const run = start(task);
    await fireAndSettle(3);
    expect(new Set([...seen, run.controller.signal]).size).toBe(4);
    expect(seen.map((signal) => signal.aborted)).toEqual([false, false, false]);
    const heard = vi.fn();
    seen[2]?.addEventListener("abort", heard);
    run.controller.abort(failure);
    expect(heard).toHaveBeenCalledTimes(1); // at once
    expect(seen[2]?.reason).toBe(failure);
    calls[0]?.return();
    await settle();
    expect(run.end).toBe("returned");
  });

  test("leaves no listener behind on the task's signal, in 1,000 actions of which each second one fails", async () => {
    const counts = new Set<number>();
    const listening = (): number => getEventListeners(run.controller.signal, "abort").length;
    const action = vi.fn(() => {
      counts.add(listening());
      if (action.mock.calls.length % 2) throw failure;
    });
    const run = start(create(action, { onError: "continue" }));
    const idle = listening();
    for (let i = 0; i < 1_000; i++) {
      fire();
      await microtasks(30);
    }
    expect([action.mock.calls.length, counts.size, listening()]).toEqual([1_000, 1, idle]);
    await stop(run);
  });

  const foreign: unknown = runInNewContext('new Error("of another realm")');
  const panic = (cause: unknown): unknown => expect.objectContaining({ name: "PanicError", cause });
  test.each<[string, Action, unknown]>([
    ["throws an Error", throwing(failure), failure],
    ["rejects with an Error", rejecting(failure), failure],
    ["rejects later", () => microtasks(5).then(throwing(failure)), failure],
    ["throws an Error of another realm", throwing(foreign), foreign],
    ["throws an AbortError before the stop", throwing(abortError()), expect.objectContaining({ name: "AbortError" })],
    ["rejects with one before the stop", rejecting(abortError(failure)), expect.objectContaining({ cause: failure })],
    ["throws a string", throwing("x"), panic("x")],
    ["rejects with undefined", rejecting(undefined), panic(undefined)],
    ["throws null", throwing(null), panic(null)],
    ["rejects with what is no Error", rejecting({ name: "AbortError" }), panic({ name: "AbortError" })],
    ["throws an object without a prototype", throwing(Object.create(null)), panic({})],
  ])(
    "fails when an action %s, or with `onError` continue reports `action-failed` and goes on",
    async (_, action, error) => {
      for (const onError of [undefined, "stop", "continue"] as const) {
        const log: unknown[] = [];
        const logged: Action = (signal) => {
          log.push("called");
          return action(signal);
        };
        const run = start(create(logged, { onError, onEvent: (event) => log.push(event) }));
        await fireAndSettle(3);
        if (onError === "continue") {
          const each = ["called", { type: "action-failed", task: name, error }];
          expect(log).toEqual([...each, ...each, ...each]);
          await stop(run);
        } else {
          expect([log, run.end, vi.getTimerCount()]).toEqual([["called"], error, 0]);
          if (error === failure || error === foreign) expect(run.end).toBe(error); // the very same
        }
      }
    },
  );

  const reason = new Error("the reason");
  test.each<[string, string, unknown]>([
    ["has not failed", "the reason itself", reason],
    ["has not failed", "an AbortError whose cause is the reason", abortError(reason)],
    ["has not failed", "an AbortError without a cause", abortError()],
    ["has not failed", "what a bare abort() gives", new DOMException("aborted", "AbortError")],
    ["has failed", "any other error", failure],
    ["has failed", "an AbortError of something else", abortError(failure)],
    ["has failed", "an Error whose cause is the reason", new Error("no", { cause: reason })],
  ])("%s, or with continue reports just that, when an action ends after the stop with %s", async (which, _, thrown) => {
    const failed = which === "has failed";
    for (const onError of ["stop", "continue"] as const) {
      const { action, calls } = controlled();
      const events = new EventLog();
      const run = start(create(action, { onError, onEvent: events.observe }));
      await fireAndSettle(2);
      run.controller.abort(reason);
      await settle();
      expect(run.end).toBe("running");
      calls[0]?.fail(thrown);
      await settle();
      expect([calls.length, vi.getTimerCount()]).toEqual([1, 0]);
      expect(run.end).toBe(failed && onError === "stop" ? thrown : "returned");
      const report = { type: "action-failed", task: name, error: thrown };
      expect(events.events).toEqual(failed && onError === "continue" ? [report] : []);
    }
  });

  test("loses no error of an action, and none twice, whenever in its turn the stop comes", async () => {
    for (const onError of ["stop", "continue"] as const) {
      for (const offset of offsets) {
        let fail: (error: Error) => void = nothing;
        const onEvent = vi.fn();
        const run = start(create(() => new Promise((_, reject) => (fail = reject)), { onError, onEvent }));
        await fireAndSettle();
        fail(failure);
        await microtasks(offset);
        run.controller.abort();
        await settle();
        expect([offset, run.end]).toEqual([offset, onError === "stop" ? failure : "returned"]);
        expect([onEvent.mock.calls.length, vi.getTimerCount()]).toEqual([onError === "stop" ? 0 : 1, 0]);
      }
    }
  });

  test("may run again after a run has ended by a stop or a failure, as soon as its promise settles", async () => {
    const action = vi.fn(throwing(failure));
    const task = create(action);
    for (let i = 1; i <= 3; i++) {
      const failing = start(task);
      await fireAndSettle();
      expect([failing.end, action.mock.calls.length, vi.getTimerCount()]).toEqual([failure, i, 0]);
      const first = new AbortController();
      const second = new AbortController();
      const again = task.run(first.signal).then(() => task.run(second.signal));
      first.abort();
      await settle();
      second.abort();
      await expect(again).resolves.toBeUndefined();
    }
  });

  test("rejects a second run meanwhile with TaskAlreadyStartedError, and leaves the first alone", async () => {
    const { action, calls } = controlled();
    const task = create(action);
    const first = start(task);
    const timers = vi.getTimerCount();
    const isRefused = async (): Promise<void> => {
      const second = start(task);
      await settle();
      expect(second.end).toBeInstanceOf(TaskAlreadyStartedError);
      expect(second.end).toHaveProperty("task", name);
      expect(first.end).toBe("running");
    };
    await isRefused();
    await isRefused();
    expect(vi.getTimerCount()).toBe(timers);
    await fireAndSettle();
    expect(calls.length).toBe(1);
    first.controller.abort();
    await isRefused(); // the action is still waited for
    calls[0]?.return();
    await settle();
    expect(first.end).toBe("returned");
    await stop(start(task));
  });

  test(`has the name ${name}, or its own; under a manager its full name, also when it is refused`, async () => {
    const manager = new Manager({ name: "api" });
    const named = create(nothing, { name: "consumer" });
    expect(named.name).toBe("consumer");
    const task = create(nothing, { name: undefined });
    manager.run(named, task, task);
    expect(manager.pending).toEqual(["api/consumer", `api/${name}`, `api/${name}`]);
    await expect(manager.wait()).rejects.toMatchObject({ name: "TaskAlreadyStartedError", task: `api/${name}` });
    expect(manager.failures.map(({ source }) => source)).toEqual([`api/${name}`]);
  });

  const failing = (options: RepeatOptions): Task => create(throwing(failure), { onError: "continue", ...options });
  type Runs = (manager: Manager, own: RepeatOptions, byHand: AbortController) => void;
  test.each<[string, Runs, toManager: string[], toOwn: string[]]>([
    [
      "to the `onEvent` of the manager that runs it, with its full name",
      (manager) => manager.run(failing({ name: "consumer" }), failing({ onEvent: undefined })),
      ["api/consumer", `api/${name}`],
      [],
    ],
    [
      "to its own `onEvent` and no other if it has one, with its full name",
      (manager, own) => manager.run(failing(own)),
      [],
      [`api/${name}`],
    ],
    ["to nobody when it is run by hand", (_manager, _own, byHand) => start(failing({}), byHand), [], []],
    [
      "to its own `onEvent`, with its own name, when it is run by hand",
      (_, own, byHand) => start(failing(own), byHand),
      [],
      [name],
    ],
    [
      "to its own `onEvent` only, with its own name, behind AbortSignal.any",
      (manager, own) => {
        manager.run((signal) => failing(own).run(AbortSignal.any([signal])));
        manager.run((signal) => failing({}).run(AbortSignal.any([signal])));
      },
      [],
      [name],
    ],
    [
      "where those of a function go that hands its signal on, with its name",
      (manager, own) => {
        manager.run(function worker(signal) {
          return failing({ name: "consumer" }).run(signal);
        });
        manager.run(function other(signal) {
          return failing(own).run(signal);
        });
      },
      ["api/worker"],
      ["api/other"],
    ],
    [
      "where those of a task go that runs it in an action, with its name",
      (manager) => {
        const inner = new LoopTask(throwing(failure), { name: "inner", delay: 10, onError: "continue" });
        manager.run(create((signal) => inner.run(signal), { name: "outer" }));
      },
      ["api/outer"],
      [],
    ],
    [
      "to an observer that throws or rejects, which changes nothing",
      (manager) => manager.run(failing({ onEvent: throwing("x") }), failing({ onEvent: rejecting("x") })),
      [],
      [],
    ],
  ])("tells its events %s", async (_, run, toManager, toOwn) => {
    const log = new EventLog();
    const own = new EventLog();
    const byHand = new AbortController();
    const manager = new Manager({ name: "api", onEvent: log.observe });
    run(manager, { onEvent: own.observe }, byHand);
    await fireAndSettle();
    byHand.abort();
    await manager.stop();
    const report = (task: string): LifecycleEvent => ({ type: "action-failed", task, error: failure });
    expect(log.events.filter(({ type }) => type === "action-failed")).toEqual(toManager.map(report));
    expect(own.events).toEqual(toOwn.map(report));
  });

  test("tells a manager nothing after the deadline: what a task does then is told to nobody", async () => {
    const log = new EventLog();
    const { action, calls } = controlled();
    const manager = new Manager({ shutdownTimeout: 10, onEvent: log.observe });
    manager.run(create(action, { onError: "continue" }));
    await fireAndSettle();
    const stopped = manager.stop();
    vi.advanceTimersByTime(10);
    await expect(stopped).rejects.toMatchObject({ name: "ShutdownTimeoutError", pending: [name] });
    calls[0]?.fail(failure);
    await settle();
    expect(log.events.at(-1)?.type).toBe("stopped");
  });
});

type Kind = "LoopTask" | "PollTask" | "SignalTriggerTask";

describe.each<[Kind]>([["LoopTask"], ["PollTask"], ["SignalTriggerTask"]])("new %s", (kind) => {
  const create = (options: object, action: unknown = nothing): Task => {
    if (kind === "LoopTask") return new LoopTask(action as Action, options);
    if (kind === "PollTask") return new PollTask(action as Action, { interval: 10, ...options });
    return new SignalTriggerTask(action as Action, options);
  };

  /** It is an error of just this class that names the option, and shows the value. */
  function expectRefusal(thrown: unknown, Refusal: ErrorConstructor, option: string, value: unknown): void {
    const shown = typeof value === "string" || Array.isArray(value) ? JSON.stringify(value) : String(value);
    const [start, end] = (thrown as Error).message.split(" must be ");
    expect([start, end?.split(", got ")[1]]).toEqual([`Cannot create a ${kind}: ${option}`, shown]);
    expect((thrown as Error).constructor).toBe(Refusal);
    expect([newListeners(), vi.getTimerCount()]).toEqual([{}, 0]);
  }

  const notNumbers = [null, "10", "", 5n, {}, true, [10]];
  const negatives = [-1, -0.001, -Infinity, NaN];
  const badNames = [["USR2"], ["sigusr2"], [""], ["xSIGUSR2"], ["exit", "SIGUSR2"], ["SIGUSR2", 5]];
  const table: [string, ErrorConstructor, unknown[], Kind?][] = [
    ["name", TypeError, [null, 5, Symbol("x"), ["x"]]],
    ["onError", TypeError, [null, 5, true, nothing]],
    ["onError", RangeError, ["", "retry", "Stop", "constructor"]],
    ["onEvent", TypeError, [null, 5, "x", {}]],
    ["delay", TypeError, notNumbers, "LoopTask"],
    ["delay", RangeError, negatives, "LoopTask"],
    ["initialDelay", TypeError, notNumbers, "LoopTask"],
    ["initialDelay", RangeError, negatives, "LoopTask"],
    ["interval", TypeError, [undefined, ...notNumbers], "PollTask"],
    ["interval", RangeError, [0, ...negatives], "PollTask"],
    ["runAtStart", TypeError, [null, 0, 1, "true"], "PollTask"],
    ["signals", TypeError, [null, 5, "SIGUSR2", {}, [], ...badNames], "SignalTriggerTask"],
    ["signals", TypeError, [["SIGUSR2", "SIGKILL", "SIGHUP"], ["SIGSTOP"]], "SignalTriggerTask"],
  ];
  test.each(table.filter(([, , , only = kind]) => only === kind))(
    "refuses a bad %s with a %o that names the option and shows the value, before anything has started",
    (option, Refusal, values) => {
      for (const value of values) {
        const thrown = thrownBy(() => create({ [option]: value }));
        expectRefusal(thrown, Refusal, option, value);
      }
    },
  );

  test("refuses with a TypeError what is no action", () => {
    for (const value of [null, 5, "x", {}, { run: nothing }]) {
      const thrown = thrownBy(() => create({}, value));
      expectRefusal(thrown, TypeError, "action", value);
    }
  });

  test("takes the default for every option that is undefined", async () => {
    const common = { name: undefined, onError: undefined, onEvent: undefined } satisfies RepeatOptions;
    const loop = { ...common, delay: undefined, initialDelay: undefined } satisfies LoopOptions;
    const poll = { ...common, interval: 10, runAtStart: undefined } satisfies PollOptions;
    const trigger = { ...common, signals: undefined } satisfies SignalTriggerOptions;
    const { action, calls } = controlled();
    const task = create({ ...loop, ...poll, ...trigger }, action);
    expect(task.name).toBe({ LoopTask: "loop", PollTask: "poll", SignalTriggerTask: "signal-trigger" }[kind]);
    const run = start(task);
    expect(calls.length).toBe(kind === "LoopTask" ? 1 : 0);
    vi.advanceTimersByTime(10);
    send("SIGHUP");
    await settle();
    expect(calls.length).toBe(1);
    calls[0]?.fail(failure);
    await settle();
    expect(run.end).toBe(failure);
  });
});

test("Cannot create a PollTask: interval must be above 0 milliseconds, got 0", () => {
  const message = "Cannot create a PollTask: interval must be above 0 milliseconds, got 0";
  expect(() => new PollTask(nothing, { interval: 0 })).toThrow(new RangeError(message));
  // @ts-expect-error: the interval has no default
  expect(() => new PollTask(nothing, {})).toThrow(TypeError);
});

describe("A wait", () => {
  const waits: [string, (milliseconds: number, action: Action) => Task, calls: number][] = [
    ["The `delay` of a LoopTask", (delay, action) => new LoopTask(action, { delay }), 1],
    ["The `initialDelay` of a LoopTask", (initialDelay, action) => new LoopTask(action, { initialDelay, delay: 5 }), 0],
    ["The `interval` of a PollTask", (interval, action) => new PollTask(action, { interval }), 0],
    ["The same with `runAtStart`", (interval, action) => new PollTask(action, { interval, runAtStart: true }), 1],
  ];

  /** Lets a long time pass, and tells how many times the process was woken up. */
  async function passLong(milliseconds: number): Promise<number> {
    const end = Date.now() + milliseconds;
    for (let timers = 0; ; timers++) {
      await settle();
      vi.advanceTimersByTime(Math.min(end - Date.now(), LONGEST_DELAY));
      if (Date.now() === end) return timers;
    }
  }

  test.each(waits)("%s above 2^31-1 is waited for in pieces", async (_, create, calls) => {
    for (const milliseconds of [LONGEST_DELAY, 2 ** 31, 2 ** 32 + 5, 10 * 2 ** 31]) {
      const action = vi.fn();
      const run = start(create(milliseconds, action));
      await passLong(milliseconds - 1);
      expect([milliseconds, action.mock.calls.length, vi.getTimerCount()]).toEqual([milliseconds, calls, 1]);
      await passLong(1);
      await settle();
      expect([milliseconds, action.mock.calls.length]).toEqual([milliseconds, calls + 1]);
      await stop(run);
    }
  });

  test.each(waits)("%s of Infinity lasts until the stop, in pieces of 2^31-1 ms", async (_, create, calls) => {
    const action = vi.fn();
    const run = start(create(Infinity, action));
    await settle();
    for (let i = 0; i < 5; i++) {
      const startedAt = Date.now();
      vi.advanceTimersToNextTimer();
      expect(Date.now() - startedAt).toBe(LONGEST_DELAY);
      await settle();
    }
    expect([action.mock.calls.length, vi.getTimerCount(), run.end]).toEqual([calls, 1, "running"]);
    expect(getEventListeners(run.controller.signal, "abort").length).toBe(1);
    await stop(run);
    expect(action).toHaveBeenCalledTimes(calls);
  });
});

describe("A LoopTask", () => {
  test("starts its first action synchronously in `run`, unless it has an `initialDelay`", async () => {
    for (const initialDelay of [undefined, 0, 1]) {
      const action = vi.fn();
      const run = start(new LoopTask(action, { initialDelay, delay: 10 }));
      expect(action).toHaveBeenCalledTimes(initialDelay ? 0 : 1);
      await stop(run);
    }
  });

  test("waits `initialDelay`, then `delay` from each end to the next start, anew in each run", async () => {
    const starts: number[] = [];
    const action: Action = (signal) => {
      starts.push(now());
      // The timers and listeners of its waits are gone.
      expect([vi.getTimerCount(), getEventListeners(signal, "abort").length]).toEqual([0, 0]);
      return new Promise((resolve) => setTimeout(resolve, 7));
    };
    const task = new LoopTask(action, { initialDelay: 30, delay: 5 });
    for (let i = 0; i < 2; i++) {
      zero = performance.now();
      const run = start(task);
      await pass(57);
      expect(starts.splice(0)).toEqual([30, 42, 54]);
      run.controller.abort();
      await pass(10);
      expect([run.end, starts]).toEqual(["returned", []]);
    }
  });

  test.each<[string, LoopOptions | undefined, hasImmediate: boolean]>([
    ["without a delay", undefined, true],
    ["with a delay of 0", { delay: 0, initialDelay: 0 }, true],
    ["without a delay where there is no global setImmediate", undefined, false],
  ])("%s yields to timers and signals each turn (a macrotask, not a microtask)", async (_, options, hasImmediate) => {
    if (!hasImmediate) {
      vi.stubGlobal("setImmediate", undefined);
      vi.stubGlobal("clearImmediate", undefined);
    }
    const timeouts = vi.spyOn(globalThis, "setTimeout");
    for (const end of [nothing, () => microtasks(3), throwing(failure)]) {
      const action = vi.fn(() => {
        if (action.mock.calls.length > 100) run.controller.abort(); // lest it hang here if it does not yield
        return end();
      });
      const run: Run = start(new LoopTask(action, { onError: "continue", ...options }));
      for (let turn = 1; turn <= 3; turn++) {
        await settle();
        expect([action.mock.calls.length, vi.getTimerCount()]).toEqual([turn, 1]);
        vi.advanceTimersByTime(hasImmediate ? 0 : 1);
      }
      await settle();
      await stop(run);
      expect(action).toHaveBeenCalledTimes(4);
    }
    expect(timeouts.mock.calls.length > 0).toBe(!hasImmediate); // which takes a millisecond in real time
  });
});

describe("A PollTask", () => {
  /** Runs a poll whose actions last so long, and tells when they start. */
  function poll(options: PollOptions, durations: readonly number[] = []): { task: Task; run: Run; starts: number[] } {
    const starts: number[] = [];
    const task = new PollTask(() => {
      const duration = durations[starts.length] ?? 0;
      starts.push(now());
      return duration > 0 ? new Promise((resolve) => setTimeout(resolve, duration)) : undefined;
    }, options);
    return { task, run: start(task), starts };
  }

  /** From now on its clock is so much later: time in which no timer fired, because something blocked the event loop. */
  function block(milliseconds: number): void {
    const clock = performance.now.bind(performance);
    vi.spyOn(performance, "now").mockImplementation(() => clock() + milliseconds);
  }

  test("starts its first action synchronously in `run` with `runAtStart`, and else one interval later", async () => {
    for (const runAtStart of [undefined, false, true]) {
      zero = performance.now();
      const { run, starts } = poll({ interval: 100, runAtStart });
      expect(starts).toEqual(runAtStart ? [0] : []);
      await pass(100);
      expect(starts).toEqual(runAtStart ? [0, 100] : [100]);
      await stop(run);
    }
  });

  test.each<[durations: number[], starts: number[], runAtStart?: boolean]>([
    [[250], [100, 350, 400, 500]], // as in the documentation
    [[], [100, 200, 300, 400]],
    [[99], [100, 200, 300, 400]],
    [[100], [100, 200, 300, 400]],
    [[101], [100, 201, 300, 400]],
    [[199], [100, 299, 300, 400]],
    [[200], [100, 300, 400, 500]],
    [[250, 250], [100, 350, 600, 700]],
    [[250, 60], [100, 350, 410, 500]],
    [[0, 350], [100, 200, 550, 600]],
    [[1_000], [100, 1_100, 1_200]],
    [[], [0, 100, 200, 300], true],
    [[250], [0, 250, 300, 400], true],
    [[100], [0, 100, 200], true],
  ])(
    "with interval 100 and actions of %j ms starts at %j: no overlap, one catch-up run, then back on the grid",
    async (durations, expected, runAtStart) => {
      const { run, starts } = poll({ interval: 100, runAtStart }, durations);
      await pass(expected.at(-1) ?? 0);
      expect(starts).toEqual(expected);
      await stop(run);
    },
  );

  test("has its grid anew in each run", async () => {
    const { task, run, starts } = poll({ interval: 100 }, [250]);
    await pass(430);
    await stop(run);
    await pass(40);
    zero = performance.now();
    starts.length = 1; // so that no action is long
    const again = start(task);
    await pass(300);
    expect(starts.slice(1)).toEqual([100, 200, 300]);
    await stop(again);
  });

  test.each([
    [100, 0],
    [16.7, 0.37],
  ])(
    "with interval %f drifts by less than 1 % of it over 10,000 ticks and never accumulates, however late timers are",
    async (interval, fraction) => {
      const lateness = (tick: number): number => [0, 3, 12, 7, 9, 0, 1][tick % 7] ?? 0;
      block(fraction); // so that the clock does not show whole milliseconds
      zero = performance.now();
      let late = lateness(0);
      const { setTimeout } = globalThis;
      vi.stubGlobal("setTimeout", (call: () => void, ms: number) => setTimeout(call, ms + late));
      const { run, starts } = poll({ interval });
      while (starts.length < 10_000) {
        late = lateness(starts.length + 1); // that of the timer after this one
        vi.advanceTimersToNextTimer();
        await microtasks(20);
      }
      await stop(run);
      const drift = starts.map((at, tick) => at - (tick + 1) * interval - lateness(tick));
      // As Node's, fake timers leave out fractions of a millisecond, and so may be early.
      const early = interval === 100 ? 0 : 1;
      expect(drift.filter((each) => each < -early || each > interval / 1_000)).toEqual([]);
    },
  );

  test("has a monotonic clock: nothing happens when the system's is changed", async () => {
    const { run, starts } = poll({ interval: 100 });
    await pass(150);
    vi.setSystemTime(Date.now() + 86_400_000);
    await pass(150);
    vi.setSystemTime(0);
    await pass(100);
    expect(starts).toEqual([100, 200, 300, 400]);
    await stop(run);
  });

  test.each<[string, ms: number, starts: number[], isWaiting?: boolean]>([
    ["something blocks the event loop while it waits", 250, [350, 400, 500], true],
    ["its action blocks the event loop", 250, [100, 350, 400, 500]],
    ["its action blocks it until just before a tick", 199, [100, 299, 300, 400]],
    ["its action blocks it for whole intervals", 300, [100, 400, 500, 600]],
  ])("lets a late tick stand for all missed ones, whatever the cause: %s", async (_, ms, expected, isWaiting) => {
    const starts: number[] = [];
    const action = (): void => {
      if (starts.push(now()) === 1 && !isWaiting) block(ms);
    };
    const run = start(new PollTask(action, { interval: 100 }));
    if (isWaiting) block(ms);
    await pass((expected.at(-1) ?? 0) - ms);
    expect(starts).toEqual(expected);
    await stop(run);
  });

  test("lets a late tick stand for all missed ones, whatever the cause: a timer is late", async () => {
    const { setTimeout } = globalThis;
    vi.stubGlobal("setTimeout", (call: () => void, ms: number) => setTimeout(call, ms + 250));
    const { run, starts } = poll({ interval: 100 });
    vi.unstubAllGlobals();
    await pass(500);
    expect(starts).toEqual([350, 400, 500]);
    await stop(run);
  });

  test("does not count a tick twice that comes 1 ms early, as it may in Node", async () => {
    const { run, starts } = poll({ interval: 100 });
    block(-1);
    await pass(301);
    expect(starts).toEqual([99, 200, 300]);
    await stop(run);
  });

  test("yields a macrotask before a catch-up run, in which a stop comes through", async () => {
    for (const stops of [true, false]) {
      zero = performance.now();
      const { run, starts } = poll({ interval: 100 }, [250]);
      await pass(100);
      vi.advanceTimersByTime(250);
      await settle();
      expect([starts, vi.getTimerCount()]).toEqual([[100], 1]);
      if (stops) await stop(run);
      await pass(0);
      expect(starts).toEqual(stops ? [100] : [100, 350]);
      if (!stops) await stop(run);
    }
  });
});

test.each<[string, (action: Action) => Task]>([
  ["A LoopTask", (action) => new LoopTask(action, { delay: 10 })],
  ["A LoopTask without a delay", (action) => new LoopTask(action)],
  ["A PollTask with `runAtStart`", (action) => new PollTask(action, { interval: 10, runAtStart: true })],
])("%s that starts at once starts no action after a stop around the end of the first one", async (_, create) => {
  for (const isLate of [false, true]) {
    for (const offset of offsets) {
      const { action, calls } = controlled();
      const run = start(create(action));
      if (isLate) await pass(25);
      calls[0]?.return();
      await microtasks(offset);
      await stop(run);
      expect([offset, calls.length]).toEqual([offset, 1]);
    }
  }
});

test.each<[string, (action: Action) => Task]>([
  ["A LoopTask without a delay", (action) => new LoopTask(action)],
  ["A PollTask that is always late", (action) => new PollTask(action, { interval: 0.000_1, runAtStart: true })],
])("%s lets a 1 ms timer through while it spins", async (_, create) => {
  await inRealTime(async () => {
    const log: string[] = [];
    const action = (): void => {
      if (log.push("action") > 1e6) throw new Error("It let nothing through");
    };
    const run = start(create(action));
    for (const timer of ["first", "second"]) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      log.push(timer);
    }
    run.controller.abort();
    await settle();
    expect([run.end, log.at(-1)]).toEqual(["returned", "second"]);
    expect(log.indexOf("second") - log.indexOf("first")).toBeGreaterThan(1); // it goes on meanwhile
  });
});

describe("A SignalTriggerTask", () => {
  test.each<[SignalTriggerOptions | undefined, NodeJS.Signals[]]>([
    [undefined, ["SIGHUP"]],
    [{}, ["SIGHUP"]],
    [usr2, ["SIGUSR2"]],
    [{ signals: ["SIGUSR2", "SIGTERM", "SIGUSR2"] }, ["SIGUSR2", "SIGTERM"]],
  ])("given %o listens for %j from its construction on: a signal before `run` is not lost", async (options, names) => {
    for (const signal of names) {
      const action = vi.fn();
      const task = new SignalTriggerTask(action, options);
      const all: NodeJS.Signals[] = ["SIGHUP", "SIGUSR2", "SIGTERM"];
      expect(all.map((name) => listeners(name))).toEqual(all.map((name) => (names.includes(name) ? 1 : 0)));
      expect(vi.getTimerCount()).toBe(0);
      send(signal);
      send(signal);
      await settle();
      expect(action).not.toHaveBeenCalled();
      const run = start(task);
      await settle();
      expect(action).toHaveBeenCalledTimes(1);
      for (const other of all) if (!names.includes(other)) send(other);
      await settle();
      expect(action).toHaveBeenCalledTimes(1);
      await stop(run);
    }
  });

  test("makes of all signals during an action exactly one more run, which starts in the turn of its end", async () => {
    for (const onError of ["stop", "continue"] as const) {
      const { action, calls } = controlled();
      const run = start(new SignalTriggerTask(action, { signals: ["SIGUSR2", "SIGHUP"], onError }));
      send();
      await settle();
      for (let round = 1; round <= 3; round++) {
        for (let i = 0; i < 5; i++) {
          send(i % 2 ? "SIGHUP" : "SIGUSR2");
          await settle();
        }
        expect(calls.length).toBe(round);
        if (onError === "stop") calls.at(-1)?.return();
        else calls.at(-1)?.fail(failure);
        await settle();
        expect(calls.length).toBe(round + 1);
      }
      calls.at(-1)?.return();
      await pass(10);
      expect(calls.length).toBe(4);
      await stop(run);
    }
  });

  test("starts its action in the turn of a signal that finds it idle", async () => {
    const action = vi.fn();
    const run = start(new SignalTriggerTask(action, usr2));
    for (let i = 0; i < 3; i++) {
      await pass(10);
      expect(action).toHaveBeenCalledTimes(i);
      send();
      await settle();
      expect(action).toHaveBeenCalledTimes(i + 1);
    }
    await stop(run);
  });

  test.each<[string, startsFirst: boolean, lasts: boolean]>([
    ["before the start", false, false],
    ["that finds it idle", true, false],
    ["that finds it idle, and at the end of its action", true, true],
  ])("loses no signal, whenever it comes after one %s: an action starts after it", async (_, startsFirst, lasts) => {
    for (const offset of offsets) {
      const log: string[] = [];
      let end: () => void = nothing;
      const task = new SignalTriggerTask(() => {
        log.push("action");
        return lasts && log.length < 3 ? new Promise<void>((resolve) => (end = resolve)) : undefined;
      }, usr2);
      const signal = (): void => {
        log.push("signal");
        send();
      };
      if (!startsFirst) signal();
      const run = start(task);
      if (startsFirst) await settle();
      if (startsFirst) signal();
      if (lasts) await settle();
      end();
      await microtasks(offset);
      signal();
      await settle();
      // Two before the action starts are one.
      const coalesced = log.length === 3 && !lasts;
      const expected = coalesced ? "signal,signal,action" : "signal,action,signal,action";
      expect([offset, log.join()]).toEqual([offset, expected]);
      await stop(run);
    }
  });

  test("keeps the process alive while it runs, also during an action that holds nothing", async () => {
    for (const fails of [false, true]) {
      const { action, calls } = controlled();
      const run = start(new SignalTriggerTask(action, usr2));
      for (let i = 0; i < 2; i++) {
        const startedAt = Date.now();
        vi.advanceTimersToNextTimer();
        expect(Date.now() - startedAt).toBe(LONGEST_DELAY);
        await settle();
      }
      expect([run.end, calls.length, vi.getTimerCount()]).toEqual(["running", 0, 1]);
      await fireAndSettle();
      expect([calls.length, vi.getTimerCount()]).toEqual([1, 1]);
      if (!fails) run.controller.abort();
      await settle();
      expect(vi.getTimerCount()).toBe(1); // it is still waited for
      if (fails) calls[0]?.fail(failure);
      else calls[0]?.return();
      await settle();
      expect([run.end, vi.getTimerCount()]).toEqual([fails ? failure : "returned", 0]);
    }
  });

  test("takes its listeners off when it ends, also when it fails, and only its own", async () => {
    const mine = vi.fn();
    process.on("SIGUSR2", mine);
    const failing = new SignalTriggerTask(throwing(failure), usr2);
    const stopping = new SignalTriggerTask(nothing, usr2);
    expect(listeners()).toBe(3);
    const controller = new AbortController();
    const afterFailure = failing.run(controller.signal).catch(() => listeners());
    send();
    expect(await afterFailure).toBe(2);
    const afterStop = stopping.run(controller.signal).then(() => listeners());
    controller.abort();
    expect(await afterStop).toBe(1);
    send();
    expect(mine).toHaveBeenCalledTimes(2);
    process.off("SIGUSR2", mine);
  });

  test("has taken them off when the first hook runs: a signal during cleanup has its default action", async () => {
    const manager = new Manager();
    const during: number[] = [];
    manager.run(new SignalTriggerTask(nothing, usr2));
    manager.cleanup(() => during.push(listeners()));
    await manager.stop();
    expect(during).toEqual([0]);
  });

  test("listens again when it runs again, as soon as `run` is called, and not in between", async () => {
    const action = vi.fn();
    const task = new SignalTriggerTask(action, usr2);
    for (let i = 0; i < 3; i++) {
      const run = start(task);
      expect(listeners()).toBe(1);
      await settle();
      expect(action).toHaveBeenCalledTimes(i);
      await fireAndSettle();
      expect(action).toHaveBeenCalledTimes(i + 1);
      await stop(run);
      expect(listeners()).toBe(0);
      send();
    }
  });

  test("does not let signals dropped at the end of a run trigger the next, whenever they came", async () => {
    for (const fails of [false, true]) {
      for (const offset of [-1, ...offsets]) {
        const { action, calls } = controlled();
        const task = new SignalTriggerTask(action, usr2);
        const run = start(task);
        await fireAndSettle();
        if (offset < 0) send();
        run.controller.abort();
        if (fails) calls[0]?.fail(failure);
        else calls[0]?.return();
        await microtasks(offset);
        send();
        await settle();
        expect(run.end).toBe(fails ? failure : "returned");
        const again = start(task);
        await settle();
        expect([offset, calls.length]).toEqual([offset, 1]);
        await stop(again);
      }
    }
  });

  test("[Symbol.dispose]() takes the listeners of a task off that never ran; a later `run` is refused", async () => {
    const action = vi.fn();
    const task = new SignalTriggerTask(action, { signals: ["SIGUSR2", "SIGHUP"] });
    send();
    for (let i = 0; i < 2; i++) {
      task[Symbol.dispose]();
      expect([listeners(), listeners("SIGHUP")]).toEqual([0, 0]);
      const run = start(task);
      await settle();
      expect(run.end).toBeInstanceOf(TaskAlreadyStartedError);
      expect(run.end).toHaveProperty("task", "signal-trigger");
      expect([listeners(), vi.getTimerCount()]).toEqual([0, 0]);
    }
    expect(action).not.toHaveBeenCalled();
    {
      using unused = new SignalTriggerTask(nothing, usr2);
      expect([unused.name, listeners()]).toEqual(["signal-trigger", 1]);
    }
    expect(listeners()).toBe(0);
  });

  test("[Symbol.dispose]() does nothing to a task that runs, or has run", async () => {
    const action = vi.fn();
    const task = new SignalTriggerTask(action, usr2);
    for (let i = 1; i <= 2; i++) {
      const run = start(task);
      task[Symbol.dispose]();
      await settle();
      task[Symbol.dispose]();
      await fireAndSettle();
      expect([run.end, action.mock.calls.length, listeners(), vi.getTimerCount()]).toEqual(["running", i, 1, 1]);
      await stop(run);
      task[Symbol.dispose]();
    }
  });

  test.each(processesWithoutSignals)("where there is %s, the constructor throws an error that says so", (_, other) => {
    const thrown = withProcess(other, () => thrownBy(() => new SignalTriggerTask(nothing)));
    const message = "Cannot create a SignalTriggerTask: there is no process with signals";
    expect([(thrown as Error).constructor, (thrown as Error).message]).toEqual([Error, message]);
  });
});

describe("A real process", () => {
  beforeAll(() => compile(...["five", "reload", "alone", "spins"].map((name) => `fixtures/trigger-${name}.ts`)));
  beforeEach(() => void vi.useRealTimers());
  afterEach(() => void vi.useFakeTimers());

  test("five SIGHUPs during one action give exactly one more run", async () => {
    const program = new Program("fixtures/trigger-five.ts");
    await program.line("ready");
    for (let i = 1; i <= 6; i++) {
      program.send("SIGHUP");
      await program.line(`signal ${i}`); // lest the kernel make one of two
      if (i === 1) await program.line("action 1");
    }
    expect(await program.end()).toBe(0);
    const during = ["signal 2", "signal 3", "signal 4", "signal 5", "signal 6"];
    expect(program.lines).toEqual(["ready", "signal 1", "action 1", ...during, "action 2", "ended"]);
  });

  test('a reload that throws with `onError: "continue"` keeps the old configuration and the process', async () => {
    const program = new Program("fixtures/trigger-reload.ts");
    await program.line("ready");
    program.send("SIGHUP");
    await program.line("reload: SyntaxError, still on port 80");
    program.send("SIGHUP");
    expect(await program.end()).toBe(0);
    expect(program.lines).toEqual(["ready", "reload: SyntaxError, still on port 80", "port 81"]);
  });

  test("a SIGHUP before `run` is not lost, the task keeps it alive, and after its end a SIGHUP kills it", async () => {
    const program = new Program("fixtures/trigger-alone.ts");
    await program.line("starting");
    program.send("SIGHUP");
    await program.line("idle");
    program.send("SIGHUP");
    await program.line("ended");
    program.send("SIGHUP");
    expect(await program.end()).toBe("SIGHUP");
    const actions = ["action 1", "done 1", "idle", "action 2", "done 2"];
    expect(program.lines).toEqual(["starting", "received", ...actions, "ended, listeners for SIGHUP: 0"]);
  });

  test("a LoopTask without a delay lets a signal and a 1 ms timer through while it spins", async () => {
    const program = new Program("fixtures/trigger-spins.ts");
    await program.line("a timer came through");
    program.send("SIGHUP");
    expect(await program.end()).toBe(0);
    expect(program.lines).toEqual(["a timer came through", "a signal came through", "ended"]);
  });
});
