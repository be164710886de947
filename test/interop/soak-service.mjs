/*
 * A service of every battery, in the background, which does as it is told: what a task is to do wrong, it hears by
 * HTTP. All that happens, but for what the churn does, it says as lines of JSON on its standard output; `by` is its
 * process.
 */
import { once } from "node:events";
import {
  appendFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:http";
import { Socket } from "node:net";
import { join } from "node:path";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import pg from "pg";
import { AdminServerTask } from "../../dist/admin.js";
import { ChildProcessTask } from "../../dist/child.js";
import { daemonize } from "../../dist/daemon.js";
import { GroupTask } from "../../dist/group.js";
import { Health } from "../../dist/health.js";
import { HttpServerTask } from "../../dist/http.js";
import { runMain } from "../../dist/main.js";
import { Metrics } from "../../dist/metrics.js";
import { acquirePidFile, AlreadyRunningError } from "../../dist/pid-file.js";
import { LoopTask, PollTask, SignalTriggerTask } from "../../dist/repeat.js";
import { backoff, RestartTask } from "../../dist/restart.js";
import { ServiceGroup } from "../../dist/services.js";
import { Timeline } from "../../dist/timeline.js";
import { UpgradeTask } from "../../dist/upgrade.js";
import { Churn, Fault } from "./soak-churn.mjs";

const { SOAK_FOLDER, SOAK_SEED, SOAK_DRAIN_DELAY } = process.env;
const file = (name) => join(SOAK_FOLDER, name);

/** No limit for what is slow only because the machine is busy. */
const TIMEOUT = 60_000;
const timeouts = { initTimeout: Infinity, readyTimeout: Infinity, stopTimeout: TIMEOUT, shutdownTimeout: TIMEOUT };

const daemon = await daemonize({ stdout: file("events"), stderr: file("errors"), readyTimeout: TIMEOUT });
if (daemon.role === "child") await serve();

function say(event) {
  const show = (_, value) => (value instanceof Error ? [value, ...(value.errors ?? [])].join(", ") : value);
  writeSync(1, `${JSON.stringify({ by: process.pid, ...event }, show)}\n`);
}

async function serve() {
  const upgrade = new UpgradeTask({ signals: ["SIGUSR2"], readyTimeout: TIMEOUT });
  say({ type: "born", parent: upgrade.parentPid ?? null });
  appendFileSync(file("born"), ".");

  // Who hears of events

  const metrics = new Metrics();
  const timeline = new Timeline();
  /** For people: without the churn, which would leave no room for others. */
  const story = new Timeline();
  let pidFile;
  const onEvent = (event) => {
    metrics.observe(event);
    timeline.observe(event);
    if (isOfChurn(event)) return;
    story.observe(event);
    say(event);
    // The new process may have taken the file over before it failed.
    if (event.type === "upgrade-failed") void hold();
  };
  process.on("exit", (code) => {
    writeFileSync(file(`timeline.${process.pid}`), story.toText({ width: 120 }));
    say({ type: "exit", code, metrics: metrics.render() });
  });

  async function hold() {
    try {
      pidFile = await acquirePidFile(file("pid"), { replaces: upgrade.parentPid });
      say({ type: "holds" });
    } catch (error) {
      // It is still that of this process.
      if (!(error instanceof AlreadyRunningError) || error.pid !== process.pid) throw error;
    }
  }

  // Who does wrong when told to

  /** What tasks are told, by the names of those that listen. */
  const listeners = new Map();

  /** Waits until a task is told something, or to stop, which is nothing. */
  async function told(name, signal) {
    const order = await new Promise((resolve) => {
      listeners.set(name, resolve);
      signal.addEventListener("abort", () => resolve());
    });
    listeners.delete(name);
    return order;
  }

  /** What is done wrong later, by what it is, with the number of the order. */
  const later = new Map();

  function failIfTold(what) {
    const id = later.get(what);
    later.delete(what);
    if (id !== undefined) throw new Fault(id);
  }

  /** A hook that says when it is registered and when it runs. */
  function hook(manager, owner, name, close) {
    say({ type: "hook", owner, name });
    manager.cleanup(async function closing() {
      say({ type: "hooked", owner, name });
      await close?.();
    });
  }

  function worker(signal) {
    failIfTold("worker throws");
    return later.delete("worker gives no promise") ? undefined : work(signal);
  }

  async function work(signal) {
    const order = await told("worker", signal);
    if (order?.how === "returns") return;
    if (order?.how === "panics") throw `by design ${order.id}`;
    if (order?.how === "aborts") throw new DOMException(`by design ${order.id}`, "AbortError");
    if (order?.how !== "fails") later.set(`worker ${order?.how}`, order?.id);
    if (order) throw new Fault(order.id);
  }

  const group = new GroupTask("orders", (orders) => {
    hook(orders, "orders", "store");
    hook(orders, "orders", "queue", () => failIfTold("hook"));
    orders.run(async function clerk(signal) {
      const order = await told("orders", signal);
      if (order?.how === "a task and a hook fail") later.set("hook", order.id);
      if (order?.how === "two tasks fail") later.set("packer", order.id);
      if (order && order.how !== "a task returns") throw new Fault(order.id);
    });
    orders.runBackground(async function packer(signal) {
      if (!signal.aborted) await once(signal, "abort");
      failIfTold("packer");
    });
    const act = (what) => async (signal) => {
      failIfTold(what);
      await sleep(5, undefined, { signal });
    };
    orders.run(new LoopTask(act("loop"), { delay: 5, onError: "continue" }));
    orders.run(new PollTask(act("poll"), { interval: 10, onError: "continue" }));
    for (const _ of [1, 2, 3]) orders.runEphemeral({ name: "step", run: () => sleep(1) });
  }, { limit: 1 });
  const orders = {
    name: "orders",
    async run(signal) {
      try {
        await group.run(signal);
      } finally {
        say({ type: "failures", of: "orders", failures: group.failures });
      }
    },
  };

  const reload = new SignalTriggerTask(
    async function reloading() {
      await sleep(5);
      failIfTold("reload");
      say({ type: "reloaded" });
    },
    { name: "reload", onError: "continue" },
  );

  // The database, which may be away

  let pool;
  const health = new Health();
  health.component("database", { check: () => pool.query("SELECT 1"), interval: 50, timeout: TIMEOUT });
  const consumerHealth = health.component("consumer", { dependsOn: ["database"] });

  async function connect(signal) {
    const socket = new Socket({ signal });
    const client = new pg.Client({ stream: () => socket });
    client.on("error", () => {});
    try {
      await client.connect();
      await client.query("CREATE TABLE IF NOT EXISTS beats (time timestamptz)");
    } finally {
      socket.destroy();
    }
  }

  async function consume(signal) {
    for (; !signal.aborted; await sleep(10)) {
      try {
        await pool.query("INSERT INTO beats VALUES (now())");
        consumerHealth.report("healthy");
      } catch (error) {
        consumerHealth.report("unhealthy", error.message);
        if (!signal.aborted) throw error;
      }
    }
  }

  const untiring = { maxRestarts: Infinity, delay: backoff({ base: 10, max: 50 }) };
  const services = new ServiceGroup(
    [
      {
        name: "database",
        async init(signal) {
          failIfTold("init");
          await new RestartTask(connect, untiring).run(signal);
          pool = new pg.Pool({ max: 3, idleTimeoutMillis: 0, connectionTimeoutMillis: TIMEOUT });
          pool.on("connect", (client) => client.on("error", () => {}));
          pool.on("error", () => {});
        },
        async finalize() {
          await pool.end();
          failIfTold("finalize");
        },
      },
      [
        { name: "consumer", run: (signal) => new RestartTask(consume, untiring).run(signal) },
        {
          name: "mailer",
          async run(signal) {
            const order = await told("services", signal);
            if (order) later.set(order.how, order.id);
            if (order && order.how !== "returns") throw new Fault(order.id);
          },
          ready: () => failIfTold("ready"),
        },
      ],
    ],
    { ...timeouts, finalizeTimeout: TIMEOUT },
  );

  const program = ["-c", "sleep 1000000 & wait $!"];
  const child = new ChildProcessTask("sh", program, { name: "child", stdio: "ignore", stopTimeout: TIMEOUT });

  const churn = new Churn({
    // Another one for each process, but the same for the same one of another run.
    seed: Number(SOAK_SEED) + statSync(file("born")).size,
    folder: SOAK_FOLDER,
    observe: onEvent,
    wrong: (what) => say({ type: "wrong", what }),
  });

  // HTTP

  const asked = new Map(Object.entries({
    "/work": ({ id, ms, size }) => sleep(Number(ms), `${id}`.padEnd(Number(size), ".")),
    "/hang-up": ({ ms }) => sleep(Number(ms), "nobody hears"),
    "/tell": ({ task, ...order }, isStopping) => {
      const listener = isStopping ? undefined : listeners.get(task);
      listener?.(order);
      return JSON.stringify({ by: process.pid, isTaken: listener !== undefined });
    },
    "/later": ({ what, id }, isStopping) => {
      if (!isStopping) later.set(what, id);
      return JSON.stringify({ by: process.pid, isTaken: !isStopping });
    },
    "/figures": async () => JSON.stringify(await figures()),
    "/timeline": () => story.toText({ width: 120 }),
  }));
  let isStopping = () => false;
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://soak");
    response.on("close", () => {
      const isCut = !response.writableFinished && pathname !== "/hang-up";
      if (isCut) say({ type: "wrong", what: `the answer to ${request.url} was cut` });
    });
    response.end(await asked.get(pathname)(Object.fromEntries(searchParams), isStopping()));
  });

  async function figures() {
    for (const _ of [1, 2, 3]) {
      globalThis.gc();
      // The dead are found in a later turn.
      await turn();
    }
    const connections = await promisify((callback) => server.getConnections(callback))();
    const resources = {};
    for (const type of process.getActiveResourcesInfo()) resources[type] = (resources[type] ?? 0) + 1;
    return {
      by: process.pid,
      runs: churn.runs,
      heap: process.memoryUsage().heapUsed,
      "objects of the churn": churn.alive,
      "open files": readdirSync("/proc/self/fd").length - connections,
      ...Object.fromEntries(process.eventNames().map((name) => [`listeners for ${name}`, process.listenerCount(name)])),
      ...resources,
    };
  }

  const host = "127.0.0.1";
  const drain = { drainDelay: Number(SOAK_DRAIN_DELAY), drainTimeout: TIMEOUT / 2 };
  const http = new HttpServerTask(server, { host, listen: upgrade.listen, ...drain });

  async function setup(manager) {
    isStopping = () => manager.signal.aborted;
    const admin = new AdminServerTask({
      port: 0,
      listen: upgrade.listen,
      ...drain,
      drainTimeout: TIMEOUT,
      manager,
      health,
      services,
      timeline,
      ready: () => health.snapshot().status === "healthy",
      profiling: true,
      metrics: {
        contentType: metrics.contentType,
        render: () => `${metrics.render()}soak_process ${process.pid}\nsoak_churn_runs_total ${churn.runs}\n`,
      },
    });
    for (const name of ["first", "second"]) hook(manager, "soak", name);
    manager.runBackground(health, admin);
    manager.run(http, upgrade, reload);
    const restart = { policy: "always", ...untiring, healthyAfter: 100 };
    for (const task of [worker, orders, services, child]) manager.run(byDesign(new RestartTask(task, restart)));
    manager.run(byDesign(churn));
    await Promise.all([http.ready(), admin.ready()]);
    await spoil("early", manager.signal);
    await hold();
    hook(manager, "soak", "pid file", () => pidFile.release());
    await spoil("late", manager.signal);
    await upgrade.ready();
    say({ type: "ready", port: http.address.port, admin: admin.address.port });
    daemon.ready();
  }

  await runMain(setup, { name: "soak", shutdownTimeout: 2 * TIMEOUT, cleanupTimeout: TIMEOUT, onEvent });
}

/** Fails as the test wants this process to fail before it is ready, if it does. */
async function spoil(when, signal) {
  const path = file("spoil");
  if (!existsSync(path)) return;
  const [wanted, how] = readFileSync(path, "utf8").split(" ");
  if (wanted !== when) return;
  rmSync(path);
  say({ type: "spoilt", when, how });
  if (how === "exit") process.exit(3);
  if (how === "exception") setTimeout(() => { throw new Fault(when); });
  if (how === "rejection") void Promise.reject(new Fault(when));
  if (how === "error") throw new Fault(when);
  // Or until it is killed.
  await once(signal, "abort");
  throw signal.reason;
}

function isOfChurn({ task, manager, type, component }) {
  if (component === "checked") return true;
  return /^soak\/churn\//.test(task) || manager === "soak/churn" || (task === "soak/churn" && type !== "task-ended");
}

/** A task that was failing by design when the stop came fails in no other way. */
function byDesign(task) {
  return {
    name: task.name,
    async run(signal) {
      try {
        await task.run(signal);
      } catch (error) {
        if (!signal.aborted || !isByDesign(error)) throw error;
        say({ type: "overtaken", task: task.name, error });
      }
    },
  };
}

function isByDesign(error) {
  const { errors, cause, message = error } = error;
  if (errors) return errors.every(isByDesign);
  return /by design|Program sh (exited|was killed)/.test(message) || (cause !== undefined && isByDesign(cause));
}
