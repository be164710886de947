import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { runInNewContext } from "node:vm";
import * as allstop from "allstop";
import * as admin from "allstop/admin";
import * as child from "allstop/child";
import * as daemon from "allstop/daemon";
import * as group from "allstop/group";
import * as health from "allstop/health";
import * as http from "allstop/http";
import * as main from "allstop/main";
import * as metrics from "allstop/metrics";
import * as pidFile from "allstop/pid-file";
import * as repeat from "allstop/repeat";
import * as restart from "allstop/restart";
import * as services from "allstop/services";
import * as testing from "allstop/testing";
import * as timeline from "allstop/timeline";
import * as upgrade from "allstop/upgrade";
import { describe, expect, test, vi } from "vitest";
import { bundle } from "./support/bundle.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const read = (path: string): string => readFileSync(`${root}${path}`, "utf8");
const manifest = JSON.parse(read("package.json"));
const files = readdirSync(`${root}src`, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
const rooms = files.filter((file) => !file.startsWith("internal"));
const withoutComments = (source: string): string => source.replace(/\/\*[^]*?\*\/|\/\/.*$/gm, "");
/** The batteries for Node alone, and what only they use. */
const ofNode = [
  "admin.ts",
  "child.ts",
  "daemon.ts",
  "http.ts",
  "main.ts",
  "pid-file.ts",
  "upgrade.ts",
  "internal/admin-page.ts",
  "internal/admin-view.ts",
  "internal/held-file.ts",
  "internal/http-connections.ts",
  "internal/process-group.ts",
  "internal/process-stat.ts",
  "internal/profile.ts",
  "internal/report.ts",
  "internal/respawn.ts",
  "internal/sockets.ts",
];
const sources = files.map((file): [string, string] => [file, withoutComments(read(`src/${file}`))]);

test("the root entry exports these names and no others", () => {
  expect(Object.keys(allstop).sort()).toEqual([
    "CleanupError",
    "CleanupTimeoutError",
    "Manager",
    "ManagerStoppedError",
    "OsSignalTask",
    "PanicError",
    "ShutdownTimeoutError",
    "StopReason",
    "TaskAlreadyStartedError",
    "logEvents",
  ]);
});

test("each subpath exports these names and no others", () => {
  const forNode = { admin, child, daemon, http, main, "pid-file": pidFile, upgrade };
  const batteries = { ...forNode, group, health, metrics, repeat, restart, services, testing, timeline };
  const subpaths = Object.entries(batteries).sort(([a], [b]) => (a < b ? -1 : 1));
  expect(Object.fromEntries(subpaths.map(([name, room]) => [name, Object.keys(room).sort()]))).toEqual({
    admin: ["AdminServerTask"],
    child: ["ChildExitError", "ChildProcessTask"],
    daemon: ["daemonize"],
    group: ["GroupTask"],
    health: ["Health"],
    http: ["HttpServerTask"],
    main: ["UncaughtErrorTask", "runMain"],
    metrics: ["Metrics"],
    "pid-file": ["AlreadyRunningError", "acquirePidFile", "readPidFile"],
    repeat: ["LoopTask", "PollTask", "SignalTriggerTask"],
    restart: ["RestartLimitError", "RestartTask", "backoff"],
    services: ["ServiceGroup", "ServiceTimeoutError"],
    testing: ["ControlledTask", "EventLog"],
    timeline: ["Timeline"],
    upgrade: ["UpgradeTask"],
  });
  expect(Object.keys(manifest.exports)).toEqual([".", ...subpaths.map(([name]) => `./${name}`)]);
});

test("every file of src is a subpath of the package, or re-exported by the root entry", () => {
  const index = read("src/index.ts");
  const subpaths = rooms.filter((file) => file !== "index.ts" && !index.includes(`"./${file}"`));
  const entries = [".", ...subpaths.map((file) => `./${file.replace(".ts", "")}`)];
  expect(Object.keys(manifest.exports)).toEqual(entries);
  for (const [subpath, targets] of Object.entries(manifest.exports)) {
    const name = subpath === "." ? "index" : subpath.slice(2);
    // The order matters: types come first.
    expect(Object.entries(targets as object)).toEqual([
      ["types", `./dist/${name}.d.ts`],
      ["default", `./dist/${name}.js`],
    ]);
    expect(existsSync(`${root}src/${name}.ts`)).toBe(true);
  }
});

test("the root entry only re-exports, and each file of it has a test of its name", () => {
  expect(withoutComments(read("src/index.ts"))).toMatch(/^(\s*export (type )?\{[^}]*\} from "[^"]+";)+\s*$/);
  // The contract has no code: it is held by the type tests.
  for (const room of rooms.filter((file) => !["index.ts", "task.ts"].includes(file))) {
    expect(readdirSync(`${root}test`)).toContain(room.replace(".ts", ".test.ts"));
  }
});

test("nothing at all is needed at run time", () => {
  for (const kind of ["dependencies", "peerDependencies", "optionalDependencies"]) expect(manifest).not.toHaveProperty(kind);
  expect(manifest.sideEffects).toBe(false);
});

test("the root entry needs nothing of Node's: the Manager runs in a realm that has a browser's globals only", async () => {
  const script = await bundle('export * from "allstop"', { format: "iife", globalName: "allstop" });
  const print = vi.fn();
  const browser = { AbortController, performance, setTimeout: () => 5, clearTimeout: () => {}, print };
  await runInNewContext(
    `${Buffer.from(script)}
    const manager = new allstop.Manager({ name: "page", onEvent: (event) => print(event.type) });
    manager.run((signal) => new Promise((resolve) => signal.addEventListener("abort", resolve)));
    manager.cleanup(() => print("hook"));
    try {
      new allstop.OsSignalTask();
    } catch (error) {
      print(error.message);
    }
    manager.stop();`,
    browser,
  );
  expect(print.mock.calls.flat()).toEqual([
    "task-started",
    "Cannot create an OsSignalTask: there is no process with signals",
    "stopping",
    "task-ended",
    "hook",
    "cleanup-ended",
    "stopped",
  ]);
});

test.each([
  ["group", 'new room.GroupTask("group", (manager) => manager.run(async () => ran(), async () => ran()))'],
  ["health", '((task) => (task.component("db", { check: ran, interval: 0 }), task))(new room.Health())'],
  ["metrics", `{ run: async () => ["task-started", "task-ended"].forEach((type) => {
    const metrics = new room.Metrics();
    metrics.observe({ type, manager: "", task: "x", kind: "main", outcome: "returned", elapsed: 1 });
    if (metrics.render().includes('{task="x"')) ran();
  }) }`],
  ["repeat", "new room.LoopTask(ran)"],
  ["repeat", "new room.PollTask(ran, { interval: 1 })"],
  ["restart", 'new room.RestartTask(async () => ran(), { policy: "always", delay: 0 })'],
  ["services", "new room.ServiceGroup([{ init: ran, run: async () => ran() }])"],
  ["timeline", `{ run: async () => ["task-started", "stopping"].forEach((type) => {
    const timeline = new room.Timeline();
    timeline.observe({ type, manager: "", task: "x", kind: "main", pending: [] });
    if (timeline.toText() && timeline.toTrace()) ran();
  }) }`],
  ["testing", "{ run: async (signal) => void (ran(), ran(), await new room.ControlledTask().run(signal)) }"],
])("allstop/%s needs nothing of Node's either: a realm with a browser's globals only runs %s", async (name, task) => {
  const script = await bundle(`export * from "allstop/${name}"`, { format: "iife", globalName: "room" });
  const controller = new AbortController();
  const ran = vi.fn(() => void (ran.mock.calls.length === 2 && controller.abort()));
  const browser = { AbortController, performance, setTimeout, clearTimeout, signal: controller.signal, ran };
  await runInNewContext(`${Buffer.from(script)}; (${task}).run(signal)`, browser);
  expect(ran).toHaveBeenCalledTimes(2);
});

describe("each file of src", () => {
  test.each(sources)("%s imports only what is there, and nothing of Node's unless it is for Node", (file, source) => {
    for (const [, path = ""] of source.matchAll(/^(?:import|export)[^"]* from "([^"]+)";/gm)) {
      if (ofNode.includes(file) && path.startsWith("node:")) continue;
      expect(ofNode.includes(file) ? [] : ofNode).not.toContain(path.replace(/^.*\/(?=internal)|^\.\//, ""));
      expect(path).toMatch(/^\.\.?\/.*\.ts$/);
      expect(existsSync(fileURLToPath(new URL(path, `file://${root}src/${file}`)))).toBe(true);
    }
  });

  test.each(sources)("%s leaves listeners and timers to the one file for them", (file, source) => {
    if (file !== "internal/abort.ts") expect(source).not.toMatch(/(add|remove)EventListener\(/);
    // The page has a script that runs in a browser.
    if (!["internal/time.ts", "internal/admin-page.ts"].includes(file)) {
      expect(source).not.toMatch(/set(Timeout|Interval|Immediate)\(/);
    }
    // The exit code is a program's own, but where running a whole program, or starting one, is what a battery is for.
    if (file !== "main.ts") expect(source).not.toMatch(/process\.exit\(/);
    if (!["main.ts", "daemon.ts"].includes(file)) expect(source).not.toMatch(/process\.exit/);
    expect(source).not.toMatch(/\bany\b[;,)>\]]|@ts-|export default|\benum\b|\bnamespace\b/);
  });
});
