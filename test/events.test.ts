import { Console, type ConsoleConstructorOptions } from "node:console";
import { Writable } from "node:stream";
import {
  CleanupError,
  CleanupTimeoutError,
  type LifecycleEvent,
  type Logger,
  logEvents,
  Manager,
  type ManagerOptions,
  ShutdownTimeoutError,
  StopReason,
} from "allstop";
import type { HealthStatus } from "allstop/health";
import { ControlledTask, EventLog } from "allstop/testing";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { useNoUnhandledRejections } from "./support/process-events.ts";
import { settle } from "./support/settle.ts";
import { stubborn } from "./support/stubborn.ts";
import { hangs, throwing } from "./support/ways.ts";

useNoUnhandledRejections();

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

/** A line of a log: the level, the message, the fields. */
type Line = [level: string, message: string, fields: object];

/** A logger that is lost without its `this`, and notes what it is told. */
class NotingLogger implements Logger {
  readonly lines: Line[] = [];

  debug(message: string, fields: object): void {
    this.lines.push(["debug", message, fields]);
  }

  info(message: string, fields: object): void {
    this.lines.push(["info", message, fields]);
  }

  warn(message: string, fields: object): void {
    this.lines.push(["warn", message, fields]);
  }

  error(message: string, fields: object): void {
    this.lines.push(["error", message, fields]);
  }
}

/** What becomes of one event, of any shape. */
function lineOf(event: object): Line {
  const logger = new NotingLogger();
  logEvents(logger)(Object.freeze(event) as LifecycleEvent);
  expect(logger.lines.length).toBe(1);
  const [line] = logger.lines as [Line];
  // The fields are the event's own: all of them, in order, the very values; any other logger than Node's sees no more.
  const fields = { ...line[2] };
  expect(Reflect.ownKeys(fields)).toEqual(Object.keys(event));
  expect(Object.values(fields).every((value, i) => value === Object.values(event)[i])).toBe(true);
  return line;
}

/** What Node's own console prints for an event; the error output is marked. */
function printed(event: object, options: Partial<ConsoleConstructorOptions> = {}): string {
  let text = "";
  const into = (mark: string): Writable =>
    new Writable({ write: (chunk, _, done) => void ((text += mark + String(chunk)), done()) });
  logEvents(new Console({ stdout: into(""), stderr: into("! "), colorMode: false, ...options }))(event as LifecycleEvent);
  return text;
}

const error = new Error("no");
const elapsed = 5;

describe("logEvents", () => {
  const manager = "api";
  const task = "api/http";
  const ended = { type: "task-ended", manager, task, elapsed } as const;

  test.each<[level: string, message: string, event: LifecycleEvent]>([
    ["info", "task-started api/http", { type: "task-started", manager, task, kind: "main" }],
    ["info", "task-started api/http", { type: "task-started", manager, task, kind: "background" }],
    ["debug", "task-started api/http", { type: "task-started", manager, task, kind: "ephemeral" }],
    ["info", "task-ended api/http returned", { ...ended, kind: "main", outcome: "returned" }],
    ["info", "task-ended api/http cancelled", { ...ended, kind: "background", outcome: "cancelled" }],
    ["debug", "task-ended api/http returned", { ...ended, kind: "ephemeral", outcome: "returned" }],
    ["debug", "task-ended api/http skipped", { ...ended, kind: "ephemeral", outcome: "skipped" }],
    ["error", "task-ended api/http failed", { ...ended, kind: "main", outcome: "failed", error }],
    ["error", "task-ended api/http failed", { ...ended, kind: "ephemeral", outcome: "failed", error }],
    ["info", "stopping api", { type: "stopping", manager, reason: error, pending: [task] }],
    ["info", "stopping", { type: "stopping", manager: "", reason: undefined, pending: [] }],
    ["error", "shutdown-timed-out api", { type: "shutdown-timed-out", manager, pending: [task], error }],
    ["info", "cleanup-ended closeDb", { type: "cleanup-ended", manager, hook: "closeDb", elapsed }],
    ["error", "cleanup-ended closeDb", { type: "cleanup-ended", manager, hook: "closeDb", error, elapsed }],
    ["error", "cleanup-timed-out api", { type: "cleanup-timed-out", manager, pending: ["closeDb"], error }],
    ["info", "stopped api", { type: "stopped", manager, failures: [], elapsed }],
    ["info", "stopped", { type: "stopped", manager: "", failures: [], elapsed }],
    ["error", "stopped api", { type: "stopped", manager, failures: [{ source: task, error }], elapsed }],
  ])("logEvents, at level %s, says: %s (%j)", (level, message, event) => {
    expect(lineOf(event)).toEqual([level, message, event]);
  });

  test.each<[level: string, message: string, event: object]>([
    ["warn", "task-restarting db", { type: "task-restarting", task: "db", attempt: 1, delay: 10 }],
    ["warn", "task-restarting db", { type: "task-restarting", task: "db", attempt: 1, delay: 10, error }],
    ["info", "task-restarted db", { type: "task-restarted", task: "db", attempt: 1 }],
    ["info", "task-gave-up db", { type: "task-gave-up", task: "db", restarts: 3 }],
    ["error", "task-gave-up db", { type: "task-gave-up", task: "db", restarts: 3, error }],
    ["error", "action-failed poll", { type: "action-failed", task: "poll", error }],
    ["info", "not-known-yet sh", { type: "not-known-yet", task: "sh", pid: 7 }],
  ])("logEvents, of a battery's event, at level %s, says: %s (%j)", (level, message, event) => {
    expect(lineOf(event)).toEqual([level, message, event]);
  });

  const services = { task: "api/services", service: "db" } as const;
  const state = { type: "service-state", ...services } as const;
  const serviceFailed = { type: "service-failed", ...services, error } as const;
  const health = { type: "health-changed", component: "db" } as const;

  test.each<[level: string, message: string, event: LifecycleEvent]>([
    ["info", "service-state api/services db initializing", { ...state, from: "pending", to: "initializing" }],
    ["info", "service-state api/services db initialized", { ...state, from: "initializing", to: "initialized" }],
    ["info", "service-state api/services db starting", { ...state, from: "initialized", to: "starting" }],
    ["info", "service-state api/services db running", { ...state, from: "starting", to: "running" }],
    ["info", "service-state api/services db stopping", { ...state, from: "running", to: "stopping" }],
    ["info", "service-state api/services db stopped", { ...state, from: "stopping", to: "stopped" }],
    ["info", "service-state api/services db failed", { ...state, from: "running", to: "failed" }],
    ["error", "service-failed api/services db", { ...serviceFailed, phase: "init" }],
    ["error", "service-failed api/services db", { ...serviceFailed, phase: "run" }],
    ["error", "service-failed api/services db", { ...serviceFailed, phase: "ready" }],
    ["error", "service-failed api/services db", { ...serviceFailed, phase: "stop" }],
    ["error", "service-failed api/services db", { ...serviceFailed, phase: "finalize" }],
    ["info", "health-changed db healthy", { ...health, from: "starting", to: "healthy" }],
    ["warn", "health-changed db unhealthy", { ...health, from: "starting", to: "unhealthy", detail: "no answer" }],
    ["info", "health-removed db", { type: "health-removed", component: "db" }],
    ["info", "http-drained api/http", { type: "http-drained", task: "api/http", requests: 2, destroyed: 1, elapsed: 9 }],
    ["info", "child-started sh", { type: "child-started", task: "sh", pid: 7 }],
    ["info", "child-exited sh", { type: "child-exited", task: "sh", pid: 7, exitCode: 1, signal: null }],
    ["info", "child-stop-timed-out sh", { type: "child-stop-timed-out", task: "sh", pid: 7 }],
    ["info", "upgrade-started upgrade", { type: "upgrade-started", task: "upgrade", pid: 7 }],
    ["info", "upgrade-ready upgrade", { type: "upgrade-ready", task: "upgrade", pid: 7 }],
    ["error", "upgrade-failed upgrade", { type: "upgrade-failed", task: "upgrade", pid: 7, error }],
    ["error", "upgrade-failed upgrade", { type: "upgrade-failed", task: "upgrade", error }],
  ])("logEvents, of services, health and processes, at level %s, says: %s (%j)", (level, message, event) => {
    expect(lineOf(event)).toEqual([level, message, event]);
  });

  test.each<[better: HealthStatus, worse: HealthStatus]>([
    ["healthy", "degraded"],
    ["healthy", "starting"],
    ["healthy", "unhealthy"],
    ["degraded", "starting"],
    ["degraded", "unhealthy"],
    ["starting", "unhealthy"],
  ])("a health that got worse is a warning, one that got better is not: %s and %s", (better, worse) => {
    for (const detail of [undefined, "", "no answer"]) {
      const details = detail === undefined ? {} : { detail };
      const worsened: LifecycleEvent = { ...health, from: better, to: worse, ...details };
      expect(lineOf(worsened)).toEqual(["warn", `health-changed db ${worse}`, worsened]);
      const improved: LifecycleEvent = { ...health, from: worse, to: better, ...details };
      expect(lineOf(improved)).toEqual(["info", `health-changed db ${better}`, improved]);
    }
  });

  test("logEvents, of a health that got worse, warns; else it informs", () => {
    const order = ["healthy", "degraded", "starting", "unhealthy"];
    for (const [i, from] of order.entries()) {
      for (const [j, to] of order.entries()) {
        const event = { type: "health-changed", component: "db", from, to };
        expect(lineOf(event)).toEqual([j > i ? "warn" : "info", `health-changed db ${to}`, event]);
      }
    }
    // Only a health is one.
    const state = { type: "service-state", task: "services", from: "healthy", to: "unhealthy" };
    expect(lineOf(state)[0]).toBe("info");
  });

  test("logEvents, of a type it does not know, writes one line all the same", () => {
    expect(lineOf({ type: "x" }).slice(0, 2)).toEqual(["info", "x"]);
    expect(lineOf({ type: "x", from: "a", to: "b" }).slice(0, 2)).toEqual(["info", "x b"]);
    expect(lineOf({ type: "x", kind: "ephemeral" }).slice(0, 2)).toEqual(["debug", "x"]);
    expect(lineOf({ type: "x", kind: "ephemeral", error }).slice(0, 2)).toEqual(["error", "x"]);
    expect(lineOf({ type: "x", error: undefined, failures: undefined }).slice(0, 2)).toEqual(["info", "x"]);
    expect(lineOf({ type: "x", failures: [{ source: "a", error }] }).slice(0, 2)).toEqual(["error", "x"]);
  });

  test("logEvents says whom it is about, of what it finds: task, component, hook or manager; and how it ended", () => {
    const fields = { manager: "m", hook: "h", component: "c", task: "t", to: "better", outcome: "ended" };
    const { task, component, hook, ...noHook } = fields;
    const { outcome, ...noOutcome } = fields;
    expect(lineOf({ type: "x", ...fields })[1]).toBe("x t ended");
    expect(lineOf({ type: "x", ...noHook, hook, component })[1]).toBe("x c ended");
    expect(lineOf({ type: "x", ...noHook, hook })[1]).toBe("x h ended");
    expect(lineOf({ type: "x", ...noHook })[1]).toBe("x m ended");
    expect(lineOf({ type: "x", ...noOutcome })[1]).toBe("x t better");
    expect(lineOf({ type: "x", ...fields, service: "s" })[1]).toBe("x t s ended");
    expect(lineOf({ type: "x", ...noOutcome, service: "s" })[1]).toBe("x t s better");
    expect([task, outcome]).toEqual(["t", "ended"]);
  });

  test("logEvents asks for the method of the logger each time", () => {
    const logger = new NotingLogger();
    const observe = logEvents(logger);
    const info = vi.spyOn(logger, "info").mockImplementation(() => {});
    const event: LifecycleEvent = { type: "stopping", manager, reason: error, pending: [] };
    observe(event);
    expect(info.mock.calls).toEqual([["stopping api", event]]);
    expect(logger.lines).toEqual([]);
  });

  const logger = { debug() {}, info() {}, warn() {}, error() {} };
  test.each<[what: string, logger: unknown, message: string]>([
    ["no logger", undefined, "logger.debug must be of type function, got undefined"],
    ["null", null, "logger.debug must be of type function, got undefined"],
    ["a string", "console", "logger.debug must be of type function, got undefined"],
    ["one without debug", { ...logger, debug: undefined }, "logger.debug must be of type function, got undefined"],
    ["one without info", { ...logger, info: null }, "logger.info must be of type function, got null"],
    ["one without warn", { ...logger, warn: undefined }, "logger.warn must be of type function, got undefined"],
    ["one without error", { ...logger, error: 0 }, "logger.error must be of type function, got 0"],
    ["one with a level for a method", { ...logger, warn: "warn" }, 'logger.warn must be of type function, got "warn"'],
    ["one with an object for a method", { ...logger, error: {} }, "logger.error must be of type function, got [object Object]"],
  ])("logEvents, given %s, throws a TypeError at once", (_, bad, message) => {
    let thrown: unknown;
    try {
      logEvents(bad as Logger);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(TypeError);
    expect((thrown as Error).message).toBe(`Cannot log events: ${message}`);
  });

  test("logEvents is an onEvent of a Manager", async () => {
    const logger = new NotingLogger();
    const manager = new Manager({ name: "api", limit: 1, onEvent: logEvents(logger) });
    manager.runEphemeral(async function job() {}, new ControlledTask("watch"), async function late() {});
    manager.runBackground(async function feed() {
      await settle();
      throw error;
    });
    manager.cleanup(function closeDb() {});
    await expect(manager.wait()).rejects.toBe(error);
    expect(logger.lines.map(([level, message]) => `${level}: ${message}`)).toEqual([
      "debug: task-started api/job",
      "info: task-started api/feed",
      "debug: task-ended api/job returned",
      "debug: task-started api/watch",
      "error: task-ended api/feed failed",
      "info: stopping api",
      "debug: task-ended api/late skipped",
      "debug: task-ended api/watch returned",
      "info: cleanup-ended closeDb",
      "error: stopped api",
    ]);
  });

  test("a logger that returns a promise that rejects changes nothing", async () => {
    const rejects = (): Promise<never> => Promise.reject(new Error("no"));
    const onEvent = logEvents({ debug: rejects, info: rejects, warn: rejects, error: rejects });
    const manager = new Manager({ onEvent });
    manager.run(async () => {});
    await manager.wait();
    expect(manager.failures).toEqual([]);
  });

  test("a logger that throws changes nothing", async () => {
    const fail = vi.fn(throwing(new Error("the log is full")));
    const logger = { debug: fail, info: fail, warn: fail, error: fail };
    const manager = new Manager({ onEvent: logEvents(logger) });
    const ran: string[] = [];
    manager.run(async () => void ran.push("task"));
    manager.cleanup(() => ran.push("hook"));
    await manager.wait();
    expect(ran).toEqual(["task", "hook"]);
    expect(manager.failures).toEqual([]);
    expect(fail).toHaveBeenCalledTimes(5);
  });

  test("logEvents works with console", async () => {
    const levels = ["debug", "info", "warn", "error"] as const;
    const spies = levels.map((level) => vi.spyOn(console, level).mockImplementation(() => {}));
    try {
      const manager = new Manager({ onEvent: logEvents(console) });
      manager.runEphemeral(async function job() {});
      await manager.wait();
      logEvents(console)({ type: "task-restarting" } as unknown as LifecycleEvent);
      logEvents(console)({ type: "x", error } as unknown as LifecycleEvent);
      expect(spies.map((spy) => spy.mock.calls)).toEqual([
        [
          ["task-started job", { type: "task-started", manager: "", task: "job", kind: "ephemeral" }],
          ["task-ended job returned", expect.objectContaining({ type: "task-ended", elapsed: expect.any(Number) })],
        ],
        [
          ["stopping", { type: "stopping", manager: "", reason: expect.any(StopReason), pending: [] }],
          ["stopped", { type: "stopped", manager: "", failures: [], elapsed: expect.any(Number) }],
        ],
        [["task-restarting", { type: "task-restarting" }]],
        [["x", { type: "x", error }]],
      ]);
    } finally {
      spies.forEach((spy) => spy.mockRestore());
    }
  });

  const stopping = { type: "stopping", manager: "api", reason: new StopReason("api/db"), pending: ["api/http"] };
  const failures = [
    { source: "api/db", error },
    { source: "cleanup", error: new CleanupError([error]) },
  ];
  test.each<[event: object, line: string]>([
    [{ type: "task-started", manager, task, kind: "main" }, "task-started api/http { manager: 'api', kind: 'main' }"],
    [{ type: "task-started", manager: "", task: "http", kind: "main" }, "task-started http { kind: 'main' }"],
    [
      { type: "task-ended", manager, task, kind: "main", outcome: "returned", elapsed: 5.5 },
      "task-ended api/http returned { manager: 'api', kind: 'main', elapsed: 6 }",
    ],
    [stopping, "stopping api { reason: 'AbortError: Stopped by api/db', pending: [ 'api/http' ] }"],
    [{ ...stopping, manager: "", reason: undefined, pending: [] }, "stopping { reason: 'undefined', pending: [] }"],
    [{ ...stopping, reason: Object.create(null), pending: [] }, "stopping api { reason: 'object', pending: [] }"],
    [{ type: "cleanup-ended", manager, hook: "db", elapsed: 0.4 }, "cleanup-ended db { manager: 'api', elapsed: 0 }"],
    [{ type: "stopped", manager, failures: [], elapsed: 3 }, "stopped api { failures: [], elapsed: 3 }"],
    [
      { type: "stopped", manager, failures, elapsed: 3 },
      "! stopped api { failures: [ 'api/db: Error: no', 'cleanup: CleanupError: Cleanup failed' ], elapsed: 3 }",
    ],
    [
      { type: "health-changed", component: "db", from: "healthy", to: "degraded", detail: "no\nanswer" },
      "! health-changed db degraded { from: 'healthy', detail: 'no\\nanswer' }",
    ],
    [{ type: "x" }, "x {}"],
    [{ type: "x", failures: 3, reason: 5, elapsed: "long" }, "x { failures: 3, reason: '5', elapsed: NaN }"],
    [
      { type: "service-state", task: "api/services", service: "db", from: "starting", to: "running" },
      "service-state api/services db running { from: 'starting' }",
    ],
    [
      { ...state, from: "running", to: "failed" },
      "service-state api/services db failed { from: 'running' }",
    ],
    [{ ...health, from: "unhealthy", to: "healthy" }, "health-changed db healthy { from: 'unhealthy' }"],
    [{ type: "health-removed", component: "db" }, "health-removed db {}"],
    [
      { type: "http-drained", task: "api/http", requests: 2, destroyed: 0, elapsed: 51.4 },
      "http-drained api/http { requests: 2, destroyed: 0, elapsed: 51 }",
    ],
    [
      { type: "child-exited", task: "api/sh", pid: 7, exitCode: null, signal: "SIGTERM" },
      "child-exited api/sh { pid: 7, exitCode: null, signal: 'SIGTERM' }",
    ],
    [{ type: "x", a: 1, b: { c: null } }, "x { a: 1, b: { c: null } }"],
  ])("logEvents, with Node's console, prints one line, with what the message does not say: %j", (event, line) => {
    expect(printed(event)).toBe(`${line}\n`);
  });

  test("logEvents, with Node's console, prints one line however long it is", () => {
    const pending = ["a", "b", "c", "d", "e", "f"].map((name) => name.repeat(60));
    const names = pending.map((name) => `'${name}'`).join(", ");
    expect(printed({ ...stopping, reason: 0, pending })).toBe(`stopping api { reason: '0', pending: [ ${names} ] }\n`);
    const many = Array.from({ length: 20 }, () => "w");
    const ws = many.map((name) => `'${name}'`).join(", ");
    expect(printed({ ...stopping, reason: 0, pending: many })).toBe(`stopping api { reason: '0', pending: [ ${ws} ] }\n`);
    expect(printed({ type: "x", a: { b: { c: {} } } })).toBe("x { a: { b: { c: {} } } }\n");
  });

  test("logEvents, with Node's console, prints an error with its stack", () => {
    const text = printed({ type: "shutdown-timed-out", manager, pending: [task], error });
    expect(text).toMatch(/^! shutdown-timed-out api \{\s+pending: \[ 'api\/http' \],\s+error: Error: no\n +at /);
    const failed = printed({ type: "service-failed", ...services, phase: "init", error });
    expect(failed).toMatch(/^! service-failed api\/services db \{\s+phase: 'init',\s+error: Error: no\n +at /);
  });

  test("logEvents, with Node's console, leaves it to the console how to print", () => {
    expect(printed({ type: "x", a: { b: 1 } }, { inspectOptions: { depth: 0 } })).toBe("x { a: [Object] }\n");
    expect(printed({ type: "x", a: 1 }, { colorMode: true })).toBe("x { a: \u001b[33m1\u001b[39m }\n");
  });
});

describe("The events of a Manager", () => {
  const number = expect.any(Number);

  /** A manager, and a log of what it tells. */
  function observed(options: ManagerOptions = {}): { manager: Manager; log: EventLog } {
    const log = new EventLog();
    return { manager: new Manager({ ...options, onEvent: log.observe }), log };
  }

  test("a clean run tells starts, ends, the stop after the end that causes it, hooks, and the end of all", async () => {
    const { manager, log } = observed();
    const [work, feed] = [new ControlledTask("work"), stubborn("feed")];
    manager.run(work);
    manager.runEphemeral(async function job() {});
    manager.runBackground(feed);
    manager.cleanup(function closeDb() {});
    manager.cleanup(() => {});
    const done = manager.wait();
    await settle();
    work.return();
    await feed.aborted;
    const reason = manager.signal.reason;
    feed.fail(reason);
    await done;
    expect(reason).toEqual(new StopReason("work"));
    expect(log.events).toEqual([
      { type: "task-started", manager: "", task: "work", kind: "main" },
      { type: "task-started", manager: "", task: "job", kind: "ephemeral" },
      { type: "task-started", manager: "", task: "feed", kind: "background" },
      { type: "task-ended", manager: "", task: "job", kind: "ephemeral", outcome: "returned", elapsed: number },
      { type: "task-ended", manager: "", task: "work", kind: "main", outcome: "returned", elapsed: number },
      { type: "stopping", manager: "", reason, pending: ["feed"] },
      { type: "task-ended", manager: "", task: "feed", kind: "background", outcome: "cancelled", elapsed: number },
      { type: "cleanup-ended", manager: "", hook: "hook", elapsed: number },
      { type: "cleanup-ended", manager: "", hook: "closeDb", elapsed: number },
      { type: "stopped", manager: "", failures: [], elapsed: number },
    ]);
    expect(log.events.some((event) => "error" in event)).toBe(false);
  });

  test("a run that fails tells each error where it happened, and all failures in the end", async () => {
    const { manager, log } = observed({ name: "api" });
    const first = new Error("first");
    const second = new Error("second");
    manager.run(async function db() {
      throw first;
    });
    const job = stubborn("job");
    manager.runEphemeral(job);
    manager.cleanup(function closeDb() {
      throw error;
    });
    await job.aborted;
    job.fail(second);
    await expect(manager.wait()).rejects.toBe(first);
    const reason = manager.signal.reason;
    expect(reason).toEqual(new StopReason("api/db", first));
    const task = "api/job";
    const failures = [
      { source: "api/db", error: first },
      { source: task, error: second },
      { source: "cleanup", error: new CleanupError([error]) },
    ];
    expect(log.events).toEqual([
      { type: "task-started", manager: "api", task: "api/db", kind: "main" },
      { type: "task-started", manager: "api", task, kind: "ephemeral" },
      {
        type: "task-ended",
        manager: "api",
        task: "api/db",
        kind: "main",
        outcome: "failed",
        error: first,
        elapsed: number,
      },
      { type: "stopping", manager: "api", reason, pending: [task] },
      {
        type: "task-ended",
        manager: "api",
        task,
        kind: "ephemeral",
        outcome: "failed",
        error: second,
        elapsed: number,
      },
      { type: "cleanup-ended", manager: "api", hook: "closeDb", error, elapsed: number },
      { type: "stopped", manager: "api", failures, elapsed: number },
    ]);
    expect(manager.failures).toEqual(failures);
  });

  test("a stop tells its reason, once, and who has not ended", async () => {
    const { manager, log } = observed({ name: "api" });
    const reason = { any: "value" };
    const slow = stubborn("slow");
    manager.run(slow, new ControlledTask("quick"));
    const done = manager.stop(reason);
    void manager.stop(new Error("too late to be the reason"));
    await settle();
    slow.return();
    await done;
    const kind = "main";
    expect(log.events).toEqual([
      { type: "task-started", manager: "api", task: "api/slow", kind },
      { type: "task-started", manager: "api", task: "api/quick", kind },
      { type: "stopping", manager: "api", reason, pending: ["api/slow", "api/quick"] },
      { type: "task-ended", manager: "api", task: "api/quick", kind, outcome: "returned", elapsed: number },
      { type: "task-ended", manager: "api", task: "api/slow", kind, outcome: "returned", elapsed: number },
      { type: "stopped", manager: "api", failures: [], elapsed: number },
    ]);
    expect(log.events[2]).toHaveProperty("reason", reason);
  });

  test("a manager without tasks tells its stop and its end", async () => {
    const { manager, log } = observed();
    await manager.wait();
    expect(log.events).toEqual([
      { type: "stopping", manager: "", reason: new StopReason(), pending: [] },
      { type: "stopped", manager: "", failures: [], elapsed: number },
    ]);
  });

  test("a shutdown that times out tells who was pending, and nothing of them afterwards", async () => {
    const { manager, log } = observed({ name: "api", shutdownTimeout: 100 });
    const slow = stubborn("slow");
    const late = stubborn("late");
    manager.run(slow, late);
    manager.cleanup(function closeDb() {});
    const done = manager.stop();
    vi.advanceTimersByTime(100);
    await expect(done).rejects.toThrow(ShutdownTimeoutError);
    slow.return();
    late.fail(new Error("told to nobody"));
    await settle();
    const pending = ["api/slow", "api/late"];
    const timedOut = new ShutdownTimeoutError(100, pending);
    expect(log.events).toEqual([
      { type: "task-started", manager: "api", task: "api/slow", kind: "main" },
      { type: "task-started", manager: "api", task: "api/late", kind: "main" },
      { type: "stopping", manager: "api", reason: new StopReason(), pending },
      { type: "shutdown-timed-out", manager: "api", pending, error: timedOut },
      { type: "cleanup-ended", manager: "api", hook: "closeDb", elapsed: number },
      { type: "stopped", manager: "api", failures: [{ source: "shutdown", error: timedOut }], elapsed: number },
    ]);
  });

  test("a cleanup that times out tells which hooks were pending, and nothing of them afterwards", async () => {
    const { manager, log } = observed({ name: "api", cleanupTimeout: 100 });
    const late = stubborn();
    manager.cleanup(function neverCloses() {
      return hangs();
    });
    manager.cleanup(function closeDb() {
      return late.run(manager.signal);
    });
    manager.cleanup(function closeFile() {});
    const done = manager.stop();
    await settle();
    vi.advanceTimersByTime(100);
    await expect(done).rejects.toThrow(CleanupTimeoutError);
    late.return();
    await settle();
    const pending = ["closeDb", "neverCloses"];
    const timedOut = new CleanupTimeoutError(100, pending);
    expect(log.events).toEqual([
      { type: "stopping", manager: "api", reason: new StopReason(), pending: [] },
      { type: "cleanup-ended", manager: "api", hook: "closeFile", elapsed: number },
      { type: "cleanup-timed-out", manager: "api", pending, error: timedOut },
      { type: "stopped", manager: "api", failures: [{ source: "cleanup", error: timedOut }], elapsed: number },
    ]);
  });

  test("tasks that wait for a slot are told as skipped, without a start, before those that run end", async () => {
    const { manager, log } = observed({ limit: 1 });
    const kind = "ephemeral";
    manager.runEphemeral(new ControlledTask("first"), async function second() {}, async function third() {});
    await manager.stop();
    expect(log.events).toEqual([
      { type: "task-started", manager: "", task: "first", kind },
      { type: "stopping", manager: "", reason: new StopReason(), pending: ["first", "second", "third"] },
      { type: "task-ended", manager: "", task: "second", kind, outcome: "skipped", elapsed: 0 },
      { type: "task-ended", manager: "", task: "third", kind, outcome: "skipped", elapsed: 0 },
      { type: "task-ended", manager: "", task: "first", kind, outcome: "returned", elapsed: number },
      { type: "stopped", manager: "", failures: [], elapsed: number },
    ]);
  });

  test("`elapsed` is in milliseconds: of a task and a hook since its start, of `stopped` since the stop", async () => {
    const { manager, log } = observed();
    const work = stubborn("work");
    const close = stubborn();
    vi.advanceTimersByTime(1_000);
    manager.run(work);
    manager.cleanup(() => close.run(manager.signal));
    vi.advanceTimersByTime(200);
    const done = manager.stop();
    vi.advanceTimersByTime(30);
    work.return();
    await settle();
    vi.advanceTimersByTime(4);
    close.return();
    await done;
    const told = log.events.filter((event) => "elapsed" in event);
    expect(told.map(({ type, elapsed }) => [type, elapsed])).toEqual([
      ["task-ended", 230],
      ["cleanup-ended", 4],
      ["stopped", 34],
    ]);
  });
});
