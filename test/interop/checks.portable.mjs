/*
 * What the programs that check something on any runtime share: a runner that prints a line for each check, then how
 * many passed, and what their checks are made of.
 */
import assert from "node:assert/strict";

/** Whether there are signals, and Node's modules: there are everywhere but in a browser. */
export const hasProcess = "process" in globalThis;

const checks = [];

export function check(title, holds) {
  checks.push({ title, holds });
}

/** Rejections that nobody handled, during the check that runs. */
export const unhandled = [];
const warnings = [];

/** Runs all checks, one after the other. None may leave an unhandled rejection, or cause a warning. */
export async function runChecks() {
  watch();
  let passed = 0;
  let failed = 0;
  for (const { title, holds } of checks) {
    try {
      await holds();
      assert.deepEqual(unhandled.splice(0), [], "unhandled rejections");
      assert.deepEqual(
        warnings.splice(0).map((warning) => warning.name),
        [],
        "warnings",
      );
      passed++;
      console.log(`ok      ${title}`);
    } catch (error) {
      failed++;
      console.log(`FAILED  ${title}`);
      console.log(error);
    }
  }
  if (failed > 0 && hasProcess) process.exitCode = 1;
  console.log(`${passed} passed, ${failed} failed`);
}

function watch() {
  if (hasProcess) {
    process.on("unhandledRejection", (reason) => unhandled.push(reason));
    process.on("warning", (warning) => warnings.push(warning));
  } else {
    globalThis.addEventListener("unhandledrejection", (event) => {
      event.preventDefault();
      unhandled.push(event.reason);
    });
  }
}

/**
 * Starts a server that answers only what asks for /hello. A browser cannot: there it is the server that it has this
 * program from, which answers in the same way.
 */
export async function startServer() {
  if (!hasProcess) return { urlOf: (path) => new URL(path, location.href), requested: pause(50), close() {} };
  const { createServer } = await import("node:http");
  const server = createServer((request, response) => request.url === "/hello" && response.end("hello"));
  const requested = new Promise((resolve) => server.once("request", resolve));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    urlOf: (path) => `http://127.0.0.1:${server.address().port}${path}`,
    requested,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

export function never() {
  return new Promise(() => {});
}

export function untilAborted(signal) {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve());
  });
}

export function record() {
  const events = [];
  return { events, onEvent: (event) => void events.push(event) };
}

export function outcomes(events) {
  return events.filter((event) => event.type === "task-ended").map((event) => event.outcome);
}

export function thrownBy(action) {
  try {
    action();
  } catch (error) {
    return error;
  }
  return assert.fail("it threw nothing");
}

export async function rejectionOf(promise) {
  const nothing = Symbol();
  const error = await promise.then(
    () => nothing,
    (reason) => reason,
  );
  assert.notEqual(error, nothing, "it did not reject");
  return error;
}

/** The promise rejects with this error itself, not with one that looks alike. */
export async function rejects(promise, error) {
  assert.ok(Object.is(await rejectionOf(promise), error), "another error");
}

/** Counts the listeners that are added to a signal from now on, and how often they are called. */
export function countListeners(signal) {
  const counts = { added: 0, called: 0 };
  const wrappers = new Map();
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = function (type, listener, options) {
    counts.added++;
    const wrapper = (event) => {
      counts.called++;
      listener.call(signal, event);
    };
    wrappers.set(listener, wrapper);
    addEventListener.call(signal, type, wrapper, options);
  };
  signal.removeEventListener = function (type, listener, options) {
    removeEventListener.call(signal, type, wrappers.get(listener) ?? listener, options);
  };
  return counts;
}
