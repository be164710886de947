import { getEventListeners } from "node:events";
import {
  CleanupError,
  CleanupTimeoutError,
  Manager,
  ManagerStoppedError,
  PanicError,
  ShutdownTimeoutError,
  StopReason,
  TaskAlreadyStartedError,
} from "allstop";
import { type GroupOptions, GroupTask } from "allstop/group";
import { ControlledTask, EventLog } from "allstop/testing";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { useFakeTime } from "./support/fake-time.ts";
import { settle } from "./support/settle.ts";
import { thrownBy } from "./support/thrown-by.ts";
import { abortError, hangs, throwing } from "./support/ways.ts";

useFakeTime();

/** Stops what a test runs by hand; whatever that is, it must leave no listener on the signal. */
let outer: AbortController;

beforeEach(() => {
  outer = new AbortController();
});

afterEach(() => {
  expect(getEventListeners(outer.signal, "abort")).toEqual([]);
});

type Fill = (manager: Manager) => unknown;

/** Runs a group by hand; the test may await the end late, or ask `ended` whether it has come. */
function start(group: GroupTask, signal = outer.signal) {
  const ended = vi.fn();
  const run = group.run(signal);
  run.then(ended, ended);
  return { group, run, ended };
}

const startNew = (fill: Fill, options?: GroupOptions) => start(new GroupTask("group", fill, options));

/** What the test lets happen when it says so. */
class Gate {
  open!: () => void;
  fail!: (error: unknown) => void;
  readonly passed = new Promise<void>((resolve, reject) => {
    this.open = resolve;
    this.fail = reject;
  });
}

/** A task that fails with this error when it is told to stop. */
function failing(name: string, error: Error): { name: string; run(signal: AbortSignal): Promise<never> } {
  const run = (signal: AbortSignal): Promise<never> =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(error)));
  return { name, run };
}

const rejecting = (value: unknown) => async (): Promise<never> => {
  await null;
  throw value;
};
const error = new Error("no");

describe("a fresh child Manager on every run", () => {
  test("on every run a GroupTask makes a fresh child Manager, and lets the function fill it", async () => {
    const managers: Manager[] = [];
    const group = new GroupTask("group", (manager) => void managers.push(manager));
    expect(managers).toEqual([]);
    await group.run(outer.signal);
    await group.run(outer.signal);
    expect(managers).toEqual([expect.any(Manager), expect.any(Manager)]);
    expect(managers[1]).not.toBe(managers[0]);
  });

  test.each<[string, string | undefined, string]>([
    ["under the manager a", "a", "a/b"],
    ["under a manager without a name", "", "b"],
    ["by hand", undefined, "b"],
  ])("the child has the group's full name, and members are below that: run %s (%s) it is %s", async (_, name, full) => {
    const [x, log] = [new ControlledTask("x"), new EventLog()];
    const pending: string[] = [];
    const fill = (child: Manager): void => {
      child.run(x);
      pending.push(...child.pending);
    };
    const group = new GroupTask("b", fill, { onEvent: log.observe });
    x.fail(error);
    const manager = new Manager({ name });
    if (name === undefined) await expect(group.run(outer.signal)).rejects.toBe(error);
    else {
      manager.run(group);
      await expect(manager.wait()).rejects.toBe(error);
      expect(manager.failures).toEqual([{ source: full, error }]);
    }
    expect(pending).toEqual([`${full}/x`]);
    expect(group.failures).toEqual([{ source: `${full}/x`, error }]);
    expect(new Set(log.events.map((event) => "manager" in event && event.manager))).toEqual(new Set([full]));
  });

  test("the parent's signal is passed on: members are told to stop, with the very same reason", async () => {
    const x = new ControlledTask("x");
    const { group, run } = startNew((manager) => manager.run(x));
    const signal = await x.started;
    expect(signal.aborted).toBe(false);
    const reason = { because: "of this" };
    outer.abort(reason);
    expect(signal.reason).toBe(reason);
    await run;
    expect(group.failures).toEqual([]);
  });

  test("it waits for its tasks, then for its hooks", async () => {
    const [a, b, hook] = [new ControlledTask("a"), new ControlledTask("b"), new Gate()];
    const closes = vi.fn(() => hook.passed);
    const { run, ended } = startNew((manager) => {
      manager.runEphemeral(a, b);
      manager.cleanup(closes);
    });
    a.return();
    await settle();
    expect(closes).not.toHaveBeenCalled();
    b.return();
    await settle();
    expect(closes).toHaveBeenCalledOnce();
    expect(ended).not.toHaveBeenCalled();
    hook.open();
    await run;
  });
});

describe("the function that fills it", () => {
  test("a promise of the function is awaited first: the group does not end before it, even without tasks", async () => {
    const [opened, second] = [new Gate(), new ControlledTask("second")];
    const { run, ended } = startNew(async (manager) => {
      manager.runEphemeral(async () => {});
      await opened.passed;
      manager.runEphemeral(second);
    });
    await settle();
    opened.open();
    await second.started;
    await settle();
    expect(ended).not.toHaveBeenCalled();
    second.return();
    await run;
  });

  test("any thenable of the function is awaited", async () => {
    const then = (_: unknown, reject: (error: Error) => void): void => reject(error);
    await expect(startNew(() => ({ then })).run).rejects.toBe(error);
  });

  test("the function takes no place of `limit`", async () => {
    const [opened, a, b, log] = [new Gate(), new ControlledTask("a"), new ControlledTask("b"), new EventLog()];
    const fill = (manager: Manager): Promise<void> => {
      manager.runEphemeral(a, b);
      return opened.passed;
    };
    const { run } = startNew(fill, { limit: 1, onEvent: log.observe });
    await a.started;
    expect(log.events.length).toBe(1);
    a.return();
    await b.started;
    b.return();
    opened.open();
    await run;
  });

  test.each([
    ["throws", throwing(error)],
    ["rejects", rejecting(error)],
    ["rejects at once", () => Promise.reject(error)],
  ])("if the function %s, the child stops, its hooks run, and the error is the failure", async (_, fail) => {
    const x = new ControlledTask("x", { ignoreAbort: true });
    const closes = vi.fn();
    const { group, run } = startNew((manager) => {
      manager.cleanup(closes);
      manager.run(x);
      return fail();
    });
    await x.aborted;
    const { reason } = await x.started;
    expect(reason).toBeInstanceOf(StopReason);
    expect(reason).toMatchObject({ task: "group", message: "Stopped by group" });
    expect(reason.cause).toBe(error);
    await settle();
    expect(closes).not.toHaveBeenCalled();
    x.return();
    await expect(run).rejects.toBe(error);
    expect(closes).toHaveBeenCalledOnce();
    expect(group.failures).toEqual([{ source: "group", error }]);
    expect(group.failures[0]?.error).toBe(error);
  });

  test("under a manager, source and reason of what the function throws have the group's full name", async () => {
    const x = new ControlledTask("x");
    const manager = new Manager({ name: "a" });
    const group = new GroupTask("b", (child) => {
      child.run(x);
      throw error;
    });
    manager.run(group);
    expect((await x.started).reason).toMatchObject({ task: "a/b", cause: error });
    await expect(manager.wait()).rejects.toBe(error);
    expect(group.failures).toEqual([{ source: "a/b", error }]);
    expect(manager.failures).toEqual([{ source: "a/b", error }]);
  });

  const values: [unknown][] = [["x"], [undefined], [null], [0], [{ message: "no" }]];
  test.each(values)("%j out of it, which is no Error, arrives as a PanicError", async (value) => {
    for (const fail of [throwing(value), rejecting(value)]) {
      const { group, run } = startNew(fail);
      const thrown: unknown = await run.catch((error: unknown) => error);
      expect(thrown).toBeInstanceOf(PanicError);
      expect(thrown).toHaveProperty("cause", value);
      expect(group.failures).toEqual([{ source: "group", error: thrown }]);
    }
  });

  test("an AbortError out of it before the stop is a failure", async () => {
    const early = abortError();
    for (const fail of [throwing, rejecting]) await expect(startNew(fail(early)).run).rejects.toBe(early);
  });

  const reason = new Error("enough");
  test.each<[string, unknown, boolean]>([
    ["the reason itself is none", reason, false],
    ["an AbortError without a cause is none", abortError(), false],
    ["an AbortError whose cause is the reason is none", abortError(reason), false],
    ["an AbortError with another cause is a failure", abortError(error), true],
    ["any other error is a failure", error, true],
  ])("out of it after a stop, which law 11 counts for, %s", async (_, thrown, isFailure) => {
    const opened = new Gate();
    const { group, run } = startNew(() => opened.passed);
    outer.abort(reason);
    opened.fail(thrown);
    expect(await run.catch((error: unknown) => error)).toBe(isFailure ? thrown : undefined);
    expect(group.failures).toEqual(isFailure ? [{ source: "group", error: thrown }] : []);
  });

  const late = vi.fn(hangs);
  test.each<[string, Fill]>([
    ["of the outer group", async (manager) => {
      await Promise.resolve().then(() => outer.abort());
      manager.run(late);
    }],
    ["of its own", (manager) => {
      void manager.stop();
      manager.runEphemeral(late);
    }],
    ["by a member's end", async (manager) => {
      manager.run(async () => {});
      await settle();
      manager.runBackground(late);
    }],
    ["that is over", async (manager) => {
      await manager.stop();
      manager.cleanup(late);
    }],
  ])("a ManagerStoppedError out of it after a stop %s is none", async (_, fill) => {
    const thrown = vi.fn();
    const { group, run } = startNew(async (manager) => {
      try {
        await fill(manager);
      } catch (error) {
        thrown(error);
        throw error;
      }
    });
    await run;
    expect(group.failures).toEqual([]);
    expect(thrown).toHaveBeenCalledWith(expect.any(ManagerStoppedError));
    expect(late).not.toHaveBeenCalled();
  });

  test("a ManagerStoppedError out of it before a stop of this group is a failure", async () => {
    const other = new Manager();
    await other.stop();
    const thrown = thrownBy(() => other.run(hangs));
    const { group, run } = startNew(throwing(thrown));
    await expect(run).rejects.toBe(thrown);
    expect(thrown).toBeInstanceOf(ManagerStoppedError);
    expect(group.failures).toEqual([{ source: "group", error: thrown }]);
  });

  test("a member's earlier failure stays first, and a later one comes after that of the function", async () => {
    const [opened, slow] = [new Gate(), new Gate()];
    const [a, b] = [new Error("a"), new Error("b")];
    const { group, run } = startNew((manager) => {
      manager.run({ name: "a", run: rejecting(a) }, { name: "b", run: () => slow.passed });
      return opened.passed;
    });
    await settle();
    opened.fail(error);
    await settle();
    slow.fail(b);
    await expect(run).rejects.toBe(a);
    expect(group.failures).toEqual([
      { source: "group/a", error: a },
      { source: "group", error },
      { source: "group/b", error: b },
    ]);
  });

  test("its failure is the first if a member fails only because of it", async () => {
    const own = new Error("x");
    const { group, run } = startNew((manager) => {
      manager.run(failing("x", own));
      throw error;
    });
    await expect(run).rejects.toBe(error);
    expect(group.failures).toEqual([
      { source: "group", error },
      { source: "group/x", error: own },
    ]);
  });

  test("a function that waits for its own group ends with it, and repeats none of its failures", async () => {
    const [x, closes] = [new ControlledTask("x"), vi.fn()];
    const { run, group } = startNew((manager) => {
      manager.run(x);
      manager.cleanup(closes);
      return manager.wait();
    });
    x.fail(error);
    await expect(run).rejects.toBe(error);
    expect(group.failures).toEqual([{ source: "group/x", error }]);
    expect(closes).toHaveBeenCalledOnce();
  });
});

describe("failures", () => {
  test("`failures` holds all of the last run, in order, also of hooks; `run` rejects with the first", async () => {
    const [member, own, hook] = [new Error("member"), new Error("function"), new Error("hook")];
    const opened = new Gate();
    const fill = (child: Manager): Promise<void> => {
      child.cleanup(function stuck() {
        return hangs();
      });
      child.cleanup(rejecting(hook));
      child.run({ name: "deaf", run: hangs }, { name: "x", run: rejecting(member) });
      return opened.passed;
    };
    const group = new GroupTask("b", fill, { shutdownTimeout: 10, cleanupTimeout: 5 });
    const manager = new Manager({ name: "a" });
    manager.run(group);
    const end = manager.wait();
    await vi.advanceTimersByTimeAsync(4);
    opened.fail(own);
    await vi.advanceTimersByTimeAsync(11);
    await expect(end).rejects.toBe(member);
    expect(group.failures).toEqual([
      { source: "a/b/x", error: member },
      { source: "a/b", error: own },
      { source: "shutdown", error: new ShutdownTimeoutError(10, ["a/b/deaf"]) },
      { source: "cleanup", error: new CleanupError([hook]) },
      { source: "cleanup", error: new CleanupTimeoutError(5, ["stuck"]) },
    ]);
    // The outer manager gets only the first.
    expect(manager.failures).toEqual([{ source: "a/b", error: member }]);
  });

  test("`failures` is empty before the first run, and live during a run", async () => {
    const deaf = new ControlledTask("deaf", { ignoreAbort: true });
    const group = new GroupTask("group", (manager) => {
      manager.run(deaf);
      throw error;
    });
    expect(group.failures).toEqual([]);
    const { run } = start(group);
    await deaf.aborted;
    expect(group.failures).toEqual([{ source: "group", error }]);
    const late = new Error("late");
    deaf.fail(late);
    await expect(run).rejects.toBe(error);
    expect(group.failures[1]).toEqual({ source: "group/deaf", error: late });
  });

  test.each<[string, Fill]>([
    ["the function", throwing(error)],
    ["a member", (manager) => manager.run(rejecting(error))],
    ["a hook", (manager) => manager.cleanup(rejecting(error))],
  ])("`failures` begins anew with each run: that of %s is of its own run only", async (_, fail) => {
    const x = new ControlledTask("x");
    const fill = vi.fn<Fill>((manager) => manager.run(x)).mockImplementationOnce(fail).mockImplementationOnce(fail);
    const group = new GroupTask("group", fill);
    await expect(group.run(outer.signal)).rejects.toThrow();
    expect(group.failures.length).toBe(1);
    await group.run(AbortSignal.abort());
    expect(group.failures).toEqual([]);
    await expect(group.run(outer.signal)).rejects.toThrow();
    const { run } = start(group);
    await x.started;
    expect(group.failures).toEqual([]);
    x.return();
    await run;
    expect(group.failures).toEqual([]);
  });
});

describe("options", () => {
  const fill = (): void => {};
  test.each<[unknown, unknown, unknown, string, string]>([
    [undefined, fill, {}, "TypeError", "name must be of type string, got undefined"],
    [5, fill, {}, "TypeError", "name must be of type string, got 5"],
    ["g", undefined, {}, "TypeError", "fill must be of type function, got undefined"],
    ["g", { run: hangs }, {}, "TypeError", "fill must be of type function, got [object Object]"],
    ["g", fill, 5, "TypeError", "options must be of type object, got 5"],
    ["g", fill, { limit: 0 }, "RangeError", "limit must be a whole number above 0, got 0"],
    ["g", fill, { limit: 1.5 }, "RangeError", "limit must be a whole number above 0, got 1.5"],
    ["g", fill, { limit: "4" }, "TypeError", 'limit must be of type number, got "4"'],
    ["g", fill, { shutdownTimeout: -1 }, "RangeError", "shutdownTimeout must be 0 or more milliseconds, got -1"],
    ["g", fill, { shutdownTimeout: NaN }, "RangeError", "shutdownTimeout must be 0 or more milliseconds, got NaN"],
    ["g", fill, { cleanupTimeout: -1 }, "RangeError", "cleanupTimeout must be 0 or more milliseconds, got -1"],
    ["g", fill, { cleanupTimeout: "1s" }, "TypeError", 'cleanupTimeout must be of type number, got "1s"'],
    ["g", fill, { onEvent: null }, "TypeError", "onEvent must be of type function, got null"],
  ])("options are checked by the constructor: (%j, %s, %j)", (name, given, options, refusal, rule) => {
    const thrown = thrownBy(() => new GroupTask(name as never, given as never, options as never));
    expect(thrown).toHaveProperty("name", refusal);
    expect(thrown).toHaveProperty("message", expect.stringMatching(/^Cannot create a (GroupTask|Manager): /));
    expect(thrown).toHaveProperty("message", expect.stringContaining(rule));
  });

  test("what was checked is what counts: to change the options later changes nothing", async () => {
    const [a, b, log] = [new ControlledTask("a"), new ControlledTask("b"), new EventLog()];
    const options = { limit: 1, onEvent: log.observe };
    const group = new GroupTask("group", (manager) => manager.runEphemeral(a, b), options);
    options.limit = -1;
    const { run } = start(group);
    await a.started;
    expect(log.events.length).toBe(1);
    a.return();
    b.return();
    await run;
  });

  const undefinedOnes = { limit: undefined, shutdownTimeout: undefined, cleanupTimeout: undefined, onEvent: undefined };
  test.each([
    ["defaults, 20 s and 5 s", undefined, 20_000, 5_000],
    ["defaults, 20 s and 5 s", undefinedOnes, 20_000, 5_000],
    ["own `shutdownTimeout` and `cleanupTimeout`", { shutdownTimeout: 10, cleanupTimeout: 5 }, 10, 5],
  ])("its %s are honoured: (%j)", async (_, options, shutdownTimeout, cleanupTimeout) => {
    const tasks = ["a", "b"].map((name) => new ControlledTask(name, { ignoreAbort: true }));
    const closes = vi.fn(hangs);
    const { group, run, ended } = startNew((manager) => {
      manager.runEphemeral(...tasks);
      manager.cleanup(closes);
    }, options);
    await Promise.all(tasks.map((task) => task.started));
    outer.abort();
    await vi.advanceTimersByTimeAsync(shutdownTimeout - 1);
    expect(closes).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1);
    expect(closes).toHaveBeenCalledOnce();
    await vi.advanceTimersByTimeAsync(cleanupTimeout - 1);
    expect(ended).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1);
    await expect(run).rejects.toEqual(new ShutdownTimeoutError(shutdownTimeout, ["group/a", "group/b"]));
    expect(group.failures[1]?.error).toEqual(new CleanupTimeoutError(cleanupTimeout, [closes.name || "hook"]));
  });

  test("an unknown option is a type error only: a name or a signal among them is ignored", async () => {
    const [other, x] = [new AbortController(), new ControlledTask("x")];
    const log = new EventLog();
    const options: object = { name: "other", signal: other.signal, onEvent: log.observe };
    const { run } = startNew((manager) => manager.run(x), options);
    other.abort();
    expect((await x.started).aborted).toBe(false);
    expect(log.events).toEqual([{ type: "task-started", manager: "group", task: "group/x", kind: "main" }]);
    outer.abort();
    await run;
  });

  test("a signal among the options, which is a type error, is not listened to, nor does it start a timer", () => {
    for (const signal of [outer.signal, AbortSignal.abort()]) new GroupTask("group", fill, { signal } as object);
    expect(vi.getTimerCount()).toBe(0);
    expect(getEventListeners(outer.signal, "abort")).toEqual([]);
  });
});

describe("runs", () => {
  test("one run at a time: a second one rejects with TaskAlreadyStartedError, and changes nothing", async () => {
    const [opened, hook, x] = [new Gate(), new Gate(), new ControlledTask("x")];
    const fill = vi.fn(async (manager: Manager) => {
      manager.cleanup(() => hook.passed);
      await opened.passed;
      manager.run(x);
    });
    const { group, run } = start(new GroupTask("group", fill));
    const refuse = async (): Promise<void> => {
      for (const signal of [outer.signal, new AbortController().signal, AbortSignal.abort()]) {
        const thrown: unknown = await group.run(signal).catch((error: unknown) => error);
        expect(thrown).toBeInstanceOf(TaskAlreadyStartedError);
        expect(thrown).toHaveProperty("task", "group");
      }
    };
    await refuse();
    opened.open();
    await x.started;
    await refuse();
    x.fail(error);
    await settle();
    await refuse();
    expect(group.failures).toEqual([{ source: "group/x", error }]);
    hook.open();
    await expect(run).rejects.toBe(error);
    expect(fill).toHaveBeenCalledOnce();
  });

  test.each<[string, Fill]>([
    ["returned", (manager) => manager.run(async () => {})],
    ["was empty", () => {}],
    ["failed by a member", (manager) => manager.run(rejecting(error))],
    ["failed by its function", throwing(error)],
    ["failed by a hook", (manager) => manager.cleanup(rejecting(error))],
    ["was stopped", (manager) => {
      manager.run(new ControlledTask("x"));
      outer.abort();
    }],
  ])("it may run again after a run that %s", async (_, first) => {
    const x = new ControlledTask("x");
    const group = new GroupTask("group", vi.fn<Fill>((manager) => manager.run(x)).mockImplementationOnce(first));
    await start(group).run.catch(() => {});
    expect(getEventListeners(outer.signal, "abort")).toEqual([]);
    outer = new AbortController();
    const { run } = start(group);
    expect((await x.started).aborted).toBe(false);
    outer.abort();
    await run;
    expect(group.failures).toEqual([]);
  });

  test("a run with a signal that has aborted does not call the function, and returns", async () => {
    const fill = vi.fn();
    const group = new GroupTask("group", fill);
    await group.run(AbortSignal.abort(error));
    const manager = new Manager();
    manager.run(throwing(error), group);
    await expect(manager.wait()).rejects.toBe(error);
    expect(fill).not.toHaveBeenCalled();
    expect(group.failures).toEqual([]);
  });
});

describe("a stop while the function goes on", () => {
  /** A function that is waited for, after it has run x and y and given a hook. */
  class Slow extends Gate {
    readonly x = new ControlledTask("x");
    readonly y = new ControlledTask("y");
    readonly closes = vi.fn<() => unknown>();
    readonly fill = (manager: Manager): Promise<void> => {
      manager.run(this.x, this.y);
      manager.cleanup(this.closes);
      return this.passed;
    };
  }

  test.each<[string, (slow: Slow) => void]>([
    ["of the outer group", () => outer.abort()],
    ["by a member's end", ({ y }) => y.return()],
  ])("a stop %s tells the members at once; the hooks wait for the function", async (_, stop) => {
    const slow = new Slow();
    const { group, run, ended } = startNew(slow.fill);
    const signal = await slow.x.started;
    stop(slow);
    await settle();
    expect(signal.aborted).toBe(true);
    await vi.advanceTimersByTimeAsync(19_999);
    expect(slow.closes).not.toHaveBeenCalled();
    expect(ended).not.toHaveBeenCalled();
    slow.open();
    await run;
    expect(slow.closes).toHaveBeenCalledOnce();
    expect(group.failures).toEqual([]);
  });

  test.each([
    [100, { shutdownTimeout: 100 }],
    [20_000, undefined],
    [20_000, { shutdownTimeout: undefined }],
  ])("it is waited for at most %i ms from the stop, then the hooks run: (%j)", async (timeout, options) => {
    const slow = new Slow();
    const group = new GroupTask("b", slow.fill, options);
    const manager = new Manager({ name: "a", shutdownTimeout: Infinity });
    manager.run(group);
    await slow.x.started;
    await vi.advanceTimersByTimeAsync(5_000);
    const end = manager.stop();
    await vi.advanceTimersByTimeAsync(timeout - 1);
    expect(slow.closes).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1);
    expect(slow.closes).toHaveBeenCalledOnce();
    const late = new ShutdownTimeoutError(timeout, ["a/b"]);
    await expect(end).rejects.toEqual(late);
    expect(group.failures).toEqual([{ source: "shutdown", error: late }]);
    expect(group.failures[0]?.error).toMatchObject({ pending: ["a/b"] });
    expect(manager.failures).toEqual([{ source: "a/b", error: late }]);
  });

  test("when it hangs, a member's earlier failure stays first, and members that hang are named, too", async () => {
    const slow = new Slow();
    const { group, run } = startNew((manager) => {
      manager.run({ name: "deaf", run: hangs });
      return slow.fill(manager);
    }, { shutdownTimeout: 100 });
    slow.x.fail(error);
    await vi.advanceTimersByTimeAsync(100);
    await expect(run).rejects.toBe(error);
    expect(group.failures.map(({ source }) => source)).toEqual(["group/x", "shutdown", "shutdown"]);
    const pending = group.failures.flatMap(({ error }) => (error instanceof ShutdownTimeoutError ? error.pending : []));
    expect(pending.sort()).toEqual(["group", "group/deaf"]);
  });

  test.each([Infinity, 2 ** 31])("with a `shutdownTimeout` of %d there is no limit", async (shutdownTimeout) => {
    const slow = new Slow();
    const { run } = startNew(slow.fill, { shutdownTimeout });
    outer.abort();
    await vi.advanceTimersByTimeAsync(2 ** 32);
    expect(slow.closes).not.toHaveBeenCalled();
    slow.open();
    await run;
  });

  test.each<[string, (slow: Slow) => void, boolean]>([
    ["returns while the hooks run", (slow) => slow.open(), true],
    ["fails while the hooks run", (slow) => slow.fail(error), true],
    ["returns after the run", (slow) => slow.open(), false],
    ["fails after the run", (slow) => slow.fail(error), false],
  ])("what it does after the timeout changes nothing: it %s", async (_, late, early) => {
    const [slow, hook, log] = [new Slow(), new Gate(), new EventLog()];
    slow.closes.mockReturnValue(hook.passed);
    const { group, run } = startNew(slow.fill, { shutdownTimeout: 100, onEvent: log.observe });
    outer.abort();
    await vi.advanceTimersByTimeAsync(100);
    if (early) late(slow);
    await settle();
    hook.open();
    await expect(run).rejects.toBeInstanceOf(ShutdownTimeoutError);
    if (!early) late(slow);
    await settle();
    expect(slow.closes).toHaveBeenCalledOnce();
    expect(group.failures.map(({ source }) => source)).toEqual(["shutdown"]);
    expect(log.events.slice(-2).map(({ type }) => type)).toEqual(["cleanup-ended", "stopped"]);
  });

  test("what it does after the timeout starts nothing, and a hook that it registers too late is refused", async () => {
    const [opened, late] = [new Gate(), vi.fn()];
    const refusals: unknown[] = [];
    const { run } = startNew(async (manager) => {
      await opened.passed;
      refusals.push(thrownBy(() => manager.run(late)), thrownBy(() => manager.cleanup(late)));
    }, { shutdownTimeout: 100 });
    outer.abort();
    await vi.advanceTimersByTimeAsync(100);
    await expect(run).rejects.toBeInstanceOf(ShutdownTimeoutError);
    opened.open();
    await settle();
    expect(refusals).toEqual([expect.any(ManagerStoppedError), expect.any(ManagerStoppedError)]);
    expect(late).not.toHaveBeenCalled();
  });

  test("what it does after the timeout of one run changes nothing of the next run", async () => {
    const [opened, x] = [new Gate(), new ControlledTask("x")];
    const fill = vi.fn<Fill>((manager) => manager.run(x)).mockImplementationOnce((manager) => {
      manager.run(async () => {});
      return opened.passed;
    });
    const { group, run } = start(new GroupTask("group", fill, { shutdownTimeout: 100 }));
    await vi.advanceTimersByTimeAsync(100);
    await expect(run).rejects.toBeInstanceOf(ShutdownTimeoutError);
    const second = start(group);
    const signal = await x.started;
    opened.fail(new Error("late"));
    await settle();
    expect(group.failures).toEqual([]);
    expect(signal.aborted).toBe(false);
    outer.abort();
    await second.run;
  });

  test.each([99, 100, 101])("it either failed or hung, and never both or none: %i ms after the stop", async (at) => {
    const fill = (): Promise<void> => new Promise((_, reject) => setTimeout(() => reject(error), at));
    const { group, run } = startNew(fill, { shutdownTimeout: 100 });
    outer.abort();
    await vi.advanceTimersByTimeAsync(101);
    const end: unknown = await run.catch((error: unknown) => error);
    expect(group.failures.map(({ error }) => error)).toEqual([end]);
    if (at < 100) expect(end).toBe(error);
    if (at > 100) expect(end).toBeInstanceOf(ShutdownTimeoutError);
  });
});

describe("interleavings", () => {
  type Stop = (manager: Manager, x: Gate) => unknown;
  const stops: Record<string, Stop> = {
    "the outer group": () => outer.abort(),
    "a stop() of the child": (manager) => manager.stop(),
    "another member's end": (_, x) => x.open(),
    "another member's failure": (_, x) => x.fail(error),
  };

  /** One run, stopped after so many microtasks of its function, which takes a dozen; tells how many errors it threw. */
  async function interleave(stop: Stop, offset: number, end: string): Promise<number> {
    const [x, log] = [new Gate(), new EventLog()];
    const due: Error[] = [];
    const hooks: string[] = [];
    const hooksRun: string[] = [];
    x.passed.catch((error: Error) => due.push(error));
    let child!: Manager;
    const { group, ended } = startNew(async (manager) => {
      child = manager;
      manager.run((signal) => {
        signal.addEventListener("abort", x.open);
        return x.passed;
      });
      for (const name of ["a", "b"]) {
        manager.cleanup(() => {
          hooksRun.push(name);
          throw new Error(name);
        });
        hooks.push(name);
        for (let i = 0; i < 3; i++) await null;
        const error = new Error(`member ${name}`);
        manager.run(failing(name, error));
        due.push(error);
        for (let i = 0; i < 3; i++) await null;
      }
      if (end === "returns") return;
      due.push(new Error("function"));
      throw due.at(-1);
    }, { onEvent: log.observe });
    for (let i = 0; i < offset; i++) await null;
    void stop(child, x);
    await settle();

    const errors = group.failures.map(({ error }) => error);
    expect(ended.mock.calls).toEqual([[errors[0]]]);
    expect(errors.pop()).toEqual(new CleanupError(hooksRun.map((name) => new Error(name))));
    expect(hooksRun.sort()).toEqual(hooks);
    expect(new Set(errors)).toEqual(new Set(due));
    expect(errors.length).toBe(due.length);
    expect(log.events.findIndex(({ type }) => type === "stopped")).toBe(log.events.length - 1);
    return due.length;
  }

  test.each(Object.keys(stops).flatMap((by) => [[by, "fails"], [by, "returns"]] as const))(
    "a stop by %s, at each microtask of a function that %s, loses no error, runs each hook once, and the run settles",
    async (by, end) => {
      const errors = new Set<number>();
      for (let offset = 0; offset <= 12; offset++) {
        outer = new AbortController();
        errors.add(await interleave(stops[by] as Stop, offset, end));
        expect(getEventListeners(outer.signal, "abort")).toEqual([]);
      }
      // The offsets reach from before the first member to after the last.
      expect(errors.size).toBeGreaterThan(2);
    },
  );
});
