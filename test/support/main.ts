import type { EventEmitter } from "node:events";
// Not the global one, which may be faked.
import { setImmediate } from "node:timers/promises";
import { inspect } from "node:util";
import type { Manager } from "allstop";
import { runMain, type RunMainOptions } from "allstop/main";
import { afterEach, beforeEach, expect, vi } from "vitest";

/** What a process tells of errors that nobody caught. */
const uncaught = ["uncaughtException", "unhandledRejection"] as const;

/** What was written to stderr since the test began. */
let text = "";
let exits: unknown[][] = [];

/** The lines of stderr, but for those of stacks, and of what an error has beyond its message. */
export function said(): string[] {
  return text.split("\n").filter((line) => /^\S/.test(line) && line !== "}");
}

/** All that is on stderr. */
export function stderr(): string {
  return text;
}

/** With what the process was to exit, each time. */
export function exited(): unknown[][] {
  return exits;
}

/** How many listeners there are for uncaught errors. */
export function uncaughtListeners(): number[] {
  return uncaught.map((name) => process.listenerCount(name));
}

/** Tells the process of an exception that nobody caught, as Node does. */
export function raise(value: unknown, origin: string = uncaught[0]): void {
  const emitter: EventEmitter = process;
  emitter.emit(uncaught[0], value, origin);
}

/** Lets all happen that is due by now, timers aside. */
export async function turn(): Promise<void> {
  for (let i = 0; i < 3; i++) await setImmediate();
}

/** What runMain does, in the process of the tests; it may be awaited late, or asked whether it is over. */
export function start(setup: (manager: Manager) => unknown = () => {}, options?: RunMainOptions) {
  const over = vi.fn<(value: unknown) => void>();
  const main = runMain(setup, options);
  main.then(over, over);
  return { main, over };
}

/**
 * Lets every test of a file run a program in the process of the tests: with a faked clock, but for `setImmediate`; with
 * a stderr that is read, an exit that only is counted, and without the listeners of the test runner, who takes each
 * uncaught error for one of its own. Checks that nothing of it is left.
 */
export function useMain(): void {
  let exitCode: typeof process.exitCode;
  let others: number;
  let runners: NodeJS.ExitListener[][];

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance"] });
    runners = uncaught.map((name) => process.listeners(name as "exit"));
    for (const name of uncaught) process.removeAllListeners(name);
    exitCode = process.exitCode;
    others = process.stderr.listenerCount("error");
    process.exitCode = undefined;
    [text, exits] = ["", []];
    vi.spyOn(process, "exit").mockImplementation((...args) => void exits.push(args) as never);
    vi.spyOn(process.stderr, "write").mockImplementation((chunk: unknown, done?: unknown) => {
      text += chunk;
      if (typeof done === "function") process.nextTick(done as () => void);
      return true;
    });
  });

  afterEach(async () => {
    await turn();
    const left = [uncaughtListeners(), process.stderr.listenerCount("error") - others];
    for (const [i, name] of uncaught.entries()) {
      process.removeAllListeners(name);
      for (const listener of runners[i] ?? []) process.on(name as "exit", listener);
    }
    process.exitCode = exitCode;
    vi.clearAllTimers();
    vi.useRealTimers();
    vi.restoreAllMocks();
    // That leaves getters on the object, though they were inherited.
    for (const stream of [process.stdout, process.stderr]) {
      for (const name of ["writableLength", "writableEnded"]) Reflect.deleteProperty(stream, name);
    }
    expect(left).toEqual([[0, 0], 0]);
  });
}

/** Values that are hard to show. */
export const oddities: [what: string, value: unknown][] = [
  ["undefined", undefined],
  ["null", null],
  ["an empty text", ""],
  ["a symbol", Symbol("odd")],
  ["a function", () => {}],
  ["Object.create(null)", Object.create(null)],
  ["a revoked Proxy", revoked()],
  ["an error whose getters throw", withGetters("stack", "name", "message", "cause")],
  ["an error whose stack is a getter that throws", withGetters("stack")],
  ["an error whose cause is a getter that throws", withGetters("cause")],
  ["an error that cannot be inspected", uninspectable()],
  ["an error that is its own cause", ownCause()],
  ["an AggregateError that has itself inside", ownPart()],
  ["an AggregateError whose errors are none", Object.assign(new AggregateError([]), { errors: undefined })],
];

function thrower(): never {
  throw new Error("a getter");
}

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

/** Of them the stack comes first, as it is made of the others when it is replaced. */
function withGetters(...names: string[]): Error {
  return Object.defineProperties(new Error(), Object.fromEntries(names.map((name) => [name, { get: thrower }])));
}

function uninspectable(): Error {
  return Object.assign(new Error("odd"), { [inspect.custom]: thrower });
}

function ownCause(): Error {
  const error = new Error("odd");
  return Object.assign(error, { cause: error });
}

function ownPart(): Error {
  const error = new AggregateError([], "odd");
  error.errors.push(error);
  return error;
}
