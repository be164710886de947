import { getEventListeners } from "node:events";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type LifecycleEvent, Manager, PanicError, StopReason, type Task, type TaskLike } from "allstop";
import { TaskAlreadyStartedError } from "allstop";
import { backoff, RestartLimitError, type RestartOptions, RestartTask, type RunEnd } from "allstop/restart";
import { ControlledTask, EventLog } from "allstop/testing";
import { afterEach, describe, expect, test, vi } from "vitest";
import { inRealTime, useFakeTime } from "./support/fake-time.ts";
import { settle } from "./support/settle.ts";
import { thrownBy } from "./support/thrown-by.ts";

const ERROR = new Error("connection lost");
const ABORT = Object.assign(new Error("This operation was aborted"), { name: "AbortError" });
const REASON = new Error("enough");
const OFFSETS = Array.from({ length: 13 }, (_, offset) => offset);

/** What was said of two incarnations that were alive together. Nothing takes it back: no later test here passes. */
const tripped: string[] = [];

/**
 * The task inside of every RestartTask here, and the tripwire. One way to run is for all its runs; of a list, each run
 * takes the next, and those after them go on until they are told to stop.
 */
class Service implements Task {
  readonly name: string;
  runs = 0;
  readonly #ways: TaskLike | readonly TaskLike[];
  #alive = 0;

  constructor(ways: TaskLike | readonly TaskLike[], name = "consumer") {
    this.#ways = ways;
    this.name = name;
  }

  run(signal: AbortSignal): PromiseLike<unknown> {
    this.runs++;
    if (++this.#alive > 1) tripped.push(`${this.#alive} incarnations of ${this.name} were alive together`);
    const over = (): void => void this.#alive--;
    try {
      const run = callWay(this.#nextWay(), signal);
      // Before anyone else can hear of the end.
      if (typeof run?.then === "function") run.then(over, over);
      else over();
      return run;
    } catch (thrown) {
      over();
      throw thrown;
    }
  }

  #nextWay(): TaskLike {
    const way = isList(this.#ways) ? this.#ways[this.runs - 1] : this.#ways;
    // A RestartTask that never lets anyone else through must fail its test, not hang it.
    return way === undefined || this.runs > 60_000 ? untilStopped : way;
  }
}

function isList(ways: TaskLike | readonly TaskLike[]): ways is readonly TaskLike[] {
  return Array.isArray(ways);
}

function callWay(way: TaskLike, signal: AbortSignal): PromiseLike<unknown> {
  return typeof way === "function" ? way(signal) : way.run(signal);
}

async function returns(): Promise<string> {
  return "done";
}

async function fails(): Promise<never> {
  throw ERROR;
}

/** Rejects with the reason of the stop. */
function untilStopped(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
}

/** Runs for so long, whatever its signal says, and then ends in that way. */
function later(milliseconds: number, way: TaskLike): TaskLike {
  return async (signal) => {
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
    return callWay(way, signal);
  };
}

/** A RestartTask that is run by hand, and what is seen of it. */
class Subject {
  static readonly all: Subject[] = [];
  readonly log = new EventLog();
  readonly service: Service;
  readonly task: RestartTask;
  controller = new AbortController();
  end: { readonly value: unknown } | { readonly thrown: unknown } | undefined;

  constructor(ways: TaskLike | readonly TaskLike[], options: RestartOptions = {}) {
    this.service = new Service(ways);
    this.task = new RestartTask(this.service, { onEvent: this.log.observe, ...options });
    Subject.all.push(this);
  }

  run(): void {
    this.end = undefined;
    this.controller = new AbortController();
    this.task.run(this.controller.signal).then(
      (value) => (this.end = { value }),
      (thrown: unknown) => (this.end = { thrown }),
    );
  }

  get thrown(): unknown {
    return this.end && "thrown" in this.end ? this.end.thrown : undefined;
  }

  get types(): string[] {
    return this.log.events.map(({ type }) => type);
  }

  async stop(): Promise<void> {
    this.controller.abort(REASON);
    await settle();
  }
}

function start(...args: ConstructorParameters<typeof Subject>): Subject {
  const subject = new Subject(...args);
  subject.run();
  return subject;
}

/** Lets so much time pass; all that happens meanwhile happens at the end of it. */
async function pass(milliseconds: number): Promise<void> {
  await settle();
  vi.advanceTimersByTime(milliseconds);
  await settle();
}

useFakeTime();
afterEach(async () => {
  await settle();
  expect(tripped).toEqual([]);
  for (const { task, end, controller } of Subject.all.splice(0)) {
    expect(end).toBeDefined();
    expect(task.status).toBe("stopped");
    expect(getEventListeners(controller.signal, "abort")).toEqual([]);
  }
});

test("the tripwire trips when two incarnations are alive together", async () => {
  const service = new Service([new ControlledTask("a", { ignoreAbort: true }), returns, returns]);
  const { signal } = new AbortController();
  void service.run(signal);
  void service.run(signal);
  await settle();
  void service.run(signal);
  expect(tripped.splice(0)).toEqual(Array(2).fill("2 incarnations of consumer were alive together"));
});

const POLICIES = [
  { name: '"on-failure"', policy: "on-failure", restartsAfter: ["failed"] },
  { name: '"always"', policy: "always", restartsAfter: ["returned", "failed"] },
  { name: '"never"', policy: "never", restartsAfter: [] },
  { name: "that is a function", policy: (end: RunEnd) => end.outcome === "returned", restartsAfter: ["returned"] },
  { name: "that is always true", policy: () => true, restartsAfter: ["returned", "failed"] },
] as const;

const NO_PROMISE = new TypeError("Cannot run consumer: it must return a promise, got 5");

/** What ends a run, how the policy and the events are told of it, and what the caller gets if it is passed on. */
const ENDS: readonly { end: string; way: TaskLike; error?: Error; passedOn: Subject["end"] }[] = [
  { end: "returned", way: returns, passedOn: { value: "done" } },
  { end: "failed", way: fails, error: ERROR, passedOn: { thrown: ERROR } },
  { end: "threw synchronously", way: () => raise(ERROR), error: ERROR, passedOn: { thrown: ERROR } },
  { end: "threw a non-Error", way: () => raise("no"), error: new PanicError("no"), passedOn: { thrown: "no" } },
  {
    end: "rejected with a non-Error",
    way: () => Promise.reject(undefined),
    error: new PanicError(undefined),
    passedOn: { thrown: undefined },
  },
  { end: "returned no promise", way: (() => 5) as never, error: NO_PROMISE, passedOn: { thrown: NO_PROMISE } },
  {
    end: "rejected with an AbortError before any stop",
    way: () => Promise.reject(ABORT),
    error: ABORT,
    passedOn: { thrown: ABORT },
  },
  { end: "was cancelled", way: untilStopped, passedOn: { thrown: REASON } },
];

function raise(thrown: unknown): never {
  throw thrown;
}

const MATRIX = POLICIES.flatMap(({ name, policy, restartsAfter }) =>
  ENDS.map(({ end, way, error, passedOn }) => {
    const after: readonly string[] = restartsAfter;
    const cancelled = end === "was cancelled";
    const restarted = !cancelled && after.includes(error ? "failed" : "returned");
    /** What this policy restarts for sure, so that a run can come after it. */
    const before = after.length === 0 ? [] : [after.includes("failed") ? fails : returns];
    return { name, policy, end, way, error, passedOn, cancelled, restarted, before };
  }),
);

describe.each(MATRIX)("policy $name, a run that $end", (row) => {
  const { policy, end, way, error, passedOn, cancelled, restarted, before } = row;
  const told = error && { error };
  const restarting = { type: "task-restarting", task: "consumer", attempt: 1, delay: 1_000, ...told };

  /** It has ended as the run did, and nothing was told of that. */
  function expectPassedOn(subject: Subject, runs: number, types: readonly string[]): void {
    const { service, task } = subject;
    expect(subject.end).toStrictEqual(passedOn);
    if (passedOn && "thrown" in passedOn && error !== NO_PROMISE) expect(subject.thrown).toBe(passedOn.thrown);
    expect([service.runs, task.status, subject.types]).toEqual([runs, "stopped", types]);
    expect(vi.getTimerCount()).toBe(0);
  }

  test(`in the first run: it is ${restarted ? "restarted" : "passed on as it is"}`, async () => {
    const subject = start([way], { policy });
    await settle();
    if (cancelled) await subject.stop();
    if (!restarted) return expectPassedOn(subject, 1, []);
    const { task, service, log } = subject;
    expect(log.events).toStrictEqual([restarting]);
    await pass(999);
    expect([task.status, task.restarts, service.runs]).toEqual(["restarting", 1, 1]);
    await pass(1);
    expect([task.status, task.restarts, service.runs]).toEqual(["running", 1, 2]);
    expect(log.events).toStrictEqual([restarting, { type: "task-restarted", task: "consumer", attempt: 1 }]);
    await subject.stop();
    expect([log.events.length, task.restarts, service.runs]).toEqual([2, 1, 2]);
  });

  const inDelay = restarted ? "the task resolves, and runs nothing" : "there is none";
  // One that the stop has cancelled is as in the first run.
  test.each(cancelled ? [] : [inDelay])("and a stop in the delay: %s", async () => {
    const subject = start([way], { policy });
    await pass(500);
    if (!restarted) return expectPassedOn(subject, 1, []);
    await subject.stop();
    expect(subject.end).toStrictEqual({ value: undefined });
    await pass(100_000);
    expect(subject.log.events).toStrictEqual([restarting]);
    expect([subject.task.status, subject.task.restarts, subject.service.runs]).toEqual(["stopped", 1, 1]);
  });

  test(`at the limit: ${restarted ? "it gives up" : "it is passed on as it is"}`, async () => {
    const subject = start([...before, way], { policy, maxRestarts: before.length });
    const { service, task, log } = subject;
    await pass(1_000);
    if (cancelled) await subject.stop();
    const restartedOnce = before.flatMap(() => ["task-restarting", "task-restarted"]);
    expect(task.restarts).toBe(before.length);
    if (!restarted) return expectPassedOn(subject, 1 + before.length, restartedOnce);
    expect(subject.types).toEqual([...restartedOnce, "task-gave-up"]);
    expect(log.events.at(-1)).toStrictEqual({ type: "task-gave-up", task: "consumer", restarts: 1, ...told });
    expect(subject.thrown).toStrictEqual(new RestartLimitError("consumer", 1, error));
    expect([task.status, service.runs]).toEqual(["stopped", 2]);
  });

  test(`after the healthy time: it is ${restarted ? "restarted as the first one" : "passed on as it is"}`, async () => {
    // What ends at once has no healthy time of its own: there it is that of the run before.
    const atOnce = end === "threw synchronously" || end === "returned no promise";
    const last = atOnce ? [...before.map((each) => later(30_000, each)), way] : [cancelled ? way : later(30_000, way)];
    const subject = start([...before, ...last], { policy, maxRestarts: before.length * last.length });
    const { service, task, log } = subject;
    await pass(1_000);
    await pass(30_000);
    if (last.length > 1) await pass(1_000);
    if (cancelled) await subject.stop();
    const types = before.flatMap(() => ["task-restarting", "task-restarted", "task-healthy"]);
    if (last.length > 1) types.push("task-restarting", "task-restarted");
    const restarts = last.length - 1;
    if (!restarted) {
      expect(task.restarts).toBe(restarts);
      return expectPassedOn(subject, before.length + last.length, types);
    }
    expect(subject.types).toEqual([...types, "task-restarting"]);
    expect(log.events.at(-1)).toStrictEqual({ ...restarting, attempt: restarts + 1 });
    await pass(1_000);
    expect([task.status, task.restarts, service.runs]).toEqual(["running", restarts + 1, restarts + 3]);
    await subject.stop();
  });
});

const ENDED = ENDS.filter(({ end }) => end !== "was cancelled");

describe("The order is policy, limit, `delay`", () => {
  test.each(ENDED)("a policy that is a function is told exactly how a run $end", async ({ way, error }) => {
    const policy = vi.fn(() => false);
    start(way, { policy });
    await settle();
    expect(policy.mock.calls).toStrictEqual([[error ? { outcome: "failed", error } : { outcome: "returned" }]]);
  });

  test("the policy, the `delay`, the events and the `cause` have the error itself, or one and the same PanicError", async () => {
    for (const thrown of [ERROR, ABORT, "no", undefined]) {
      const errors: unknown[] = [];
      const subject = start(() => Promise.reject(thrown), {
        maxRestarts: 1,
        policy: ({ error }) => errors.push(error) > 0,
        delay: (_, error) => errors.push(error),
        onEvent: (event) => "error" in event && errors.push(event.error),
      });
      await settle();
      expect(errors.length).toBe(3);
      expect(new Set(errors).size).toBe(1);
      if (thrown instanceof Error) expect(errors[0]).toBe(thrown);
      await pass(2);
      expect(errors.length).toBe(5);
      expect(new Set([...errors.slice(3), (subject.thrown as Error).cause]).size).toBe(1);
    }
  });

  test("at the limit the policy is asked first, and `delay` is not", async () => {
    const asked: string[] = [];
    const delay = (attempt: number): number => asked.push(`delay ${attempt}`);
    const policy = ({ error }: RunEnd): boolean => asked.push("policy") > 0 && error !== undefined;
    const gaveUp = start(fails, { policy, delay, maxRestarts: 1 });
    await pass(2);
    expect(gaveUp.thrown).toBeInstanceOf(RestartLimitError);
    expect(asked.splice(0)).toEqual(["policy", "delay 1", "policy"]);
    const passedOn = start(returns, { policy, delay, maxRestarts: 0 });
    await settle();
    expect(passedOn.end).toEqual({ value: "done" });
    expect(asked).toEqual(["policy"]);
  });
});

describe("The limit", () => {
  const rows = [0, 1, 3].flatMap((maxRestarts) => [
    { maxRestarts, policy: "on-failure" as const, way: fails, error: ERROR },
    { maxRestarts, policy: "always" as const, way: returns, error: undefined },
  ]);
  test.each(rows)("`maxRestarts: $maxRestarts` is exactly so many restarts, and $policy is limited, too", async (row) => {
    const { maxRestarts, policy, way, error } = row;
    for (const within of [Infinity, 1_000]) {
      const subject = start(way, { maxRestarts, within, policy, delay: 10 });
      for (let i = 0; i < 10; i++) await pass(10);
      expect([subject.service.runs, subject.task.restarts]).toEqual([maxRestarts + 1, maxRestarts]);
      const restarted = Array(maxRestarts).fill(["task-restarting", "task-restarted"]).flat();
      expect(subject.types).toEqual([...restarted, "task-gave-up"]);
      expect(subject.end).toStrictEqual({ thrown: new RestartLimitError("consumer", maxRestarts, error) });
    }
  });

  test("`maxRestarts: Infinity` never gives up", async () => {
    for (const within of [Infinity, 1_000_000]) {
      const subject = start(fails, { maxRestarts: Infinity, within, delay: 0 });
      for (let i = 0; i < 100; i++) await pass(0);
      expect(subject.task.restarts).toBe(101);
      await subject.stop();
    }
  });

  test.each([
    [[0, 400, 999]],
    [[0, 400, 1_000, 1_399]],
    [[0, 400, 1_000, 1_400, 1_999]],
    [[0, 0, 999]],
    [[0, 999, 5_000, 5_000, 5_999]],
  ])("with `within`, at most N in any window of that length, exactly `within` apart is outside: ends at %j", async (ends) => {
    const delays = ends.slice(1).map((time, i) => time - (ends[i] ?? 0));
    const left = [...delays];
    const subject = start(fails, { maxRestarts: 2, within: 1_000, delay: () => left.shift() ?? 0 });
    for (const each of delays) {
      expect(subject.end).toBeUndefined();
      await pass(each);
    }
    expect(subject.thrown).toBeInstanceOf(RestartLimitError);
    expect(subject.types.filter((type) => type === "task-restarting").length).toBe(delays.length);
  });

  test("`within: 0` has no window, so there is no limit but that of no restarts at all", async () => {
    const subject = start(fails, { maxRestarts: 1, within: 0, delay: 0 });
    const none = start(fails, { maxRestarts: 0, within: 0 });
    for (let i = 0; i < 20; i++) await pass(0);
    expect(subject.task.restarts).toBe(21);
    expect(none.thrown).toStrictEqual(new RestartLimitError("consumer", 0, ERROR));
    await subject.stop();
  });

  test("with `within`, a random life keeps the limit in every window, whatever `healthyAfter` resets", async () => {
    let seed = 1;
    const random = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below;
    let gaveUp = 0;
    for (let round = 0; round < 60; round++) {
      const [maxRestarts, within] = [random(4), 1 + random(30)];
      const expected: string[] = [];
      const decisions: number[] = [];
      const way = (): Promise<never> => {
        const now = performance.now();
        const inWindow = decisions.filter((decision) => now - decision < within);
        expected.push(`${inWindow.length < maxRestarts ? "task-restarting" : "task-gave-up"} at ${now}`);
        decisions.push(now);
        return fails();
      };
      const told: string[] = [];
      const subject = start((signal) => callWay(later(random(12), way), signal), {
        maxRestarts,
        within,
        delay: () => random(4),
        healthyAfter: 6,
        onEvent: ({ type }) => /restarting|gave/.test(type) && told.push(`${type} at ${performance.now()}`),
      });
      for (let i = 0; i < 100; i++) await pass(1);
      expect([round, told]).toEqual([round, expected]);
      gaveUp += subject.end ? 1 : 0;
      await subject.stop();
      await pass(20);
    }
    expect(gaveUp).toBeGreaterThan(20);
    expect(gaveUp).toBeLessThan(50);
  });

  test("A run that stays up for `healthyAfter` resets the count once, while it still runs", async () => {
    const subject = start([fails]);
    const never = start([fails], { healthyAfter: Infinity });
    await pass(1_000);
    await pass(29_999);
    expect([subject.task.status, subject.task.restarts]).toEqual(["running", 1]);
    await pass(1);
    expect([subject.task.status, subject.task.restarts]).toEqual(["running", 0]);
    expect(subject.log.events.slice(2)).toStrictEqual([{ type: "task-healthy", task: "consumer" }]);
    await pass(1_000_000);
    expect([subject.types.length, never.types.length, never.task.restarts]).toEqual([3, 2, 1]);
    await subject.stop();
    await never.stop();
  });

  test("A run that nobody observes is healthy in the end as well", async () => {
    const task = new RestartTask(new Service([fails]), { delay: 10, healthyAfter: 100 });
    const controller = new AbortController();
    const run = task.run(controller.signal);
    await pass(10);
    await pass(99);
    expect([task.status, task.restarts]).toEqual(["running", 1]);
    await pass(1);
    expect([task.status, task.restarts]).toEqual(["running", 0]);
    controller.abort();
    await expect(run).rejects.toBe(controller.signal.reason);
  });

  test("`healthyAfter` resets `restarts` and `attempt`, and not the window", async () => {
    const options = { maxRestarts: 2, within: 10_000, delay: 10, healthyAfter: 100 };
    const subject = start([fails, later(200, fails), later(200, fails)], options);
    await pass(10);
    await pass(200);
    await pass(10);
    await pass(200);
    const healthy = ["task-restarting", "task-restarted", "task-healthy"];
    expect(subject.types).toEqual([...healthy, ...healthy, "task-gave-up"]);
    expect(subject.log.events.at(-1)).toEqual({ type: "task-gave-up", task: "consumer", restarts: 0, error: ERROR });
    expect(subject.thrown).toStrictEqual(new RestartLimitError("consumer", 0, ERROR));
  });
});

describe("The delay", () => {
  test("`attempt` is the number of this restart since the last reset, from 1, also for a function that gives the `delay`", async () => {
    const delay = vi.fn((attempt: number) => attempt * 10);
    const options = { policy: "always" as const, maxRestarts: 2, delay, healthyAfter: 100 };
    const subject = start([fails, returns, later(100, fails), returns, fails], options);
    for (const each of [10, 20, 100, 10, 20]) await pass(each);
    expect(delay.mock.calls).toStrictEqual([[1, ERROR], [2, undefined], [1, ERROR], [2, undefined]]);
    const told = subject.log.events.flatMap((event) => ("delay" in event ? [[event.attempt, event.delay]] : []));
    expect(told).toEqual([[1, 10], [2, 20], [1, 10], [2, 20]]);
    expect(subject.thrown).toBeInstanceOf(RestartLimitError);
  });

  test.each([0, () => 0])("A delay of 0 is a macrotask, too", async (delay) => {
    const subject = start([fails], { delay });
    await settle();
    expect([subject.task.status, subject.service.runs, vi.getTimerCount()]).toEqual(["restarting", 1, 1]);
    await pass(0);
    expect([subject.task.status, subject.service.runs]).toEqual(["running", 2]);
    await subject.stop();
  });

  test("a delay of more than 2^31-1 milliseconds is waited for in pieces, and one of `Infinity` until the stop", async () => {
    const longest = 2 ** 31 - 1;
    const subject = start([fails], { delay: 2.5 * longest });
    const forever = start([fails], { delay: Infinity });
    await pass(longest);
    await pass(longest);
    await pass(longest / 2 - 1);
    expect(subject.service.runs).toBe(1);
    await pass(1.5);
    expect(subject.service.runs).toBe(2);
    expect([forever.task.status, forever.service.runs]).toEqual(["restarting", 1]);
    await subject.stop();
    await forever.stop();
    expect(forever.service.runs).toBe(1);
  });

  test("a delay keeps the process alive, and waiting for a healthy run does not", async () => {
    using timers = vi.spyOn(globalThis, "setTimeout");
    const lastKeepsAlive = (): boolean => timers.mock.results.at(-1)?.value.hasRef();
    const failing = new ControlledTask();
    const subject = start([failing]);
    expect(lastKeepsAlive()).toBe(false);
    failing.fail(ERROR);
    await settle();
    expect([subject.task.status, lastKeepsAlive()]).toEqual(["restarting", true]);
    await pass(1_000);
    expect([subject.task.status, lastKeepsAlive()]).toEqual(["running", false]);
    await subject.stop();
  });
});

describe("A `policy` or `delay` that throws makes that very error the failure", () => {
  const cause = new Error("cause");
  const rows = [
    { what: "an error without a cause", thrown: () => new Error("a"), expected: ERROR },
    { what: "an error with a cause", thrown: () => new Error("b", { cause }), expected: cause },
    { what: "an error with a falsy cause", thrown: () => new Error("c", { cause: 0 }), expected: 0 },
    { what: "the error of the run itself", thrown: () => ERROR, expected: undefined },
  ];
  const options = (where: string, thrown: unknown): RestartOptions => ({
    policy: () => where === "delay" || raise(thrown),
    delay: () => raise(thrown),
  });

  function expectFailed(subject: Subject): void {
    expect([subject.task.restarts, subject.service.runs, subject.types]).toEqual([0, 1, []]);
    expect(vi.getTimerCount()).toBe(0);
  }

  describe.each(["policy", "delay"])("a `%s`", (where) => {
    test.each(rows)("that throws $what: the run's error is its `cause`, if it has none", async ({ thrown: make, expected }) => {
      const thrown = make();
      const subject = start(fails, options(where, thrown));
      await settle();
      expect(subject.thrown).toBe(thrown);
      expect(thrown.cause).toBe(expected);
      expectFailed(subject);
    });

    test("that throws after a clean run: there is no `cause`", async () => {
      const thrown = new Error("clean");
      const subject = start(returns, options(where, thrown));
      await settle();
      expect(subject.thrown).toBe(thrown);
      expect(thrown).not.toHaveProperty("cause");
      expectFailed(subject);
    });

    test("that stops the group and throws the reason has not failed: the end of the run is passed on", async () => {
      const subject: Subject = start(fails, {
        policy: () => where === "delay" || stops(),
        delay: stops,
      });
      function stops(): never {
        subject.controller.abort(REASON);
        throw REASON;
      }
      await settle();
      expect(subject.end).toEqual({ thrown: ERROR });
      expect(REASON).not.toHaveProperty("cause");
      expectFailed(subject);
    });

    test("that throws a non-Error: it is a PanicError whose `cause` is the value", async () => {
      const subject = start(fails, options(where, "no"));
      await settle();
      expect(subject.end).toStrictEqual({ thrown: new PanicError("no") });
      expectFailed(subject);
    });
  });

  test.each([
    [-1, new RangeError("Cannot restart consumer: delay must be 0 or more milliseconds, got -1")],
    [-Infinity, new RangeError("Cannot restart consumer: delay must be 0 or more milliseconds, got -Infinity")],
    [NaN, new RangeError("Cannot restart consumer: delay must be 0 or more milliseconds, got NaN")],
    ["5", new TypeError('Cannot restart consumer: delay must be of type number, got "5"')],
    [undefined, new TypeError("Cannot restart consumer: delay must be of type number, got undefined")],
    [Promise.resolve(5), new TypeError("Cannot restart consumer: delay must be of type number, got [object Promise]")],
  ])("so does a delay that is not 0 or more: %s", async (delay, expected) => {
    const subject = start(fails, { delay: () => delay as never });
    await settle();
    expected.cause = ERROR;
    expect(subject.end).toStrictEqual({ thrown: expected });
    expect(subject.thrown).toHaveProperty("cause", ERROR);
    expectFailed(subject);
  });
});

/** So many microtasks after a step (as a number, from 1), or after the timers of a time. */
interface StopsAt {
  readonly step?: number;
  readonly time?: number;
  readonly offset: number;
}

/** A life with all that can happen to a RestartTask, of which each step is noted, with `status` and `restarts` then. */
class Life {
  readonly steps: string[] = [];
  readonly subject: Subject;
  /** What the last run rejected with. */
  thrown: unknown;
  atStop: { readonly steps: number; readonly restarts: number; readonly end: Subject["end"] } | undefined;
  readonly #stopsAt: StopsAt;
  readonly #isDeaf: boolean;

  constructor(isDeaf: boolean, stopsAt: StopsAt) {
    this.#isDeaf = isDeaf;
    this.#stopsAt = stopsAt;
    this.subject = new Subject([this.#way(0), this.#way(600), this.#way(0), this.#way(0)], {
      maxRestarts: 2,
      healthyAfter: 500,
      policy: () => this.#note("policy") > 0,
      delay: () => this.#note("delay") && 100,
      onEvent: ({ type }) => this.#note(type),
    });
  }

  async live(): Promise<void> {
    this.subject.run();
    for (let time = 100; time <= 1_500; time += 100) {
      await settle();
      vi.advanceTimersByTime(100);
      if (time === this.#stopsAt.time) void this.#stop();
    }
    await settle();
  }

  #note(what: string): number {
    const { status, restarts } = this.subject.task;
    const length = this.steps.push(`${what}: ${status} ${restarts}`);
    if (length === this.#stopsAt.step) void this.#stop();
    return length;
  }

  async #stop(): Promise<void> {
    for (let i = 0; i < this.#stopsAt.offset; i++) await null;
    const { task, end, controller } = this.subject;
    this.atStop = { steps: this.steps.length, restarts: task.restarts, end };
    controller.abort(REASON);
  }

  /** Fails after so long; told to stop before that, it rejects with the reason of the stop, unless it is deaf. */
  #way(milliseconds: number): TaskLike {
    return async (signal) => {
      this.#note("run");
      const hears = (): boolean => signal.aborted && !this.#isDeaf;
      await new Promise<void>((resolve) => {
        if (milliseconds === 0 || hears()) return resolve();
        const timer = setTimeout(resolve, milliseconds);
        signal.addEventListener("abort", () => {
          if (!hears()) return;
          clearTimeout(timer);
          resolve();
        });
      });
      throw (this.thrown = hears() ? signal.reason : ERROR);
    };
  }
}

const STEPS = [
  "run: running 0",
  "policy: running 0",
  "delay: running 0",
  "task-restarting: restarting 1",
  "task-restarted: running 1",
  "run: running 1",
  "task-healthy: running 0",
  "policy: running 0",
  "delay: running 0",
  "task-restarting: restarting 1",
  "task-restarted: running 1",
  "run: running 1",
  "policy: running 1",
  "delay: running 1",
  "task-restarting: restarting 2",
  "task-restarted: running 2",
  "run: running 2",
  "policy: running 2",
  "task-gave-up: stopped 2",
];

describe("A life: failed, healthy for a while, failed until it gave up", () => {
  test("State changes before its event is told, and `status` is `running` before `run` is called.", async () => {
    const life = new Life(false, { offset: 0 });
    expect([life.subject.task.status, life.subject.task.restarts]).toEqual(["stopped", 0]);
    await life.live();
    expect(life.steps).toEqual(STEPS);
    expect(life.subject.end).toStrictEqual({ thrown: new RestartLimitError("consumer", 2, ERROR) });
  });

  /** After the stop nothing of the user's was called, counted, reset or told; an end not restarted is passed on. */
  async function expectStopped(life: Life): Promise<void> {
    await life.live();
    const { steps, subject, atStop, thrown } = life;
    const last = steps[(atStop?.steps ?? 0) - 1] ?? "";
    expect(steps).toEqual(STEPS.slice(0, atStop?.steps));
    expect([subject.task.status, subject.task.restarts]).toEqual(["stopped", atStop?.restarts]);
    if (atStop?.end) expect(subject.end).toBe(atStop.end);
    else if (/gave-up/.test(last)) expect(subject.thrown).toBeInstanceOf(RestartLimitError);
    else if (/restart.*:/.test(last)) expect(subject.end).toStrictEqual({ value: undefined });
    else expect(subject.end).toHaveProperty("thrown", thrown);
    if (subject.end && "thrown" in subject.end && !/gave-up/.test(last)) expect(subject.thrown).toBe(thrown);
    expect(vi.getTimerCount()).toBe(0);
  }

  const title = "A stop never counts, resets or restarts, and no event is told after it, at 0 to 12 microtasks after";
  const tasks = [["a task that hears", false], ["one that ignores its signal", true]] as const;
  describe.each(tasks)("%s", (_, isDeaf) => {
    test.each(STEPS.map((step, i) => [i + 1, step] as const))(`${title} step %i, "%s"`, async (step) => {
      for (const offset of OFFSETS) await expectStopped(new Life(isDeaf, { step, offset }));
    });

    test.each(Array.from({ length: 9 }, (_, i) => 100 * (i + 1)))(`${title} the timers of %i ms`, async (time) => {
      for (const offset of OFFSETS) await expectStopped(new Life(isDeaf, { time, offset }));
    });
  });
});

describe("A stop", () => {
  test("before the run: nothing is run or told, and `run` resolves", async () => {
    const [service, log] = [new Service(fails), new EventLog()];
    const task = new RestartTask(service, { onEvent: log.observe });
    const run = task.run(AbortSignal.abort(REASON));
    expect(task.status).toBe("stopped");
    expect(await run).toBe(undefined);
    expect([task.status, task.restarts, service.runs, log.events]).toEqual(["stopped", 0, 0, []]);
  });

  test("by a timer that is due at the same time as the delay's end, or the healthy time, comes before these", async () => {
    for (const [type, milliseconds] of [["task-restarting", 1_000], ["task-restarted", 30_000]] as const) {
      const subject: Subject = new Subject([fails], {
        onEvent(event) {
          subject.log.observe(event);
          if (event.type === type) setTimeout(() => subject.controller.abort(), milliseconds);
        },
      });
      subject.run();
      await pass(1_000);
      await pass(30_000);
      expect(subject.types.at(-1)).toBe(type);
      expect(subject.task.restarts).toBe(1);
    }
  });

});

describe("Never two incarnations", () => {
  test("a stop waits for a run that ignores its signal, and so must whoever runs it again", async () => {
    const deaf = new ControlledTask("deaf", { ignoreAbort: true });
    const subject = start([deaf, fails, fails]);
    await subject.stop();
    await pass(1_000_000);
    await expect(subject.task.run(new AbortController().signal)).rejects.toThrow(TaskAlreadyStartedError);
    expect([subject.end, subject.service.runs, subject.task.status]).toEqual([undefined, 1, "running"]);
    deaf.fail(ERROR);
    await settle();
    expect(subject.thrown).toBe(ERROR);
    subject.run();
    expect(subject.service.runs).toBe(2);
    await subject.stop();
  });

  test("the next starts only after the previous promise settled, however long that takes", async () => {
    const slow = new ControlledTask("slow", { ignoreAbort: true });
    const subject = start([fails, slow, fails], { delay: 0, healthyAfter: 5 });
    await pass(0);
    await pass(1_000_000);
    expect(subject.service.runs).toBe(2);
    slow.fail(ERROR);
    await settle();
    expect(subject.service.runs).toBe(2);
    await pass(0);
    expect(subject.service.runs).toBe(3);
    await subject.stop();
  });

  test("each incarnation gets a signal of its own that follows the task's, with its reason, and no listener is left", async () => {
    const signals: AbortSignal[] = [];
    const keep = (signal: AbortSignal): Promise<never> => (signals.push(signal) < 3 ? fails() : untilStopped(signal));
    const subject = start(keep, { delay: 10 });
    const { signal } = subject.controller;
    const listeners = [getEventListeners(signal, "abort").length];
    for (let i = 0; i < 2; i++) {
      await settle();
      listeners.push(getEventListeners(signal, "abort").length);
      await pass(10);
    }
    expect([...listeners, getEventListeners(signal, "abort").length]).toEqual([1, 1, 1, 1]);
    expect(new Set([...signals, signal]).size).toBe(4);
    expect(signals[2]?.aborted).toBe(false);
    subject.controller.abort(REASON);
    expect(signals[2]?.reason).toBe(REASON);
    await settle();
    expect(subject.thrown).toBe(REASON);
    expect(getEventListeners(signal, "abort").length).toBe(0);
  });
});

describe("May run again after a run has ended", () => {
  test.each([
    ["gave up", fails],
    ["was stopped", untilStopped],
    ["returned", returns],
  ])("that %s, with counts and a window of its own", async (_, last) => {
    for (const within of [Infinity, 1_000_000]) {
      const options = { maxRestarts: 2, within, delay: 10 };
      const subject = start([fails, fails, last, fails, fails, fails], options);
      for (let i = 0; i < 2; i++) await pass(10);
      await subject.stop();
      const { runs } = subject.service;
      expect([runs, subject.task.restarts, subject.task.status]).toEqual([3, 2, "stopped"]);
      const told = subject.types.length;
      subject.run();
      expect([subject.task.restarts, subject.task.status]).toEqual([0, "running"]);
      for (let i = 0; i < 2; i++) await pass(10);
      expect(subject.thrown).toStrictEqual(new RestartLimitError("consumer", 2, ERROR));
      const restarted = ["task-restarting", "task-restarted"];
      expect(subject.types.slice(told)).toEqual([...restarted, ...restarted, "task-gave-up"]);
    }
  });

  test("a second run meanwhile rejects with `TaskAlreadyStartedError`, in a run or a delay, and changes nothing", async () => {
    const subject = start([fails]);
    for (const status of ["restarting", "running"]) {
      await settle();
      expect([subject.task.status, subject.task.restarts]).toEqual([status, 1]);
      for (const signal of [new AbortController().signal, AbortSignal.abort()]) {
        const second = subject.task.run(signal);
        await expect(second).rejects.toStrictEqual(new TaskAlreadyStartedError("consumer"));
      }
      expect([subject.task.status, subject.task.restarts]).toEqual([status, 1]);
      await pass(1_000);
    }
    expect([subject.service.runs, subject.types.length]).toEqual([2, 2]);
    await subject.stop();
  });
});

describe("Under a manager", () => {
  test("events have exactly these fields, and full names; giving up is a failure of the full name, and its cause the last error", async () => {
    const log = new EventLog();
    const manager = new Manager({ name: "api", onEvent: log.observe });
    const task = new RestartTask(new Service([fails, later(500, returns), returns]), {
      policy: "always",
      maxRestarts: 1,
      delay: 100,
      healthyAfter: 400,
    });
    manager.run(task);
    const named = { task: "api/consumer" };
    const managed = { manager: "api", ...named, kind: "main" };
    for (const each of [100, 400, 100, 100]) await pass(each);
    const stopped = manager.wait();
    const error = manager.failures[0]?.error as RestartLimitError;
    expect(log.events).toStrictEqual([
      { type: "task-started", ...managed },
      { type: "task-restarting", ...named, attempt: 1, delay: 100, error: ERROR },
      { type: "task-restarted", ...named, attempt: 1 },
      { type: "task-healthy", ...named },
      { type: "task-restarting", ...named, attempt: 1, delay: 100 },
      { type: "task-restarted", ...named, attempt: 1 },
      { type: "task-gave-up", ...named, restarts: 1 },
      { type: "task-ended", ...managed, outcome: "failed", error, elapsed: 700 },
      { type: "stopping", manager: "api", reason: manager.signal.reason, pending: [] },
    ]);
    expect(error).toStrictEqual(new RestartLimitError("api/consumer", 1));
    expect(manager.failures).toEqual([{ source: "api/consumer", error }]);
    expect(manager.signal.reason).toStrictEqual(new StopReason("api/consumer", error));
    await expect(stopped).rejects.toBe(error);
  });

  test("events go to its own `onEvent`, and then not to the manager's, with the same full names", async () => {
    const [own, log] = [new EventLog(), new EventLog()];
    const manager = new Manager({ name: "api", onEvent: log.observe });
    manager.run(new RestartTask(new Service(fails), { maxRestarts: 1, onEvent: own.observe }));
    await pass(1_000);
    await manager.stop().catch(() => {});
    expect(log.events.map(({ type }) => type)).toEqual(["task-started", "task-ended", "stopping", "stopped"]);
    const task = "api/consumer";
    expect(own.events).toStrictEqual([
      { type: "task-restarting", task, attempt: 1, delay: 1_000, error: ERROR },
      { type: "task-restarted", task, attempt: 1 },
      { type: "task-gave-up", task, restarts: 1, error: ERROR },
    ]);
  });

  test.each([true, false])("what runs inside has the same name and observer: nothing is told twice (own observer: %s)", async (hasOwn) => {
    const [own, log] = [new EventLog(), new EventLog()];
    const manager = new Manager({ name: "api", onEvent: log.observe });
    const inner = new RestartTask(new Service(fails), { maxRestarts: 1, delay: 10 });
    const outer = new RestartTask(inner, { maxRestarts: 1, delay: 20, ...(hasOwn && { onEvent: own.observe }) });
    manager.run(outer);
    for (const each of [10, 20, 10]) await pass(each);
    await manager.stop().catch(() => {});
    const told = (hasOwn ? own : log).events.filter(({ type }) => /restart|gave/.test(type));
    const once = ["task-restarting", "task-restarted", "task-gave-up"];
    expect(told.map(({ type }) => type)).toEqual([...once, ...once.slice(0, 2), ...once, "task-gave-up"]);
    expect(new Set(told.map((event) => "task" in event && event.task))).toEqual(new Set(["api/consumer"]));
    expect(log.events.length).toBe(4 + (hasOwn ? 0 : told.length));
    const innermost = new RestartLimitError("api/consumer", 1, ERROR);
    expect(manager.failures).toEqual([
      { source: "api/consumer", error: new RestartLimitError("api/consumer", 1, innermost) },
    ]);
  });

  /** The only failure of a manager with the name `api` that runs these, and what its observer was told of. */
  async function failureUnderApi(...tasks: TaskLike[]): Promise<[error: unknown, ...told: LifecycleEvent[]]> {
    const log = new EventLog();
    const manager = new Manager({ name: "api", onEvent: log.observe });
    manager.run(...tasks);
    await settle();
    await manager.stop().catch(() => {});
    expect(manager.failures.length).toBe(1);
    return [manager.failures[0]?.error, ...log.events.filter((event) => !("manager" in event))];
  }

  test("run by hand, also behind `AbortSignal.any`, it has its own name and no observer; inside a function, that of the function", async () => {
    const task = new RestartTask(new Service(fails), { maxRestarts: 0 });
    const own = new RestartLimitError("consumer", 0, ERROR);
    await expect(task.run(new AbortController().signal)).rejects.toStrictEqual(own);
    expect(await failureUnderApi((signal) => task.run(AbortSignal.any([signal])))).toStrictEqual([own]);
    const told = { type: "task-gave-up", task: "api/outer", restarts: 0, error: ERROR };
    const outer = (signal: AbortSignal): Promise<unknown> => task.run(signal);
    expect(await failureUnderApi(outer)).toStrictEqual([new RestartLimitError("api/outer", 0, ERROR), told]);
  });

  test("errors have full names, and what is no Error arrives as a PanicError", async () => {
    const running = new RestartTask(new Service([]));
    expect(await failureUnderApi(running, running)).toStrictEqual([new TaskAlreadyStartedError("api/consumer")]);
    const never = { policy: "never" } as const;
    const noPromise = new RestartTask(new Service((() => 5) as never), never);
    const message = "Cannot run api/consumer: it must return a promise, got 5";
    expect(await failureUnderApi(noPromise)).toStrictEqual([new TypeError(message)]);
    const noError = new RestartTask(new Service(() => Promise.reject("no")), never);
    expect(await failureUnderApi(noError)).toStrictEqual([new PanicError("no")]);
    const refused = new RangeError("Cannot restart api/consumer: delay must be 0 or more milliseconds, got -1");
    refused.cause = ERROR;
    const noDelay = new RestartTask(new Service(fails), { delay: () => -1 });
    expect(await failureUnderApi(noDelay)).toStrictEqual([refused]);
  });

  test("what a stopped run rejects with is passed on: the echo of the stop is a clean end (law 11), any other error a failure", async () => {
    const log = new EventLog();
    const manager = new Manager({ onEvent: log.observe });
    const echo = new RestartTask(new Service(untilStopped, "echo"), { policy: "always" });
    const abort = (signal: AbortSignal): Promise<never> => untilStopped(signal).catch(() => Promise.reject(ABORT));
    const aborted = new RestartTask(new Service(abort, "aborted"), { policy: "always" });
    const fail = (signal: AbortSignal): Promise<never> => untilStopped(signal).catch(fails);
    const other = new RestartTask(new Service(fail, "other"), { policy: "always" });
    const waiting = new RestartTask(new Service(returns, "waiting"), { policy: "always" });
    manager.run(echo, aborted, other, waiting);
    await settle();
    const statuses = (): string[] => [echo, aborted, other, waiting].map(({ status }) => status);
    expect(statuses()).toEqual(["running", "running", "running", "restarting"]);
    await manager.stop().catch(() => {});
    const ends = log.events.flatMap((event) => (event.type === "task-ended" ? [`${event.task} ${event.outcome}`] : []));
    expect(ends.sort()).toEqual(["aborted cancelled", "echo cancelled", "other failed", "waiting returned"]);
    expect(manager.failures).toEqual([{ source: "other", error: ERROR }]);
    expect(statuses()).toEqual(Array(4).fill("stopped"));
  });

  test("status is `stopped` when the manager tells of its end, and may be run again then", async () => {
    const seen: unknown[] = [];
    const task: RestartTask = new RestartTask(new Service([fails, returns, returns]), { delay: 0 });
    const manager: Manager = new Manager({
      onEvent: ({ type }) => type === "task-ended" && seen.push(task.status) === 1 && manager.runEphemeral(task),
    });
    manager.runEphemeral(task);
    await pass(0);
    expect(seen).toEqual(["stopped", "stopped"]);
    expect(manager.signal.aborted).toBe(false);
    await manager.stop();
  });

  test("An observer that throws or rejects changes nothing", async () => {
    for (const onEvent of [() => raise(ERROR), fails]) {
      const subject = start(fails, { maxRestarts: 1, onEvent });
      await pass(1_000);
      expect(subject.service.runs).toBe(2);
      expect(subject.end).toStrictEqual({ thrown: new RestartLimitError("consumer", 1, ERROR) });
    }
  });
});

test("Giving up rejects with `RestartLimitError`, whose `cause` is the last error; after a clean last run it is absent", async () => {
  const failed = start([returns, fails], { policy: "always", maxRestarts: 1 });
  const clean = start([fails, returns], { policy: "always", maxRestarts: 1 });
  await pass(1_000);
  for (const error of [failed.thrown, new RestartLimitError("consumer", 1, ERROR)]) {
    expect(error).toBeInstanceOf(RestartLimitError);
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ name: "RestartLimitError", task: "consumer", restarts: 1 });
    expect(error).toHaveProperty("cause", ERROR);
    expect(error).toHaveProperty("message", "Gave up on consumer after 1 restarts");
    expect(Object.keys(error as object).sort()).toEqual(["restarts", "task"]);
  }
  expect(clean.thrown).toStrictEqual(new RestartLimitError("consumer", 1));
  for (const error of [clean.thrown, new RestartLimitError("consumer", 1)]) expect(error).not.toHaveProperty("cause");
});

// The second is long enough to find out if but one number is kept of each restart; the others, if an object is.
test.each([
  [2_500, { maxRestarts: Infinity }],
  [11_000, { maxRestarts: Infinity, within: 60_000 }],
  [2_500, { maxRestarts: 1e9, within: 2 }],
])("5 x %i restarts add nothing to memory: %o", async (restarts, limits) => {
  setFlagsFromString("--expose-gc");
  const gc: () => void = runInNewContext("gc");
  // Until then V8 compiles what is hot, and forgets what the tests before have left.
  const first = 5_000;
  const last = first + 5 * restarts;
  const heap: number[] = [];
  const measure = async (): Promise<void> => {
    for (let i = 0; i < 2; i++) {
      await new Promise((resolve) => setImmediate(resolve));
      gc();
    }
    heap.push(process.memoryUsage().heapUsed);
  };
  await inRealTime(async () => {
    const way = async (): Promise<never> => {
      const { runs } = subject.service;
      if (runs < first ? runs % 1_000 === 0 : (runs - first) % restarts === 0) await measure();
      if (runs === last) subject.controller.abort();
      throw ERROR;
    };
    const subject: Subject = new Subject(way, { ...limits, delay: 0, onEvent: undefined });
    subject.run();
    while (!subject.end) await new Promise((resolve) => setTimeout(resolve, 5));
    expect([subject.service.runs, subject.thrown]).toEqual([last, ERROR]);
  });
  // What is kept of each grows all the time; what V8 takes, or gives back, for itself does so now and then.
  const growth = heap.slice(-5).map((bytes, i) => bytes - (heap.at(i - 6) ?? Number.NaN));
  expect(growth.sort((a, b) => a - b)[2]).toBeLessThan(30_000);
});

describe("Options", () => {
  class Consumer implements Task {
    run = fails;
  }
  test.each([
    ["service", new Service([], "service")],
    ["serve", function serve() {
      return fails();
    }],
    ["Consumer", new Consumer()],
    ["restart", () => fails()],
    ["restart", { run: fails }],
    ["restart", { name: "", run: fails }],
  ])("it has the name of its task: %s", (name, task) => {
    expect(new RestartTask(task)).toHaveProperty("name", name);
  });

  test.each([
    ["are left out", undefined],
    ["are none", {}],
    [
      "are undefined",
      {
        policy: undefined,
        maxRestarts: undefined,
        within: undefined,
        delay: undefined,
        healthyAfter: undefined,
        onEvent: undefined,
      },
    ],
  ])("that %s take their defaults", async (_, options) => {
    const log = new EventLog();
    const manager = new Manager({ onEvent: log.observe });
    const ways = [fails, later(29_999, fails), later(30_000, fails), fails, fails, fails];
    const clean = new RestartTask(new Service(returns, "clean"), options);
    manager.runEphemeral(clean, new RestartTask(new Service(ways), options));
    for (const each of [1_000, 29_999, 1_000, 30_000, 1_000, 1_000, 1_000]) await pass(each);
    const told = log.events.flatMap((event) => {
      if (event.type === "task-restarting") return [`restarting ${event.attempt} in ${event.delay}`];
      return event.type === "task-healthy" || event.type === "task-gave-up" ? [event.type] : [];
    });
    const restarting = [1, 2, 3].map((attempt) => `restarting ${attempt} in 1000`);
    expect(told).toEqual([...restarting.slice(0, 2), "task-healthy", ...restarting, "task-gave-up"]);
    await expect(manager.wait()).rejects.toThrow("Gave up on consumer after 3 restarts");
  });

  const noTasks = [undefined, null, 5, "run", {}, { run: 5 }];
  test.each(noTasks)("what is no task is refused by the constructor: %o", (task) => {
    const shown = task === "run" ? '"run"' : String(task);
    expectRefused(() => new RestartTask(task as never), TypeError, "create a RestartTask: it", shown);
  });

  test.each<Refused>([
    ["policy", 5, "5", TypeError],
    ["policy", null, "null", TypeError],
    ["policy", ["always"], '["always"]', TypeError],
    ["policy", "sometimes", '"sometimes"', RangeError],
    ["policy", "", '""', RangeError],
    ["policy", "constructor", '"constructor"', RangeError],
    ["maxRestarts", -1, "-1", RangeError],
    ["maxRestarts", 1.5, "1.5", RangeError],
    ["maxRestarts", NaN, "NaN", RangeError],
    ["maxRestarts", -Infinity, "-Infinity", RangeError],
    ...["within", "delay", "healthyAfter"].flatMap((option): Refused[] => [
      [option, -1, "-1", RangeError],
      [option, NaN, "NaN", RangeError],
    ]),
    ...["maxRestarts", "within", "delay", "healthyAfter"].flatMap(noNumber),
    ["onEvent", 5, "5", TypeError],
    ["onEvent", null, "null", TypeError],
  ])("`%s: %o` is refused by the constructor", (option, value, shown, Refusal) => {
    expectRefused(() => new RestartTask(fails, { [option]: value }), Refusal, `create a RestartTask: ${option}`, shown);
  });
});

/** An option, a bad value of it, and how its refusal shows that. */
type Refused = [option: string, value: unknown, shown: string, Refusal: ErrorConstructor];

function noNumber(option: string): Refused[] {
  return [
    [option, "5", '"5"', TypeError],
    [option, null, "null", TypeError],
  ];
}

/** `Cannot <action and option> must be <rule>, got <value>`. */
function expectRefused(call: () => unknown, Refusal: ErrorConstructor, what: string, shown: string): void {
  const thrown = thrownBy(call) as Error;
  expect(Object.getPrototypeOf(thrown)).toBe(Refusal.prototype);
  const [before, after] = thrown.message.split(/ must (?:be|have) .+, got /);
  expect([before, after]).toEqual([`Cannot ${what}`, shown]);
}

describe("backoff", () => {
  test.each([
    [undefined, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]],
    [{ base: undefined, factor: undefined, max: undefined, jitter: undefined }, [1_000, 2_000, 4_000]],
    [{ base: 100, factor: 3, max: 1_000 }, [100, 300, 900, 1_000]],
    [{ base: 100, factor: 1 }, [100, 100, 100]],
    [{ base: 100, max: 50 }, [50, 50]],
    [{ base: 0.5, factor: 1.5, max: Infinity }, [0.5, 0.75, 1.125]],
    [{ max: 0 }, [0, 0]],
    [{ base: 0 }, [0, 0]],
  ])("gives `min(max, base * factor ** (attempt - 1)) * (1 - jitter * random)`: %o", (options, delays) => {
    using random = vi.spyOn(Math, "random").mockReturnValue(0);
    const delay = backoff(options);
    expect(delays.map((_, i) => delay(i + 1))).toEqual(delays);
    const almost = 1 - Number.EPSILON / 2;
    for (const [value, part] of [[0.5, 0.75], [almost, 0.5]] as const) {
      random.mockReturnValue(value);
      delays.forEach((each, i) => expect(delay(i + 1)).toBeCloseTo(each * part, 9));
    }
    for (const jitter of [0, 0.2, 1]) {
      delays.forEach((each, i) => expect(backoff({ ...options, jitter })(i + 1)).toBeCloseTo(each * (1 - jitter), 9));
    }
  });

  test("is 0 when `base` is 0, and `max` when it has grown beyond all numbers, also after 5,000 attempts", () => {
    for (const value of [0, 0.999]) {
      using _ = vi.spyOn(Math, "random").mockReturnValue(value);
      expect(backoff({ base: 0 })(5_000)).toBe(0);
      expect(backoff({ base: 0, max: Infinity, factor: Infinity })(2)).toBe(0);
      expect(backoff({ jitter: 0 })(5_000)).toBe(30_000);
      expect(backoff({ max: Infinity })(5_000)).toBe(Infinity);
    }
  });

  test("gives a `delay` that a RestartTask takes, of which each is asked for anew", async () => {
    using random = vi.spyOn(Math, "random").mockReturnValueOnce(0).mockReturnValueOnce(0.5);
    const { log } = start(fails, { maxRestarts: 2, delay: backoff({ base: 100 }) });
    await pass(100);
    await pass(150);
    expect(log.events.flatMap((event) => ("delay" in event ? [event.delay] : []))).toEqual([100, 150]);
    expect(random).toHaveBeenCalledTimes(2);
  });

  test.each<Refused>([
    ["base", -1, "-1", RangeError],
    ["base", NaN, "NaN", RangeError],
    ["max", -1, "-1", RangeError],
    ["max", NaN, "NaN", RangeError],
    ["factor", 0.9, "0.9", RangeError],
    ["factor", NaN, "NaN", RangeError],
    ["jitter", -0.1, "-0.1", RangeError],
    ["jitter", 1.1, "1.1", RangeError],
    ["jitter", NaN, "NaN", RangeError],
    ...["base", "factor", "max", "jitter"].flatMap(noNumber),
  ])("refuses `%s: %o`", (option, value, shown, Refusal) => {
    expectRefused(() => backoff({ [option]: value }), Refusal, `create a backoff: ${option}`, shown);
  });
});
