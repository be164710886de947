import { getEventListeners } from "node:events";
import { Manager, ManagerStoppedError, PanicError, ShutdownTimeoutError, TaskAlreadyStartedError } from "allstop";
import { runMain, type RunMainOptions, UncaughtErrorTask } from "allstop/main";
import { ControlledTask, EventLog } from "allstop/testing";
import { describe, expect, test, vi } from "vitest";
import { start as startByHand, useRunsByHand } from "./support/by-hand.ts";
import { exited, oddities, raise, said, start, stderr, turn, uncaughtListeners, useMain } from "./support/main.ts";
import { newListeners, send, useOsSignals } from "./support/os-signals.ts";
import { Program } from "./support/program.ts";
import { abortError, hangs, nothing, rejecting, throwing } from "./support/ways.ts";

useOsSignals();
useRunsByHand();

const error = new Error("no");
const late = { shutdownTimeout: 100 };

/** Goes on for so many milliseconds of the faked clock. */
const pass = async (milliseconds: number): Promise<void> => {
  await vi.advanceTimersByTimeAsync(milliseconds);
  await turn();
};

/** A stop by a signal is over when no more repeats of the signal are to be expected. */
async function ends(main: Promise<void>): Promise<unknown> {
  const end = await main;
  await pass(500);
  return end;
}

describe("the manager", () => {
  useMain();

  test("runMain makes a manager with OsSignalTask and UncaughtErrorTask in the background, before `setup` is called", async () => {
    const log = new EventLog();
    const setup = vi.fn((manager: Manager) => {
      expect(manager).toBeInstanceOf(Manager);
      expect(manager.pending).toEqual(["api/os-signal", "api/uncaught-errors"]);
    });
    const { main } = start(setup, { name: "api", onEvent: log.observe });
    expect(setup).toHaveBeenCalledOnce(); // in the call itself
    await main;
    const kinds = log.events.flatMap((event) => (event.type === "task-started" ? [event.kind] : []));
    expect(kinds).toEqual(["background", "background"]);
    expect(stderr()).toBe(""); // what setup expects has come true
  });

  test("it takes the options of a Manager, and `setup` takes no place of `limit`", async () => {
    const [a, b, parent] = [new ControlledTask("a"), new ControlledTask("b"), new AbortController()];
    const running = vi.fn();
    const { main } = start(async (manager) => {
      manager.runEphemeral(a, b);
      await a.started;
      running();
    }, { limit: 1, signal: parent.signal });
    await turn();
    expect(running).toHaveBeenCalledOnce();
    a.return();
    const signal = await b.started;
    parent.abort(error);
    expect(signal.reason).toBe(error);
    await main;
    expect(getEventListeners(parent.signal, "abort")).toEqual([]);
    expect([process.exitCode, stderr()]).toEqual([0, ""]);
  });

  test("a parent that has stopped already is a clean end, without `setup`", async () => {
    const setup = vi.fn();
    await runMain(setup, { signal: AbortSignal.abort() });
    expect(newListeners()).toEqual({});
    expect(setup).not.toHaveBeenCalled();
    expect([process.exitCode, stderr()]).toEqual([0, ""]);
  });

  test("it waits for tasks and hooks, and resolves with nothing, also after a failure", async () => {
    const [task, hook] = [new ControlledTask(), new ControlledTask()];
    const { main, over } = start((manager) => {
      manager.run(task);
      manager.cleanup(() => hook.run(new AbortController().signal));
    });
    await turn();
    task.fail(error);
    await hook.started;
    await turn();
    expect(over).not.toHaveBeenCalled();
    hook.return();
    expect(await main).toBeUndefined();
    expect(process.exitCode).toBe(1);
  });

  const { signal } = new AbortController();
  const refused = "Cannot run a program:";
  test.each<[message: string, Refusal: ErrorConstructor, options: unknown, setup?: unknown]>([
    [`${refused} setup must be of type function, got 5`, TypeError, { signal }, 5],
    [`${refused} options must be of type object, got 5`, TypeError, 5],
    [`${refused} exitTimeout must be of type number, got "1"`, TypeError, { signal, exitTimeout: "1" }],
    [`${refused} exitTimeout must be 0 or more milliseconds, got -1`, RangeError, { signal, exitTimeout: -1 }],
    ["Cannot create an OsSignalTask: signals must be catchable, such as SIGTERM, got []", TypeError, { signal, signals: [] }],
    ["Cannot create a Manager: name must be of type string, got 5", TypeError, { signal, name: 5 }],
    ["Cannot create a Manager: limit must be a whole number above 0, got 0", RangeError, { signal, limit: 0 }],
    ["Cannot create a Manager: signal must be an AbortSignal, got 5", TypeError, { signal: 5 }],
  ])("it rejects only for bad arguments, before anything starts: %s", async (message, Refusal, options, setup = vi.fn()) => {
    const thrown: unknown = await runMain(setup as never, options as never).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(Refusal);
    expect(thrown).toHaveProperty("message", message);
    expect([newListeners(), uncaughtListeners(), getEventListeners(signal, "abort")]).toEqual([{}, [0, 0], []]);
    expect([process.exitCode, stderr(), vi.getTimerCount()]).toEqual([undefined, "", 0]);
    if (vi.isMockFunction(setup)) expect(setup).not.toHaveBeenCalled();
  });
});

describe("the exit code", () => {
  useMain();

  test.each<[string, (manager: Manager) => unknown]>([
    ["an empty setup", nothing],
    ["tasks that return", (manager) => manager.run(async () => {})],
    ["a setup that does all the work", () => turn()],
    ["a setup that waits for the group", (manager) => (manager.run(async () => {}), manager.wait())],
  ])("a clean end has the exit code 0, and prints nothing: %s", async (_, setup) => {
    await runMain(setup);
    expect([process.exitCode, stderr()]).toEqual([0, ""]);
  });

  test("a failure is printed, and the exit code set, at once: whoever cuts the stop short does not hide it", async () => {
    await runMain((manager) => {
      manager.run(rejecting(error));
      manager.cleanup(() => {
        expect([process.exitCode, said()]).toEqual([1, ["main: Error: no"]]);
      });
    });
    expect([process.exitCode, said()]).toEqual([1, ["main: Error: no"]]);
  });

  test("a code that the program set itself is kept on a clean end, and not after a failure", async () => {
    const setup = (manager: Manager): void => manager.cleanup(() => (process.exitCode = 3));
    await runMain(setup);
    expect(process.exitCode).toBe(3);
    await runMain((manager) => (setup(manager), manager.run(rejecting(error))));
    expect(process.exitCode).toBe(1);
  });

  test.each<[string, string[], (manager: Manager) => unknown]>([
    ["a task", ["api/x: Error: no"], (manager) => manager.run({ name: "x", run: rejecting(error) })],
    ["a hook", ["cleanup: CleanupError: Cleanup failed"], (manager) => manager.cleanup(throwing(error))],
    ["setup, which throws", ["setup: Error: no"], throwing(error)],
    ["setup, which rejects", ["setup: Error: no"], rejecting(error)],
    ["setup, with what is no Error", ["setup: PanicError: Panicked with \"no\""], rejecting("no")],
    ["setup, which waits for a task", ["api/x: Error: no"], (manager) => {
      manager.run({ name: "x", run: rejecting(error) });
      return manager.wait();
    }],
    ["a task, then setup", ["api/x: Error: no", "setup: Error: not either"], async (manager) => {
      manager.run({ name: "x", run: rejecting(error) });
      await turn();
      throw new Error("not either");
    }],
    ["setup, then a task", ["setup: Error: no", "api/x: Error: not either"], (manager) => {
      const run = (signal: AbortSignal): Promise<never> =>
        new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("not either"))));
      manager.run({ name: "x", run });
      throw error;
    }],
  ])("a failure has the exit code 1, and is printed with its source, after the hooks have run: %s", async (_, lines, setup) => {
    const hook = vi.fn();
    const { main } = start((manager) => {
      manager.cleanup(hook);
      return setup(manager);
    }, { name: "api" });
    await main;
    expect(hook).toHaveBeenCalledOnce();
    expect([process.exitCode, said()]).toEqual([1, lines]);
  });

  test("each failure is printed with its source, its stack, all its causes, and the errors inside a CleanupError", async () => {
    const causes = ["one", "two", "three", "four", "five", "six"];
    const chain = causes.reduceRight<Error | undefined>((cause, text) => new Error(text, { cause }), undefined);
    await runMain((manager) => {
      manager.cleanup(throwing(new Error("first hook", { cause: new Error("its cause") })));
      manager.cleanup(throwing("second hook"));
      manager.run({ name: "100%o", run: rejecting(chain) });
    });
    expect(said()).toEqual(["100%o: Error: one", "cleanup: CleanupError: Cleanup failed"]);
    for (const text of causes.slice(1)) expect(stderr()).toContain(`[cause]: Error: ${text}\n`);
    for (const text of [`PanicError: Panicked with "second hook"`, "Error: first hook", "[cause]: Error: its cause"]) {
      expect(stderr()).toContain(`${text}\n`);
    }
    expect(stderr()).toMatch(/^ +at .*main\.test\.ts/m);
  });

  test("what else an error has is shown as deep as console.error shows it", async () => {
    const deep = Object.assign(new Error("no"), { a: { b: { c: { d: 1 } } } });
    await runMain(throwing(deep));
    expect(stderr()).toContain("  a: { b: { c: [Object] } }\n");
    await runMain((manager) => manager.cleanup(throwing(new Error("hook", { cause: deep }))));
    expect(stderr()).toContain("        a: { b: { c: [Object] } }\n");
  });

  test("an error that is its own cause is shown with its stack", async () => {
    const own = new Error("no");
    await runMain(throwing(Object.assign(own, { cause: own })));
    expect(stderr()).toMatch(/^setup: <ref \*1> Error: no\n +at [^]*cause: \[Circular \*1\]/);
  });

  test("a terminal with colours gets some", async () => {
    const hasColors = vi.fn(() => true);
    Object.assign(process.stderr, { hasColors });
    await runMain(throwing(Object.assign(error, { code: 5 })));
    Reflect.deleteProperty(process.stderr, "hasColors");
    expect(stderr()).toContain("\u001b[33m5\u001b[39m");
  });

  test.each(oddities)("any value can be shown: %s", async (_, value) => {
    await runMain((manager) => {
      manager.cleanup(throwing(value));
      manager.run(rejecting(value));
    });
    await runMain((manager) => {
      void manager.stop();
      throw value;
    });
    expect(process.exitCode).toBe(1);
    expect(said().map((line) => line.replace(/: .*(Error|object).*/, ""))).toEqual(["main", "cleanup", "setup"]);
  });

  test("that stderr is gone is no error: the event for it, which comes after the callback, is heard", async () => {
    const counts: number[] = [];
    vi.mocked(process.stderr.write).mockImplementation((_: unknown, done?: unknown) => {
      process.nextTick(() => {
        (done as (error: Error) => void)(error);
        process.nextTick(() => {
          counts.push(process.stderr.listenerCount("error"));
          process.stderr.emit("error", error);
        });
      });
      return true;
    });
    const before = process.stderr.listenerCount("error");
    await runMain((manager) => {
      for (let i = 0; i < 20; i++) manager.run({ run: rejecting(error) });
    });
    await turn();
    expect(counts).toEqual(Array(20).fill(before + 1)); // of which Node would warn if there were ten
    expect([process.exitCode, process.stderr.listenerCount("error")]).toEqual([1, before]);
  });
});

describe("a stop during setup", () => {
  useMain();

  test("a stop during `setup` is honoured: the hooks registered so far run, and its ManagerStoppedError is no failure", async () => {
    const [hook, refused] = [vi.fn(), vi.fn()];
    const { main } = start(async (manager) => {
      manager.cleanup(hook);
      await turn();
      send("SIGTERM");
      await turn();
      expect(manager.signal.aborted).toBe(true);
      expect(hook).not.toHaveBeenCalled();
      try {
        manager.run(hangs);
      } catch (error) {
        refused(error);
        throw error;
      }
    });
    await ends(main);
    expect(refused).toHaveBeenCalledWith(expect.any(ManagerStoppedError));
    expect(hook).toHaveBeenCalledOnce();
    expect([process.exitCode, stderr()]).toEqual([0, ""]);
  });

  test("the wait for it is bounded by `shutdownTimeout`", async () => {
    const hook = vi.fn();
    const log = new EventLog();
    const { main, over } = start((manager) => {
      manager.cleanup(hook);
      return hangs();
    }, { ...late, onEvent: log.observe });
    await turn();
    send("SIGINT");
    await pass(99);
    expect(hook).not.toHaveBeenCalled();
    await pass(1);
    expect(hook).toHaveBeenCalledOnce();
    expect(over).toHaveBeenCalledWith(undefined);
    await ends(main);
    expect([process.exitCode, said()]).toEqual([
      1,
      [`shutdown: ${String(new ShutdownTimeoutError(100, ["setup"]))}`],
    ]);
  });
});

describe("signals", () => {
  useMain();

  test.each(["SIGINT", "SIGTERM", "SIGQUIT"] as const)("%s, even one in `setup` itself, stops the group", async (signal) => {
    const x = new ControlledTask("x");
    const { main } = start((manager) => {
      manager.run(x);
      send(signal);
    });
    expect((await x.aborted, await x.started).reason).toHaveProperty("task", "os-signal");
    await ends(main);
    expect([process.exitCode, stderr(), exited()]).toEqual([0, "", []]);
  });

  test("`signals` are as in OsSignalTask", async () => {
    const { main } = start(async (manager) => {
      expect(Object.keys(newListeners())).toEqual(["SIGUSR2"]);
      await turn();
      send("SIGUSR2");
      await turn();
      expect(manager.signal.aborted).toBe(true);
    }, { signals: ["SIGUSR2"] });
    await ends(main);
    expect(stderr()).toBe("");
  });

  const stopsBy: [string, (x: ControlledTask, manager: Manager) => unknown][] = [
    ["a signal", () => send("SIGTERM")],
    ["a failure", (x) => x.fail(error)],
    ["a stop()", (_, manager) => manager.stop()],
  ];
  test.each(stopsBy)("the first signal never cuts a stop short, also when the group already stops for another reason: %s", async (_, stop) => {
    const [x, slow] = [new ControlledTask("x"), new ControlledTask("slow", { ignoreAbort: true })];
    let manager!: Manager;
    const { main, over } = start((made) => {
      manager = made;
      made.run(x, slow);
    });
    await turn();
    stop(x, manager);
    await pass(1_000);
    const isSignal = stop === stopsBy[0]?.[1];
    expect(newListeners()).toMatchObject({ SIGINT: 1, SIGTERM: 1, SIGQUIT: 1 });
    if (!isSignal) {
      send("SIGINT");
      send("SIGINT");
      await pass(490);
      send("SIGTERM");
    }
    await turn();
    expect([exited(), over.mock.calls]).toEqual([[], []]);
    slow.return();
    await ends(main);
    expect(exited()).toEqual([]);
  });

  test.each([["SIGINT", 130], ["SIGTERM", 143], ["SIGQUIT", 131]] as const)(
    "a second one (%s) ends the process with 128 + n: %i",
    async (signal, code) => {
      const slow = new ControlledTask("slow", { ignoreAbort: true });
      const { main } = start((manager) => manager.run(slow), { name: "api" });
      await turn();
      send("SIGTERM");
      await pass(500);
      send(signal);
      expect(exited()).toEqual([[code]]);
      expect(said()).toEqual([`Ended by a second signal, ${signal}, while still running: api/slow`]);
      slow.return();
      await main;
    },
  );

  test.each<[string, string, (manager: Manager, x: Promise<void>) => unknown, RunMainOptions?]>([
    ["setup", "setup", (_, x) => x],
    ["setup and tasks", "setup, a, b", (manager, x) => {
      for (const name of ["a", "b"]) manager.run({ name, run: () => x });
      return x;
    }],
    ["hooks", "cleanup", (manager, x) => manager.cleanup(() => x)],
    ["hooks beside tasks that hang", "deaf, cleanup", (manager, x) => {
      manager.cleanup(() => x);
      manager.run({ name: "deaf", run: hangs });
    }, late],
    ["hooks beside a setup that hangs", "setup, cleanup", (manager, x) => {
      manager.cleanup(() => x);
      return hangs();
    }, late],
  ])("a second signal names what was still running: %s", async (_, names, setup, options) => {
    const x = new ControlledTask();
    const { main } = start((manager) => setup(manager, x.run(new AbortController().signal)), options);
    await turn();
    send("SIGINT");
    await pass(500);
    send("SIGINT");
    expect(said().at(-1)).toBe(`Ended by a second signal, SIGINT, while still running: ${names}`);
    x.return();
    await ends(main);
  });

  test("a second signal tells the failures so far, too, and each only once", async () => {
    const slow = new ControlledTask("slow", { ignoreAbort: true });
    const { main } = start((manager) => {
      manager.run(slow, { name: "x", run: rejecting(error) });
    });
    send("SIGINT");
    await pass(500);
    send("SIGTERM");
    expect(said()).toEqual(["x: Error: no", expect.stringContaining("still running: slow")]);
    slow.fail(new Error("late"));
    await ends(main);
    expect(said().slice(2)).toEqual(["slow: Error: late"]);
  });

  test("repeats that came while the process was busy for more than 500 ms are the same one", async () => {
    const slow = new ControlledTask("slow", { ignoreAbort: true });
    const { main } = start((manager) => manager.run(slow));
    await turn();
    send("SIGINT");
    vi.advanceTimersByTime(700); // Timers come first, then what has arrived.
    send("SIGINT");
    expect(exited()).toEqual([]);
    await turn();
    send("SIGINT");
    expect(exited()).toEqual([[130]]);
    slow.return();
    await main;
  });

  test("after the end, signals have their default action, but for repeats of the first", async () => {
    const x = new ControlledTask("x");
    await start((manager) => (manager.run(x), x.return())).main;
    expect(newListeners()).toEqual({});
    const { main } = start(hangs, { signals: ["SIGUSR2"], shutdownTimeout: 0 });
    await turn();
    const [count, timers] = [vi.getTimerCount(), vi.spyOn(globalThis, "setTimeout")];
    for (let i = 0; i < 3; i++) send();
    expect(vi.getTimerCount()).toBe(count + 2);
    for (const { value } of timers.mock.results) expect(value.hasRef()).toBe(false);
    await pass(1);
    await main;
    expect(newListeners()).toEqual({ SIGUSR2: 2 });
    await pass(499);
    expect(newListeners()).toEqual({});
  });

  test("runMain in a process that has listeners of its own leaves them", async () => {
    const mine = vi.fn();
    process.on("SIGTERM", mine).on("uncaughtException", mine).on("unhandledRejection", mine);
    await runMain(nothing);
    expect([newListeners(), uncaughtListeners()]).toEqual([{ SIGTERM: 1 }, [1, 1]]);
    process.off("SIGTERM", mine).off("uncaughtException", mine).off("unhandledRejection", mine);
  });
});

describe("uncaught errors under runMain", () => {
  useMain();

  /** What is printed for an error that nobody caught. */
  const line = (message: string, name = ""): string => `${name}uncaught-errors: PanicError: Panicked with Error: ${message}`;

  test.each<[string, (value: unknown) => unknown]>([
    ["uncaughtException", (value) => raise(value)],
    ["unhandledRejection", (value) => void Promise.reject(value)],
  ])("the first %s becomes the failure of the group, once; hooks still run, and the code is 1", async (origin, make) => {
    const [x, hook] = [new ControlledTask("x"), vi.fn()];
    const { main } = start((manager) => {
      manager.cleanup(hook);
      manager.run(x);
    }, { name: "api" });
    await turn();
    make(error);
    expect((await x.aborted, await x.started).reason).toMatchObject({ task: "api/uncaught-errors", cause: { origin } });
    await main;
    expect(hook).toHaveBeenCalledOnce();
    expect([process.exitCode, said()]).toEqual([1, [line("no", "api/")]]);
    expect(stderr()).toContain(`origin: '${origin}'`);
    expect(uncaughtListeners()).toEqual([0, 0]);
  });

  test("one in the turn of `setup`, before anything, is told, too, and so is what `setup` throws", async () => {
    const hook = vi.fn();
    await runMain((manager) => {
      manager.cleanup(hook);
      raise(new Error("other"));
      throw error;
    });
    expect(hook).toHaveBeenCalledOnce();
    expect([process.exitCode, said().sort()]).toEqual([1, ["setup: Error: no", line("other")]]);
  });

  test("errors are caught until the last hook has run, and each later one is printed, too, and makes the code 1", async () => {
    const x = new ControlledTask("x");
    const { main } = start((manager) => {
      manager.cleanup(() => void Promise.reject(new Error("third")));
      manager.cleanup(async () => {
        await turn();
        raise(new Error("second"));
        await turn();
        expect(said()).toEqual([line("first", "a/"), line("second", "a/")]); // and not only at the end
      });
      manager.run(x);
    }, { name: "a" });
    await turn();
    raise(new Error("first"));
    await main;
    expect(said()).toEqual([line("first", "a/"), line("second", "a/"), line("third", "a/")]);
    expect(process.exitCode).toBe(1);
  });

  test.each([["timeout"], [undefined]])("each is printed, also if it is the same %j again", async (value) => {
    const { main } = start((manager) => manager.run(hangs));
    await turn();
    raise(value);
    raise(value);
    await pass(20_000);
    await main;
    expect(said().filter((line) => line.includes("uncaught-errors: PanicError")).length).toBe(2);
  });

  test("one after a clean stop makes the code 1, whatever the program has set", async () => {
    await runMain((manager) => {
      process.exitCode = 3;
      manager.cleanup(() => void Promise.reject(error));
    });
    expect([process.exitCode, said()]).toEqual([1, [line("no")]]);
  });

  test("of several in one turn each is told, in order", async () => {
    const errors = ["a", "b", "c"].map((text) => new Error(text));
    const { main } = start(hangs, late);
    await turn();
    for (const each of errors) void Promise.reject(each);
    await turn();
    await pass(100);
    await main;
    const shutdown = "shutdown: ShutdownTimeoutError: Shutdown timed out after 100 ms: setup";
    expect(said()).toEqual([line("a"), line("b"), line("c"), shutdown]);
  });

  test("an error in the very turn of the stop is told", async () => {
    for (const stop of ["before", "after"]) {
      const x = new ControlledTask("x");
      const { main } = start((manager) => manager.run(x));
      await turn();
      if (stop === "before") x.return();
      raise(error);
      x.return();
      await main;
    }
    expect(said()).toEqual([line("no"), line("no")]);
  });

  test("an error that an observer emits at the stop is told", async () => {
    await runMain(nothing, {
      onEvent: ({ type }) => void (type === "stopping" && raise(error)),
    });
    expect(said()).toEqual([line("no")]);
  });

  test("one error that is found twice in a row, as of a promise and its `finally`, is told once", async () => {
    const { main } = start(async () => {
      const lost = Promise.reject(error);
      void lost.finally(nothing);
      await turn();
      raise(new Error("other"));
    });
    await main;
    expect(said()).toEqual([line("no"), line("other")]);
  });

  const reason = new Error("enough");
  test.each<[string, unknown, number]>([
    ["its reason", reason, 0],
    ["an AbortError without a cause", abortError(), 0],
    ["an AbortError whose cause is its reason", abortError(reason), 0],
    ["an AbortError with another cause is one", abortError(error), 1],
  ])("an unhandled echo of our own stop (law 11) is no failure: %s", async (_, echo, code) => {
    await runMain((manager) => {
      manager.cleanup(async () => {
        void Promise.reject(echo);
        await turn();
        void Promise.reject(echo);
      });
      void manager.stop(reason);
    });
    expect([process.exitCode, said().length]).toEqual([code, code]);
  });

  test("an AbortError before the stop is a failure", async () => {
    const { main } = start(hangs, { shutdownTimeout: 0 });
    void Promise.reject(abortError());
    await pass(1);
    await main;
    expect(said()[0]).toBe("uncaught-errors: PanicError: Panicked with AbortError: aborted");
  });

  test.each(oddities)("any value can be shown that nobody caught: %s", async (_, value) => {
    await runMain((manager) => {
      manager.cleanup(async () => {
        raise(value);
        await turn();
      });
    });
    expect(process.exitCode).toBe(1);
    expect(said()[0]).toMatch(/^uncaught-errors: PanicError: Panicked with /);
  });
});

describe("exitTimeout", () => {
  useMain();

  const resources = (...names: string[]): void => void vi.spyOn(process, "getActiveResourcesInfo").mockReturnValue(names);

  test.each([[2_000, undefined], [50, { exitTimeout: 50 }]])(
    "%i ms after the end, the process says what keeps it alive, and exits with the code set: (%j)",
    async (timeout, options) => {
      resources("TCPServerWrap", "Timeout", "Timeout");
      await runMain(nothing, options);
      await pass(timeout - 1);
      expect([stderr(), exited()]).toEqual(["", []]);
      await pass(1);
      const { exitTimeout = 2_000 } = options ?? {};
      expect(said()).toEqual([`Still alive ${exitTimeout} ms after the end, because of: TCPServerWrap, Timeout (2)`]);
      expect(exited()).toEqual([[]]);
      expect(vi.getTimerCount()).toBe(0);
    },
  );

  test("what keeps it alive may have no name", async () => {
    resources();
    await runMain(nothing);
    await pass(2_000);
    expect(said()[0]).toMatch(/because of: something that Node does not name$/);
  });

  test("nothing of runMain itself keeps the process alive after the end: its timer is unref'd", async () => {
    const [before, timers] = [process.getActiveResourcesInfo(), vi.spyOn(globalThis, "setTimeout")];
    await runMain(nothing);
    const timer = timers.mock.results.at(-1)?.value;
    expect(timer.hasRef()).toBe(false);
    expect(vi.getTimerCount()).toBe(1);
    await turn();
    // A timer of the test runner may have passed meanwhile.
    expect(before).toEqual(expect.arrayContaining(process.getActiveResourcesInfo()));
  });

  test("with `exitTimeout: Infinity` it never exits", async () => {
    await runMain(nothing, { exitTimeout: Infinity });
    await pass(2 ** 31);
    expect([stderr(), exited()]).toEqual(["", []]);
  });

  test("stdout and stderr are not named, which are listed though they keep nothing alive", async () => {
    const unref = vi.fn();
    const streams = [process.stdout, process.stderr];
    for (const stream of streams) Object.assign(stream, { unref });
    vi.spyOn(process, "getActiveResourcesInfo").mockImplementation(() => (unref.mock.calls.length === 2 ? [] : ["PipeWrap"]));
    await runMain(nothing);
    await pass(2_000);
    for (const stream of streams) Reflect.deleteProperty(stream, "unref");
    expect(said()[0]).toMatch(/something that Node does not name$/);
  });

  /** Lets stdout have something that its reader has not read; returns what lets it be read. */
  function unread({ isEnded = false } = {}): () => void {
    let length = 5;
    const read: (() => void)[] = [];
    vi.spyOn(process.stdout, "writableLength", "get").mockImplementation(() => length);
    vi.spyOn(process.stdout, "writableEnded", "get").mockReturnValue(isEnded);
    vi.spyOn(process.stdout, isEnded ? "end" : "write").mockImplementation((...args: unknown[]) => {
      read.push(args.at(-1) as () => void);
      return process.stdout as never;
    });
    return () => {
      length = 0;
      for (const done of read) done();
    };
  }

  test.each([[false], [true]])("output is complete also into a slow pipe (ended: %s)", async (isEnded) => {
    resources("Timeout");
    const read = unread({ isEnded });
    await runMain(nothing);
    await pass(60_000);
    expect([stderr(), exited()]).toEqual(["", []]);
    read();
    // If it was that alone, the process ends by itself now.
    await pass(49);
    expect([stderr(), exited()]).toEqual(["", []]);
    await pass(1);
    expect(exited()).toEqual([[]]);
    expect(said().length).toBe(1);
  });

  test.each([[false], [true]])("it exits only once what it says has been written, and what was printed meanwhile (%s)", async (isLast) => {
    resources("Timeout");
    const writes: (() => void)[] = [];
    let read: (() => void) | undefined;
    vi.mocked(process.stderr.write).mockImplementation((_: unknown, done?: unknown) => {
      writes.push(done as () => void);
      read ??= unread();
      return false;
    });
    vi.spyOn(process.stderr, "writableLength", "get").mockImplementation(() => writes.length);
    await runMain(nothing);
    await pass(2_000);
    expect(exited()).toEqual([]);
    const steps = [() => writes.splice(0).forEach((written) => written()), () => read?.()];
    for (const step of isLast ? steps.reverse() : steps) {
      expect(exited()).toEqual([]);
      step();
      await turn();
    }
    expect(exited()).toEqual([[]]);
  });

  test("it exits also if somebody has replaced the `write` of stderr by one that does not call back", async () => {
    resources("Timeout");
    let done: (() => void) | undefined;
    vi.mocked(process.stderr.write).mockImplementation((_: unknown, callback?: unknown) => {
      done = callback as () => void;
      return true;
    });
    await runMain(nothing);
    await pass(2_000);
    expect(exited()).toEqual([[]]);
    done?.(); // lest the listener for that is left in the process of the tests
  });
});

describe("UncaughtErrorTask", () => {
  useMain();

  const manager = (): Manager => new Manager({ name: "api" });

  test.each([[{}, "uncaught-errors"], [undefined, "uncaught-errors"], [{ name: undefined }, "uncaught-errors"], [{ name: "x" }, "x"]])(
    "with the options %j its name is %s",
    (options, name) => {
      expect(new UncaughtErrorTask(options).name).toBe(name);
    },
  );

  test.each([
    [5, "options must be of type object, got 5"],
    [{ name: 5 }, "name must be of type string, got 5"],
  ])("the option %j is a TypeError", (options, rule) => {
    expect(() => new UncaughtErrorTask(options as never)).toThrow(new TypeError(`Cannot create an UncaughtErrorTask: ${rule}`));
  });

  test.each<[string, unknown, (value: unknown) => unknown]>([
    ["uncaughtException", error, (value) => raise(value)],
    ["unhandledRejection", error, (value) => void Promise.reject(value)],
    ["unhandledRejection", undefined, (value) => void Promise.reject(value)],
    // As of a module that throws while it is evaluated.
    ["unhandledRejection", error, (value) => raise(value, "unhandledRejection")],
  ])("it turns the first %s (%s) while it runs into its failure: a PanicError with `cause` and `origin`", async (origin, cause, make) => {
    const group = manager();
    const hook = vi.fn();
    group.runBackground(new UncaughtErrorTask());
    group.run(new ControlledTask());
    group.cleanup(hook);
    expect(uncaughtListeners()).toEqual([1, 1]);
    make(cause);
    const thrown: unknown = await group.wait().catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(PanicError);
    expect(thrown).toMatchObject({ cause, origin });
    expect(group.failures).toEqual([{ source: "api/uncaught-errors", error: thrown }]);
    expect(hook).toHaveBeenCalledOnce();
    expect(uncaughtListeners()).toEqual([0, 0]);
  });

  test("it listens only while it runs, keeps no process alive, and returns at the stop", async () => {
    const task = new UncaughtErrorTask();
    expect(uncaughtListeners()).toEqual([0, 0]);
    const run = startByHand(task);
    expect([uncaughtListeners(), vi.getTimerCount()]).toEqual([[1, 1], 0]);
    await turn();
    expect(run.end).toBe("running");
    run.controller.abort();
    await turn();
    expect([run.end, uncaughtListeners()]).toEqual(["returned", [0, 0]]);
  });

  test("those of the same turn as the first are swallowed, as by Node, which ends at the first", async () => {
    const run = startByHand(new UncaughtErrorTask());
    void Promise.reject(error);
    void Promise.reject(new Error("other"));
    await turn();
    expect(run.end).toMatchObject({ cause: error });
  });

  const reason = new Error("enough");
  test.each<[string, unknown, boolean]>([
    ["its reason is none", reason, false],
    ["an AbortError without a cause is none", abortError(), false],
    ["an AbortError whose cause is its reason is none", abortError(reason), false],
    ["an AbortError with another cause is a failure", abortError(error), true],
    ["any other error is a failure", error, true],
  ])("of what is rejected by the stop itself, which nobody handles, %s", async (_, thrown, isFailure) => {
    const run = startByHand(new UncaughtErrorTask());
    const lost = new ControlledTask();
    void lost.run(run.controller.signal).then(throwing(thrown), throwing(thrown));
    run.controller.abort(reason);
    await turn();
    if (isFailure) expect(run.end).toMatchObject({ name: "PanicError", cause: thrown, origin: "unhandledRejection" });
    else expect(run.end).toBe("returned");
  });

  test("it is single-use: another run is a TaskAlreadyStartedError", async () => {
    const task = new UncaughtErrorTask();
    const group = manager();
    group.runBackground(task);
    const refused: unknown = await task.run(group.signal).catch((error: unknown) => error);
    expect(refused).toEqual(new TaskAlreadyStartedError("uncaught-errors"));
    await group.stop();
    const other = manager();
    other.runBackground(task);
    await expect(other.wait()).rejects.toEqual(new TaskAlreadyStartedError("api/uncaught-errors"));
    expect(uncaughtListeners()).toEqual([0, 0]);
  });
});

describe("in a program of its own", () => {
  async function end(program: Program): Promise<unknown[]> {
    const code = await program.end();
    const lines = program.stderr.split("\n").filter((line) => /^\S/.test(line) && line !== "}");
    return [code, program.lines, lines];
  }

  test("a signal is a clean end: exit code 0, nothing on stderr", async () => {
    const program = new Program("fixtures/main.ts", ["service"]);
    await program.line("ready");
    program.send("SIGTERM");
    expect(await end(program)).toEqual([0, ["ready", "cleaned up", "over 0"], []]);
  });

  test("a signal during setup is honoured: exit code 0, hooks have run, nothing more is started", async () => {
    const program = new Program("fixtures/main.ts", ["slow"]);
    await program.line("ready");
    program.send("SIGTERM");
    expect(await end(program)).toEqual([0, ["ready", "cleaned up", "over 0"], []]);
  });

  test("a failure: exit code 1, hooks have run, and its cause is told, too", async () => {
    const program = new Program("fixtures/main.ts", ["failure"]);
    const lines = ["consumer: Error: connection lost"];
    expect(await end(program)).toEqual([1, ["ready", "cleaned up", "over 1"], lines]);
    expect(program.stderr).toContain("[cause]: Error: host is down");
  });

  test("errors that nobody caught, also in a hook: exit code 1, hooks have run, each is told", async () => {
    const lines = ["first", "second", "third"].map((text) => `uncaught-errors: PanicError: Panicked with Error: ${text}`);
    expect(await end(new Program("fixtures/main.ts", ["uncaught"]))).toEqual([1, ["ready", "cleaned up", "over 1"], lines]);
  });

  test("a setup that fails: exit code 1, hooks have run", async () => {
    const lines = ["setup: Error: no configuration"];
    expect(await end(new Program("fixtures/main.ts", ["setup"]))).toEqual([1, ["ready", "cleaned up", "over 1"], lines]);
  });

  test("a second signal: exit code 128 + n, and what was still running", async () => {
    const program = new Program("fixtures/main.ts", ["hangs"]);
    await program.line("ready");
    program.send("SIGTERM");
    program.send("SIGINT");
    await program.line("still there");
    program.send("SIGINT");
    const lines = ["Ended by a second signal, SIGINT, while still running: deaf"];
    expect(await end(program)).toEqual([130, ["ready", "still there"], lines]);
  });

  test("a leaked handle is named and does not keep the process", async () => {
    const program = new Program("fixtures/main.ts", ["leak", '{"exitTimeout":20}']);
    const lines = ["Still alive 20 ms after the end, because of: TCPServerWrap, Timeout (2)"];
    expect(await end(program)).toEqual([0, ["ready", "cleaned up", "over 0"], lines]);
  });
});
