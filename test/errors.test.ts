import {
  CleanupError,
  CleanupTimeoutError,
  ManagerStoppedError,
  PanicError,
  ShutdownTimeoutError,
  StopReason,
  TaskAlreadyStartedError,
} from "allstop";
import { describe, expect, test } from "vitest";

const cause = new Error("cause");

describe.each([
  [new StopReason(), "AbortError", "Stopped", {}],
  [new StopReason("http"), "AbortError", "Stopped by http", { task: "http" }],
  [new StopReason("http", cause), "AbortError", "Stopped by http", { task: "http" }],
  [new ManagerStoppedError("run a task", 5), "ManagerStoppedError", "Cannot run a task: the manager has stopped", {}],
  [new TaskAlreadyStartedError("http"), "TaskAlreadyStartedError", "Cannot run http: it has already been started", { task: "http" }],
  [new PanicError("x"), "PanicError", 'Panicked with "x"', {}],
  [new PanicError(cause, "unhandledRejection"), "PanicError", "Panicked with Error: cause", { origin: "unhandledRejection" }],
  [new ShutdownTimeoutError(50, ["a", "b"]), "ShutdownTimeoutError", "Shutdown timed out after 50 ms: a,b", { pending: ["a", "b"] }],
  [new CleanupError([cause]), "CleanupError", "Cleanup failed", {}],
  [new CleanupTimeoutError(50, ["a"]), "CleanupTimeoutError", "Cleanup timed out after 50 ms: a", { pending: ["a"] }],
] as const)("%o", (error, name, message, fields) => {
  test("is an Error that says its name, and whose only keys are its fields", () => {
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe(name);
    expect(error.message).toBe(message);
    expect(String(error)).toBe(`${name}: ${message}`);
    expect({ ...error }).toEqual(fields);
  });
});

test("a StopReason has the code of Node's AbortError, and a cause only if a task failed", () => {
  expect(new StopReason().code).toBe("ABORT_ERR");
  expect(new StopReason("http", cause).cause).toBe(cause);
  expect(Object.hasOwn(new StopReason("http"), "cause")).toBe(false);
  expect(Object.hasOwn(new StopReason("http"), "task")).toBe(true);
  expect("task" in new StopReason()).toBe(false);
});

test("a ManagerStoppedError has the reason of the stop as its cause", () => {
  expect(new ManagerStoppedError("run a task", 5).cause).toBe(5);
});

test("a CleanupError is an AggregateError", () => {
  const error = new CleanupError([cause]);
  expect(error).toBeInstanceOf(AggregateError);
  expect(error.errors).toEqual([cause]);
});

test("a PanicError has any value as its cause, and shows it", () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  const shown: [unknown, string][] = [
    ["x", '"x"'],
    ["", '""'],
    [undefined, "undefined"],
    [null, "null"],
    [5, "5"],
    [Symbol("s"), "Symbol(s)"],
    [{}, "[object Object]"],
    [Object.create(null), "object"],
    [proxy, "object"],
    [new TypeError("no"), "TypeError: no"],
  ];
  for (const [value, text] of shown) {
    const error = new PanicError(value);
    expect(Object.is(error.cause, value)).toBe(true);
    expect(error.message).toBe(`Panicked with ${text}`);
    expect("origin" in error).toBe(false);
  }
});
