/*
 * What the programs that check something on any runtime share: a runner that prints a line for each check, then how
 * many passed, and what their checks are made of.
 */
import assert from "node:assert/strict";

const checks = [];

export function check(title, holds) {
  checks.push({ title, holds });
}

/** Rejections that nobody handled, during the check that runs. */
export const unhandled = [];
const warnings = [];

/** Runs all checks, one after the other. None may leave an unhandled rejection, or cause a warning. */
export async function runChecks() {
  process.on("unhandledRejection", (reason) => unhandled.push(reason));
  process.on("warning", (warning) => warnings.push(warning));
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
  if (failed > 0) process.exitCode = 1;
  console.log(`${passed} passed, ${failed} failed`);
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
