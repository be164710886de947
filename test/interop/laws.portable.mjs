/*
 * The laws of the core, checked by a program that runs on any runtime, with its timers, and with what its own calls
 * reject with when they are stopped. It prints a line for each check, then how many passed.
 */
import assert from "node:assert/strict";
import {
  CleanupError,
  CleanupTimeoutError,
  Manager,
  ManagerStoppedError,
  PanicError,
  ShutdownTimeoutError,
  StopReason,
} from "../../dist/index.js";
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
  unhandled,
  untilAborted,
} from "./checks.portable.mjs";

const law = (number, sentence, holds) => check(`law ${number}: ${sentence}`, holds);

// Start

law(1, "tasks start before run returns, in order", async () => {
  for (const start of ["run", "runEphemeral", "runBackground"]) {
    const manager = new Manager();
    const started = [];
    manager[start](
      async () => started.push("a"),
      { run: async () => started.push("b") },
      async () => started.push("c"),
    );
    assert.deepEqual(started, ["a", "b", "c"], start);
    await manager.stop();
  }
});

law(1, "the rest start with a signal that has aborted when an earlier one of the call stops the group", async () => {
  const manager = new Manager();
  const error = new Error("first");
  let seen;
  manager.run(
    () => {
      throw error;
    },
    async (signal) => (seen = signal),
  );
  assert.equal(seen.aborted, true);
  assert.equal(seen.reason.cause, error);
  await rejects(manager.wait(), error);
});

law(1, "a bad argument is a TypeError, and nothing starts", async () => {
  for (const bad of [undefined, null, "task", {}, { run: 1 }]) {
    const manager = new Manager();
    let started = false;
    assert.throws(() => manager.run(async () => (started = true), bad), TypeError);
    assert.equal(started, false);
    assert.deepEqual(manager.pending, []);
    await manager.stop();
  }
});

law(2, "after a stop, nothing starts, and the reason of the stop is the cause", async () => {
  const stopped = new Manager();
  const ended = new Manager();
  await Promise.all([stopped.stop("told to"), ended.wait()]);
  for (const manager of [stopped, ended]) {
    for (const start of ["run", "runEphemeral", "runBackground"]) {
      const error = thrownBy(() => manager[start](() => assert.fail("started")));
      assert.ok(error instanceof ManagerStoppedError);
      assert.equal(error.cause, manager.signal.reason);
    }
  }
});

law(2, "a running task may start others, also while someone waits", async () => {
  const manager = new Manager();
  const ran = [];
  manager.runEphemeral(async () => {
    await pause(5);
    manager.runEphemeral(async () => {
      await pause(5);
      ran.push("inner");
    });
    ran.push("outer");
  });
  await manager.wait();
  assert.deepEqual(ran, ["outer", "inner"]);
});

law(3, "a task is called by its name, its function, its class or its kind", async () => {
  class Consumer {
    run = untilAborted;
  }
  const manager = new Manager({ name: "api" });
  manager.run({ name: "named", run: untilAborted }, untilAborted, new Consumer(), { run: untilAborted }, (signal) =>
    untilAborted(signal),
  );
  manager.runEphemeral({ run: untilAborted });
  manager.runBackground({ run: untilAborted });
  const names = ["named", "untilAborted", "Consumer", "main", "main", "ephemeral", "background"];
  assert.deepEqual(
    manager.pending,
    names.map((name) => `api/${name}`),
  );
  await manager.stop();
  assert.deepEqual(manager.pending, []);
});

law(4, "beyond the limit, ephemeral tasks wait their turn, first in first out", async () => {
  const manager = new Manager({ limit: 2 });
  const started = [];
  let running = 0;
  let most = 0;
  for (let index = 0; index < 8; index++) {
    manager.runEphemeral(async () => {
      started.push(index);
      most = Math.max(most, ++running);
      await pause(index % 3);
      running--;
    });
  }
  assert.deepEqual(started, [0, 1]);
  assert.equal(manager.pending.length, 8);
  await manager.wait();
  assert.deepEqual(started, [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.equal(most, 2);
});

law(4, "a stop drops those that still wait: skipped, never started", async () => {
  const { events, onEvent } = record();
  const manager = new Manager({ limit: 1, onEvent });
  manager.runEphemeral({ name: "first", run: untilAborted }, { name: "second", run: () => assert.fail("started") });
  await manager.stop();
  const ofSecond = events.filter((event) => event.task === "second");
  assert.deepEqual(
    ofSecond.map(({ type, outcome }) => [type, outcome]),
    [["task-ended", "skipped"]],
  );
  assert.deepEqual(manager.failures, []);
});

// Stop

law(5, "the end of a main or a background task stops the group; the clean end of an ephemeral one does not", async () => {
  for (const [start, stops] of Object.entries({ run: true, runBackground: true, runEphemeral: false })) {
    const manager = new Manager();
    manager.run(untilAborted);
    manager[start](async function ends() {});
    await pause(1);
    assert.equal(manager.signal.aborted, stops, start);
    await manager.stop();
  }
});

law(5, "any failure stops the group, and the first cause wins", async () => {
  for (const start of ["run", "runBackground", "runEphemeral"]) {
    const manager = new Manager();
    const first = new Error("first");
    const second = new Error("second");
    manager.run(untilAborted);
    manager[start](
      async function early() {
        await pause(1);
        throw first;
      },
      async function late(signal) {
        await untilAborted(signal);
        throw second;
      },
    );
    await rejects(manager.wait(), first);
    assert.equal(manager.signal.reason.task, "early");
    assert.equal(manager.signal.reason.cause, first);
    assert.deepEqual(
      manager.failures.map(({ source, error }) => [source, error]),
      [
        ["early", first],
        ["late", second],
      ],
    );
  }
});

law(6, "the reason says which task stopped the group, and why", async () => {
  const failed = new Manager({ name: "api" });
  const error = new Error("port in use");
  failed.run(async function http() {
    throw error;
  });
  await rejects(failed.wait(), error);
  const { reason } = failed.signal;
  assert.ok(reason instanceof StopReason && reason instanceof Error);
  assert.deepEqual([reason.name, reason.code, reason.task, reason.cause], ["AbortError", "ABORT_ERR", "api/http", error]);

  const returned = new Manager();
  returned.run(async function http() {});
  await returned.wait();
  assert.equal(returned.signal.reason.task, "http");
  assert.equal("cause" in returned.signal.reason, false);

  const stopped = new Manager();
  await stopped.stop();
  assert.ok(stopped.signal.reason instanceof StopReason);
  assert.equal("task" in stopped.signal.reason, false);
});

law(6, "the reason of a parent, or one given to stop, is passed on untouched", async () => {
  for (const reason of ["a string", 0, null, new Error("an error"), { an: "object" }]) {
    const parent = new AbortController();
    const child = new Manager({ signal: parent.signal });
    child.run(untilAborted);
    parent.abort(reason);
    await child.wait();
    assert.equal(child.signal.reason, reason);

    const manager = new Manager();
    await manager.stop(reason);
    assert.equal(manager.signal.reason, reason);
  }
});

law(7, "once someone waits and only background tasks are left, the group stops by itself", async () => {
  const manager = new Manager();
  manager.runBackground(untilAborted);
  await pause(5);
  assert.equal(manager.signal.aborted, false);
  manager.runEphemeral(() => pause(5));
  await manager.wait();
  assert.ok(manager.signal.reason instanceof StopReason);
  assert.equal(manager.signal.reason.task, undefined);
});

law(8, "each task has a signal of its own, with the reason of the shared one", async () => {
  const manager = new Manager();
  const signals = [];
  for (let index = 0; index < 1_000; index++) {
    manager.run((signal) => {
      signals.push(signal);
      signal.addEventListener("abort", () => {});
      return untilAborted(signal);
    });
  }
  await manager.stop();
  assert.equal(new Set([...signals, manager.signal]).size, 1_001);
  assert.ok(signals.every((signal) => signal.aborted && signal.reason === manager.signal.reason));
});

law(9, "the signal of a parent carries one listener while the group runs, and none afterwards", async () => {
  const parent = new AbortController();
  const listeners = countListeners(parent.signal);
  const manager = new Manager({ signal: parent.signal });
  manager.run(untilAborted, untilAborted);
  assert.deepEqual(listeners, { added: 1, called: 0 });
  await manager.stop();
  parent.abort();
  assert.deepEqual(listeners, { added: 1, called: 0 });

  const control = new AbortController();
  const controlListeners = countListeners(control.signal);
  const stopped = new Manager({ signal: control.signal });
  control.abort();
  await stopped.wait();
  assert.deepEqual(controlListeners, { added: 1, called: 1 });
});

// Failures

law(10, "an Error keeps its identity, however it is thrown", async () => {
  const error = new TypeError("mine");
  const tasks = [
    () => {
      throw error;
    },
    () => Promise.reject(error),
    async () => {
      await pause(1);
      throw error;
    },
    { run: () => ({ then: (_, reject) => reject(error) }) },
  ];
  for (const task of tasks) {
    const manager = new Manager();
    manager.run(task);
    await rejects(manager.wait(), error);
    assert.equal(manager.failures[0].error, error);
  }
});

law(10, "anything else that is thrown, by a task or a hook, arrives as a PanicError", async () => {
  for (const value of ["x", 0, undefined, null, Symbol("s"), { an: "object" }, Object.create(null)]) {
    const thrown = new Manager();
    thrown.run(() => {
      throw value;
    });
    const rejected = new Manager();
    rejected.run(() => Promise.reject(value));
    for (const manager of [thrown, rejected]) {
      const error = await rejectionOf(manager.wait());
      assert.ok(error instanceof PanicError);
      assert.ok("cause" in error && error.cause === value);
    }
    const hooked = new Manager();
    hooked.cleanup(() => Promise.reject(value));
    const { errors } = await rejectionOf(hooked.wait());
    assert.ok(errors[0] instanceof PanicError && errors[0].cause === value);
  }
});

law(10, "a run that returns no promise fails with a TypeError that names the task", async () => {
  const manager = new Manager({ name: "api" });
  manager.run(function forgetful() {});
  const error = await rejectionOf(manager.wait());
  assert.ok(error instanceof TypeError);
  assert.match(error.message, /api\/forgetful/);
});

law(11, "to end because it was told to is no failure: cancelled", async () => {
  const echoes = {
    reason: async (signal) => {
      await untilAborted(signal);
      throw signal.reason;
    },
    throwIfAborted: async (signal) => {
      await untilAborted(signal);
      signal.throwIfAborted();
    },
    bareAbort: async (signal) => {
      const inner = new AbortController();
      signal.addEventListener("abort", () => inner.abort());
      await untilAborted(inner.signal);
      throw inner.signal.reason;
    },
    plainAbortError: async (signal) => {
      await untilAborted(signal);
      throw new DOMException("aborted", "AbortError");
    },
    withCause: async (signal) => {
      await untilAborted(signal);
      throw Object.assign(new Error("aborted", { cause: signal.reason }), { name: "AbortError" });
    },
    any: async (signal) => {
      const any = AbortSignal.any([signal, new AbortController().signal]);
      await untilAborted(any);
      throw any.reason;
    },
    ...(hasProcess && (await echoesOfNode())),
  };

  for (const reason of [undefined, "a string", new Error("an error"), new DOMException("mine", "AbortError")]) {
    for (const [name, task] of Object.entries(echoes)) {
      const { events, onEvent } = record();
      const manager = new Manager({ onEvent });
      manager.run(task);
      await pause(1);
      await (reason === undefined ? manager.stop() : manager.stop(reason)).catch((error) => {
        throw new Error(`${name}, told ${String(reason)}`, { cause: error });
      });
      assert.deepEqual(outcomes(events), ["cancelled"], name);
    }
  }
});

async function echoesOfNode() {
  const { EventEmitter, once } = await import("node:events");
  const { setTimeout: sleep } = await import("node:timers/promises");
  return {
    sleep: (signal) => sleep(5_000, undefined, { signal }),
    once: (signal) => once(new EventEmitter(), "never", { signal }),
  };
}

law(11, "what fetch rejects with is a clean end, too", async () => {
  const server = await startServer();
  const { events, onEvent } = record();
  const manager = new Manager({ onEvent });
  manager.cleanup(() => server.close());
  manager.run((signal) => fetch(server.urlOf("/silence"), { signal }));
  await server.requested;
  await manager.stop();
  assert.deepEqual(outcomes(events), ["cancelled"]);
});

law(11, "any other error is a failure, and so is an AbortError before the stop", async () => {
  const others = [
    new Error("other"),
    new DOMException("too slow", "TimeoutError"),
    Object.assign(new Error("aborted", { cause: new Error("another") }), { name: "AbortError" }),
  ];
  for (const error of others) {
    const manager = new Manager();
    manager.run(async (signal) => {
      await untilAborted(signal);
      throw error;
    });
    await rejects(manager.stop(), error);
  }
  const before = new DOMException("aborted", "AbortError");
  const manager = new Manager();
  manager.run(() => Promise.reject(before));
  await rejects(manager.wait(), before);
});

law(11, "a return is a return, also after the stop", async () => {
  const { events, onEvent } = record();
  const manager = new Manager({ onEvent });
  manager.run(untilAborted);
  await manager.stop();
  assert.deepEqual(outcomes(events), ["returned"]);
});

law(12, "wait rejects with the first failure itself, and failures holds all of them, in order", async () => {
  const manager = new Manager({ name: "api", shutdownTimeout: 20, cleanupTimeout: 20 });
  const first = new Error("first");
  const second = new Error("second");
  const third = new Error("third");
  manager.run(
    async function early() {
      throw first;
    },
    async function late(signal) {
      await untilAborted(signal);
      throw second;
    },
    function deaf() {
      return never();
    },
  );
  manager.cleanup(never);
  manager.cleanup(() => {
    throw third;
  });
  await rejects(manager.wait(), first);
  assert.deepEqual(
    manager.failures.map(({ source, error }) => [source, error.name]),
    [
      ["api/early", "Error"],
      ["api/late", "Error"],
      ["shutdown", "ShutdownTimeoutError"],
      ["cleanup", "CleanupError"],
      ["cleanup", "CleanupTimeoutError"],
    ],
  );
  assert.equal(manager.failures[1].error, second);
  assert.deepEqual(manager.failures[3].error.errors, [third]);
});

law(12, "no failure becomes an unhandledRejection, awaited late or never", async () => {
  const error = new Error("nobody asks");
  const waited = new Manager();
  waited.run(() => Promise.reject(error));
  waited.wait();
  const stopped = new Manager();
  stopped.run(() => Promise.reject(error));
  stopped.stop();
  const forgotten = new Manager();
  forgotten.run(() => Promise.reject(error));
  const late = new Manager();
  late.run(() => Promise.reject(error));
  const promise = late.wait();
  await pause(20);
  await rejects(promise, error);
  assert.deepEqual(unhandled, []);

  // The check itself: one that is not handled is seen here.
  Promise.reject(error);
  await pause(20);
  assert.deepEqual(unhandled.splice(0), [error]);
});

law(13, "when the shutdown deadline passes, wait goes on to the hooks, and names who has not ended", async () => {
  const { events, onEvent } = record();
  const manager = new Manager({ shutdownTimeout: 20, onEvent });
  let end;
  let cleaned = 0;
  manager.run(
    function deaf() {
      return new Promise((_, reject) => (end = reject));
    },
    { name: "polite", run: untilAborted },
  );
  manager.cleanup(() => cleaned++);
  const error = await rejectionOf(manager.stop());
  assert.ok(error instanceof ShutdownTimeoutError);
  assert.deepEqual(error.pending, ["deaf"]);
  assert.equal(cleaned, 1);

  const told = events.length;
  end(new Error("late"));
  await pause(1);
  assert.equal(manager.failures.length, 1);
  assert.equal(events.length, told);
});

law(13, "the deadline counts from the stop, whenever wait is called", async () => {
  const parent = new AbortController();
  const { events, onEvent } = record();
  const manager = new Manager({ signal: parent.signal, shutdownTimeout: 10, onEvent });
  manager.run(never);
  parent.abort();
  await pause(40);
  assert.ok(manager.failures[0].error instanceof ShutdownTimeoutError);
  assert.ok(!events.some((event) => event.type === "stopped"));
  await rejects(manager.wait(), manager.failures[0].error);
});

law(14, "hooks run once, after the last task, last registered first, one at a time", async () => {
  const manager = new Manager();
  const log = [];
  manager.run(async (signal) => {
    await untilAborted(signal);
    await pause(5);
    log.push("task");
  });
  for (const name of ["a", "b", "c"]) {
    manager.cleanup(async () => {
      log.push(`${name} begins`);
      await pause(3);
      log.push(`${name} ends`);
    });
  }
  await manager.stop();
  await manager.wait();
  assert.deepEqual(log, ["task", "c begins", "c ends", "b begins", "b ends", "a begins", "a ends"]);
});

law(14, "a hook that fails does not stop the next; all their errors become one CleanupError", async () => {
  const manager = new Manager();
  const [first, second] = [new Error("first"), new Error("second")];
  let ran = false;
  manager.cleanup(() => (ran = true));
  manager.cleanup(() => Promise.reject(second));
  manager.cleanup(() => {
    throw first;
  });
  const error = await rejectionOf(manager.wait());
  assert.ok(error instanceof CleanupError && error instanceof AggregateError);
  assert.deepEqual(error.errors, [first, second]);
  assert.equal(ran, true);
});

law(15, "when the cleanup deadline passes, the hooks that are left are called, and no longer waited for", async () => {
  const manager = new Manager({ cleanupTimeout: 20 });
  const called = [];
  manager.cleanup(function last() {
    called.push("last");
  });
  manager.cleanup(function slow() {
    called.push("slow");
    return pause(50);
  });
  manager.cleanup(function hangs() {
    called.push("hangs");
    return never();
  });
  const error = await rejectionOf(manager.wait());
  assert.ok(error instanceof CleanupTimeoutError);
  assert.deepEqual(called, ["hangs", "slow", "last"]);
  assert.deepEqual(error.pending.slice(0, 2), ["hangs", "slow"]);
});

law(16, "a hook may be registered until the last one has run, also by a hook; then no more", async () => {
  const manager = new Manager();
  const called = [];
  const stopped = manager.stop();
  manager.cleanup(async () => {
    called.push("after the stop");
    await pause(1);
    manager.cleanup(() => called.push("by a hook"));
  });
  await stopped;
  assert.deepEqual(called, ["after the stop", "by a hook"]);
  const error = thrownBy(() => manager.cleanup(() => {}));
  assert.ok(error instanceof ManagerStoppedError);
  assert.equal(error.cause, manager.signal.reason);
});

law(17, "wait, stop and dispose always return the same promise", async () => {
  const manager = new Manager();
  const promise = manager.wait();
  assert.equal(manager.stop(), promise);
  assert.equal(manager.stop("again"), promise);
  assert.equal(manager[Symbol.asyncDispose](), promise);
  await promise;
  assert.equal(manager.wait(), promise);
});

law(17, "the process is kept alive until the end by nothing but the group itself", async () => {
  // Nothing else is alive here: without the group's own timers, the program would end, and never print its last line.
  const deaf = new Manager({ shutdownTimeout: 30 });
  deaf.run(never);
  assert.ok((await rejectionOf(deaf.stop())) instanceof ShutdownTimeoutError);

  const hung = new Manager({ cleanupTimeout: 30 });
  hung.cleanup(never);
  assert.ok((await rejectionOf(hung.wait())) instanceof CleanupTimeoutError);
});

law(17, "an observer is told of everything, and one that throws changes nothing", async () => {
  const { events, onEvent } = record();
  const manager = new Manager({
    name: "api",
    onEvent(event) {
      onEvent(event);
      throw new Error("the observer's own");
    },
  });
  const error = new Error("port in use");
  manager.run(async function http() {
    throw error;
  });
  manager.cleanup(function close() {});
  await rejects(manager.wait(), error);
  assert.deepEqual(
    events.map(({ type, manager, task, hook, outcome }) => [type, manager, task ?? hook ?? "", outcome ?? ""]),
    [
      ["task-started", "api", "api/http", ""],
      ["task-ended", "api", "api/http", "failed"],
      ["stopping", "api", "", ""],
      ["cleanup-ended", "api", "close", ""],
      ["stopped", "api", "", ""],
    ],
  );
});

await runChecks();
