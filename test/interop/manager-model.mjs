/*
 * What a Manager does, by the laws of its contract (the numbered sentences under "Guarantees" in the README), written
 * as plainly as those are: it keeps lists of what was seen, and asks them. There are no promises, timers or signals of
 * the platform in here; a world of its own has them in a few lines, and time passes there when it is told to.
 *
 * The numbers in the comments are those of the laws. What the laws leave open is settled as follows:
 *
 * - A promise cannot be asked. So its end is heard of when the code that runs has come to its end, in the order in
 *   which the promises settled; what is thrown instead of returned is known at once.
 * - Tasks are told in the order of their starts, and named in it, those that wait last: the group's own signal first,
 *   then the event, then each.
 * - An observer is told when all that it may ask about is so already, and before what follows from it: what it does
 *   then comes first.
 * - Who has a place under the limit keeps it until all has happened that follows from the end.
 * - Who waits while the tasks are being told of the stop drops the queue before the others are.
 */

/**
 * After the timeout, when no hook is left to be called, one ended behind another: whether that is still heard of is a
 * matter of microtasks, of which no law speaks. So it is no difference, and what follows is not judged.
 */
export const UNDECIDED = "hooks end one behind the other at the very end";

/** What its clock shows when a world begins. */
export const BEGINNING = 1_000;

/** The longest delay of a timer. A longer time is no limit. */
const LONGEST_DELAY = 2 ** 31 - 1;

const KINDS = ["main", "ephemeral", "background"];

/** What can happen, for a count of what programs come to. */
export const HAPPENINGS = [
  ...["task-started", "task-ended", "stopping", "shutdown-timed-out", "cleanup-ended", "cleanup-timed-out", "stopped"],
  ...KINDS.flatMap((kind) => [
    ...["returned", "failed"].map((outcome) => `a task (${kind}) ${outcome}`),
    ...["returned", "failed", "cancelled"].map((outcome) => `a task (${kind}) ${outcome} after the stop`),
    `a stop by a task (${kind})`,
    `a stop by a task (${kind}) comes second`,
  ]),
  ...["stop()", "itself"].flatMap((by) => [`a stop by ${by}`, `a stop by ${by} comes second`]),
  "a stop by the parent",
  "a task (ephemeral) skipped after the stop",
  "a task ends after the deadline",
  "a task waits for its turn",
  "a task starts with a signal that has aborted",
  "a task starts while someone waits",
  "a task throws instead of returning a promise",
  "a task returns no promise",
  "a task rejects with what is no error",
  "a task rejects with the reason",
  "a task rejects with an AbortError after the stop",
  "a task rejects with an AbortError for something else",
  "a task rejects with an AbortError before the stop",
  "no task is refused",
  "a task is refused after the stop",
  "a hook is refused after the end",
  "a hook is registered after the stop",
  "a hook is registered while hooks run",
  "a hook returns",
  "a hook fails",
  "a hook is called after the timeout",
  "a hook ends between the timeout and the end",
  "a hook ends after the end",
  "the deadline passes while someone waits",
  "the deadline passes while nobody waits",
  "an observer throws",
  "one hook has failed",
  "several hooks have failed",
  "no failure",
  "one failure",
  "several failures",
  UNDECIDED,
];

/** An error that a manager makes: what it is, and what it says. */
export class Made {
  constructor(is, says) {
    Object.assign(this, { is, ...says });
  }
}

/** A world without promises, timers and signals of the platform: what is to happen in it stands in lists. */
export class ModelWorld {
  now = BEGINNING;
  /** What has happened, of the {@link HAPPENINGS}. */
  notes = new Set();
  /** Nothing is, here. */
  unhandled = [];
  #soon = [];
  #later = [];
  #alarms = new Set();

  createController() {
    return new ModelController();
  }

  /** A promise, and what settles it. */
  createDeferred() {
    const promise = new ModelPromise(this);
    return {
      promise,
      resolve: () => promise.settle({ returned: true }),
      reject: (thrown) => promise.settle({ returned: false, thrown }),
    };
  }

  createManager(options) {
    return new ManagerModel(this, options);
  }

  listen(signal, listener) {
    signal.listeners.push(listener);
  }

  look(promise, onSettled) {
    promise.whenSettled(onSettled);
  }

  listenersOf(signal) {
    return signal.listeners.length;
  }

  /** Whether it keeps the process alive. */
  get isHeld() {
    return [...this.#alarms].some(({ isHolding }) => isHolding());
  }

  get timers() {
    return this.#alarms.size;
  }

  note(what) {
    if (!HAPPENINGS.includes(what)) throw new Error(`Not among the HAPPENINGS: ${what}`);
    this.notes.add(what);
  }

  /** Happens when the code that runs has come to its end, in this order. */
  soon(act) {
    this.#soon.push(act);
  }

  /** Happens when all has been heard of that has ended. */
  later(act) {
    this.#later.push(act);
  }

  setAlarm(milliseconds, isHolding, act) {
    const alarm = { at: milliseconds > LONGEST_DELAY ? Infinity : this.now + milliseconds, isHolding, act };
    this.#alarms.add(alarm);
    return () => void this.#alarms.delete(alarm);
  }

  /** Goes on until nothing is left that happens by itself in this turn. */
  endTurn() {
    for (let act; (act = this.#soon.shift() ?? this.#later.shift()); ) act();
  }

  /** Lets the next alarm pass, if it does so by then. */
  passAlarm(until) {
    const [alarm] = [...this.#alarms].sort((one, other) => one.at - other.at);
    if (!alarm || alarm.at > until) return false;
    this.#alarms.delete(alarm);
    this.now = alarm.at;
    alarm.act();
    return true;
  }
}

class ModelController {
  signal = { aborted: false, reason: undefined, listeners: [] };

  abort(reason = new Made("AbortError of the platform")) {
    const { signal } = this;
    if (signal.aborted) return;
    Object.assign(signal, { aborted: true, reason });
    for (const listener of signal.listeners.slice()) listener();
  }
}

class ModelPromise {
  #world;
  #outcome;
  #listeners = [];

  constructor(world) {
    this.#world = world;
  }

  settle(outcome) {
    if (this.#outcome) return;
    this.#outcome = outcome;
    for (const listener of this.#listeners) this.#world.soon(() => listener(outcome));
  }

  whenSettled(listener) {
    if (this.#outcome) this.#world.soon(() => listener(this.#outcome));
    else this.#listeners.push(listener);
  }
}

/**
 * A manager by the laws. A task of it is accepted; then, if it is ephemeral, it waits for a place; it is running; it is
 * ending while what follows from its end happens; then it is over.
 */
class ManagerModel {
  #world;
  #options;
  #controller = new ModelController();
  signal = this.#controller.signal;

  #tasks = [];
  /** When it was told to stop. */
  #stoppedAt;
  #isDeadlinePassed = false;
  #cancelDeadline = () => {};
  #failures = [];

  /** The promise of `wait()`, once it was asked for, and what settles it. */
  #waiting;
  /** Hooks that are still to be called. */
  #hooks = [];
  /** Calls of hooks, in order. */
  #calls = [];
  #hasCleanupBegun = false;
  #hasCleanupTimedOut = false;
  #lastEnds = 0;
  #cancelCleanupTimeout = () => {};
  #isClosed = false;

  constructor(world, options) {
    const { name = "", signal, shutdownTimeout = 20_000, cleanupTimeout = 5_000, limit = Infinity, onEvent } = options;
    this.#world = world;
    this.#options = { name, shutdownTimeout, cleanupTimeout, limit, onEvent };
    if (!signal) return;
    // 6: the reason of a parent is passed on; 9: it carries a listener until the stop.
    const onAbort = () => this.#stop(signal.reason, "the parent");
    if (signal.aborted) return onAbort();
    signal.listeners.push(onAbort);
    this.signal.listeners.push(() => signal.listeners.splice(signal.listeners.indexOf(onAbort), 1));
  }

  get pending() {
    return this.#unended.map(({ name }) => name);
  }

  get failures() {
    return this.#failures.slice();
  }

  run(...tasks) {
    this.#accept("main", tasks);
  }

  runEphemeral(...tasks) {
    this.#accept("ephemeral", tasks);
  }

  runBackground(...tasks) {
    this.#accept("background", tasks);
  }

  cleanup(hook) {
    if (typeof hook !== "function") throw new Made("TypeError");
    // 16: it may be registered until the last one has run.
    if (this.#isClosed) throw this.#refusal("a hook is refused after the end");
    if (this.#calls.length > 0) this.#note("a hook is registered while hooks run");
    else if (this.#isStopped) this.#note("a hook is registered after the stop");
    this.#hooks.push(hook);
  }

  wait() {
    // 17: always the same promise.
    if (!this.#waiting) {
      this.#waiting = this.#world.createDeferred();
      this.#admit();
      this.#endByItself();
      this.#leaveTasks();
    }
    return this.#waiting.promise;
  }

  stop(reason = new Made("StopReason")) {
    this.#stop(reason, "stop()");
    return this.wait();
  }

  [Symbol.asyncDispose]() {
    return this.stop();
  }

  /** The tasks that have not ended. */
  get #unended() {
    const started = this.#tasks.filter(({ state }) => state === "accepted" || state === "running");
    const waiting = this.#tasks.filter(({ state }) => state === "waiting");
    return [...started, ...waiting];
  }

  get #isStopped() {
    return this.signal.aborted;
  }

  #accept(kind, tasks) {
    // 1: they check all their arguments first.
    if (!tasks.every(isTask)) {
      this.#note("no task is refused");
      throw new Made("TypeError");
    }
    // 2: after a stop they start nothing.
    if (this.#isStopped) throw this.#refusal("a task is refused after the stop");
    const state = kind === "ephemeral" ? "waiting" : "accepted";
    const accepted = tasks.map((task) => {
      const name = [this.#options.name, nameOf(task) ?? kind].filter(Boolean).join("/");
      return { task, name, kind, state, startedAt: 0, controller: new ModelController() };
    });
    this.#tasks.push(...accepted);
    this.#admit();
    // 1: in order, also when an earlier one stops the group.
    if (kind !== "ephemeral") accepted.forEach((task) => this.#start(task));
  }

  /** 4: ephemeral tasks beyond the limit wait, first in first out; a stop drops them. */
  #admit() {
    for (let first; (first = this.#tasks.find(({ state }) => state === "waiting")); ) {
      const taken = this.#tasks.filter(({ kind, state }) => {
        return kind === "ephemeral" && (state === "running" || state === "ending");
      });
      if (taken.length < this.#options.limit) {
        this.#start(first);
      } else if (this.#isStopped) {
        first.startedAt = this.#world.now;
        this.#end(first, "skipped");
      } else {
        this.#note("a task waits for its turn");
        return;
      }
    }
  }

  #start(entry) {
    const { task, name, kind, controller } = entry;
    if (this.#isStopped) {
      this.#note("a task starts with a signal that has aborted");
      controller.abort(this.signal.reason);
    } else if (this.#waiting) this.#note("a task starts while someone waits");
    if (entry.state === "waiting") this.#tasks.push(...this.#tasks.splice(this.#tasks.indexOf(entry), 1));
    entry.state = "running";
    entry.startedAt = this.#world.now;
    this.#tell({ type: "task-started", task: name, kind });
    let promise;
    try {
      promise = typeof task === "function" ? task(controller.signal) : task.run(controller.signal);
    } catch (thrown) {
      this.#note("a task throws instead of returning a promise");
      return this.#endBy(entry, thrown);
    }
    // 10: a `run` that does not return a promise fails.
    if (!(promise instanceof ModelPromise)) {
      this.#note("a task returns no promise");
      return this.#endBy(entry, new Made("TypeError", { names: name }));
    }
    promise.whenSettled(({ returned, thrown }) => {
      if (returned) this.#end(entry, "returned");
      else this.#endBy(entry, thrown);
    });
  }

  #endBy(entry, thrown) {
    // 11: ending because it was told to is no failure.
    if (this.#isStopped && this.#isEcho(thrown)) return this.#end(entry, "cancelled");
    if (!isError(thrown)) this.#note("a task rejects with what is no error");
    if (thrown?.name === "AbortError") {
      this.#note(`a task rejects with an AbortError ${this.#isStopped ? "for something else" : "before the stop"}`);
    }
    this.#end(entry, "failed", errorOf(thrown));
  }

  #isEcho(thrown) {
    const { reason } = this.signal;
    const isReason = thrown === reason;
    const isAbortError = thrown?.name === "AbortError" && (thrown.cause === undefined || thrown.cause === reason);
    if (isReason) this.#note("a task rejects with the reason");
    else if (isAbortError) this.#note("a task rejects with an AbortError after the stop");
    return isReason || isAbortError;
  }

  #end(entry, outcome, error) {
    const { name, kind, startedAt } = entry;
    entry.state = "ending";
    // 13: what it does after the deadline changes nothing, and is told to nobody.
    if (this.#isDeadlinePassed) {
      this.#note("a task ends after the deadline");
      entry.state = "over";
      return;
    }
    this.#note(`a task (${kind}) ${outcome}${this.#isStopped ? " after the stop" : ""}`);
    if (error) this.#failures.push({ source: name, error });
    const elapsed = this.#world.now - startedAt;
    this.#tell({ type: "task-ended", task: name, kind, outcome, ...(error && { error }), elapsed });
    // 5: any end of a main or background task stops the group, and any failure.
    if (kind !== "ephemeral" || outcome === "failed") {
      // 6: the reason names the task, and its error.
      this.#stop(new Made("StopReason", { task: name, ...(error && { cause: error }) }), `a task (${kind})`);
    }
    entry.state = "over";
    this.#endByItself();
    this.#admit();
    this.#leaveTasks();
  }

  /** 7: once someone waits and only background tasks are left, it stops by itself. */
  #endByItself() {
    const isIdle = this.#tasks.every(({ kind, state }) => kind === "background" || state === "over");
    if (this.#waiting && isIdle) this.#stop(new Made("StopReason"), "itself");
  }

  #stop(reason, by) {
    // 5: the first cause wins.
    if (this.#isStopped) return this.#note(`a stop by ${by} comes second`);
    this.#note(`a stop by ${by}`);
    this.#stoppedAt = this.#world.now;
    this.#controller.abort(reason);
    this.#tell({ type: "stopping", reason, pending: this.pending });
    // 8: each task has a signal of its own, that follows.
    for (const { controller } of this.#unended) controller.abort(reason);
    // 13: the deadline counts from the stop; 17: it holds the process once someone waits.
    const isHolding = () => this.#waiting !== undefined;
    this.#cancelDeadline = this.#world.setAlarm(this.#options.shutdownTimeout, isHolding, () => this.#passDeadline());
    this.#admit();
    this.#leaveTasks();
  }

  #passDeadline() {
    this.#note(`the deadline passes while ${this.#waiting ? "someone" : "nobody"} waits`);
    const { pending } = this;
    this.#isDeadlinePassed = true;
    const error = new Made("ShutdownTimeoutError", { pending });
    this.#failures.push({ source: "shutdown", error });
    this.#tell({ type: "shutdown-timed-out", pending, error });
    this.#leaveTasks();
  }

  /** 14: hooks run in `wait()`, once, after the last task ended, or the deadline passed. */
  #leaveTasks() {
    const areTasksOver = this.#isStopped && (this.#unended.length === 0 || this.#isDeadlinePassed);
    if (!areTasksOver) return;
    this.#cancelDeadline();
    if (!this.#waiting || this.#hasCleanupBegun) return;
    this.#hasCleanupBegun = true;
    this.#world.later(() => {
      const { cleanupTimeout } = this.#options;
      this.#cancelCleanupTimeout = this.#world.setAlarm(cleanupTimeout, () => true, () => this.#passCleanupTimeout());
      this.#callNextHook();
    });
  }

  /** 14: the one that was registered last is called first, one at a time. */
  #callNextHook() {
    const hook = this.#hooks.pop();
    if (!hook) return this.#close();
    // 3: a hook's name is its function's.
    const call = { name: hook.name || "hook", startedAt: this.#world.now, hasEnded: false, error: undefined };
    this.#calls.push(call);
    // 15: after the timeout the remaining hooks are called, and not waited for.
    if (this.#hasCleanupTimedOut) {
      this.#note("a hook is called after the timeout");
      this.#world.later(() => this.#callNextHook());
    }
    let returned;
    try {
      returned = hook();
    } catch (thrown) {
      return this.#endHook(call, errorOf(thrown));
    }
    if (returned instanceof ModelPromise) {
      returned.whenSettled((outcome) => {
        this.#endHook(call, outcome.returned ? undefined : errorOf(outcome.thrown));
      });
    } else {
      this.#world.soon(() => this.#endHook(call));
    }
  }

  #endHook(call, error) {
    if (this.#isClosed) return this.#note("a hook ends after the end");
    this.#note(error ? "a hook fails" : "a hook returns");
    call.hasEnded = true;
    call.error = error;
    const elapsed = this.#world.now - call.startedAt;
    this.#tell({ type: "cleanup-ended", hook: call.name, ...(error && { error }), elapsed });
    if (this.#hasCleanupTimedOut) {
      if (elapsed > 0) this.#note("a hook ends between the timeout and the end");
      if (this.#hooks.length === 0 && this.#lastEnds++ > 0) this.#note(UNDECIDED);
    } else {
      this.#world.later(() => this.#callNextHook());
    }
  }

  #passCleanupTimeout() {
    this.#hasCleanupTimedOut = true;
    this.#callNextHook();
  }

  #close() {
    this.#isClosed = true;
    this.#cancelCleanupTimeout();
    // 14: all their errors become one, in run order.
    const errors = this.#calls.flatMap(({ error }) => (error ? [error] : []));
    if (errors.length > 0) {
      this.#failures.push({ source: "cleanup", error: new Made("CleanupError", { errors }) });
      this.#note(errors.length > 1 ? "several hooks have failed" : "one hook has failed");
    }
    // 15: after that, the timeout, with the hooks that have not ended.
    if (this.#hasCleanupTimedOut) {
      const pending = this.#calls.filter(({ hasEnded }) => !hasEnded).map(({ name }) => name);
      const error = new Made("CleanupTimeoutError", { pending });
      this.#failures.push({ source: "cleanup", error });
      this.#tell({ type: "cleanup-timed-out", pending, error });
    }
    this.#tell({ type: "stopped", failures: this.failures, elapsed: this.#world.now - this.#stoppedAt });
    // 12: it rejects with the first failure itself.
    const [first] = this.#failures;
    this.#note(first ? (this.#failures.length > 1 ? "several failures" : "one failure") : "no failure");
    if (first) this.#waiting.reject(first.error);
    else this.#waiting.resolve();
  }

  #tell({ type, ...event }) {
    this.#note(type);
    try {
      this.#options.onEvent?.({ type, manager: this.#options.name, ...event });
    } catch {
      // 17: an observer that throws changes nothing.
      this.#note("an observer throws");
    }
  }

  #refusal(what) {
    this.#note(what);
    return new Made("ManagerStoppedError", { cause: this.signal.reason });
  }

  #note(what) {
    this.#world.note(what);
  }
}

function isTask(task) {
  return typeof task === "function" || typeof task?.run === "function";
}

/** 3: its `name`, else its function's or class's name (`Object` is none). */
function nameOf(task) {
  const isOfClass = typeof task === "object" && task.constructor !== Object;
  return [task.name, isOfClass && task.constructor.name].find(Boolean);
}

/** 10: an error keeps its identity; anything else arrives as a `PanicError`. */
function errorOf(thrown) {
  return isError(thrown) ? thrown : new Made("PanicError", { cause: thrown });
}

function isError(thrown) {
  return thrown instanceof Error || thrown instanceof Made;
}
