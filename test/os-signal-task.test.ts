import { getEventListeners } from "node:events";
import { Manager, OsSignalTask, PanicError, TaskAlreadyStartedError } from "allstop";
import { ControlledTask, EventLog } from "allstop/testing";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { compile } from "./support/bundle.ts";
import { type Run, start, useRunsByHand } from "./support/by-hand.ts";
import {
  listeners,
  newListeners,
  processesWithoutSignals,
  send,
  useOsSignals,
  withProcess,
} from "./support/os-signals.ts";
import { useNoUnhandledRejections } from "./support/process-events.ts";
import { Program } from "./support/program.ts";
import { settle } from "./support/settle.ts";
import { stubborn } from "./support/stubborn.ts";
import { thrownBy } from "./support/thrown-by.ts";
import { hangs, throwing } from "./support/ways.ts";

useRunsByHand();
useOsSignals();
useNoUnhandledRejections();

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  // What is there for the signals that a test sent is there for 500 ms at most.
  vi.advanceTimersByTime(500);
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

const usr2 = { signals: ["SIGUSR2"] };
const refusal = "Cannot create an OsSignalTask: signals must be catchable, such as SIGTERM, got ";

describe("Listening", () => {
  test.each([
    ["without options", undefined],
    ["with none of them", {}],
    ["with undefined ones", { signals: undefined, onSignal: undefined }],
  ])("OsSignalTask, %s, listens for SIGINT, SIGTERM and SIGQUIT from construction on", (_, options) => {
    const task = new OsSignalTask(options);
    expect(newListeners()).toEqual({ SIGINT: 1, SIGTERM: 1, SIGQUIT: 1 });
    expect(vi.getTimerCount()).toBe(0);
    task[Symbol.dispose]();
  });

  test.each(["SIGINT", "SIGTERM", "SIGQUIT"] as const)("OsSignalTask, by default, returns on %s", async (signal) => {
    const task = new OsSignalTask();
    const run = start(task);
    await settle();
    expect(run.end).toBe("running");
    send(signal);
    await settle();
    expect(run.end).toBe("returned");
    expect(task.received).toBe(signal);
  });

  test("OsSignalTask, given signals, listens for these and no others", async () => {
    const task = new OsSignalTask({ signals: ["SIGUSR2", "SIGHUP"] });
    expect([listeners("SIGUSR2"), listeners("SIGHUP")]).toEqual([1, 1]);
    expect([listeners("SIGINT"), listeners("SIGTERM"), listeners("SIGQUIT")]).toEqual([0, 0, 0]);
    const run = start(task);
    send("SIGINT");
    await settle();
    expect([run.end, task.received]).toEqual(["running", undefined]);
    send("SIGHUP");
    await settle();
    expect([run.end, task.received]).toEqual(["returned", "SIGHUP"]);
  });

  test("OsSignalTask, given a signal twice, adds one listener for it, and takes that off again", () => {
    const task = new OsSignalTask({ signals: ["SIGUSR2", "SIGHUP", "SIGUSR2"] });
    expect([listeners("SIGUSR2"), listeners("SIGHUP")]).toEqual([1, 1]);
    task[Symbol.dispose]();
    expect([listeners("SIGUSR2"), listeners("SIGHUP")]).toEqual([0, 0]);
  });

  test("OsSignalTask copies its list of signals: a later change to it changes nothing", () => {
    const list: NodeJS.Signals[] = ["SIGUSR2"];
    const task = new OsSignalTask({ signals: list });
    list[0] = "SIGHUP";
    task[Symbol.dispose]();
    expect(newListeners()).toEqual({});
  });

  test("OsSignalTask takes off its own listeners only", async () => {
    const mine = vi.fn();
    process.on("SIGUSR2", mine);
    const first = new OsSignalTask(usr2);
    const second = new OsSignalTask(usr2);
    first[Symbol.dispose]();
    const run = start(second);
    send();
    await settle();
    expect([first.received, second.received, run.end]).toEqual([undefined, "SIGUSR2", "returned"]);
    vi.advanceTimersByTime(500);
    expect(mine.mock.calls).toEqual([["SIGUSR2"]]);
    expect(listeners()).toBe(1);
    process.off("SIGUSR2", mine);
  });

  test("OsSignalTask has the name os-signal", async () => {
    const manager = new Manager({ name: "api" });
    manager.run(new OsSignalTask(usr2));
    expect(manager.pending).toEqual(["api/os-signal"]);
    await manager.stop();
  });
});

describe("Reception", () => {
  test("`received` holds the signal's name from reception on", async () => {
    const task = new OsSignalTask(usr2);
    expect(task.received).toBeUndefined();
    const run = start(task);
    await settle();
    expect(task.received).toBeUndefined();
    send();
    expect(task.received).toBe("SIGUSR2"); // and not only once the task has been told
    await settle();
    vi.advanceTimersByTime(500);
    expect([run.end, task.received]).toEqual(["returned", "SIGUSR2"]);
  });

  test("a signal before `run` is not lost", async () => {
    const onSignal = vi.fn();
    const task = new OsSignalTask({ ...usr2, onSignal });
    send();
    expect(task.received).toBe("SIGUSR2");
    await settle();
    expect(onSignal.mock.calls).toEqual([]);
    const run = start(task);
    await settle();
    expect(run.end).toBe("returned");
    expect(onSignal.mock.calls).toEqual([["SIGUSR2"]]);
  });

  test("a signal before `run` is not lost either when its listeners are gone already", async () => {
    const onSignal = vi.fn();
    const task = new OsSignalTask({ ...usr2, onSignal });
    send();
    vi.advanceTimersByTime(10_000);
    expect(listeners()).toBe(0);
    const run = start(task);
    await settle();
    expect(run.end).toBe("returned");
    expect(onSignal.mock.calls).toEqual([["SIGUSR2"]]);
    expect(listeners()).toBe(0);
  });

  test("a signal that is emitted without its name, as the type of `process.emit` has it, is known by its name", async () => {
    const task = new OsSignalTask({ signals: ["SIGUSR2", "SIGHUP"] });
    process.emit("SIGHUP");
    expect(task.received).toBe("SIGHUP");
    await task.run(new AbortController().signal);
    vi.advanceTimersByTime(500);
  });

  test("the first signal wins: repeats of it, and others, within 500 ms of it are swallowed", async () => {
    const onSignal = vi.fn();
    const task = new OsSignalTask({ signals: ["SIGUSR2", "SIGHUP"], onSignal });
    const run = start(task);
    send("SIGHUP");
    send("SIGHUP");
    send("SIGUSR2");
    await settle();
    for (const later of [38, 362, 99]) {
      vi.advanceTimersByTime(later);
      send("SIGUSR2");
      send("SIGHUP");
    }
    await settle();
    expect([run.end, task.received]).toEqual(["returned", "SIGHUP"]);
    expect(onSignal.mock.calls).toEqual([["SIGHUP"]]);
  });
});

describe("The 500 ms after reception", () => {
  test("the listeners stay for exactly 500 ms from the reception, and repeats do not prolong it", async () => {
    const task = new OsSignalTask({ signals: ["SIGUSR2", "SIGHUP"] });
    start(task);
    await settle();
    vi.advanceTimersByTime(10_000); // it is not the construction or the start that counts
    send();
    await settle();
    vi.advanceTimersByTime(300);
    send();
    vi.advanceTimersByTime(199);
    expect([listeners("SIGUSR2"), listeners("SIGHUP")]).toEqual([1, 1]);
    vi.advanceTimersByTime(1);
    expect([listeners("SIGUSR2"), listeners("SIGHUP")]).toEqual([0, 0]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("the 500 ms count from the reception also when it comes before `run`", async () => {
    const task = new OsSignalTask(usr2);
    send();
    vi.advanceTimersByTime(300);
    const run = start(task);
    await settle();
    expect(run.end).toBe("returned");
    vi.advanceTimersByTime(199);
    expect(listeners()).toBe(1);
    vi.advanceTimersByTime(1);
    expect(listeners()).toBe(0);
  });

  test.each<[string, (task: OsSignalTask, run: Run) => void, (() => unknown)?]>([
    ["onSignal throws", () => {}, throwing(new Error("no"))],
    ["onSignal rejects", () => {}, () => Promise.reject(new Error("no"))],
    ["onSignal hangs", () => {}, hangs],
    ["the group stops while onSignal is waited for", (_, run) => run.controller.abort(), hangs],
    ["the group has just stopped", (_, run) => run.controller.abort()],
    ["it is disposed of", (task) => task[Symbol.dispose]()],
    ["it is run again", (task) => void start(task)],
  ])("after a reception the listeners stay for the 500 ms when %s, and no longer", async (_, what, onSignal) => {
    const task = new OsSignalTask({ ...usr2, onSignal });
    const run = start(task);
    await settle();
    send();
    what(task, run);
    await settle();
    what(task, run);
    await settle();
    vi.advanceTimersByTime(499);
    expect(listeners()).toBe(1);
    vi.advanceTimersByTime(1);
    expect(listeners()).toBe(0);
    run.controller.abort();
    await settle();
    expect(run.end).not.toBe("running");
  });

  test("a signal after the stop, but before the task has ended, is swallowed as any other", async () => {
    const onSignal = vi.fn();
    const task = new OsSignalTask({ ...usr2, onSignal });
    const run = start(task);
    await settle();
    run.controller.abort();
    send();
    await settle();
    expect([run.end, task.received]).toEqual(["returned", "SIGUSR2"]);
    expect(onSignal.mock.calls).toEqual([]);
    expect(listeners()).toBe(1);
    vi.advanceTimersByTime(500);
    expect(listeners()).toBe(0);
  });

  test("the 500 ms pass where a timer is a number, as in a browser", async () => {
    const nodeTimeout = setTimeout;
    vi.stubGlobal("setTimeout", (call: () => void, delay: number) => Number(nodeTimeout(call, delay)));
    try {
      const run = start(new OsSignalTask(usr2));
      send();
      await settle();
      expect(run.end).toBe("returned");
      vi.advanceTimersByTime(499);
      expect(listeners()).toBe(1);
      vi.advanceTimersByTime(1);
      expect(listeners()).toBe(0);
    } finally {
      vi.unstubAllGlobals();
    }
  });
});

describe("A stop without a signal", () => {
  test("when it ends because the group stopped, the listeners are gone at once", async () => {
    const onSignal = vi.fn();
    const task = new OsSignalTask({ signals: ["SIGUSR2", "SIGHUP"], onSignal });
    const run = start(task);
    await settle();
    expect([listeners("SIGUSR2"), listeners("SIGHUP")]).toEqual([1, 1]);
    run.controller.abort();
    await settle();
    expect([listeners("SIGUSR2"), listeners("SIGHUP")]).toEqual([0, 0]);
    expect([run.end, task.received]).toEqual(["returned", undefined]);
    expect(vi.getTimerCount()).toBe(0);
    expect(onSignal.mock.calls).toEqual([]);
  });

  test("when the group had stopped before `run`, it returns, and the listeners are gone at once", async () => {
    const onSignal = vi.fn();
    const controller = new AbortController();
    controller.abort(new Error("the reason"));
    const run = start(new OsSignalTask({ ...usr2, onSignal }), controller);
    await settle();
    expect(run.end).toBe("returned");
    expect(listeners()).toBe(0);
    expect(onSignal.mock.calls).toEqual([]);
  });

  test("the listeners are gone before the first hook of the group runs", async () => {
    const manager = new Manager();
    let during: number | undefined;
    const other = new ControlledTask();
    manager.run(new OsSignalTask(usr2), other);
    manager.cleanup(() => (during = listeners()));
    const done = manager.wait();
    other.return();
    await done;
    expect(during).toBe(0);
  });

  test("its end by the stop is a return, whatever the reason", async () => {
    const log = new EventLog();
    const manager = new Manager({ onEvent: log.observe });
    manager.run(new OsSignalTask(usr2));
    await manager.stop(new Error("the reason"));
    expect(await log.until("task-ended")).toHaveProperty("outcome", "returned");
    expect(manager.failures).toEqual([]);
  });
});

describe("onSignal", () => {
  test("`run` calls onSignal once, with the name of the signal, and awaits it", async () => {
    let done: () => void = () => {};
    const onSignal = vi.fn(() => new Promise<void>((resolve) => (done = resolve)));
    const run = start(new OsSignalTask({ ...usr2, onSignal }));
    await settle();
    expect(onSignal.mock.calls).toEqual([]);
    send();
    send();
    await settle();
    expect(onSignal.mock.calls).toEqual([["SIGUSR2"]]);
    expect(run.end).toBe("running");
    expect(getEventListeners(run.controller.signal, "abort").length).toBe(1);
    vi.advanceTimersByTime(60_000);
    await settle();
    expect(run.end).toBe("running");
    expect(vi.getTimerCount()).toBe(1); // what keeps the process alive
    done();
    await settle();
    expect(run.end).toBe("returned");
    expect(vi.getTimerCount()).toBe(0);
    expect(onSignal.mock.calls).toEqual([["SIGUSR2"]]);
  });

  test("onSignal may return anything", async () => {
    for (const value of [undefined, null, 0, "x", new Error("returned, not thrown")]) {
      const run = start(new OsSignalTask({ ...usr2, onSignal: () => value }));
      send();
      await settle();
      expect(run.end).toBe("returned");
      vi.advanceTimersByTime(500);
    }
  });

  test("`run` awaits onSignal until the stop and no longer: one that hangs does not hold up the group", async () => {
    const manager = new Manager();
    const other = new ControlledTask("other");
    manager.run(new OsSignalTask({ ...usr2, onSignal: hangs }), other);
    const done = manager.wait();
    send();
    await settle();
    expect(manager.pending).toEqual(["os-signal", "other"]);
    const error = new Error("other");
    other.fail(error);
    await expect(done).rejects.toBe(error);
    expect(manager.failures).toEqual([{ source: "other", error }]);
  });

  test("an onSignal that rejects after the stop is no failure, and no unhandledRejection", async () => {
    const late = new ControlledTask();
    const run = start(new OsSignalTask({ ...usr2, onSignal: () => late.run(new AbortController().signal) }));
    send();
    await settle();
    run.controller.abort();
    await settle();
    expect(run.end).toBe("returned");
    late.fail(new Error("too late"));
    await settle();
    expect(run.end).toBe("returned");
  });

  const error = new Error("no");
  test.each<[string, () => unknown]>([
    ["throws", throwing(error)],
    ["rejects", () => Promise.reject(error)],
    ["rejects later", () => settle().then(throwing(error))],
  ])("an onSignal that %s is its failure", async (_, onSignal) => {
    const manager = new Manager({ name: "api" });
    manager.run(new OsSignalTask({ ...usr2, onSignal }));
    const done = manager.wait();
    send();
    await expect(done).rejects.toBe(error);
    expect(manager.failures).toEqual([{ source: "api/os-signal", error }]);
    expect(listeners()).toBe(1);
    vi.advanceTimersByTime(500);
    expect(listeners()).toBe(0);
  });

  test.each<[string, () => unknown]>([
    ["throws", throwing("x")],
    ["rejects with", () => Promise.reject("x")],
  ])("an onSignal that %s something else than an Error is its failure, as a PanicError", async (_, onSignal) => {
    const manager = new Manager();
    manager.run(new OsSignalTask({ ...usr2, onSignal }));
    send();
    const thrown = await manager.wait().catch((reason) => reason);
    expect(thrown).toBeInstanceOf(PanicError);
    expect(thrown.cause).toBe("x");
    expect(manager.failures).toEqual([{ source: "os-signal", error: thrown }]);
  });

  test.each<[string, () => unknown]>([
    ["throws", throwing(error)],
    ["rejects", () => Promise.reject(error)],
  ])("an onSignal that itself stops the group and %s in that same turn is its failure", async (_, fail) => {
    const manager = new Manager();
    const onSignal = (): unknown => {
      void manager.stop();
      return fail();
    };
    manager.run(new OsSignalTask({ ...usr2, onSignal }));
    send();
    await expect(manager.wait()).rejects.toBe(error);
    expect(manager.failures).toEqual([{ source: "os-signal", error }]);
  });

  test("onSignal is not called once the group has stopped, not even in the turn of the reception", async () => {
    const onSignal = vi.fn();
    const controller = new AbortController();
    const run = start(new OsSignalTask({ ...usr2, onSignal }), controller);
    await settle();
    send();
    controller.abort();
    await settle();
    expect(run.end).toBe("returned");

    const received = new OsSignalTask({ ...usr2, onSignal });
    send();
    const late = start(received, controller);
    await settle();
    expect([late.end, received.received]).toEqual(["returned", "SIGUSR2"]);
    expect(onSignal.mock.calls).toEqual([]);
  });
});

describe("One run", () => {
  test("the second `run` rejects with TaskAlreadyStartedError, and leaves the first alone", async () => {
    const task = new OsSignalTask(usr2);
    const first = start(task);
    await settle();
    const timers = vi.getTimerCount();
    const second = start(task);
    await settle();
    expect(second.end).toBeInstanceOf(TaskAlreadyStartedError);
    expect(second.end).toMatchObject({
      name: "TaskAlreadyStartedError",
      message: "Cannot run os-signal: it has already started",
      task: "os-signal",
    });
    expect(Object.keys(second.end as object)).toEqual(["task"]);
    expect([listeners(), vi.getTimerCount(), first.end]).toEqual([1, timers, "running"]);

    send();
    await settle();
    expect(first.end).toBe("returned");
    const third = start(task);
    await settle();
    expect(third.end).toBeInstanceOf(TaskAlreadyStartedError);
  });

  test("a second `run` is refused after a stop, too, and listens no more", async () => {
    const task = new OsSignalTask(usr2);
    start(task).controller.abort();
    await settle();
    const second = start(task);
    await settle();
    expect(second.end).toBeInstanceOf(TaskAlreadyStartedError);
    expect([listeners(), vi.getTimerCount()]).toEqual([0, 0]);
  });

  test("a second `run` is a failure of the manager that asks for it", async () => {
    const task = new OsSignalTask(usr2);
    const manager = new Manager();
    manager.run(task, task);
    await expect(manager.wait()).rejects.toThrow(TaskAlreadyStartedError);
    expect(manager.failures.map(({ source }) => source)).toEqual(["os-signal"]);
  });
});

describe("[Symbol.dispose]()", () => {
  test("it removes the listeners of a task that never ran; a later `run` is refused as a second one is", async () => {
    const task = new OsSignalTask({ signals: ["SIGUSR2", "SIGHUP"] });
    task[Symbol.dispose]();
    expect([listeners("SIGUSR2"), listeners("SIGHUP")]).toEqual([0, 0]);
    const run = start(task);
    await settle();
    expect(run.end).toBeInstanceOf(TaskAlreadyStartedError);
    expect(run.end).toMatchObject({ task: "os-signal" });
    task[Symbol.dispose]();
    send();
    expect(task.received).toBeUndefined();
    expect([listeners(), vi.getTimerCount()]).toEqual([0, 0]);
  });

  test("it removes the listeners of a task that has received a signal but was never run, and its timer", async () => {
    const task = new OsSignalTask(usr2);
    send();
    task[Symbol.dispose]();
    expect([listeners(), vi.getTimerCount()]).toEqual([0, 0]);
    expect(task.received).toBe("SIGUSR2");
    const run = start(task);
    await settle();
    expect(run.end).toBeInstanceOf(TaskAlreadyStartedError);
  });

  test("it does nothing to a running task", async () => {
    const task = new OsSignalTask(usr2);
    const run = start(task);
    task[Symbol.dispose]();
    await settle();
    task[Symbol.dispose]();
    await settle();
    expect([run.end, listeners(), vi.getTimerCount()]).toEqual(["running", 1, 1]);
    send();
    await settle();
    expect([run.end, task.received]).toEqual(["returned", "SIGUSR2"]);
  });

  test("it does nothing after the end", async () => {
    const signalled = new OsSignalTask(usr2);
    start(signalled);
    send();
    await settle();
    signalled[Symbol.dispose]();
    expect([listeners(), vi.getTimerCount()]).toEqual([1, 1]);
    vi.advanceTimersByTime(500);
    signalled[Symbol.dispose]();
    expect([listeners(), vi.getTimerCount()]).toEqual([0, 0]);

    const stopped = new OsSignalTask(usr2);
    start(stopped).controller.abort();
    await settle();
    stopped[Symbol.dispose]();
    expect([listeners(), vi.getTimerCount()]).toEqual([0, 0]);
  });
});

describe("Bad options", () => {
  test.each<[string, unknown, string]>([
    ["an empty list", [], "[]"],
    ["a list of nothing", new Array(1), "[null]"],
    ["a string", "SIGUSR2", '"SIGUSR2"'],
    ["null", null, "null"],
    ["a list with a number", [2], "[2]"],
    ["a list with undefined", ["SIGUSR2", undefined], '["SIGUSR2",null]'],
    ["a list with a name in lower case", ["sigusr2"], '["sigusr2"]'],
    ["a list with a name without SIG", ["USR2"], '["USR2"]'],
    ["a list with a name that holds SIG further on", ["xSIGUSR2"], '["xSIGUSR2"]'],
    ["a list with an empty name", [""], '[""]'],
    ["a list with SIGKILL, which nobody can catch", ["SIGKILL"], '["SIGKILL"]'],
    ["a list with SIGSTOP, which nobody can catch", ["SIGSTOP"], '["SIGSTOP"]'],
    ["a list that has SIGKILL among others", ["SIGUSR2", "SIGKILL", "SIGHUP"], '["SIGUSR2","SIGKILL","SIGHUP"]'],
    ["a list that ends with SIGSTOP", ["SIGUSR2", "SIGHUP", "SIGSTOP"], '["SIGUSR2","SIGHUP","SIGSTOP"]'],
    ["a list whose last name is bad", ["SIGUSR2", "SIGHUP", "exit"], '["SIGUSR2","SIGHUP","exit"]'],
    ["a list whose first name is bad", ["exit", "SIGUSR2"], '["exit","SIGUSR2"]'],
  ])("signals, %s, is a TypeError, and nothing listens", (_, value, shown) => {
    const thrown = thrownBy(() => new OsSignalTask({ signals: value as string[] }));
    expect(thrown).toBeInstanceOf(TypeError);
    expect((thrown as Error).message).toBe(refusal + shown);
    expect(newListeners()).toEqual({});
  });

  test.each<[unknown, string]>([
    ["log", '"log"'],
    [null, "null"],
    [{}, "[object Object]"],
    [Object.create(null), "object"],
  ])("onSignal, %o, is a TypeError, and nothing listens", (onSignal, shown) => {
    const thrown = thrownBy(() => new OsSignalTask({ onSignal: onSignal as () => void }));
    expect(thrown).toBeInstanceOf(TypeError);
    const message = `Cannot create an OsSignalTask: onSignal must be of type function, got ${shown}`;
    expect((thrown as Error).message).toBe(message);
    expect(newListeners()).toEqual({});
  });

  test.each([["SIGUSR2", '"SIGUSR2"'], [5, "5"], [() => {}, "() => {}"]])("options, %o, are a TypeError", (options, shown) => {
    const thrown = thrownBy(() => new OsSignalTask(options as never));
    expect(thrown).toBeInstanceOf(TypeError);
    const message = `Cannot create an OsSignalTask: options must be of type object, got ${shown}`;
    expect((thrown as Error).message.replace("()=>{}", "() => {}")).toBe(message);
    expect(newListeners()).toEqual({});
  });

  test.each(processesWithoutSignals)("where there is %s, the constructor throws an error that says so", (_, other) => {
    const thrown = withProcess(other, () => thrownBy(() => new OsSignalTask()));
    expect((thrown as Error).constructor).toBe(Error);
    const message = "Cannot create an OsSignalTask: there is no process with signals";
    expect((thrown as Error).message).toBe(message);
  });
});

describe("The clock", () => {
  test("a running task wakes the process once in 2^31-1 ms and not before", async () => {
    const run = start(new OsSignalTask(usr2));
    const startedAt = Date.now();
    vi.advanceTimersToNextTimer();
    expect(Date.now() - startedAt).toBe(2 ** 31 - 1);
    vi.advanceTimersToNextTimer();
    await settle();
    expect([run.end, listeners(), vi.getTimerCount()]).toEqual(["running", 1, 1]);
    run.controller.abort();
    await settle();
  });

  test("a timeout of 2^31-1 ms is one, and 1 ms more is no limit", async () => {
    for (const shutdownTimeout of [2 ** 31 - 1, 2 ** 31, Infinity]) {
      const manager = new Manager({ shutdownTimeout });
      const task = stubborn();
      manager.run(task);
      const startedAt = Date.now();
      void manager.stop();
      expect(vi.getTimerCount()).toBe(1); // the process is kept alive
      const failures = shutdownTimeout === 2 ** 31 - 1 ? 1 : 0;
      vi.advanceTimersToNextTimer();
      expect([Date.now() - startedAt, manager.failures.length]).toEqual([2 ** 31 - 1, failures]);
      vi.advanceTimersToNextTimer();
      expect(manager.failures.length).toBe(failures);
      task.return();
      await manager.wait().catch(() => {});
      expect(manager.failures.length).toBe(failures);
    }
  });
});

describe("A real process", () => {
  const programs = ["clean-stop", "before-run", "twice", "hangs", "disposed", "uncatchable", "throws"];
  beforeAll(() => compile(...programs.map((name) => `fixtures/signal-${name}.ts`)));

  test.each(["SIGINT", "SIGTERM", "SIGQUIT"] as const)(
    "a program whose only task is an OsSignalTask stays alive until %s, cleans up and ends with 0 within the 500 ms",
    async (signal) => {
      const program = new Program("fixtures/signal-clean-stop.ts");
      await program.line("ready");
      program.send(signal);
      expect(await program.end()).toBe(0);
      expect(program.lines).toEqual([
        "ready",
        `got ${signal}`,
        "cleaned up",
        "stopped",
        "exit, listeners for SIGTERM: 1",
      ]);
    },
  );

  test("a signal before `run` is not lost", async () => {
    const program = new Program("fixtures/signal-before-run.ts");
    await program.line("starting");
    program.send("SIGTERM");
    expect(await program.end()).toBe(0);
    expect(program.lines).toEqual(["starting", "received SIGTERM", "got SIGTERM", "cleaned up", "stopped"]);
  });

  test("a repeat of SIGINT 30 ms later does not cut the cleanup short", async () => {
    const program = new Program("fixtures/signal-twice.ts");
    await program.line("ready");
    program.send("SIGINT");
    expect(await program.end()).toBe(0);
    expect(program.lines).toEqual(["ready", "got SIGINT", "cleaned up", "stopped"]);
  });

  test("a second Ctrl-C, after the 500 ms, has the default action", async () => {
    const program = new Program("fixtures/signal-hangs.ts");
    await program.line("ready");
    program.send("SIGINT");
    await program.line("cleanup hangs");
    await program.line("SIGQUIT has 0");
    expect(program.lines.slice(2)).toEqual(["SIGINT has 0", "SIGTERM has 0", "SIGQUIT has 0"]);
    program.send("SIGINT");
    expect(await program.end()).toBe("SIGINT");
  });

  test("a signal after a stop without one has the default action at once, also while the cleanup hangs", async () => {
    const program = new Program("fixtures/signal-hangs.ts", ["stop"]);
    await program.line("cleanup hangs");
    expect(program.lines).toEqual(["ready", "SIGINT has 0", "SIGTERM has 0", "SIGQUIT has 0", "cleanup hangs"]);
    program.send("SIGTERM");
    expect(await program.end()).toBe("SIGTERM");
  });

  test("a task that was disposed of instead of run lets the program end by itself", async () => {
    const program = new Program("fixtures/signal-disposed.ts");
    expect(await program.end()).toBe(0);
    expect(program.lines).toEqual(["os-signal: SIGTERM has 1", "disposed: SIGTERM has 0"]);
  });

  test("a task that was disposed of instead of run leaves signals their default action", async () => {
    const program = new Program("fixtures/signal-disposed.ts", ["stay"]);
    await program.line("disposed");
    program.send("SIGTERM");
    expect(await program.end()).toBe("SIGTERM");
  });

  test("a signal that nobody can catch is refused, and nothing listens", async () => {
    const program = new Program("fixtures/signal-uncatchable.ts");
    expect(await program.end()).toBe(0);
    const around = (name: string) => [[name], ["SIGUSR2", name, "SIGHUP"], ["SIGUSR2", "SIGHUP", name]];
    const lists = ["SIGKILL", "SIGSTOP"].flatMap(around);
    expect(program.lines).toEqual(lists.map((list) => `TypeError: ${refusal}${JSON.stringify(list)}; listeners: `));
  });

  test("an onSignal that throws fails the program, after its cleanup", async () => {
    const program = new Program("fixtures/signal-throws.ts");
    await program.line("ready");
    program.send("SIGTERM");
    expect(await program.end()).toBe(1);
    expect(program.lines).toEqual(["ready", "cleaned up"]);
    expect(program.stderr).toContain("Error: no way to handle SIGTERM");
  });
});
