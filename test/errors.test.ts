import {
  CleanupError,
  CleanupTimeoutError,
  ManagerStoppedError,
  PanicError,
  ShutdownTimeoutError,
  StopReason,
  TaskAlreadyStartedError,
} from "allstop";
import { expect, test } from "vitest";

const cause = new Error("cause");

const subjects: [string, () => Error, string, object][] = [
  ["AbortError", () => new StopReason(), "Stopped", {}],
  ["AbortError", () => new StopReason("http"), "Stopped by http", { task: "http" }],
  ["AbortError", () => new StopReason("http", cause), "Stopped by http", { task: "http" }],
  ["ManagerStoppedError", () => new ManagerStoppedError("swim", 5), "Cannot swim: the manager has stopped", {}],
  [
    "TaskAlreadyStartedError",
    () => new TaskAlreadyStartedError("http"),
    "Cannot run http: it has already started",
    { task: "http" },
  ],
  ["PanicError", () => new PanicError("x"), 'Panicked with "x"', {}],
  ["PanicError", () => new PanicError(cause, "exit"), "Panicked with Error: cause", { origin: "exit" }],
  [
    "ShutdownTimeoutError",
    () => new ShutdownTimeoutError(50, ["a", "b"]),
    "Shutdown timed out after 50 ms: a,b",
    { pending: ["a", "b"] },
  ],
  ["CleanupError", () => new CleanupError([cause]), "Cleanup failed", {}],
  [
    "CleanupTimeoutError",
    () => new CleanupTimeoutError(50, ["a"]),
    "Cleanup timed out after 50 ms: a",
    { pending: ["a"] },
  ],
];

test.each(subjects)("%s says its name, and its only keys are its fields", (name, create, message, fields) => {
  const error = create();
  expect(error).toBeInstanceOf(Error);
  expect(error.name).toBe(name);
  expect(error.message).toBe(message);
  expect(String(error)).toBe(`${name}: ${message}`);
  expect({ ...error }).toEqual(fields);
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
