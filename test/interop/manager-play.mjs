/*
 * A program is played in a world: the platform, with a clock of our own, or that of manager-model.mjs. What is seen is
 * written down.
 */
import { getEventListeners } from "node:events";
import {
  CleanupError,
  CleanupTimeoutError,
  ManagerStoppedError,
  PanicError,
  ShutdownTimeoutError,
  StopReason,
} from "../../dist/index.js";
import { BEGINNING, Made } from "./manager-model.mjs";
import { KINDS } from "./manager-programs.mjs";

// Worlds

/** What stands in for the timers of the platform. */
class Clock {
  now = BEGINNING;
  #timers = new Set();

  start(act, milliseconds) {
    const timer = { at: this.now + milliseconds, act, isHolding: true };
    timer.ref = () => Object.assign(timer, { isHolding: true });
    timer.unref = () => Object.assign(timer, { isHolding: false });
    this.#timers.add(timer);
    return timer;
  }

  clear(timer) {
    this.#timers.delete(timer);
  }

  get timers() {
    return [...this.#timers];
  }

  passAlarm(until) {
    const [timer] = this.timers.sort((one, other) => one.at - other.at);
    if (!timer || timer.at > until) return false;
    this.#timers.delete(timer);
    this.now = timer.at;
    timer.act();
    return true;
  }
}

/** That of the world that is played in. */
export let clock = new Clock();
export let unhandled = [];

/** The platform, with a clock of our own. */
export class World {
  #Manager;
  #clock = (clock = new Clock());

  constructor(SomeManager) {
    this.#Manager = SomeManager;
    unhandled = [];
  }

  createController() {
    return new AbortController();
  }

  createDeferred() {
    const deferred = {};
    deferred.promise = new Promise((resolve, reject) => Object.assign(deferred, { resolve, reject }));
    return deferred;
  }

  createManager(options) {
    return new this.#Manager(options);
  }

  listen(signal, listener) {
    signal.addEventListener("abort", listener);
  }

  look(promise, onSettled) {
    promise.then(
      () => onSettled({ returned: true }),
      (thrown) => onSettled({ returned: false, thrown }),
    );
  }

  listenersOf(signal) {
    return getEventListeners(signal, "abort").length;
  }

  get isHeld() {
    return this.#clock.timers.some(({ isHolding }) => isHolding);
  }

  get timers() {
    return this.#clock.timers.length;
  }

  get now() {
    return this.#clock.now;
  }

  set now(now) {
    this.#clock.now = now;
  }

  get unhandled() {
    return unhandled;
  }

  passAlarm(until) {
    return this.#clock.passAlarm(until);
  }
}

// What is seen

/** The errors of the library, with what they say. */
const SAYS = [
  [PanicError, "PanicError", ["cause"]],
  [StopReason, "StopReason", ["task", "cause"]],
  [ManagerStoppedError, "ManagerStoppedError", ["cause"]],
  [ShutdownTimeoutError, "ShutdownTimeoutError", ["pending"]],
  [CleanupError, "CleanupError", ["errors"]],
  [CleanupTimeoutError, "CleanupTimeoutError", ["pending"]],
];

/** What the model would have made instead of this error; of one that the program made, its message. */
function madeOf(error) {
  if (error instanceof Made) return error;
  for (const [Class, is, fields] of SAYS) {
    if (!(error instanceof Class)) continue;
    const isAbort = error.name === "AbortError" && error.code === "ABORT_ERR";
    const isAsNamed = is === "StopReason" ? isAbort : error.name === is;
    const says = fields.filter((field) => field in error).map((field) => [field, error[field]]);
    return new Made(isAsNamed ? is : error.name, Object.fromEntries(says));
  }
  if (error instanceof TypeError) {
    const [names] = error.message.match(/(?:group\/)?\b(?:t\d+|main|ephemeral|background)\b/) ?? [];
    return new Made("TypeError", { ...(names && { names }) });
  }
  if (error instanceof DOMException) return new Made(`${error.name} of the platform`);
  return new Made(error.message);
}

/** Shows values, such that two errors are shown alike only if they are the same one. */
class Shower {
  #shown = new Map();
  #counts = {};

  show(value) {
    if (value === undefined || value === null || typeof value === "number") return String(value);
    if (typeof value !== "object") return JSON.stringify(value);
    if (Array.isArray(value)) return `[${value.map((each) => this.show(each)).join(", ")}]`;
    if (!(value instanceof Error || value instanceof Made)) return `{ ${this.#fields(value)} }`;
    return this.#shown.get(value) ?? this.#showNew(value);
  }

  #showNew(error) {
    const { is, ...says } = madeOf(error);
    const text = Object.keys(says).length > 0 ? `${is}(${this.#fields(says)})` : is;
    const count = (this.#counts[text] = (this.#counts[text] ?? 0) + 1);
    const shown = count > 1 ? `another ${text}, the ${count}th` : text;
    this.#shown.set(error, shown);
    return shown;
  }

  #fields(object) {
    const keys = Object.keys(object).sort();
    return keys.map((key) => `${key}: ${this.show(object[key])}`).join(", ");
  }
}

// Playing

/** Plays a program in a world, and writes down what is seen. Each `yield` ends a turn. */
export class Play {
  log = [];
  /** Which task each act that ends one was for. */
  targets = new Map();
  #world;
  #program;
  #names;
  #shower = new Shower();
  #common = new Error("the common error");
  #parent;
  #manager;
  #events = 0;
  /** How often each task and hook was called. */
  #starts = {};
  #signals = new Set();
  #running = [];
  #hanging = [];
  #waiting;
  #outcome = "-";
  /** All that was handed out as `failures`, and how long that was then. */
  #lists = [];

  constructor(world, program, names) {
    this.#world = world;
    this.#program = program;
    this.#names = names;
  }

  *run() {
    const { steps, looksLate, ending } = this.#program;
    this.#create();
    yield;
    this.#look("at the beginning");
    for (const [index, { act, isTurn }] of steps.entries()) {
      if (act.does === "let time pass") yield* this.#passTime(act.milliseconds);
      else this.#do(act);
      if (!isTurn) continue;
      yield;
      this.#look(`after step ${index + 1}`);
    }

    this.#do({ does: "stop", reason: "none" });
    if (looksLate) this.#world.look(this.#waiting, (outcome) => this.#settle(outcome));
    yield;
    this.#look("after the last stop");
    if (ending === "time passes") {
      yield* this.#passTime(60_000);
      this.#look("after a minute");
    }
    while (this.#running.length > 0 || this.#hanging.length > 0) {
      this.#do({ does: "end a task", who: 0, how: "fails" });
      this.#do({ does: "end a hook", who: 0, how: "fails" });
      yield;
      this.#look("when more has ended");
    }
    this.#do({ does: "run", kind: "main", tasks: [] });
    this.#do({ does: "register what is no hook" });
    this.#do({ does: "register a hook", hook: { naming: "function", first: [], then: "returns nothing" } });
    yield;
    const grown = this.#lists.filter(({ list, length }) => list.length !== length).length;
    const rejections = this.#show(this.#world.unhandled);
    this.#see(`at the end: ${this.#world.timers} timers, unhandled ${rejections}, ${grown} lists have grown`);
  }

  #create() {
    const { name, limit, shutdownTimeout, cleanupTimeout, parent, observer, whenStopped } = this.#program;
    this.#parent = parent === "none" ? undefined : this.#world.createController();
    if (parent === "has aborted") this.#parent.abort(this.#common);
    const onEvent = observer ? (event) => this.#observe(event) : undefined;
    const signal = this.#parent?.signal;
    this.#manager = this.#world.createManager({ name, limit, shutdownTimeout, cleanupTimeout, signal, onEvent });
    this.#world.listen(this.#manager.signal, () => {
      this.#see(`the shared signal aborts: ${this.#show(this.#manager.signal.reason)}`);
      this.#doAll(whenStopped);
    });
  }

  *#passTime(milliseconds) {
    yield;
    const until = this.#world.now + milliseconds;
    while (this.#world.passAlarm(until)) yield;
    this.#world.now = until;
  }

  #see(line) {
    this.log.push(line);
  }

  #show(value) {
    return this.#shower.show(value);
  }

  /**
   * What is so when an event is told. (Not what is pending when tasks are over: those that were given up may end in the
   * turn in which hooks do.)
   */
  #ask(type) {
    const { pending, failures, signal } = this.#manager;
    const then = type.startsWith("cleanup") || type === "stopped" ? "" : ` with ${this.#show(pending)} pending`;
    return `${then}, ${failures.length} failures, ${signal.aborted ? "stopped" : "not stopped"}`;
  }

  /** Looks at all that can be asked. */
  #look(when) {
    const { pending, failures, signal } = this.#manager;
    this.#lists.push({ list: failures, length: failures.length });
    const stop = signal.aborted ? `stopped by ${this.#show(signal.reason)}` : "not stopped";
    const listeners = this.#parent ? this.#world.listenersOf(this.#parent.signal) : 0;
    const held = this.#world.isHeld ? "held" : "not held";
    const told = [...this.#signals].filter(({ aborted }) => aborted).length;
    this.#see(
      `${when}: pending ${this.#show(pending)}, failures ${this.#show(failures)}, ${stop}, ` +
        `${told} of ${this.#signals.size} signals aborted, ${listeners} listeners, ${held}, wait() ${this.#outcome}`,
    );
  }

  #observe(event) {
    this.#see(`event ${this.#show(event)}${this.#manager ? this.#ask(event.type) : ""}`);
    const { manner, acts } = this.#program.observer;
    const index = this.#events++;
    // What is told by the constructor is told before anybody has a manager to do something with.
    if (this.#manager) for (const { at, act } of acts) if (at === index) this.#do(act);
    if (manner === "throws") throw new Error("of an observer");
    if (manner === "quiet") return undefined;
    const { promise, reject } = this.#world.createDeferred();
    reject(new Error("of an observer"));
    return promise;
  }

  #doAll(acts) {
    for (const act of acts) this.#do(act);
  }

  #do(act) {
    try {
      this.#doOrThrow(act);
    } catch (thrown) {
      this.#see(`to ${act.does} throws ${this.#show(thrown)}`);
    }
  }

  #doOrThrow(act) {
    const manager = this.#manager;
    switch (act.does) {
      case "wait":
        return this.#promised(manager.wait());
      case "stop":
        if (act.reason === "none") return this.#promised(manager.stop());
        return this.#promised(manager.stop(this.#reason(act.reason)));
      case "dispose":
        return this.#promised(manager[Symbol.asyncDispose]());
      case "abort the parent":
        return this.#parent?.abort(...(act.reason === "none" ? [] : [this.#reason(act.reason)]));
      case "end a task":
        return this.#endOne(this.#running, act);
      case "end a hook":
        return this.#endOne(this.#hanging, act);
      case "run":
        return manager[KINDS[act.kind]](...act.tasks.flatMap((spec) => this.#tasks(spec)));
      case "run what is no task":
        return manager[KINDS[act.kind]](...act.tasks.flatMap((spec) => this.#tasks(spec)), { run: "later" });
      case "register a hook":
        for (const hook of this.#hooks(act.hook)) manager.cleanup(hook);
        return undefined;
      case "register what is no hook":
        return manager.cleanup("no hook");
    }
  }

  #promised(promise) {
    if (this.#waiting && promise !== this.#waiting) this.#see("another promise");
    if (this.#waiting) return;
    this.#waiting = promise;
    this.#outcome = "pending";
    if (!this.#program.looksLate) this.#world.look(promise, (outcome) => this.#settle(outcome));
  }

  #settle({ returned, thrown }) {
    this.#outcome = returned ? "resolved" : `rejected with ${this.#show(thrown)}`;
  }

  #reason(kind) {
    if (kind === "a string") return "told to";
    if (kind === "null") return null;
    if (kind === "the common error") return this.#common;
    return kind === "an AbortError" ? abortError("an AbortError as reason") : new Error("an error as reason");
  }

  #endOne(running, act) {
    const one = running[act.who % running.length];
    if (!one) return;
    this.targets.set(act, [...(this.targets.get(act) ?? []), one.name]);
    one.settle(act.how);
  }

  /** Makes the task, with its name in its way; or a list that has it twice. */
  #tasks(spec) {
    const name = this.#names.get(spec);
    const run = (signal) => this.#startTask(spec, signal);
    const task = {
      "named object": () => ({ name, run }),
      "function": () => Object.defineProperty(run, "name", { value: name }),
      "class": () => new { [name]: class { run = run; } }[name](),
      "object": () => ({ run }),
      "nameless": () => Object.defineProperty(run, "name", { value: "" }),
    }[spec.naming]();
    return spec.isTwice ? [task, task] : [task];
  }

  #hooks(spec) {
    const name = spec.naming === "nameless" ? "" : this.#names.get(spec);
    const hook = Object.defineProperty(() => this.#callHook(spec), "name", { value: name });
    return spec.isTwice ? [hook, hook] : [hook];
  }

  #startTask(spec, signal) {
    const name = this.#callOf(spec);
    const isOwn = signal !== this.#manager.signal && !this.#signals.has(signal);
    const aborted = signal.aborted ? `, which has aborted: ${this.#show(signal.reason)}` : "";
    this.#see(`${name} is run with ${isOwn ? "a signal of its own" : "a signal of others"}${aborted}`);
    this.#signals.add(signal);
    const isAsync = spec.then !== "throws" && spec.then !== "panics at once" && spec.then !== "returns no promise";
    const { promise, settle } = this.#open(name, this.#running, isAsync, () => signal.reason);
    const onTold = () => {
      this.#doAll(spec.whenTold);
      if (spec.told !== "ignores it") settle(spec.told);
    };
    const isTold = signal.aborted;
    this.#world.listen(signal, () => {
      this.#see(`${name} is told: ${this.#show(signal.reason)}`);
      onTold();
    });
    this.#doAll(spec.first);
    if (isTold) onTold();
    return this.#finish(name, spec, promise, settle);
  }

  #callHook(spec) {
    const name = this.#callOf(spec);
    this.#see(`${name} is called`);
    const isAsync = spec.then !== "throws" && spec.then !== "panics at once" && spec.then !== "returns nothing";
    const { promise, settle } = this.#open(name, this.#hanging, isAsync, () => this.#manager.signal.reason);
    this.#doAll(spec.first);
    return this.#finish(name, spec, promise, settle);
  }

  #callOf(spec) {
    const name = this.#names.get(spec);
    const count = (this.#starts[name] = (this.#starts[name] ?? 0) + 1);
    return count > 1 ? `call ${count} of ${name}` : name;
  }

  /** Opens the promise of something that goes on until it is settled; it is not among those that run if it has none. */
  #open(name, running, isAsync, reason) {
    if (!isAsync) return { settle() {} };
    const { promise, resolve, reject } = this.#world.createDeferred();
    const settle = (how) => {
      const index = running.indexOf(one);
      if (index < 0) return;
      running.splice(index, 1);
      if (how === "returns") resolve();
      else reject(this.#thrown(name, how, reason()));
    };
    const one = { name, settle };
    running.push(one);
    return { promise, settle };
  }

  #finish(name, { then }, promise, settle) {
    if (then === "throws") throw new Error(`the error of ${name}`);
    if (then === "panics at once") throw `the panic of ${name}`;
    if (then !== "waits" && promise) settle(then);
    return promise;
  }

  #thrown(name, how, reason) {
    return {
      "fails": () => new Error(`the error of ${name}`),
      "fails with the common error": () => this.#common,
      "panics": () => `the panic of ${name}`,
      "panics with undefined": () => undefined,
      "rejects with the reason": () => reason,
      "rejects with a bare AbortError": () => abortError(`the AbortError of ${name}`),
      "rejects with an AbortError for the reason": () => abortError(`the AbortError of ${name}`, reason),
      "rejects with an AbortError for something else": () => abortError(`the AbortError of ${name}`, this.#common),
    }[how]();
  }
}

function abortError(message, cause) {
  return Object.assign(new Error(message, { cause }), { name: "AbortError" });
}
