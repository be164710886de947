import { type LifecycleEvent, type Logger, logEvents, Manager, OsSignalTask, type Task, type TaskLike } from "allstop";
import { expect, expectTypeOf, test, vi } from "vitest";

// What must not compile is held by the compiler: `npm run check` fails if a @ts-expect-error finds nothing to expect.

test("a task must return a promise", async () => {
  const manager = new Manager();
  const silent = { run(): void {} };
  const tasks: (() => void)[] = [
    // @ts-expect-error A function that returns a value is no task: nobody could tell when it has ended.
    () => manager.run(() => 3),
    // @ts-expect-error Nor is one that returns nothing.
    () => manager.run(() => {}),
    // @ts-expect-error Nor is an object whose run returns nothing.
    () => manager.runEphemeral(silent),
    // @ts-expect-error Nor is one without a run.
    () => manager.run({ start: async () => {} }),
    // @ts-expect-error A promise is no task: it was started by somebody else, and nobody can tell it to stop.
    () => manager.runBackground(Promise.resolve()),
    // @ts-expect-error A task gets one argument, its signal.
    () => manager.run(async (signal: AbortSignal, more: string) => `${signal.aborted}${more}`),
    // @ts-expect-error A name is a string.
    () => manager.run({ name: 5, run: async () => {} }),
  ];
  expect(tasks.length).toBe(7);
  expect(() => tasks[3]?.()).toThrow(TypeError);
  expect(() => tasks[4]?.()).toThrow(TypeError);
  manager.run(...[async () => {}, () => ({ then: () => null as never }), { run: async () => 5 }].slice(0, 1));
  await manager.stop();
});

test("an unknown option, or one of the wrong type, does not compile", () => {
  // @ts-expect-error An unknown option is a type error, and only that.
  expect(() => new Manager({ timeout: 5 })).not.toThrow();
  // @ts-expect-error Durations are milliseconds.
  expect(() => new Manager({ shutdownTimeout: "20s" })).toThrow(TypeError);
  // @ts-expect-error An AbortController is not its signal.
  expect(() => new Manager({ signal: new AbortController() })).toThrow(TypeError);
  // @ts-expect-error A name is an option.
  expect(() => new Manager("api")).toThrow(TypeError);
  // @ts-expect-error One signal is a list of one.
  expect(() => new OsSignalTask({ signals: "SIGINT" })).toThrow(TypeError);
  // @ts-expect-error An unknown option is a type error, and only that.
  using signals = new OsSignalTask({ signals: ["SIGUSR2"], name: "x" });
  expect(signals.name).toBe("os-signal");
  expect(new Manager({ name: undefined, limit: undefined, signal: undefined, onEvent: undefined })).toBeTruthy();
});

test("a hook is a function, and what is read cannot be written", async () => {
  const manager = new Manager();
  // @ts-expect-error A promise is no hook.
  expect(() => manager.cleanup(Promise.resolve())).toThrow(TypeError);
  // @ts-expect-error The signal is read only.
  const { signal }: { signal: undefined } = manager;
  expect(signal).toBeInstanceOf(AbortSignal);
  // @ts-expect-error Pending is read only.
  expect(() => (manager.pending = [])).toThrow(TypeError);
  // @ts-expect-error Failures cannot be added.
  expect(manager.failures.push({ source: "x", error: new Error("x") })).toBe(1);
  expect(manager.failures).toEqual([]);
  await manager.stop();
});

test("a logger has four methods", () => {
  // @ts-expect-error Three of them are missing.
  expect(() => logEvents({ info: () => {} })).toThrow(TypeError);
  expectTypeOf(console).toExtend<Logger>();
});

test("a task is a class, an object or a function, whose result is ignored", async () => {
  class Consumer implements Task {
    async run(signal: AbortSignal): Promise<boolean> {
      return signal.aborted;
    }
  }
  const tasks: TaskLike[] = [new Consumer(), { name: "x", run: async () => 5 }, async () => {}, () => Promise.all([])];
  const manager = new Manager();
  manager.runEphemeral(...tasks);
  await manager.wait();
  expect(manager.failures).toEqual([]);
});

test("an event is known by its type", async () => {
  const seen = vi.fn();
  const onEvent = (event: LifecycleEvent): void => {
    // @ts-expect-error Not every event has a task.
    void event.task;
    if (event.type === "task-ended") {
      expectTypeOf(event.outcome).toEqualTypeOf<"returned" | "failed" | "cancelled" | "skipped">();
      expectTypeOf(event.error).toEqualTypeOf<Error | undefined>();
      seen(event.outcome);
    }
  };
  const manager = new Manager({ onEvent });
  manager.run(async () => {});
  await manager.wait();
  expect(seen.mock.calls).toEqual([["returned"]]);
});
