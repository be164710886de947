import { CleanupTimeoutError, type LifecycleEvent, Manager, PanicError, ShutdownTimeoutError } from "allstop";
import { Health, type HealthStatus } from "allstop/health";
import { Metrics } from "allstop/metrics";
import { RestartTask } from "allstop/restart";
import { describe, expect, test } from "vitest";
import { useFakeTime } from "./support/fake-time.ts";
import { Meter, onPage, values } from "./support/metrics.ts";
import { parsePrometheus } from "./support/prometheus.ts";
import { thrownBy } from "./support/thrown-by.ts";
import {
  actionFailed,
  ended,
  gaveUp,
  restarted,
  restarting,
  serviceFailed,
  started,
  stopped,
  stopping,
} from "./support/told.ts";
import { throwing } from "./support/ways.ts";

const ERROR = new Error("connection lost");
const PANIC = new PanicError("oops");

/** What a task may be called, too. */
const NAMES = [
  ...["", "__proto__", "constructor", "a b", "{}", "a=b,c", "é😀", "\r\t", "#"],
  ...['a"b', '""', "a\\b", "\\\\", "a\nb", "\n\n", "a\\nb", 'a\\"', "a\\"],
];

function observing(...events: LifecycleEvent[]): Metrics {
  const metrics = new Metrics();
  for (const event of events) metrics.observe(event);
  return metrics;
}

function timedOut(manager: string, ...pending: string[]): Extract<LifecycleEvent, { type: "shutdown-timed-out" }> {
  return { type: "shutdown-timed-out", manager, pending, error: new ShutdownTimeoutError(1, pending) };
}

function healthy(component: string, to: HealthStatus): LifecycleEvent {
  return { type: "health-changed", component, from: "starting", to };
}

describe("The page", () => {
  test("has HELP, of one short line, and TYPE of each family, from the start on, in one order", () => {
    const families = [...parsePrometheus(new Metrics().render())];
    expect(families.map(([name, { type }]) => [name, type])).toEqual([
      ["allstop_tasks_running", "gauge"],
      ["allstop_tasks", "gauge"],
      ["allstop_task_status", "gauge"],
      ["allstop_task_started_total", "counter"],
      ["allstop_task_ended_total", "counter"],
      ["allstop_task_restarts_total", "counter"],
      ["allstop_task_restart_count", "gauge"],
      ["allstop_task_panics_total", "counter"],
      ["allstop_restart_limit_exceeded_total", "counter"],
      ["allstop_shutdown_timeouts_total", "counter"],
      ["allstop_shutdown_duration_seconds", "gauge"],
      ["allstop_health_status", "gauge"],
    ]);
    for (const [, { help }] of families) expect(help).toMatch(/^[-\w ,.]{4,60}$/);
  });

  test("has at the start only the statuses of tasks, and the count of timeouts, all 0", () => {
    const lines = new Metrics().render().split("\n");
    expect(lines.filter((line) => line && !line.startsWith("#")).sort()).toEqual([
      "allstop_shutdown_timeouts_total 0",
      'allstop_tasks{status="restarting"} 0',
      'allstop_tasks{status="running"} 0',
      'allstop_tasks{status="stopped"} 0',
    ]);
  });

  test("is of the content type 0.0.4", () => {
    expect(new Metrics().contentType).toBe("text/plain; version=0.0.4; charset=utf-8");
  });

  test("has the prefix before every name, `allstop` by default", () => {
    for (const prefix of [undefined, "shop", "_", ":", "a1:_B", "Z"]) {
      const metrics = new Metrics({ prefix });
      metrics.observe(started("x"));
      const names = [...parsePrometheus(metrics.render()).keys()];
      expect(names).toHaveLength(12);
      for (const name of names) expect(name.startsWith(`${prefix ?? "allstop"}_`)).toBe(true);
    }
  });

  const notNames = ["", "1a", "a-b", "a b", "é", "a\n", "\na", "a{", "a.b"];
  test.each(notNames)("refuses a prefix that is no metric name: %j", (prefix) => {
    const message = `Cannot create Metrics: prefix must be a metric name, got ${JSON.stringify(prefix)}`;
    expect(thrownBy(() => new Metrics({ prefix }))).toEqual(new RangeError(message));
  });

  test.each([[1], [null], [{}], [["a"]], [true]])("refuses a prefix of another type: %j", (prefix) => {
    const error = thrownBy(() => new Metrics({ prefix: prefix as never }));
    expect(error).toBeInstanceOf(TypeError);
    const rule = /^Cannot create Metrics: prefix must be a string, got /;
    expect(error).toMatchObject({ message: expect.stringMatching(rule) });
  });

  test.each(NAMES)("escapes the values of labels: %j", (name) => {
    const metrics = observing(started(name), ended(name), healthy(name, "healthy"));
    expect(values(metrics, "tasks_running")).toStrictEqual(Object.fromEntries([[name, 0]]));
    expect(values(metrics, "health_status")).toStrictEqual(Object.fromEntries([[name, 1]]));
    const [sample] = parsePrometheus(metrics.render()).get("allstop_task_ended_total")?.samples ?? [];
    expect(sample).toEqual({ labels: { task: name, outcome: "returned" }, value: 1 });
  });

  test("keeps all names apart, whatever is in them", () => {
    const metrics = observing(...NAMES.map((name) => started(name)), ...NAMES.slice(1).map((name) => ended(name)));
    expect(values(metrics, "tasks_running")).toEqual(Object.fromEntries(NAMES.map((name) => [name, name ? 0 : 1])));
    expect(values(metrics, "tasks")).toEqual({ running: 1, stopped: NAMES.length - 1, restarting: 0 });
    for (const event of [started("x"), ended("")]) metrics.observe(event);
    expect(values(metrics, "tasks_running")).toMatchObject({ "": 0, x: 1 });
  });
});

describe("`observe`", () => {
  test("is bound, and returns nothing", () => {
    const metrics = new Metrics();
    const { observe } = metrics;
    expect(observe(started("x"))).toBe(undefined);
    expect(values(metrics, "tasks_running")).toEqual({ x: 1 });
  });

  test("ignores unknown events, and those of which nothing is counted", () => {
    const before = new Metrics().render();
    const unknown = [
      { type: "unheard-of", task: "x", manager: "y", error: PANIC },
      { type: "__proto__", task: "x" },
      { type: "http-drained", task: "x", requests: 1, destroyed: 1, elapsed: 1 },
      { type: "cleanup-ended", manager: "y", hook: "x", error: PANIC, elapsed: 1 },
      { type: "cleanup-timed-out", manager: "y", pending: ["x"], error: PANIC },
      actionFailed("x", PANIC),
      serviceFailed("x", "y", "run", PANIC),
      { type: "service-state", task: "x", service: "y", from: "stopping", to: "stopped" },
      { type: "stopping", manager: "y", reason: undefined, pending: ["y/x"] },
    ];
    expect(observing(...(unknown as LifecycleEvent[])).render()).toBe(before);
  });

  test("never throws, whatever it is told", () => {
    const name = { get: throwing(ERROR) };
    const hostile = Object.defineProperty(new Error("x"), "name", name);
    const { observe } = observing(started("a/x"), restarting("a/x", 1, 1, ERROR));
    const types = ["task-started", "task-ended", "task-restarting", "task-restarted", "task-healthy", "task-gave-up"];
    types.push("stopping", "shutdown-timed-out", "stopped", "service-state", "health-changed", "health-removed");
    for (const type of types) {
      for (const rest of [{}, { task: "x", manager: "" }, { task: 1, manager: 1, pending: [1], failures: [1] }]) {
        expect(observe({ type, ...rest, error: hostile } as never)).toBe(undefined);
      }
    }
    for (const none of [undefined, null, 1, "task-started", {}, []]) expect(observe(none as never)).toBe(undefined);
  });

  test("counts an end by an error whose name cannot be read", () => {
    const hostile = Object.defineProperty(new Error("x"), "name", { get: throwing(ERROR) });
    const metrics = observing(started("x"), ended("x", hostile));
    expect(values(metrics, "tasks_running")).toEqual({ x: 0 });
    expect(values(metrics, "task_ended_total")).toEqual({ "x failed": 1 });
  });

  test("does not go into itself when a task has the name of its manager", () => {
    const event = { type: "task-started", manager: "a", task: "a", kind: "main" } as const;
    const metrics = observing(event, { ...event, task: "b" }, ended("a"));
    expect(values(metrics, "tasks_running")).toEqual({ a: 0, b: 0 });
  });
});

describe("Tasks", () => {
  test("are counted by name: `_tasks_running`, `_task_started_total`, `_task_ended_total` by outcome", () => {
    const metrics = observing(started("x"), started("x"), started("m/y"), ended("x", "returned"), ended("x", ERROR));
    metrics.observe(started("x"));
    expect(values(metrics, "tasks_running")).toEqual({ x: 1, "m/y": 1 });
    expect(values(metrics, "task_started_total")).toEqual({ x: 3, "m/y": 1 });
    metrics.observe(ended("m/y", "cancelled"));
    metrics.observe(ended("x", "returned"));
    expect(values(metrics, "tasks_running")).toEqual({ x: 0, "m/y": 0 });
    expect(values(metrics, "task_ended_total")).toEqual({ "x returned": 2, "x failed": 1, "m/y cancelled": 1 });
  });

  test("have the status 1 while at least one of the name runs, else 0, and `_tasks` counts names by that", () => {
    const metrics = observing(started("x"), started("x"), started("y"));
    expect([values(metrics, "task_status"), values(metrics, "tasks")]).toEqual([
      { x: 1, y: 1 },
      { running: 2, stopped: 0, restarting: 0 },
    ]);
    metrics.observe(ended("x"));
    metrics.observe(ended("y"));
    expect([values(metrics, "task_status"), values(metrics, "tasks")]).toEqual([
      { x: 1, y: 0 },
      { running: 1, stopped: 1, restarting: 0 },
    ]);
    metrics.observe(ended("x"));
    expect(values(metrics, "tasks")).toEqual({ running: 0, stopped: 2, restarting: 0 });
    metrics.observe(started("y"));
    expect(values(metrics, "tasks")).toEqual({ running: 1, stopped: 1, restarting: 0 });
  });

  test("that were skipped never ran: only their outcome is counted", () => {
    const metrics = observing(started("x", "ephemeral"), ended("x", "skipped"), ended("y", "skipped"));
    expect(values(metrics, "task_ended_total")).toEqual({ "x skipped": 1, "y skipped": 1 });
    expect(values(metrics, "tasks_running")).toEqual({ x: 1 });
    expect(values(metrics, "task_status")).toEqual({ x: 1 });
    expect(values(metrics, "task_started_total")).toEqual({ x: 1 });
    expect(values(metrics, "tasks")).toEqual({ running: 1, stopped: 0, restarting: 0 });
  });

  test("that were started before anybody looked are never below 0", () => {
    const metrics = observing(ended("x"), started("x"), ended("x"), ended("x"));
    expect(values(metrics, "tasks_running")).toEqual({ x: 0 });
    expect(values(metrics, "task_ended_total")).toEqual({ "x returned": 3 });
  });
});

describe("Restarts", () => {
  test("have the status -1 before the restart, 1 after it, and the task runs on all the time", () => {
    const metrics = observing(started("x"), restarting("x", 1, 10, ERROR));
    expect(values(metrics, "task_status")).toEqual({ x: -1 });
    expect(values(metrics, "tasks_running")).toEqual({ x: 1 });
    expect(values(metrics, "tasks")).toEqual({ running: 0, stopped: 0, restarting: 1 });
    metrics.observe(restarted("x", 1));
    expect(values(metrics, "task_status")).toEqual({ x: 1 });
    expect(values(metrics, "tasks_running")).toEqual({ x: 1 });
    expect(values(metrics, "tasks")).toEqual({ running: 1, stopped: 0, restarting: 0 });
  });

  test("are counted: `_task_restarts_total`; `_task_restart_count` is the attempt, 0 after `task-healthy`", () => {
    const metrics = observing(started("x"));
    for (const attempt of [1, 2]) {
      metrics.observe(restarting("x", attempt, 10, ERROR));
      metrics.observe(restarted("x", attempt));
      expect(values(metrics, "task_restarts_total")).toEqual({ x: attempt });
      expect(values(metrics, "task_restart_count")).toEqual({ x: attempt });
    }
    metrics.observe({ type: "task-healthy", task: "x" });
    expect(values(metrics, "task_restart_count")).toEqual({ x: 0 });
    metrics.observe(restarting("x", 1, 10, ERROR));
    expect(values(metrics, "task_restart_count")).toEqual({ x: 1 });
    expect(values(metrics, "task_restarts_total")).toEqual({ x: 3 });
  });

  test.each<[string, LifecycleEvent[]]>([
    ["task-ended", [ended("x", "cancelled")]],
    ["the end of its manager", [stopped("")]],
    ["task-gave-up", [gaveUp("x", 1, ERROR)]],
    ["task-gave-up, and then task-ended", [gaveUp("x", 1, ERROR), ended("x", ERROR)]],
  ])("are over with %s: the status is 0", (_, events) => {
    for (const between of [[], [restarted("x", 1)]]) {
      const metrics = observing(started("x"), restarting("x", 1, 10, ERROR), ...between, ...events);
      expect(values(metrics, "task_status")).toEqual({ x: 0 });
      expect(values(metrics, "tasks")).toEqual({ running: 0, stopped: 1, restarting: 0 });
    }
  });

  test("that one of several with a name gave up leave the others running", () => {
    const metrics = observing(started("x"), started("x"), gaveUp("x", 3, ERROR), ended("x", ERROR));
    expect(values(metrics, "tasks_running")).toEqual({ x: 1 });
    expect(values(metrics, "task_status")).toEqual({ x: 1 });
    expect(values(metrics, "restart_limit_exceeded_total")).toEqual({ x: 1 });
  });

  test("of which one of several with a name waits have the status -1 also when another one ends", () => {
    const metrics = observing(started("x"), started("x"), restarting("x", 1, 10, ERROR), ended("x"));
    expect(values(metrics, "task_status")).toEqual({ x: -1 });
  });

  test("are given up once for each `task-gave-up`: `_restart_limit_exceeded_total`", () => {
    const metrics = observing(gaveUp("x", 3, ERROR), gaveUp("x", 3, ERROR), gaveUp("y", 0, ERROR));
    expect(values(metrics, "restart_limit_exceeded_total")).toEqual({ x: 2, y: 1 });
  });

  test("of a task inside a ServiceGroup, whose start is not told, give it a status", () => {
    const service = { type: "service-state", task: "s", service: "x", from: "initialized" } as const;
    const metrics = observing({ ...service, to: "starting" }, restarting("s/x", 1, 10, ERROR));
    expect(values(metrics, "task_status")).toEqual({ "s/x": -1 });
    metrics.observe(restarted("s/x", 1));
    expect(values(metrics, "task_status")).toEqual({ "s/x": 1 });
    expect(values(metrics, "tasks_running")).toEqual({});
    metrics.observe({ ...service, to: "stopping" });
    expect(values(metrics, "task_status")).toEqual({ "s/x": 1 });
    metrics.observe({ ...service, to: "stopped" });
    expect(values(metrics, "task_status")).toEqual({ "s/x": 0 });
  });

  test("that a group of services no longer tells end with the group", () => {
    const service = { type: "service-state", task: "s", service: "x", from: "initialized", to: "starting" } as const;
    for (const last of [restarting("s/x", 1, 10, ERROR), restarted("s/x", 1)]) {
      const metrics = observing(started("s"), service, last, ended("s"));
      expect(values(metrics, "task_status")).toEqual({ s: 0, "s/x": 0 });
    }
  });
});

describe("Panics", () => {
  test.each<[string, LifecycleEvent]>([
    ["task-ended", ended("x", PANIC)],
    ["task-restarting", restarting("x", 1, 1, PANIC)],
    ["task-gave-up", gaveUp("x", 1, PANIC)],
  ])("are the failures that are a PanicError, told by %s", (_, event) => {
    expect(values(observing(started("x"), event, event), "task_panics_total")).toEqual({ x: 2 });
  });

  test("are no other failures", () => {
    const wrapped = new Error("gave up", { cause: PANIC });
    const metrics = observing(ended("x", ERROR), restarting("x", 1, 1, wrapped), gaveUp("x", 1, ERROR), ended("x"));
    expect(values(metrics, "task_panics_total")).toEqual({});
  });

  test.each([0, 1, 2])("are counted once for each run of a task with %i restarts", async (maxRestarts) => {
    const metrics = new Metrics();
    const manager = new Manager({ onEvent: metrics.observe });
    manager.run(new RestartTask({ name: "x", run: () => Promise.reject("oops") }, { maxRestarts, delay: 0 }));
    await manager.wait().catch(() => {});
    expect(values(metrics, "task_panics_total")).toEqual({ x: maxRestarts + 1 });
    expect(values(metrics, "task_status")).toEqual({ x: 0 });
  });

  test("are counted once for a run that the policy does not restart", async () => {
    for (const policy of ["never", () => false] as const) {
      const metrics = new Metrics();
      const manager = new Manager({ onEvent: metrics.observe });
      manager.run(new RestartTask({ name: "x", run: () => Promise.reject("oops") }, { policy }));
      await manager.wait().catch(() => {});
      expect(values(metrics, "task_panics_total")).toEqual({ x: 1 });
    }
  });
});

describe("Shutdowns", () => {
  test("that timed out are counted, with any name of a manager", () => {
    const metrics = observing(timedOut("", "x"), timedOut("m", "m/x"), timedOut("m", "m/x"));
    expect(values(metrics, "shutdown_timeouts_total")).toEqual({ "": 3 });
  });

  test("have a duration once a manager has stopped: of the last one, in seconds", () => {
    const metrics = new Metrics();
    for (const elapsed of [1_500, 0, 12.5]) {
      metrics.observe({ type: "stopped", manager: "", failures: [], elapsed });
      expect(values(metrics, "shutdown_duration_seconds")).toEqual({ "": elapsed / 1_000 });
    }
  });
});

describe("Health", () => {
  test("is 1 healthy, 0.5 degraded, 0 starting, -1 unhealthy", () => {
    const metrics = new Metrics();
    for (const [status, value] of Object.entries({ healthy: 1, degraded: 0.5, starting: 0, unhealthy: -1 })) {
      metrics.observe(healthy("db", status as HealthStatus));
      expect(values(metrics, "health_status")).toEqual({ db: value });
    }
  });

  test("of a component that was taken out has no series any more, until it comes again", () => {
    const metrics = new Metrics();
    const health = new Health({ onEvent: metrics.observe });
    const db = health.component("db");
    health.component("mail").report("degraded");
    db.report("healthy");
    expect(values(metrics, "health_status")).toEqual({ db: 1, mail: 0.5 });
    db[Symbol.dispose]();
    expect(values(metrics, "health_status")).toEqual({ mail: 0.5 });
    health.component("db").report("unhealthy");
    expect(values(metrics, "health_status")).toEqual({ db: -1, mail: 0.5 });
    metrics.observe({ type: "health-removed", component: "unheard-of" });
    expect(values(metrics, "health_status")).toEqual({ db: -1, mail: 0.5 });
  });
});

describe("A task that never ended", () => {
  test.each<[string, LifecycleEvent[]]>([
    ["as a manager tells it", [stopping("", 0, "x"), timedOut("", "x")]],
    ["without a timeout", [stopping("", 0, "x")]],
    ["without a stop", []],
    ["without a stop, but with a timeout", [timedOut("", "x")]],
  ])("counts as stopped once its manager has stopped, and not before: %s", (_, events) => {
    const metrics = observing(started("x"), ...events);
    expect(values(metrics, "tasks_running")).toEqual({ x: 1 });
    metrics.observe(stopped(""));
    expect([values(metrics, "tasks_running"), values(metrics, "task_status")]).toEqual([{ x: 0 }, { x: 0 }]);
    expect(values(metrics, "task_ended_total")).toEqual({});
  });

  test("does not take with it those of another manager, nor of another one of the same name", () => {
    for (const manager of ["", "m"]) {
      const name = (task: string): string => (manager ? `${manager}/${task}` : task);
      const metrics = observing(started(name("x")), started(name("x")), started(name("y")), started("other/x"));
      metrics.observe(stopping(manager, 0, name("x")));
      metrics.observe(timedOut(manager, name("x")));
      metrics.observe(stopped(manager));
      expect(values(metrics, "tasks_running")).toEqual({ [name("x")]: 1, [name("y")]: 1, "other/x": 1 });
    }
  });

  test("is the one that its manager names, also if meanwhile one of its name has ended that another one runs", () => {
    const timeout = timedOut("", "x");
    const metrics = observing(started("x"), started("x"), stopping("", 0, "x"), ended("x"), timeout);
    metrics.observe(stopped("", { source: "shutdown", error: timeout.error }));
    expect(values(metrics, "tasks_running")).toEqual({ x: 0 });
  });

  test("ends with its own manager, while another one of the name still waits for its tasks", () => {
    const timeout = timedOut("", "x");
    const metrics = observing(started("x"), started("y"), stopping("", 0, "x"), stopping("", 0, "y"), timeout);
    metrics.observe(stopped("", { source: "shutdown", error: timeout.error }));
    expect(values(metrics, "tasks_running")).toEqual({ x: 0, y: 1 });
    metrics.observe(ended("y"));
    metrics.observe(stopped(""));
    expect(values(metrics, "tasks_running")).toEqual({ x: 0, y: 0 });
  });

  test("is none, when a clean stop of another manager of the name comes first", () => {
    const metrics = observing(started("x"), started("y"), stopping("", 0, "x"), stopping("", 0, "y"), ended("y"));
    metrics.observe(stopped(""));
    expect(values(metrics, "tasks_running")).toEqual({ x: 1, y: 0 });
  });

  test("is none of a next manager of the name", () => {
    const first = [started("x"), started("x"), stopping("", 0, "x", "x", "q"), ended("q", "skipped"), stopped("")];
    const metrics = observing(...first, started("x"), started("q"), stopping("", 0), stopped(""));
    expect(values(metrics, "tasks_running")).toEqual({ x: 1, q: 1 });
  });

  test("is not one whose end was told, be it skipped", () => {
    const metrics = observing(started("x"), stopping("", 0, "x", "x"), ended("x", "skipped"), ended("x"), started("x"));
    metrics.observe(stopped(""));
    expect(values(metrics, "tasks_running")).toEqual({ x: 1 });
  });

  test("takes what is below it with it, and so does one that ended", () => {
    for (const end of [[ended("g")], [stopping("", 0, "g"), timedOut("", "g"), stopped("")], [stopped("")]]) {
      const metrics = observing(started("g"), started("g/x"), started("g/h"), started("g/h/y"), started("gg/x"));
      metrics.observe(restarting("g/x", 1, 1, ERROR));
      for (const event of end) metrics.observe(event);
      expect(values(metrics, "tasks_running")).toEqual({ g: 0, "g/x": 0, "g/h": 0, "g/h/y": 0, "gg/x": 1 });
      expect(values(metrics, "tasks")).toEqual({ running: 1, stopped: 4, restarting: 0 });
    }
  });

  test("takes with it only what is told to be below it: a slash in the name of a task is no group", () => {
    const named = { type: "task-started", manager: "", task: "g/x", kind: "main" } as const;
    expect(values(observing(started("g"), named, ended("g")), "tasks_running")).toEqual({ g: 0, "g/x": 1 });
  });

  test("takes nothing with it while another one of its name runs", () => {
    const metrics = observing(started("g"), started("g"), started("g/x"), ended("g"));
    expect(values(metrics, "tasks_running")).toEqual({ g: 1, "g/x": 1 });
    metrics.observe(ended("g"));
    expect(values(metrics, "tasks_running")).toEqual({ g: 0, "g/x": 0 });
  });

  test("leaves nothing of a group that was given up for the next one of its name", () => {
    for (const pending of [[], ["g/x"]]) {
      const metrics = observing(started("g"), started("g/x"), stopping("g", 0, "g/x"), ended("g"));
      const next = [started("g"), started("g/x"), stopping("g", 0, ...pending), stopped("g")];
      for (const event of next) metrics.observe(event);
      expect(values(metrics, "tasks_running")).toEqual({ g: 1, "g/x": 1 - pending.length });
    }
  });

  test("may be called `shutdown`, and fail", () => {
    const metrics = observing(started("shutdown"), started("x"), started("y"), stopping("", 0, "shutdown", "y"));
    metrics.observe(ended("shutdown", ERROR));
    metrics.observe(stopped("", { source: "shutdown", error: ERROR }));
    expect(values(metrics, "tasks_running")).toEqual({ shutdown: 0, x: 1, y: 0 });
  });

  test("is not one with the name of a hook that hangs", () => {
    const metrics = observing(started("x"), started("y"), stopping("", 0, "y"), ended("y"));
    metrics.observe(stopped("", { source: "cleanup", error: new CleanupTimeoutError(1, ["x"]) }));
    expect(values(metrics, "tasks_running")).toEqual({ x: 1, y: 0 });
  });
});

describe("`record`", () => {
  useFakeTime();

  const EVENTS = [
    started("m/x"),
    started("y"),
    ended("y", PANIC),
    restarting("m/x", 2, 1, ERROR),
    gaveUp("z", 1, ERROR),
    timedOut("m", "m/x"),
    stopped("m"),
    healthy("db", "degraded"),
    ...NAMES.map((name) => started(name)),
  ];

  test("makes an instrument for each family, with its HELP as description", () => {
    const [metrics, meter] = [new Metrics({ prefix: "shop" }), new Meter()];
    metrics.record(meter);
    const families = [...parsePrometheus(metrics.render())].map(([name, { help }]) => [name, help]);
    expect([...meter.descriptions]).toEqual(families);
  });

  test("tells the same names, attributes and values as the page, whenever it is collected", () => {
    const [metrics, meter] = [new Metrics(), new Meter()];
    expect(metrics.record(meter)).toBe(undefined);
    expect(meter.collect()).toEqual(onPage(metrics));
    for (const event of EVENTS) {
      metrics.observe(event);
      expect(meter.collect()).toEqual(onPage(metrics));
    }
    metrics.observe({ type: "health-removed", component: "db" });
    expect(meter.collect()).toEqual(onPage(metrics));
    expect(meter.collect().filter(([, name]) => name.endsWith("health_status"))).toEqual([]);
  });

  test("may be called late, and for several meters", () => {
    const [metrics, first, second] = [observing(...EVENTS), new Meter(), new Meter()];
    metrics.record(first);
    metrics.observe(started("late"));
    metrics.record(second);
    expect(first.collect()).toEqual(onPage(metrics));
    expect(second.collect()).toEqual(onPage(metrics));
  });

  test.each([
    ["nothing", undefined],
    ["null", null],
    ["an empty object", {}],
    ["only counters", { createObservableCounter: new Meter().createObservableCounter }],
    ["only gauges", { createObservableGauge: () => ({ addCallback() {} }) }],
    ["what are no functions", { createObservableCounter: 1, createObservableGauge: 1 }],
  ])("refuses a meter that is %s", (_, meter) => {
    const error = thrownBy(() => new Metrics().record(meter as never));
    expect(error).toBeInstanceOf(TypeError);
    const rule = /^Cannot record metrics: createObservable(Counter|Gauge) must be a function, got /;
    expect(error).toMatchObject({ message: expect.stringMatching(rule) });
  });
});
