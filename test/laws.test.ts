import { getEventListeners } from "node:events";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import {
  CleanupError,
  CleanupTimeoutError,
  type LifecycleEvent,
  Manager,
  ManagerStoppedError,
  OsSignalTask,
  PanicError,
  ShutdownTimeoutError,
  StopReason,
} from "allstop";
import { ControlledTask, EventLog } from "allstop/testing";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { compile } from "./support/bundle.ts";
import { inRealTime, useFakeTime } from "./support/fake-time.ts";
import { Program } from "./support/program.ts";
import { settle } from "./support/settle.ts";
import { stubborn } from "./support/stubborn.ts";
import { thrownBy } from "./support/thrown-by.ts";

// The titles are the README's guarantees, word for word: docs.test.ts compares the two.

useFakeTime();

beforeAll(() => compile("fixtures/thousand-tasks.ts", "fixtures/never-awaited.ts", "fixtures/hangs.ts"));

const never = (): Promise<never> => new Promise(() => {});

describe("Start", () => {
  test("1. `run`, `runEphemeral` and `runBackground` start each task before they return, in order, also when an earlier one of the same call fails or stops the group (the rest then get a signal that has aborted).", async () => {
    for (const start of ["run", "runEphemeral", "runBackground"] as const) {
      for (const first of ["returns", "throws", "stops the group"]) {
        const manager = new Manager();
        const seen: unknown[] = [];
        manager[start](
          (signal) => {
            seen.push("a");
            if (first === "stops the group") void manager.stop();
            if (first === "throws") throw new Error("a");
            return new ControlledTask().run(signal);
          },
          async (signal) => void seen.push(`b ${signal.aborted}`),
          async (signal) => void seen.push(`c ${signal.aborted}`, signal.reason),
        );
        const aborted = first !== "returns";
        expect(seen).toEqual(["a", `b ${aborted}`, `c ${aborted}`, manager.signal.reason]);
        expect(manager.signal.aborted).toBe(aborted);
        await manager.stop().catch(() => {});
        expect(manager.failures.length).toBe(first === "throws" ? 1 : 0);
      }
    }
  });

  test("1. They check all their arguments first: a bad one is a `TypeError` and nothing starts.", async () => {
    const manager = new Manager();
    const task = vi.fn(async () => {});
    for (const start of ["run", "runEphemeral", "runBackground"] as const) {
      for (const bad of [undefined, null, 5, "task", {}, { run: 5 }, Promise.resolve(), Symbol("task")]) {
        expect(() => manager[start](task, bad as never)).toThrow(TypeError);
      }
    }
    expect(task).not.toHaveBeenCalled();
    expect(manager.pending).toEqual([]);
    await manager.stop();
  });

  test("2. After a stop they throw `ManagerStoppedError`, with `signal.reason` as `cause`, and start nothing.", async () => {
    const manager = new Manager();
    const task = vi.fn(async () => {});
    const stopped = manager.stop();
    for (const start of ["run", "runEphemeral", "runBackground"] as const) {
      for (const tasks of [[task], []]) {
        const thrown = thrownBy(() => manager[start](...tasks));
        expect(thrown).toBeInstanceOf(ManagerStoppedError);
        expect(thrown).toHaveProperty("cause", manager.signal.reason);
        expect(thrown).toHaveProperty("message", "Cannot run a task: the manager has stopped");
      }
    }
    await stopped;
    expect(() => manager.run(task)).toThrow(ManagerStoppedError);
    expect(task).not.toHaveBeenCalled();
  });

  test("2. That includes the end by itself (law 7).", async () => {
    const manager = new Manager();
    const stopped = manager.wait();
    expect(() => manager.run(async () => {})).toThrow(ManagerStoppedError);
    await stopped;
  });

  test("2. A running task may start others, also while someone waits.", async () => {
    const manager = new Manager();
    const child = new ControlledTask("child");
    manager.runEphemeral(async () => {
      await null;
      manager.runEphemeral(child);
    });
    const stopped = manager.wait();
    await settle();
    expect(manager.pending).toEqual(["child"]);
    expect(manager.signal.aborted).toBe(false);
    child.return();
    await stopped;
  });

  test("3. A task's name is its `name`, else its function's or class's name (`Object` is none), else its kind.", async () => {
    class Consumer {
      run = never;
    }
    class Named extends Consumer {
      name = "named";
    }
    const bare = { __proto__: null, run: never };
    for (const name of [undefined, "", "api"]) {
      const manager = new Manager({ name, shutdownTimeout: 0 });
      manager.run(
        { name: "own", run: never },
        function serve() {
          return never();
        },
        new Named(),
        new Consumer(),
        new (class extends Consumer {
          name = "";
        })(),
        new (class {
          run = never;
        })(),
        { run: never },
        { name: "", run: never },
        bare,
        () => never(),
      );
      manager.runEphemeral(() => never());
      manager.runBackground({ run: never });
      const names = ["own", "serve", "named", "Consumer", "main", "main", "main", "main", "main", "main"];
      const full = [...names, "ephemeral", "background"].map((each) => (name ? `${name}/${each}` : each));
      expect(manager.pending).toEqual(full);
      const stopped = manager.stop();
      vi.advanceTimersByTime(1);
      await expect(stopped).rejects.toThrow(ShutdownTimeoutError);
    }
  });

  test("3. The default name of a task that comes with allstop is a literal, so that minifying changes nothing.", () => {
    using signals = new OsSignalTask({ signals: ["SIGUSR2"] });
    expect(signals.name).toBe("os-signal");
    expect(Object.hasOwn(signals, "name")).toBe(true);
  });

  test("3. A hook's name is its function's, else `hook`.", async () => {
    const hooks: unknown[] = [];
    const manager = new Manager({ onEvent: (event) => event.type === "cleanup-ended" && hooks.push(event.hook) });
    manager.cleanup(() => {});
    manager.cleanup(function close() {});
    await manager.stop();
    expect(hooks).toEqual(["close", "hook"]);
  });

  test("4. With `limit`, ephemeral tasks beyond it wait their turn, first in, first out.", async () => {
    const log = new EventLog();
    const manager = new Manager({ limit: 2, onEvent: log.observe });
    const tasks = Array.from("abcdef", (name) => new ControlledTask(name));
    const startOf = (event: LifecycleEvent) =>
      event.type === "task-started" && event.kind === "ephemeral" ? event.task : [];
    const started = (): string => log.events.flatMap(startOf).join("");
    manager.runEphemeral(...tasks.slice(0, 4));
    manager.runEphemeral(...tasks.slice(4));
    manager.run(new ControlledTask("main"));
    manager.runBackground(new ControlledTask("background"));
    expect(started()).toBe("ab");
    expect(manager.pending).toEqual(["a", "b", "main", "background", "c", "d", "e", "f"]);
    tasks[1]?.return();
    await settle();
    expect(started()).toBe("abc");
    tasks[0]?.return();
    tasks[2]?.return();
    await settle();
    expect(started()).toBe("abcde");
    tasks[4]?.return();
    await settle();
    expect(started()).toBe("abcdef");
    tasks[3]?.return();
    tasks[5]?.return();
    await manager.stop();
  });

  test("4. A stop drops those still waiting (outcome `skipped`, without a `task-started`).", async () => {
    const log = new EventLog();
    const manager = new Manager({ limit: 1, onEvent: log.observe });
    const a = stubborn("a");
    const run = vi.fn(async () => {});
    manager.runEphemeral(a, { name: "b", run }, { name: "c", run });
    const stopped = manager.stop();
    expect(manager.pending).toEqual(["a"]);
    a.return();
    await stopped;
    expect(run).not.toHaveBeenCalled();
    expect(log.events).toMatchObject([
      { type: "task-started", task: "a" },
      { type: "stopping", pending: ["a", "b", "c"] },
      { type: "task-ended", task: "b", outcome: "skipped", elapsed: 0 },
      { type: "task-ended", task: "c", outcome: "skipped", elapsed: 0 },
      { type: "task-ended", task: "a", outcome: "returned", elapsed: 0 },
      { type: "stopped" },
    ]);
  });
});

describe("Stop", () => {
  test("5. When a `main` or `background` task ends, or any task fails, the shared signal aborts.", async () => {
    const ends = {
      returns: (task: ControlledTask) => task.return(),
      fails: (task: ControlledTask) => task.fail(new Error("no")),
    };
    for (const start of ["run", "runEphemeral", "runBackground"] as const) {
      for (const end of ["returns", "fails"] as const) {
        const manager = new Manager();
        const task = new ControlledTask();
        manager.run(new ControlledTask());
        manager[start](task);
        ends[end](task);
        await settle();
        expect([start, end, manager.signal.aborted]).toEqual([start, end, start !== "runEphemeral" || end === "fails"]);
        await manager.stop().catch(() => {});
      }
    }
  });

  test("5. First cause wins.", async () => {
    const manager = new Manager();
    const [a, b] = [new ControlledTask("a"), new ControlledTask("b")];
    manager.run(a, b);
    a.return();
    b.fail(new Error("b"));
    await settle();
    void manager.stop("too late");
    expect(manager.signal.reason).toMatchObject({ task: "a" });
    await expect(manager.wait()).rejects.toThrow("b");
  });

  test('6. `signal.reason` says why: a `StopReason` (an `Error` named `AbortError`, `code: "ABORT_ERR"`) with `task` (the name, if a task caused it) and `cause` (its error, if it failed).', async () => {
    const error = new Error("no");
    const reasonOf = async (act: (manager: Manager, task: ControlledTask) => void): Promise<StopReason> => {
      const manager = new Manager({ name: "api" });
      const task = new ControlledTask("http");
      manager.runBackground(task);
      act(manager, task);
      await settle();
      await manager.stop().catch(() => {});
      const { reason } = manager.signal;
      expect(reason).toBeInstanceOf(StopReason);
      expect(reason).toBeInstanceOf(Error);
      expect(reason).toMatchObject({ name: "AbortError", code: "ABORT_ERR" });
      expect(Object.keys(reason)).toEqual(reason.task === undefined ? [] : ["task"]);
      return reason;
    };

    const failed = await reasonOf((_, task) => task.fail(error));
    expect(failed).toMatchObject({ task: "api/http", cause: error, message: "Stopped by api/http" });
    const returned = await reasonOf((_, task) => task.return());
    expect(returned).toMatchObject({ task: "api/http", message: "Stopped by api/http" });
    const stopped = await reasonOf((manager) => void manager.stop());
    expect(stopped).toMatchObject({ message: "Stopped" });
    const byItself = await reasonOf((manager) => void manager.wait());
    expect(byItself).toMatchObject({ message: "Stopped" });
    for (const reason of [returned, stopped, byItself]) expect(reason).not.toHaveProperty("cause");
  });

  test("6. The reason of a parent signal, or one given to `stop(reason)`, is passed on untouched.", async () => {
    for (const reason of [new Error("no"), "a word", null, 0, { code: 3 }]) {
      const parent = new AbortController();
      const [byParent, byStop] = [new Manager({ signal: parent.signal }), new Manager()];
      const [a, b] = [new ControlledTask(), new ControlledTask()];
      byParent.run(a);
      byStop.run(b);
      const own = await Promise.all([a.started, b.started]);
      parent.abort(reason);
      void byStop.stop(reason);
      const late = new Manager({ signal: parent.signal });
      for (const signal of [byParent.signal, byStop.signal, late.signal, ...own]) {
        expect(signal).toHaveProperty("aborted", true);
        expect(signal).toHaveProperty("reason", reason);
      }
      await Promise.all([byParent.wait(), byStop.wait(), late.wait()]);
    }
  });

  test("7. Once `wait()` has been called and only background tasks (or none) are left, the group stops by itself.", async () => {
    const empty = new Manager();
    const emptied = empty.wait();
    expect(empty.signal.aborted).toBe(true);
    await emptied;

    const manager = new Manager({ limit: 1 });
    const [a, b] = [new ControlledTask("a"), new ControlledTask("b")];
    manager.runBackground(new ControlledTask("background"));
    manager.runEphemeral(a, b);
    a.return();
    await settle();
    b.return();
    await settle();
    expect(manager.signal.aborted).toBe(false);
    expect(manager.pending).toEqual(["background"]);
    const c = new ControlledTask("c");
    manager.runEphemeral(c);
    const stopped = manager.wait();
    await settle();
    expect(manager.signal.aborted).toBe(false);
    c.return();
    await stopped;
    expect(manager.signal.aborted).toBe(true);
  });

  test("8. Each task gets a signal of its own that follows the shared one, with the same reason.", async () => {
    const manager = new Manager();
    const [a, b, c] = [new ControlledTask("a"), new ControlledTask("b"), new ControlledTask("c")];
    manager.run(a);
    manager.runBackground(b);
    manager.runEphemeral(c);
    const signals = await Promise.all([a.started, b.started, c.started]);
    expect(new Set([...signals, manager.signal]).size).toBe(4);
    for (const signal of signals) expect(signal).toHaveProperty("aborted", false);
    const reason = new Error("enough");
    void manager.stop(reason);
    for (const signal of signals) expect(signal).toHaveProperty("reason", reason);
    await manager.wait();
  });

  test("8. So a thousand tasks cost linear time, print no `MaxListenersExceededWarning`, and a listener that a finished task left behind goes with it.", async () => {
    await inRealTime(async () => {
      const program = new Program("fixtures/thousand-tasks.ts");
      expect(await program.end()).toBe(0);
      expect(program.lines).toEqual(["2000 listeners called", "left behind: collected"]);
      expect(program.stderr).toBe("");
    });
  });

  test("9. The parent's signal carries one listener while the group runs and none afterwards.", async () => {
    const parent = new AbortController();
    const listeners = (): number => getEventListeners(parent.signal, "abort").length;
    const manager = new Manager({ signal: parent.signal });
    manager.run(...Array.from("abcde", (name) => new ControlledTask(name)));
    expect(listeners()).toBe(1);
    void manager.stop();
    expect(listeners()).toBe(0);
    await manager.wait();

    const other = new Manager({ signal: parent.signal });
    expect(listeners()).toBe(1);
    parent.abort();
    expect(listeners()).toBe(0);
    await other.wait();
    await new Manager({ signal: parent.signal }).wait();
    expect(listeners()).toBe(0);

    // Also when there were several, and garbage was collected meanwhile.
    setFlagsFromString("--expose-gc");
    const collectGarbage: () => void = runInNewContext("gc");
    const shared = new AbortController();
    const managers = Array.from({ length: 5 }, () => new Manager({ signal: shared.signal }));
    await inRealTime(async () => {
      for (let i = 0; i < 3; i++) {
        await new Promise(setImmediate); // what was made in one turn is not collected in it
        collectGarbage();
      }
    });
    expect(getEventListeners(shared.signal, "abort").length).toBe(5);
    await Promise.all(managers.map((each) => each.stop()));
    expect(getEventListeners(shared.signal, "abort").length).toBe(0);
  });
});

describe("Failures", () => {
  const values = [undefined, null, "x", 0, 5n, Symbol("s"), { code: 1 }, Object.create(null), [], () => {}, NaN];

  test("10. Whatever a task throws, synchronously or not, is its failure.", async () => {
    const error = new Error("no");
    const ways = [
      () => {
        throw error;
      },
      async () => {
        throw error;
      },
      async () => {
        await null;
        throw error;
      },
      // A thenable that is no promise.
      (): PromiseLike<void> => ({ then: (_, reject) => reject?.(error) as never }),
    ];
    for (const start of ["run", "runEphemeral", "runBackground"] as const) {
      for (const way of ways) {
        const manager = new Manager();
        manager[start](way);
        await expect(manager.wait()).rejects.toBe(error);
        expect(manager.failures).toEqual([{ source: expect.any(String), error }]);
      }
    }
  });

  test('10. An `Error` keeps its identity; anything else (`throw "x"`, `reject(undefined)`) arrives as a `PanicError` whose `cause` is the value; so it is for hooks, and every `error` of an event.', async () => {
    const stackless = new Error("no");
    delete stackless.stack;
    const foreign: unknown = runInNewContext("new Error('of another realm')");
    const errors: unknown[] = [new Error("no"), stackless, foreign, new DOMException("no"), new AggregateError([])];
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    for (const value of [...errors, ...values, proxy]) {
      const told: unknown[] = [];
      const onEvent = (event: LifecycleEvent): void => {
        if (event.type === "task-ended" || event.type === "cleanup-ended") told.push(event.error);
      };
      const manager = new Manager({ onEvent });
      manager.run(() => Promise.reject(value));
      manager.run(() => {
        throw value;
      });
      manager.cleanup(() => {
        throw value;
      });
      const stopped = manager.wait();
      await stopped.catch(() => {});
      const [first, second, cleanup] = manager.failures.map((failure) => failure.error);
      expect(cleanup).toBeInstanceOf(CleanupError);
      const hook: unknown = (cleanup as CleanupError).errors[0];
      for (const error of [first, second, hook]) {
        if (errors.includes(value)) {
          expect(error).toBe(value);
        } else {
          expect(error).toBeInstanceOf(PanicError);
          expect(Object.is((error as PanicError).cause, value)).toBe(true);
        }
      }
      expect(told.length).toBe(3);
      [first, second, hook].forEach((error, i) => expect(told[i]).toBe(error));
    }
  });

  test("10. A `run` that does not return a promise fails with a `TypeError` that names the task.", async () => {
    for (const value of [undefined, null, 3, "x", {}, { then: 5 }]) {
      const manager = new Manager({ name: "api" });
      manager.run({ name: "http", run: () => value as never });
      expect(manager.signal.aborted).toBe(true);
      const error = await manager.wait().catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(TypeError);
      const shown = typeof value === "string" ? `"${value}"` : String(value);
      expect(error).toHaveProperty("message", `Cannot run api/http: it must return a promise, got ${shown}`);
    }
  });

  const abortErrors = (reason: unknown): Record<string, unknown> => {
    const bare = new Error("aborted");
    bare.name = "AbortError";
    const caused = new Error("aborted", { cause: reason });
    caused.name = "AbortError";
    const undefinedCause = new Error("aborted", { cause: undefined });
    undefinedCause.name = "AbortError";
    const nullCause = new Error("aborted", { cause: null });
    nullCause.name = "AbortError";
    return { bare, caused, undefinedCause, nullCause, exception: new DOMException("aborted", "AbortError") };
  };

  test("11. Ending because it was told to is no failure: after the stop, a rejection with `signal.reason` itself, or with an `AbortError` whose `cause` is absent or is that reason, is a clean end (outcome `cancelled`).", async () => {
    for (const reason of [undefined, new Error("enough"), "a word", null, 0]) {
      for (const kind of ["reason", "bare", "caused", "undefinedCause", "nullCause", "exception"]) {
        const log = new EventLog();
        const manager = new Manager({ onEvent: log.observe });
        const task = stubborn();
        manager.run(task);
        void manager.stop(reason);
        const stopReason: unknown = manager.signal.reason;
        task.fail(kind === "reason" ? stopReason : abortErrors(stopReason)[kind]);
        await manager.wait();
        const ended = await log.until("task-ended");
        expect(ended.outcome).toBe("cancelled");
        expect(ended).not.toHaveProperty("error");
        expect(manager.failures).toEqual([]);
      }
    }
  });

  test("11. Any other error, and an `AbortError` before the stop, is a failure.", async () => {
    const other = new Error("aborted", { cause: new Error("of something else") });
    other.name = "AbortError";
    const named = new Error("aborted", { cause: "of something else" });
    named.name = "AbortError";
    for (const error of [other, named, new Error("no"), new DOMException("late", "TimeoutError")]) {
      const log = new EventLog();
      const manager = new Manager({ onEvent: log.observe });
      const task = stubborn();
      manager.run(task);
      void manager.stop();
      task.fail(error);
      await expect(manager.wait()).rejects.toBe(error);
      expect(await log.until("task-ended")).toHaveProperty("outcome", "failed");
    }
    // Not even its name may be readable.
    class Unreadable extends Error {
      override get name(): string {
        throw new Error("unreadable");
      }
    }
    const unreadable = new Unreadable();
    const last = new Manager();
    const task = stubborn();
    last.run(task);
    void last.stop();
    task.fail(unreadable);
    await settle();
    expect(last.failures.map((failure) => failure.error === unreadable)).toEqual([true]);
    for (const error of Object.values(abortErrors(undefined))) {
      const manager = new Manager();
      manager.run(() => Promise.reject(error));
      await expect(manager.wait()).rejects.toBe(error);
      expect(manager.signal.reason).toHaveProperty("cause", error);
    }
  });

  test("11. A return is `returned`, also after the stop.", async () => {
    const log = new EventLog();
    const manager = new Manager({ onEvent: log.observe });
    const task = stubborn();
    manager.run(task);
    void manager.stop();
    task.return();
    await manager.wait();
    expect(await log.until("task-ended")).toHaveProperty("outcome", "returned");
  });

  test("12. `wait()` rejects with the first failure itself.", async () => {
    const manager = new Manager();
    const [a, b] = [stubborn("a"), new ControlledTask("b")];
    const error = new Error("b");
    manager.run(a, b);
    b.fail(error);
    await settle();
    a.fail(new Error("a"));
    await expect(manager.wait()).rejects.toBe(error);
  });

  test("12. `failures` holds all of them, the first included, in order; none is ever lost, and none becomes an `unhandledRejection`, nor does the promise of `wait()` or `stop()` itself, by being awaited late or never.", async () => {
    const manager = new Manager();
    const tasks = Array.from("abc", (name) => new ControlledTask(name));
    const errors = Array.from("abc", (name) => new Error(name));
    manager.run(...tasks);
    expect(manager.failures).toEqual([]);
    for (const i of [2, 0, 1]) tasks[i]?.fail(errors[i]);
    await settle();
    const failures = manager.failures;
    expect(failures).toEqual([
      { source: "c", error: errors[2] },
      { source: "a", error: errors[0] },
      { source: "b", error: errors[1] },
    ]);
    (failures as unknown[]).length = 0;
    expect(manager.failures.length).toBe(3);
    await expect(manager.wait()).rejects.toBe(errors[2]);

    await inRealTime(async () => {
      const program = new Program("fixtures/never-awaited.ts");
      expect(await program.end()).toBe(0);
      expect(program.lines).toEqual(["failed, and never awaited", "failed, and awaited late: Error: late"]);
      expect(program.stderr).toBe("");
    });
  });

  test("12. The `source` is the task's full name; `shutdown` or `cleanup` for the errors of laws 13 to 15.", async () => {
    const manager = new Manager({ name: "api", shutdownTimeout: 10, cleanupTimeout: 10 });
    manager.run(never, async function http() {
      throw new Error("no");
    });
    manager.cleanup(never);
    manager.cleanup(() => {
      throw new Error("no");
    });
    const stopped = manager.wait();
    await vi.advanceTimersByTimeAsync(20);
    await expect(stopped).rejects.toThrow("no");
    expect(manager.failures.map(({ source, error }) => [source, error.name])).toEqual([
      ["api/http", "Error"],
      ["shutdown", "ShutdownTimeoutError"],
      ["cleanup", "CleanupError"],
      ["cleanup", "CleanupTimeoutError"],
    ]);
  });

  test("13. The shutdown deadline counts from the stop, whenever `wait()` is called.", async () => {
    for (const { timeout, waitAfter } of [
      { timeout: undefined, waitAfter: 0 },
      { timeout: undefined, waitAfter: 19_999 },
      { timeout: undefined, waitAfter: 30_000 },
      { timeout: 100, waitAfter: 60 },
      { timeout: 0, waitAfter: 0 },
    ]) {
      const parent = new AbortController();
      const manager = new Manager({ signal: parent.signal, shutdownTimeout: timeout });
      manager.run(never);
      parent.abort();
      await vi.advanceTimersByTimeAsync(waitAfter);
      let settled = false;
      manager.wait().catch(() => {
        settled = true;
      });
      const left = (timeout ?? 20_000) - waitAfter;
      if (left > 0) {
        await vi.advanceTimersByTimeAsync(left - 1);
        expect(settled).toBe(false);
      }
      await vi.advanceTimersByTimeAsync(1);
      expect(settled).toBe(true);
      expect(manager.failures).toEqual([{ source: "shutdown", error: expect.any(ShutdownTimeoutError) }]);
    }
  });

  test("13. When it passes, `wait()` goes on to the hooks, and `failures` has a `ShutdownTimeoutError` whose `pending` names the tasks that have not ended.", async () => {
    const manager = new Manager({ name: "api", shutdownTimeout: 100 });
    const hook = vi.fn();
    const [a, b, c] = [stubborn("a"), stubborn("b"), stubborn("c")];
    manager.run(a, b, c);
    manager.cleanup(hook);
    const stopped = manager.stop();
    b.return();
    await vi.advanceTimersByTimeAsync(99);
    expect(hook).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1);
    expect(hook).toHaveBeenCalledOnce();
    const error = await stopped.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ShutdownTimeoutError);
    expect(error).toMatchObject({
      name: "ShutdownTimeoutError",
      pending: ["api/a", "api/c"],
      message: "Shutdown timed out after 100 ms: api/a,api/c",
    });
    expect(manager.failures).toEqual([{ source: "shutdown", error }]);
    a.return();
    c.return();
    await settle();
    expect(manager.pending).toEqual([]);
    expect(error).toHaveProperty("pending", ["api/a", "api/c"]);
  });

  test("13. What they do afterwards changes nothing, and is told to nobody.", async () => {
    const onEvent = vi.fn();
    const manager = new Manager({ shutdownTimeout: 100, cleanupTimeout: 100, onEvent });
    const tasks = Array.from("abcd", (name) => stubborn(name));
    const hook = stubborn();
    manager.run(...tasks);
    manager.cleanup(() => hook.run(manager.signal));
    const stopped = manager.stop();
    await vi.advanceTimersByTimeAsync(100);
    onEvent.mockClear();
    tasks[0]?.fail(new Error("while the hook runs"));
    tasks[1]?.return();
    await settle();
    expect(onEvent).not.toHaveBeenCalled();
    hook.return();
    await expect(stopped).rejects.toThrow(ShutdownTimeoutError);
    expect(onEvent.mock.calls.map(([event]) => event.type)).toEqual(["cleanup-ended", "stopped"]);
    onEvent.mockClear();
    tasks[2]?.fail(new Error("after the end"));
    tasks[3]?.return();
    await settle();
    expect(onEvent).not.toHaveBeenCalled();
    expect(manager.failures.length).toBe(1);
  });
});

describe("Cleanup", () => {
  test("14. Hooks run in `wait()`, once, after the last task ended (or the deadline passed), last registered first, one at a time.", async () => {
    const manager = new Manager();
    const task = new ControlledTask();
    const [a, b, c] = [stubborn("a"), stubborn("b"), stubborn("c")];
    const calls: string[] = [];
    for (const hook of [a, b, c]) {
      manager.cleanup(() => {
        calls.push(hook.name);
        return hook.run(manager.signal);
      });
    }
    manager.run(task);
    task.return();
    await settle();
    expect(manager.pending).toEqual([]);
    expect(calls).toEqual([]);
    const stopped = manager.wait();
    await settle();
    expect(calls).toEqual(["c"]);
    c.return();
    await settle();
    expect(calls).toEqual(["c", "b"]);
    a.return();
    await settle();
    expect(calls).toEqual(["c", "b"]);
    b.return();
    await stopped;
    await manager.stop();
    expect(calls).toEqual(["c", "b", "a"]);

    const other = new Manager();
    const last = stubborn();
    const hook = vi.fn();
    other.run(last);
    other.cleanup(hook);
    void other.stop();
    await settle();
    expect(hook).not.toHaveBeenCalled();
    last.return();
    await other.wait();
    expect(hook.mock.calls).toEqual([[]]);
  });

  test("14. A hook that fails does not stop the next; all their errors become one `CleanupError` (an `AggregateError`, in run order).", async () => {
    const manager = new Manager();
    const [a, b, c] = [new Error("a"), new Error("b"), new Error("c")];
    const last = vi.fn();
    manager.cleanup(last);
    manager.cleanup(() => Promise.reject(c));
    manager.cleanup(async () => {
      await null;
      throw b;
    });
    manager.cleanup(() => {
      throw a;
    });
    const error = await manager.stop().catch((thrown: unknown) => thrown);
    expect(last).toHaveBeenCalledOnce();
    expect(error).toBeInstanceOf(CleanupError);
    expect(error).toBeInstanceOf(AggregateError);
    expect(error).toMatchObject({ name: "CleanupError", message: "Cleanup failed", errors: [a, b, c] });
    expect(manager.failures).toEqual([{ source: "cleanup", error }]);
  });

  test("15. When `cleanupTimeout` passes, the hook that hangs is left behind, the remaining hooks are still called, no longer waited for, and `failures` has (after the `CleanupError`) a `CleanupTimeoutError` whose `pending` names the hooks that have not ended.", async () => {
    for (const cleanupTimeout of [undefined, 100, 0]) {
      const onEvent = vi.fn();
      const manager = new Manager({ cleanupTimeout, onEvent });
      const late = stubborn();
      const calls: string[] = [];
      manager.cleanup(() => void calls.push("first"));
      manager.cleanup(function alsoHangs() {
        calls.push("alsoHangs");
        return late.run(manager.signal);
      });
      manager.cleanup(async function rejects() {
        calls.push("rejects");
        throw new Error("rejects");
      });
      manager.cleanup(function hangs() {
        calls.push("hangs");
        return never();
      });
      manager.cleanup(() => void calls.push("last"));
      let settled = false;
      const stopped = manager.stop().catch((thrown: unknown) => {
        settled = true;
        return thrown;
      });
      await settle();
      expect(calls).toEqual(["last", "hangs"]);
      if (cleanupTimeout !== 0) {
        await vi.advanceTimersByTimeAsync((cleanupTimeout ?? 5_000) - 1);
        expect(settled).toBe(false);
        expect(calls).toEqual(["last", "hangs"]);
      }
      await vi.advanceTimersByTimeAsync(1);
      expect(settled).toBe(true);
      expect(calls).toEqual(["last", "hangs", "rejects", "alsoHangs", "first"]);
      const [cleanup, timeout, ...others] = manager.failures;
      expect(others).toEqual([]);
      expect(await stopped).toBe(cleanup?.error);
      expect(cleanup).toEqual({ source: "cleanup", error: expect.any(CleanupError) });
      expect((cleanup?.error as CleanupError).errors).toEqual([new Error("rejects")]);
      expect(timeout).toEqual({ source: "cleanup", error: expect.any(CleanupTimeoutError) });
      expect(timeout?.error).toMatchObject({
        name: "CleanupTimeoutError",
        pending: ["hangs", "alsoHangs"],
        message: `Cleanup timed out after ${cleanupTimeout ?? 5_000} ms: hangs,alsoHangs`,
      });
      const told = onEvent.mock.calls.map(([event]) => `${event.type} ${event.hook ?? event.pending ?? ""}`);
      expect(told.slice(1)).toEqual([
        "cleanup-ended hook",
        "cleanup-ended rejects",
        "cleanup-ended hook",
        "cleanup-timed-out hangs,alsoHangs",
        "stopped ",
      ]);
      onEvent.mockClear();
      late.fail(new Error("after the end"));
      await settle();
      expect(onEvent).not.toHaveBeenCalled();
      expect(timeout?.error).toHaveProperty("pending", ["hangs", "alsoHangs"]);
    }
  });

  test("16. A hook may be registered until the last one has run, also by a hook or after the stop.", async () => {
    const manager = new Manager();
    const calls: string[] = [];
    const task = stubborn();
    manager.run(task);
    manager.cleanup(async () => {
      calls.push("first");
      await null;
      manager.cleanup(() => void calls.push("by a hook"));
    });
    const stopped = manager.stop();
    manager.cleanup(() => void calls.push("after the stop"));
    task.return();
    await stopped;
    expect(calls).toEqual(["after the stop", "first", "by a hook"]);
  });

  test("16. After that `cleanup()` throws `ManagerStoppedError`.", async () => {
    const manager = new Manager();
    await manager.stop();
    const thrown = thrownBy(() => manager.cleanup(() => {}));
    expect(thrown).toBeInstanceOf(ManagerStoppedError);
    expect(thrown).toMatchObject({
      name: "ManagerStoppedError",
      message: "Cannot register a hook: the manager has stopped",
      cause: manager.signal.reason,
    });
  });
});

describe("Wait", () => {
  test("17. `wait()` and `stop()` always return the same promise.", async () => {
    const manager = new Manager();
    const promise = manager.wait();
    expect(manager.stop()).toBe(promise);
    expect(manager[Symbol.asyncDispose]()).toBe(promise);
    await promise;
    expect(manager.wait()).toBe(promise);
    expect(manager.stop("again")).toBe(promise);

    const reentrant: Manager = new Manager({ onEvent: () => void promises.push(reentrant.wait(), reentrant.stop()) });
    const promises: Promise<void>[] = [];
    reentrant.signal.addEventListener("abort", () => promises.push(reentrant.wait()));
    reentrant.cleanup(() => void promises.push(reentrant.wait()));
    promises.push(reentrant.stop());
    await Promise.all(promises);
    expect(promises.length).toBeGreaterThan(6);
    expect(new Set(promises).size).toBe(1);
  });

  test("17. Once one of them has been called, the process is kept alive from the stop until that promise settles (a hung hook must end in an error, not in a silent exit 0); before the stop only the tasks themselves keep it alive.", async () => {
    await inRealTime(async () => {
      const hungHook = new Program("fixtures/hangs.ts", ["hook"]);
      const hungTask = new Program("fixtures/hangs.ts", ["task"]);
      const lateWait = new Program("fixtures/hangs.ts", ["late-wait"]);
      const idle = new Program("fixtures/hangs.ts", ["nothing"]);
      const unlimited = new Program("fixtures/hangs.ts", ["unlimited"]);
      await unlimited.line("waiting");
      unlimited.send("SIGUSR2");
      expect(await hungHook.end()).toBe(1);
      expect(hungHook.lines).toEqual(["CleanupTimeoutError"]);
      expect(await hungTask.end()).toBe(1);
      expect(hungTask.lines).toEqual(["ShutdownTimeoutError"]);
      expect(await lateWait.end()).toBe(1);
      expect(lateWait.lines).toEqual(["ShutdownTimeoutError"]);
      expect(await idle.end()).toBe(0);
      expect(idle.lines).toEqual([]);
      expect(await unlimited.end()).toBe(0);
      expect(unlimited.lines).toEqual(["waiting", "cleaned up", "ended well"]);
    });
  });

  test("17. No timer is left at the end.", async () => {
    for (const timeout of [undefined, 0, 1, 2 ** 31 - 1, 2 ** 31, Infinity]) {
      const manager = new Manager({ shutdownTimeout: timeout, cleanupTimeout: timeout });
      manager.run(new ControlledTask());
      manager.cleanup(() => {});
      expect(vi.getTimerCount()).toBe(0);
      await manager.stop();
      expect(vi.getTimerCount()).toBe(0);

      const unwaited = new Manager({ shutdownTimeout: timeout });
      const task = new ControlledTask();
      unwaited.run(task);
      task.fail(new Error("no"));
      await settle();
      expect(vi.getTimerCount()).toBe(0);
      await expect(unwaited.wait()).rejects.toThrow("no");
    }
  });

  test("17. An observer (`onEvent`) that throws changes nothing.", async () => {
    const unhandled = vi.fn();
    process.on("unhandledRejection", unhandled);
    const observers = [
      () => {
        throw new Error("observer");
      },
      async () => {
        throw new Error("observer");
      },
      () => Promise.reject(new Error("observer")),
    ];
    for (const onEvent of observers) {
      const manager = new Manager({ onEvent, limit: 1 });
      const hook = vi.fn();
      manager.cleanup(hook);
      manager.run(new ControlledTask());
      manager.runEphemeral(new ControlledTask(), new ControlledTask());
      await manager.stop();
      expect(hook).toHaveBeenCalledOnce();
      expect(manager.failures).toEqual([]);
    }
    await inRealTime(async () => {
      await new Promise(setImmediate);
      process.off("unhandledRejection", unhandled);
      expect(unhandled).not.toHaveBeenCalled();
    });
  });
});
