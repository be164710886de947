/*
 * What the batteries that need nothing of Node's promise, in short, checked by a program that runs on any runtime, with
 * its timers and its signals. It prints a line for each check, then how many passed.
 */
import assert from "node:assert/strict";
import { GroupTask } from "../../dist/group.js";
import { Health } from "../../dist/health.js";
import { Manager, ManagerStoppedError, PanicError, StopReason, TaskAlreadyStartedError } from "../../dist/index.js";
import { Metrics } from "../../dist/metrics.js";
import { LoopTask, PollTask, SignalTriggerTask } from "../../dist/repeat.js";
import { backoff, RestartLimitError, RestartTask } from "../../dist/restart.js";
import { ServiceGroup, ServiceTimeoutError } from "../../dist/services.js";
import { ControlledTask, EventLog } from "../../dist/testing.js";
import { Timeline } from "../../dist/timeline.js";
import {
  check,
  countListeners,
  hasProcess,
  never,
  outcomes,
  pause,
  record,
  rejectionOf,
  rejects,
  runChecks,
  startServer,
  thrownBy,
  untilAborted,
} from "./checks.portable.mjs";

const fact = (subpath, sentence, holds) =>
  check(`${subpath}: ${sentence}`, async () => {
    await holds();
    if (hasProcess) assert.equal(process.listenerCount("SIGHUP"), 0);
  });

/** What is about signals, which a browser does not have. */
const factOfSignals = (...rest) => hasProcess && fact(...rest);

// Repeat

fact("repeat", "a loop without a delay lets timers, signals and requests through", async () => {
  const server = await startServer();
  const manager = new Manager();
  manager.cleanup(() => server.close());
  const startedAt = performance.now();
  let turns = 0;
  manager.run(
    new LoopTask(() => {
      turns++;
      if (performance.now() - startedAt > 5_000) throw new Error("nothing came through");
    }),
  );
  await pause(1);
  await hangUp();
  const response = await fetch(server.urlOf("/hello"));
  assert.equal(await response.text(), "hello");
  await manager.stop();
  assert.ok(turns > 1, `${turns} turns`);
});

fact("repeat", "five ticks are on the grid, however late a timer or an action made the last", () =>
  onceInTen(async () => {
    assert.deepEqual(await ticks(5, { lasting: 0.6 }), [1, 2, 3, 4, 5]);
  }),
);

fact("repeat", "an action of two and a half intervals is caught up for once", () =>
  onceInTen(async () => {
    assert.deepEqual(await ticks(4, { firstLasting: 2.5 }), [1, 3.5, 4, 5]);
  }),
);

fact("repeat", "a poll at the start is none of the grid's", async () => {
  const manager = new Manager();
  let polls = 0;
  manager.run(new PollTask(() => polls++, { interval: 60_000, runAtStart: true }));
  await pause(5);
  await manager.stop();
  assert.equal(polls, 1);
});

factOfSignals("repeat", "a SIGHUP before the run is not lost, and five during an action cause one more", async () => {
  const log = [];
  let end;
  const task = new SignalTriggerTask(async () => {
    log.push("begins");
    await new Promise((resolve) => (end = resolve));
    log.push("ends");
  });
  await hangUp();
  const manager = new Manager();
  manager.run(task);
  await until(() => log.length === 1);
  for (let signal = 0; signal < 5; signal++) await hangUp();
  end();
  await until(() => log.length === 3);
  end();
  await pause(20);
  assert.deepEqual(log, ["begins", "ends", "begins", "ends"]);

  assert.equal(process.listenerCount("SIGHUP"), 1);
  await manager.stop();
  assert.equal(process.listenerCount("SIGHUP"), 0);
});

factOfSignals("repeat", "a trigger that is disposed of listens no more, and is not run", async () => {
  const task = new SignalTriggerTask(() => assert.fail("called"), { signals: ["SIGHUP", "SIGUSR2"] });
  assert.deepEqual([process.listenerCount("SIGHUP"), process.listenerCount("SIGUSR2")], [1, 1]);
  task[Symbol.dispose]();
  assert.deepEqual([process.listenerCount("SIGHUP"), process.listenerCount("SIGUSR2")], [0, 0]);
  const error = await rejectionOf(task.run(new AbortController().signal));
  assert.ok(error instanceof TaskAlreadyStartedError);
});

const unknown = "a signal that the system does not know never comes, or is refused by the runtime, as by Deno";
factOfSignals("repeat", unknown, () => {
  const construct = () => new SignalTriggerTask(() => {}, { signals: ["SIGNONSENSE"] });
  if ("Deno" in globalThis) assert.equal(String(thrownBy(construct)), "TypeError: Invalid signal: SIGNONSENSE");
  else construct()[Symbol.dispose]();
});

/** One of each kind that calls its action now and then. */
const repeating = (action, options) => [
  new LoopTask(action, { delay: 1, ...options }),
  new PollTask(action, { interval: 1, ...options }),
  ...(hasProcess ? [new SignalTriggerTask(action, options)] : []),
];

fact("repeat", "an action that fails is the failure of its task, or an event, and is called again", async () => {
  const error = new Error("no such order");
  for (const task of repeating(() => Promise.reject(error))) {
    const manager = new Manager({ name: "shop" });
    manager.run(task);
    await hangUp();
    await rejects(manager.wait(), error);
    assert.deepEqual(manager.failures, [{ source: `shop/${task.name}`, error }]);
  }

  let calls = 0;
  const fails = () => {
    calls++;
    throw "no Error";
  };
  for (const task of repeating(fails, { onError: "continue", name: "orders" })) {
    calls = 0;
    const log = new EventLog();
    const manager = new Manager({ name: "shop", onEvent: log.observe });
    manager.run(task);
    await until(async () => {
      await hangUp();
      return calls > 1;
    });
    await manager.stop();
    const { task: name, error } = await log.until("action-failed");
    assert.equal(name, "shop/orders");
    assert.ok(error instanceof PanicError && error.cause === "no Error");
  }
});

fact("repeat", "each action has a signal of its own; none is called after the stop, not even the first", async () => {
  const told = new AbortController();
  told.abort();
  for (const task of repeating(() => assert.fail("called"))) await task.run(told.signal);

  const signals = [];
  for (const task of repeating((signal) => signals.push(signal), { name: "watched" })) {
    signals.length = 0;
    const controller = new AbortController();
    const listeners = countListeners(controller.signal);
    const running = task.run(controller.signal);
    assert.ok((await rejectionOf(task.run(controller.signal))) instanceof TaskAlreadyStartedError);
    await until(async () => {
      await hangUp();
      return signals.length > 1;
    });
    assert.equal(new Set([...signals, controller.signal]).size, signals.length + 1);

    controller.abort();
    const called = signals.length;
    await running;
    await pause(5);
    assert.equal(signals.length, called);
    assert.ok(listeners.called <= 1, "it left listeners behind");
    await task.run(told.signal); // It may run again.
  }
});

fact("repeat", "a stop ends the longest of delays at once", async () => {
  const long = [60_000, 2 ** 31, Infinity];
  for (const milliseconds of long) {
    const manager = new Manager();
    manager.run(
      new LoopTask(() => assert.fail("called"), { initialDelay: milliseconds }),
      new LoopTask(() => {}, { delay: milliseconds }),
      new PollTask(() => assert.fail("called"), { interval: milliseconds }),
    );
    await pause(2);
    await manager.stop();
  }
});

// Restart

fact("restart", "N restarts are N + 1 runs; then it gives up, told under its full name", async () => {
  const { events, onEvent } = record();
  const manager = new Manager({ name: "shop", onEvent });
  const error = new Error("connection refused");
  let alive = 0;
  async function consumer() {
    assert.equal(++alive, 1);
    await pause(1);
    alive--;
    throw error;
  }
  manager.run(new RestartTask(consumer, { maxRestarts: 2, delay: backoff({ base: 1 }) }));
  const gaveUp = await rejectionOf(manager.wait());
  assert.ok(gaveUp instanceof RestartLimitError);
  assert.deepEqual([gaveUp.name, gaveUp.task, gaveUp.restarts], ["RestartLimitError", "shop/consumer", 2]);
  assert.equal(gaveUp.message, "Gave up on shop/consumer after 2 restarts");
  assert.equal(gaveUp.cause, error);
  assert.deepEqual(told(events), [
    "task-started shop/consumer",
    "task-restarting shop/consumer 1",
    "task-restarted shop/consumer 1",
    "task-restarting shop/consumer 2",
    "task-restarted shop/consumer 2",
    "task-gave-up shop/consumer 2",
    "task-ended shop/consumer failed",
    "stopping shop",
    "stopped shop",
  ]);
});

fact("restart", "whatever is thrown, and a run without a promise, is a failure; a return is none", async () => {
  const ways = {
    throws() {
      throw new Error("at once");
    },
    rejects: () => Promise.reject(new Error("later")),
    throwsNoError() {
      throw null;
    },
    forgets() {},
  };
  for (const [way, run] of Object.entries(ways)) {
    let runs = 0;
    const task = (signal) => (++runs === 3 ? Promise.resolve("done") : run(signal));
    const value = await new RestartTask(task, { delay: 0 }).run(new AbortController().signal);
    assert.deepEqual([runs, value], [3, "done"], way);
  }
});

fact("restart", "restarts without a delay let a timer through", async () => {
  const startedAt = performance.now();
  const manager = new Manager();
  const policy = () => performance.now() - startedAt < 5_000;
  manager.run(new RestartTask(async () => {}, { policy, maxRestarts: Infinity, delay: 0 }));
  await pause(1);
  assert.equal(manager.signal.aborted, false, "it was held up until there were no more restarts");
  await manager.stop();
});

fact("restart", "a stop in a delay restarts nothing, is told at once, and is a clean end", async () => {
  const log = new EventLog();
  const manager = new Manager({ onEvent: log.observe });
  const failing = new ControlledTask();
  const task = new RestartTask(failing, { delay: 60_000 });
  manager.run(task);
  assert.deepEqual([task.name, task.status, task.restarts], ["controlled", "running", 0]);
  failing.fail(new Error("connection lost"));
  await log.until("task-restarting");
  assert.deepEqual([task.status, task.restarts], ["restarting", 1]);
  await manager.stop();
  assert.equal(task.status, "stopped");
  assert.deepEqual(told(log.events).slice(2), ["stopping", "task-ended controlled returned", "stopped"]);
});

fact("restart", "a run that stays up is healthy: the count begins again, but not that of a span of time", async () => {
  const log = new EventLog();
  const manager = new Manager({ name: "shop", onEvent: log.observe });
  let runs = 0;
  const connect = async (signal) => {
    if (++runs === 1) throw new Error("refused");
    await holdOn(signal);
  };
  const task = new RestartTask({ name: "db", run: connect }, { delay: 1, healthyAfter: 5 });
  manager.run(task);
  assert.equal((await log.until("task-healthy")).task, "shop/db");
  assert.deepEqual([task.status, task.restarts], ["running", 0]);
  await manager.stop();

  let starts = 0;
  const fails = async () => {
    starts++;
    await pause(10);
    throw new Error("connection lost");
  };
  const limited = new RestartTask(fails, { maxRestarts: 2, within: 60_000, delay: 0, healthyAfter: 1 });
  assert.ok((await rejectionOf(limited.run(new AbortController().signal))) instanceof RestartLimitError);
  assert.equal(starts, 3);
});

fact("restart", "each run has a signal of its own, and the one that was given is left without listeners", async () => {
  const controller = new AbortController();
  const listeners = countListeners(controller.signal);
  const signals = new Set();
  const task = new RestartTask(async (signal) => signals.add(signal), { policy: "always", maxRestarts: 4, delay: 0 });
  const gaveUp = await rejectionOf(task.run(controller.signal));
  assert.equal("cause" in gaveUp, false);
  assert.equal(signals.size, 5);
  assert.ok(listeners.added > 0);
  controller.abort();
  assert.equal(listeners.called, 0);
});

fact("restart", "backoff doubles up to its limit, less a share at random", () => {
  const exact = backoff({ base: 100, max: 500, jitter: 0 });
  assert.deepEqual([1, 2, 3, 4, 5_000].map(exact), [100, 200, 400, 500, 500]);
  assert.equal(backoff({ base: 0 })(5_000), 0);
  const jittered = Array.from({ length: 100 }, () => backoff({ base: 100, jitter: 0.5 })(2));
  assert.ok(jittered.every((delay) => delay > 100 && delay <= 200));
  assert.ok(new Set(jittered).size > 1);
});

// Group

fact("group", "a group inside a RestartTask is restarted as a whole, with full names", async () => {
  const { events, onEvent } = record();
  const shop = new Manager({ name: "shop", onEvent });
  const error = new Error("connection reset");
  let connections = 0;
  const orders = new GroupTask("orders", (group) => {
    connections++;
    group.cleanup(function disconnect() {});
    group.run({ name: "writer", run: untilAborted });
    group.run(async function reader() {
      if (connections === 1) throw error;
      await pause(1);
      shop.stop();
    });
  });
  shop.run(new RestartTask(orders, { delay: 1 }));
  await shop.wait();
  assert.deepEqual(orders.failures, []);
  assert.deepEqual(told(events), [
    "task-started shop/orders",
    "task-started shop/orders/writer",
    "task-started shop/orders/reader",
    "task-ended shop/orders/reader failed",
    "stopping shop/orders",
    "task-ended shop/orders/writer returned",
    "cleanup-ended disconnect",
    "stopped shop/orders",
    "task-restarting shop/orders 1",
    "task-restarted shop/orders 1",
    "task-started shop/orders/writer",
    "task-started shop/orders/reader",
    "stopping shop",
    "stopping shop/orders",
    "task-ended shop/orders/writer returned",
    "task-ended shop/orders/reader returned",
    "cleanup-ended disconnect",
    "stopped shop/orders",
    "task-ended shop/orders returned",
    "stopped shop",
  ]);
});

fact("group", "three deep, the inner hooks run first, and the reason is passed on", async () => {
  const cleaned = [];
  const reasons = new Set();
  const nest = (group, [name, ...names]) => {
    group.cleanup(() => cleaned.push(group.pending.length));
    group.cleanup(() => cleaned.push(name ?? "innermost"));
    if (name) group.run(new GroupTask(name, (inner) => nest(inner, names)));
    else group.run({ name: "x", run: (signal) => untilAborted(signal).then(() => reasons.add(signal.reason)) });
  };
  const { events, onEvent } = record();
  const manager = new Manager({ onEvent });
  nest(manager, ["a", "b", "c"]);
  await manager.stop("a reason");
  assert.deepEqual(cleaned, ["innermost", 0, "c", 0, "b", 0, "a", 0]);
  assert.deepEqual([...reasons], ["a reason"]);
  assert.ok(told(events).includes("task-ended a/b/c/x returned"));
});

fact("group", "its first failure is its own, and it keeps all of them", async () => {
  const [first, second] = [new Error("first"), new Error("second")];
  const group = new GroupTask("orders", async (orders) => {
    orders.run(async function late(signal) {
      await untilAborted(signal);
      throw second;
    });
    await pause(1);
    throw first;
  });
  const shop = new Manager({ name: "shop" });
  shop.run(group);
  await rejects(shop.wait(), first);
  assert.deepEqual(shop.failures, [{ source: "shop/orders", error: first }]);
  assert.deepEqual(group.failures, [
    { source: "shop/orders", error: first },
    { source: "shop/orders/late", error: second },
  ]);
});

fact("group", "a stop while it is filled waits for that, and is a clean end", async () => {
  const { events, onEvent } = record();
  const manager = new Manager({ onEvent });
  let refused;
  manager.run(
    new GroupTask("slow", async (group) => {
      await untilAborted(group.signal);
      await pause(5);
      refused = thrownBy(() => group.run(never));
      throw refused;
    }),
  );
  await manager.stop();
  assert.ok(refused instanceof ManagerStoppedError);
  assert.deepEqual(outcomes(events), ["returned"]);
});

// Services

/** A service that logs what it does; its `init` and `run` take their time to end. */
const logged = (name, log, { inits = 1 } = {}) => ({
  name,
  async init() {
    log.push(`inits ${name}`);
    await pause(inits);
  },
  async run(signal) {
    log.push(`runs ${name}`);
    await untilAborted(signal);
    log.push(`stops ${name}`);
    await pause(1);
    log.push(`stopped ${name}`);
  },
  async ready() {
    await pause(1);
    log.push(`ready ${name}`);
  },
  finalize: () => log.push(`finalizes ${name}`),
});

fact("services", "stages start in order, stop in reverse; then all is finalized, last initialized first", async () => {
  const log = [];
  const services = new ServiceGroup([
    logged("database", log),
    [logged("orders", log, { inits: 20 }), logged("mails", log)],
    logged("server", log),
  ]);
  const manager = new Manager();
  manager.run(services);
  await services.ready();
  assert.deepEqual(log.splice(0), [
    ...["inits database", "runs database", "ready database"],
    ...["inits orders", "inits mails", "runs orders", "runs mails", "ready orders", "ready mails"],
    ...["inits server", "runs server", "ready server"],
  ]);
  await manager.stop();
  assert.deepEqual(log, [
    ...["stops server", "stopped server"],
    ...["stops orders", "stops mails", "stopped orders", "stopped mails"],
    ...["stops database", "stopped database"],
    ...["finalizes server", "finalizes orders", "finalizes mails", "finalizes database"],
  ]);
});

fact("services", "one that fails brings the others down in the same order; what happens is told", async () => {
  const { events, onEvent } = record();
  const manager = new Manager({ name: "shop", onEvent });
  const [database, consumer, server] = ["database", "consumer", "server"].map((name) => new ControlledTask(name));
  const services = new ServiceGroup([database, consumer, server]);
  manager.run(services);
  await services.ready();
  const error = new Error("connection lost");
  consumer.fail(error);
  await rejects(manager.wait(), error);

  const { reason } = await database.started;
  assert.ok(reason instanceof StopReason);
  assert.deepEqual([reason.task, reason.cause], ["shop/services/consumer", error]);
  assert.deepEqual(services.failures, [{ source: "consumer", error }]);
  assert.deepEqual(services.states, { database: "stopped", consumer: "failed", server: "stopped" });
  assert.deepEqual(told(events), [
    "task-started shop/services",
    ...["database", "consumer", "server"].flatMap((name) => [
      `service-state shop/services ${name} pending -> initialized`,
      `service-state shop/services ${name} initialized -> starting`,
      `service-state shop/services ${name} starting -> running`,
    ]),
    "service-state shop/services consumer running -> failed",
    "service-failed shop/services consumer run",
    "service-state shop/services server running -> stopping",
    "service-state shop/services server stopping -> stopped",
    "service-state shop/services database running -> stopping",
    "service-state shop/services database stopping -> stopped",
    "task-ended shop/services failed",
    "stopping shop",
    "stopped shop",
  ]);
});

fact("services", "a stop in the middle of the start abandons it, and finalizes what was initialized", async () => {
  const log = [];
  const slow = { name: "slow", init: untilAborted, run: () => log.push("runs"), finalize: () => log.push("finalizes") };
  const late = { name: "late", init: () => log.push("inits"), finalize: () => log.push("finalizes") };
  const services = new ServiceGroup([logged("database", log), slow, late]);
  const manager = new Manager();
  manager.run(services);
  const ready = rejectionOf(services.ready());
  await until(() => services.states.slow === "initializing");
  log.length = 0;
  await manager.stop("told to");
  assert.equal(await ready, "told to");
  assert.deepEqual(log, ["stops database", "stopped database", "finalizes", "finalizes database"]);
  assert.deepEqual(services.states, { database: "stopped", slow: "stopped", late: "pending" });
});

fact("services", "what is not done in time is given up, with its name and phase, and holds nothing up", async () => {
  const slow = {
    init: { init: never },
    ready: { run: untilAborted, ready: never },
    stop: { run: never },
    finalize: { finalize: never },
  };
  for (const [phase, members] of Object.entries(slow)) {
    let finalized = 0;
    const database = { name: "database", run: untilAborted, finalize: () => finalized++ };
    const timeouts = { stopTimeout: 5, [`${phase}Timeout`]: 5 };
    const services = new ServiceGroup([database, { name: "slow", ...members }], timeouts);
    const controller = new AbortController();
    const running = services.run(controller.signal);
    if (phase === "stop" || phase === "finalize") {
      await services.ready();
      controller.abort();
    }
    const error = await rejectionOf(running);
    assert.ok(error instanceof ServiceTimeoutError);
    const { name, message } = error;
    assert.deepEqual([name, message], ["ServiceTimeoutError", `The ${phase} of slow timed out`]);
    assert.deepEqual([error.service, error.phase, finalized], ["slow", phase, 1]);
    assert.deepEqual(services.failures, [{ source: "slow", error }]);
  }
});

fact("services", "the way down as a whole has a limit, too", async () => {
  const deaf = ["one", "other"].map((name) => new ControlledTask(name, { ignoreAbort: true }));
  const services = new ServiceGroup(deaf, { stopTimeout: Infinity, shutdownTimeout: 5 });
  const controller = new AbortController();
  const running = services.run(controller.signal);
  await services.ready();
  controller.abort();
  const error = await rejectionOf(running);
  assert.deepEqual([error.service, error.phase], ["other", "stop"]);
  assert.deepEqual(
    services.failures.map(({ source }) => source),
    ["other", "one"],
  );
});

fact("services", "they are restarted as a whole, not run twice at once; a nested group is one of them", async () => {
  const { events, onEvent } = record();
  const manager = new Manager({ name: "shop", onEvent });
  let connections = 0;
  const database = { name: "database", init: () => ++connections, finalize() {} };
  const consumer = async (signal) => {
    await pause(1);
    if (connections === 1) throw new Error("connection reset");
    await untilAborted(signal);
  };
  const inner = new ServiceGroup([database, { name: "consumer", run: consumer }], { name: "orders" });
  const services = new ServiceGroup([inner, { name: "server", run: untilAborted }]);
  manager.run(new RestartTask(services, { delay: 1 }));
  await until(() => connections === 2);
  await services.ready();
  assert.deepEqual(services.failures, []);
  assert.deepEqual(services.states, { orders: "running", server: "running" });
  assert.deepEqual(inner.states, { database: "running", consumer: "running" });
  assert.ok((await rejectionOf(services.run(manager.signal))) instanceof TaskAlreadyStartedError);
  await manager.stop();
  assert.ok(told(events).includes("service-failed shop/services/orders consumer run"));
  assert.ok(told(events).includes("task-restarted shop/services 1"));
});

fact("services", "one that returns brings the others down as well, which is a clean end", async () => {
  const [consumer, server] = [new ControlledTask("consumer"), new ControlledTask("server")];
  const services = new ServiceGroup([consumer, server]);
  const running = services.run(new AbortController().signal);
  await services.ready();
  consumer.return();
  await running;
  assert.equal((await server.started).reason.task, "services/consumer");
});

fact("services", "when all are ephemeral and have ended, it is over; one without a run goes on", async () => {
  const migration = { ephemeral: true, run: () => pause(1) };
  const controller = new AbortController();
  const listeners = countListeners(controller.signal);
  const services = new ServiceGroup([migration, [migration, migration]]);
  await services.run(controller.signal);
  assert.deepEqual(Object.keys(services.states), ["service", "service-2", "service-3"]);
  assert.equal(listeners.added, 1);
  controller.abort();
  assert.equal(listeners.called, 0);

  const manager = new Manager();
  const idle = new ServiceGroup([{}, { init() {} }]);
  manager.run(idle);
  await idle.ready();
  await pause(5);
  assert.equal(manager.signal.aborted, false);
  await manager.stop();
});

// Health

/** How the whole is, then each component. */
function healthOf(snapshot) {
  return [snapshot, ...Object.values(snapshot.components)].map(({ status }) => status).join(" ");
}

fact("health", "a check runs at once, and again after a pause; how it ends is how its component is", async () => {
  const { events, onEvent } = record();
  const manager = new Manager({ onEvent });
  const health = new Health({ interval: 1 });
  let calls = 0;
  const check = async () => {
    calls++;
    if (calls === 2) throw new Error("refused");
    return false;
  };
  const database = health.component("database", { check });
  assert.deepEqual([database.status, calls], ["starting", 0]);
  manager.run(health);
  assert.equal(calls, 1);
  await until(() => calls > 2 && database.status === "healthy");
  await manager.stop();
  const changes = events.filter(({ type }) => type === "health-changed");
  assert.deepEqual(told(changes), [
    "health-changed database starting -> healthy",
    "health-changed database healthy -> unhealthy",
    "health-changed database unhealthy -> healthy",
  ]);
  assert.deepEqual(
    changes.map(({ detail }) => detail),
    [undefined, "refused", undefined],
  );
});

fact("health", "a check that is late counts for nothing, is never two, and delays no other", async () => {
  const health = new Health({ interval: 1, timeout: 5 });
  const signals = [];
  let end;
  const check = (signal) => {
    signals.push(signal);
    return new Promise((resolve) => (end = resolve));
  };
  let others = 0;
  const database = health.component("database", { check });
  health.component("cache", { check: () => others++ });
  const controller = new AbortController();
  const running = health.run(controller.signal);
  await health.waitUntil("unhealthy", { names: ["database"] });
  assert.equal(health.snapshot().components.database.detail, "timed out after 5 ms");
  others = 0;
  await until(() => others > 2);
  assert.deepEqual(
    signals.map(({ aborted }) => aborted),
    [true],
  );
  end();
  await until(() => signals.length === 2);
  assert.equal(database.status, "unhealthy");
  controller.abort();
  end();
  await running;
});

fact("health", "the whole is the worst of the critical ones; whoever depends on the unhealthy is degraded", () => {
  const { events, onEvent } = record();
  const health = new Health({ onEvent });
  assert.equal(healthOf(health.snapshot()), "healthy");
  const database = health.component("database");
  const ledger = health.component("ledger", { dependsOn: ["database"] });
  const mails = health.component("mails", { critical: false });
  assert.throws(() => database.report("down"), TypeError);
  assert.equal(healthOf(health.snapshot()), "starting starting starting starting");
  for (const component of [database, ledger, mails]) component.report("healthy");
  assert.equal(healthOf(health.snapshot()), "healthy healthy healthy healthy");
  mails.report("unhealthy", "no route");
  assert.equal(healthOf(health.snapshot()), "degraded healthy healthy unhealthy");
  events.length = 0;
  const since = Date.now();
  database.report("unhealthy", "refused");
  assert.equal(healthOf(health.snapshot()), "unhealthy unhealthy degraded unhealthy");
  const { components } = health.snapshot();
  assert.ok(components.database.since >= since);
  assert.deepEqual(components.database, { status: "unhealthy", detail: "refused", since: components.database.since });
  database[Symbol.dispose]();
  database.report("healthy");
  assert.equal(healthOf(health.snapshot()), "degraded healthy unhealthy");
  assert.deepEqual(told(events), [
    "health-changed database healthy -> unhealthy",
    "health-changed ledger healthy -> degraded",
    "health-removed database",
    "health-changed ledger degraded -> healthy",
  ]);
});

fact("health", "a subscriber is told how it is, and of each change, at once; one that throws disturbs nobody", () => {
  const health = new Health();
  const database = health.component("database");
  const cache = health.component("cache");
  const [all, some] = [[], []];
  const controller = new AbortController();
  health.subscribe(undefined, () => {
    throw new Error("no listener");
  });
  const unsubscribe = health.subscribe(undefined, (snapshot) => all.push(healthOf(snapshot)));
  const { signal } = controller;
  health.subscribe(["database"], (snapshot) => some.push(healthOf(snapshot)), { signal });
  cache.report("healthy");
  database.report("degraded");
  database.report("degraded", "slow");
  database.report("degraded", "slow");
  controller.abort();
  unsubscribe();
  database.report("healthy");
  assert.deepEqual(all, [
    "starting starting starting",
    "starting starting healthy",
    "degraded degraded healthy",
    "degraded degraded healthy",
  ]);
  assert.deepEqual(some, ["starting starting", "degraded degraded", "degraded degraded"]);
});

fact("health", "one can wait for a status, until a signal ends that", async () => {
  const health = new Health();
  const database = health.component("database");
  health.component("cache");
  const healthy = health.waitUntil("healthy", { names: ["database"] });
  const controller = new AbortController();
  const whole = rejectionOf(health.waitUntil("healthy", { signal: controller.signal }));
  database.report("healthy");
  await healthy;
  controller.abort("told to");
  assert.equal(await whole, "told to");
  assert.ok((await rejectionOf(health.waitUntil("fine"))) instanceof TypeError);
  assert.ok((await rejectionOf(health.waitUntil("healthy", { names: ["queue"] }))) instanceof TypeError);
});

fact("health", "a stop tells a check in flight, waits for it, and does not care how it ends", async () => {
  const health = new Health({ timeout: Infinity });
  const check = new ControlledTask("check", { ignoreAbort: true });
  health.component("database", { check: (signal) => check.run(signal) });
  const controller = new AbortController();
  let ended = false;
  const running = health.run(controller.signal).then(() => (ended = true));
  controller.abort();
  await check.aborted;
  await pause(1);
  assert.equal(ended, false);
  check.return();
  await running;
  assert.equal(health.snapshot().status, "starting");
});

fact("health", "a stop changes no status, and ends the longest of pauses at once; it may run again", async () => {
  const health = new Health({ interval: 2 ** 31, timeout: Infinity });
  let calls = 0;
  const check = () => calls++;
  health.component("database", { check });
  for (const components of [1, 2]) {
    calls = 0;
    const controller = new AbortController();
    const listeners = countListeners(controller.signal);
    const running = health.run(controller.signal);
    assert.ok((await rejectionOf(health.run(controller.signal))) instanceof TaskAlreadyStartedError);
    await until(() => calls === components);
    health.component(`late ${components}`, { check, interval: Infinity });
    assert.equal(calls, components + 1);
    let told;
    health.component("brief", { check: (signal) => (told = signal) })[Symbol.dispose]();
    assert.equal(told.aborted, true);
    await health.waitUntil("healthy");
    controller.abort();
    await running;
    assert.equal(listeners.added, 1);
    assert.equal(health.snapshot().status, "healthy");
  }
});

// Metrics, Timeline

/** A service that is refused once by its database, until it is stopped, which a job of it holds up. */
async function runShop(onEvent) {
  const log = new EventLog();
  const tell = (event) => void (onEvent(event), log.observe(event));
  const manager = new Manager({ name: "shop", onEvent: tell });
  let attempts = 0;
  const connect = async (signal) => {
    if (++attempts === 1) throw new Error("refused");
    await untilAborted(signal);
  };
  manager.run(new RestartTask({ name: "db", run: connect }, { delay: 1 }));
  manager.runEphemeral({ name: "job", run: (signal) => untilAborted(signal).then(() => pause(30)) });
  manager.runEphemeral({ name: "job", run: async () => {} });
  manager.cleanup(async function close() {});
  await until(() => attempts === 2);
  await manager.stop();
}

/** A line of the page. */
function series(name, value, labels) {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${text}"`);
  return `${name}${pairs.length > 0 ? `{${pairs}}` : ""} ${value}`;
}

fact("metrics", "the page has all that was told, and instruments are told the same", async () => {
  const metrics = new Metrics();
  await runShop(metrics.observe);
  const page = metrics.render();
  const lines = page.split("\n").filter((line) => /^allstop_task_(started|ended|restarts|panics)_total/.test(line));
  assert.deepEqual(lines.sort(), [
    'allstop_task_ended_total{task="shop/db",outcome="returned"} 1',
    'allstop_task_ended_total{task="shop/job",outcome="returned"} 2',
    'allstop_task_restarts_total{task="shop/db"} 1',
    'allstop_task_started_total{task="shop/db"} 1',
    'allstop_task_started_total{task="shop/job"} 2',
  ]);

  const observed = [];
  const instrument = (name) => ({
    addCallback: (callback) => callback({ observe: (value, labels) => observed.push(series(name, value, labels)) }),
  });
  metrics.record({ createObservableCounter: instrument, createObservableGauge: instrument });
  assert.deepEqual(observed.sort(), page.split("\n").filter((line) => /^\w/.test(line)).sort());
});

fact("timeline", "the text says who held up the stop; the trace has all runs, and the stop", async () => {
  const timeline = new Timeline();
  await runShop(timeline.observe);
  assert.match(timeline.toText({ width: 60 }), /^shop\/job {2,}=+\|#+/m);
  assert.match(timeline.toText(), /^held up by shop\/job returned /m);
  const { traceEvents } = JSON.parse(timeline.toTrace());
  const slices = traceEvents.filter(({ ph }) => ph === "X").map(({ name, args }) => `${name} ${args.state}`);
  assert.deepEqual(slices.sort(), [
    "shop/close returned",
    "shop/db returned",
    "shop/job returned",
    "shop/job returned",
  ]);
  assert.equal(traceEvents.filter(({ ph }) => ph === "i").length, 1);
});

// Testing

fact("testing", "a ControlledTask tells what happens to it, ends when told to, and runs once", async () => {
  const log = new EventLog();
  const manager = new Manager({ onEvent: log.observe });
  const error = new Error("connection lost");
  const [server, deaf, consumer] = [
    new ControlledTask("server"),
    new ControlledTask("deaf", { ignoreAbort: true }),
    new ControlledTask("consumer"),
  ];
  manager.run(server, deaf, consumer);
  assert.equal((await server.started).aborted, false);
  consumer.fail(error);
  await Promise.all([server.aborted, deaf.aborted]);
  await log.until("task-ended", ({ task }) => task === "server");
  assert.deepEqual(manager.pending, ["deaf"]);
  deaf.return();
  await rejects(manager.wait(), error);

  const again = await rejectionOf(server.run(new AbortController().signal));
  assert.ok(again instanceof TaskAlreadyStartedError && again.task === "server");
  const early = new ControlledTask();
  early.fail(error);
  await pause(1); // in which its rejection would be unhandled
  await rejects(early.run(new AbortController().signal), error);
});

fact("testing", "an EventLog keeps all events, and waits for one", async () => {
  const log = new EventLog();
  const manager = new Manager({ name: "shop", onEvent: log.observe });
  const stopped = log.until("stopped");
  const cleaned = log.until("cleanup-ended", ({ hook }) => hook === "first");
  manager.cleanup(function first() {});
  manager.cleanup(function last() {});
  manager.run(async function greet() {});
  manager.wait();
  assert.equal(await log.until("task-started"), log.events[0]);
  assert.equal((await cleaned).hook, "first");
  assert.equal(await stopped, log.events.at(-1));
  assert.ok((await log.until("stopping")).reason instanceof StopReason);
});

// All of them

fact("all", "their own observer hears them, and not that of the manager", async () => {
  const [own, outer] = [new EventLog(), new EventLog()];
  const manager = new Manager({ name: "shop", onEvent: outer.observe });
  const { observe: onEvent } = own;
  const fails = async () => {
    throw new Error("connection lost");
  };
  manager.run(
    new LoopTask(fails, { onError: "continue", delay: 60_000, onEvent }),
    new RestartTask({ name: "db", run: fails }, { delay: 60_000, onEvent }),
    new GroupTask("orders", (group) => group.run({ name: "x", run: untilAborted }), { onEvent }),
  );
  await own.until("task-restarting");
  await manager.stop();
  assert.deepEqual(told(own.events).sort(), [
    "action-failed shop/loop",
    "stopped shop/orders",
    "stopping shop/orders",
    "task-ended shop/orders/x returned",
    "task-restarting shop/db 1",
    "task-started shop/orders/x",
  ]);
  assert.equal(outer.events.length, 8);
  assert.ok(outer.events.every(({ type }) => ["task-started", "task-ended", "stopping", "stopped"].includes(type)));
});

fact("all", "bad input is refused, in the same words everywhere", () => {
  const f = () => {};
  const ofPolicy = 'policy must be "on-failure", "always", "never" or a function';
  const refusals = [
    () => new LoopTask(),
    () => new LoopTask(f, { delay: -1 }),
    () => new LoopTask(f, { onError: "ignore" }),
    () => new PollTask(f, { interval: 0 }),
    () => new SignalTriggerTask(f, { signals: [] }),
    () => new SignalTriggerTask(f, { signals: ["SIGKILL"] }),
    () => new RestartTask({}),
    () => new RestartTask(f, { policy: "sometimes" }),
    () => new RestartTask(f, { maxRestarts: -1 }),
    () => backoff({ jitter: 2 }),
    () => new GroupTask("group"),
    () => new GroupTask("group", f, { limit: 0.5 }),
    () => new ServiceGroup([undefined]),
    () => new ServiceGroup([{ name: "db" }, [{ name: "db" }]]),
    () => new ServiceGroup([], { stopTimeout: -1 }),
    () => new Health({ interval: "10s" }),
    () => new Health().component(""),
    () => new Health().component("wallet", { dependsOn: ["database"] }),
    () => new ControlledTask(1),
  ].map((construct) => String(thrownBy(construct)));
  assert.deepEqual(refusals, [
    "TypeError: Cannot create a LoopTask: action must be of type function, got undefined",
    "RangeError: Cannot create a LoopTask: delay must be 0 or more milliseconds, got -1",
    'RangeError: Cannot create a LoopTask: onError must be "stop" or "continue", got "ignore"',
    "RangeError: Cannot create a PollTask: interval must be above 0 milliseconds, got 0",
    "TypeError: Cannot create a SignalTriggerTask: signals must be catchable, such as SIGTERM, got []",
    'TypeError: Cannot create a SignalTriggerTask: signals must be catchable, such as SIGTERM, got ["SIGKILL"]',
    "TypeError: Cannot create a RestartTask: it must be a function or have a run method, got [object Object]",
    `RangeError: Cannot create a RestartTask: ${ofPolicy}, got "sometimes"`,
    "RangeError: Cannot create a RestartTask: maxRestarts must be a whole number, 0 or more, got -1",
    "RangeError: Cannot create a backoff: jitter must be from 0 to 1, got 2",
    "TypeError: Cannot create a GroupTask: fill must be of type function, got undefined",
    "RangeError: Cannot create a Manager: limit must be a whole number above 0, got 0.5",
    "TypeError: Cannot create a ServiceGroup: a service must be of type object, got undefined",
    'TypeError: Cannot create a ServiceGroup: names must be unique and not empty, got "db"',
    "RangeError: Cannot create a ServiceGroup: stopTimeout must be 0 or more milliseconds, got -1",
    'TypeError: Cannot create a Health: interval must be of type number, got "10s"',
    'TypeError: Cannot add a component: names must be unique and not empty, got ""',
    'TypeError: Cannot add component wallet: components must exist, got "database"',
    "TypeError: Cannot create a ControlledTask: name must be of type string, got 1",
  ]);
});

await runChecks();

// Helpers

/** An event in a few words: its type, whom it is about, and how often, how or in what. */
function told(events) {
  return events.map(({ type, manager, task, hook, service, component, from, to, ...event }) =>
    [
      type,
      task ?? hook ?? component ?? manager,
      service,
      from && `${from} -> ${to}`,
      event.attempt ?? event.restarts ?? event.outcome ?? event.phase,
    ]
      .filter(Boolean)
      .join(" "),
  );
}

/** Sends this process, if there is one, a SIGHUP, and waits for it to arrive. */
async function hangUp() {
  if (!hasProcess) return pause(1);
  let received = false;
  process.once("SIGHUP", () => (received = true));
  process.kill(process.pid, "SIGHUP");
  await until(() => received);
}

/** Keeps the program alive until the signal aborts. */
async function holdOn(signal) {
  const timer = setTimeout(() => {}, 60_000);
  await untilAborted(signal);
  clearTimeout(timer);
  signal.throwIfAborted();
}

async function until(isTrue) {
  while (!(await isTrue())) await pause(1);
}

/** When a PollTask called its action, in intervals since the start; a little late is rounded down to a half. */
async function ticks(count, { lasting = 0.1, firstLasting = lasting }) {
  const interval = 40;
  const starts = [];
  const controller = new AbortController();
  const startedAt = performance.now();
  const poll = async () => {
    const passed = performance.now() - startedAt;
    // A timer may be a millisecond early.
    const start = Math.floor(((passed + 1) / interval) * 2) / 2;
    assert.ok(passed - start * interval < interval / 4, `late: ${passed} ms`);
    starts.push(start);
    await pause(interval * (starts.length === 1 ? firstLasting : lasting));
    if (starts.length === count) controller.abort();
  };
  await new PollTask(poll, { interval }).run(controller.signal);
  return starts;
}

/** A busy machine may be late: what real clocks decide has to hold once in ten attempts. */
async function onceInTen(attempt) {
  for (let attempts = 1; attempts < 10; attempts++) {
    try {
      return await attempt();
    } catch {
      // It may have been the machine.
    }
  }
  return attempt();
}
