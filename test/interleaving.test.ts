import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { type LifecycleEvent, Manager, ManagerStoppedError, StopReason, type Task } from "allstop";
import { EventLog } from "allstop/testing";
import { describe, expect, test, vi } from "vitest";
import { useFakeTime } from "./support/fake-time.ts";
import { settle } from "./support/settle.ts";

/*
 * Every pair of things that can happen to a group, at every microtask offset of each, must keep the laws. One case is a
 * group with two tasks, a parent and hooks; two acts at their offsets; then a `stop()`, if nothing has stopped it.
 */

const OFFSETS = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const DEADLINE = 1_000;

useFakeTime();

/** What one case did, as seen from outside. */
class Case {
  readonly parent = new AbortController();
  readonly log = new EventLog();
  readonly manager = new Manager({
    signal: this.parent.signal,
    shutdownTimeout: DEADLINE,
    onEvent: this.log.observe,
  });
  /** Per accepted task: its signal, and whether it has ended. */
  readonly tasks = new Map<string, { signal: AbortSignal; ended: boolean }>();
  /** Per accepted hook: how often it ran. */
  readonly hooks = new Map<string, number>();
  /** The errors that tasks failed with before the deadline passed, in order. */
  readonly errors: Error[] = [];
  overdue = false;

  /** A task that ends when it is told how, or, if it is obedient, two microtasks after its signal aborts. */
  task(name: string, obedient = true): { task: Task; end(error?: Error): void } {
    let end: (error?: Error) => void = () => {};
    const ended = new Promise<void>((resolve, reject) => {
      end = (error) => {
        const task = this.tasks.get(name);
        if (task === undefined || task.ended) return;
        task.ended = true;
        if (error === undefined) resolve();
        else reject(error);
      };
    });
    // In the order in which rejections can be heard of, which is a microtask after they were made.
    ended.catch((error: Error) => !this.overdue && this.errors.push(error));
    const run = (signal: AbortSignal): Promise<void> => {
      this.tasks.set(name, { signal, ended: false });
      if (signal.aborted && obedient) end();
      signal.addEventListener("abort", () => obedient && void Promise.resolve().then(() => end()));
      return ended;
    };
    return { task: { name, run }, end };
  }

  hook(name: string): void {
    this.manager.cleanup(async () => {
      this.hooks.set(name, (this.hooks.get(name) ?? 0) + 1);
      for (const [task, { ended }] of this.tasks) {
        if (!ended && !this.overdue) throw new Error(`The hook ran before ${task} ended`);
      }
      await null;
    });
    this.hooks.set(name, 0);
  }
}

/** An act prepares what it needs before the case starts, and returns what is done at its offset. */
const acts: Record<string, (subject: Case, id: string) => () => void> = {
  "a task returns": (subject, id) => {
    const { task, end } = subject.task(`returns ${id}`);
    subject.manager.run(task);
    return () => end();
  },
  "an ephemeral task returns": (subject, id) => {
    const { task, end } = subject.task(`ephemeral ${id}`);
    subject.manager.runEphemeral(task);
    return () => end();
  },
  "a task fails": (subject, id) => {
    const { task, end } = subject.task(`fails ${id}`);
    subject.manager.runBackground(task);
    return () => end(new Error(`fails ${id}`));
  },
  "a task throws synchronously": (subject, id) => () => {
    const { task } = subject.task(`beside ${id}`);
    const error = new Error(`throws ${id}`);
    const throws = (): never => {
      subject.errors.push(error);
      throw error;
    };
    start(subject, throws, task);
  },
  "stop": (subject) => () => void subject.manager.stop(),
  "the parent aborts": (subject) => () => subject.parent.abort(),
  "wait": (subject) => () => void subject.manager.wait(),
  "a late run": (subject, id) => () => {
    const { task } = subject.task(`late ${id}`);
    start(subject, task);
  },
  "a late cleanup": (subject, id) => () => {
    try {
      subject.hook(`late ${id}`);
    } catch (thrown) {
      expect(thrown).toBeInstanceOf(ManagerStoppedError);
      expect(subject.log.events.at(-1)?.type).toBe("stopped");
    }
  },
  "the deadline passes": (subject, id) => {
    const { task, end } = subject.task(`deaf ${id}`, false);
    subject.manager.run(task);
    return () => {
      const stopped = subject.manager.signal.aborted && !subject.log.events.some((event) => event.type === "stopped");
      if (stopped && subject.manager.pending.length > 0) subject.overdue = true;
      vi.advanceTimersByTime(DEADLINE);
      // It hears at last, which by then may change nothing.
      end();
    };
  },
};

/** Starts tasks, which must be taken before the stop and refused after it. */
function start({ manager }: Case, ...tasks: Parameters<Manager["run"]>): void {
  const { aborted } = manager.signal;
  try {
    manager.run(...tasks);
    expect(aborted).toBe(false);
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(ManagerStoppedError);
    expect(aborted).toBe(true);
  }
}

function nameOfEnded(event: LifecycleEvent): string | [] {
  return event.type === "task-ended" ? event.task : [];
}

async function play(first: string, firstOffset: number, second: string, secondOffset: number): Promise<void> {
  const subject = new Case();
  const { manager, parent, log } = subject;
  const { task } = subject.task("bystander");
  manager.run(task);
  subject.hook("registered first");
  subject.hook("registered last");
  const todo = [
    { offset: firstOffset, act: acts[first]?.(subject, "1") },
    { offset: secondOffset, act: acts[second]?.(subject, "2") },
  ];
  for (let offset = 0; offset <= Math.max(firstOffset, secondOffset); offset++) {
    for (const due of todo) if (due.offset === offset) due.act?.();
    await null;
  }
  const promise = manager.stop();
  let error: unknown;
  promise.catch((thrown: unknown) => {
    error = thrown;
  });
  await settle();
  if (!log.events.some((event) => event.type === "stopped")) {
    subject.overdue = true;
    vi.advanceTimersByTime(DEADLINE);
    await settle();
  }

  // Stopped once, and for one reason; that is told to every task that was accepted.
  const { events } = log;
  const types = events.map((event) => event.type);
  assert.equal(types.filter((type) => type === "stopping").length, 1);
  assert.equal(types.filter((type) => type === "stopped").length, 1);
  assert.equal(types.at(-1), "stopped");
  const { reason } = manager.signal;
  const endedBeforeStop = events.slice(0, types.indexOf("stopping")).flatMap(nameOfEnded);
  for (const [name, { signal }] of subject.tasks) {
    if (signal.aborted) assert.deepEqual([name, signal.reason === reason], [name, true]);
    else assert.ok(endedBeforeStop.includes(name), name);
  }
  if (!parent.signal.aborted) assert.ok(reason instanceof StopReason);

  // Each accepted task has one start and one end, unless it was given up; nothing is pending.
  const timedOut = events.find((event) => event.type === "shutdown-timed-out");
  const givenUp = timedOut?.type === "shutdown-timed-out" ? timedOut.pending : [];
  const started = events.flatMap((event) => (event.type === "task-started" ? event.task : []));
  const ended = events.flatMap(nameOfEnded);
  assert.deepEqual([...ended, ...givenUp].sort(), [...started].sort());
  assert.deepEqual(manager.pending.filter((name) => !givenUp.includes(name)), []);

  // Every accepted hook ran once, after the last task.
  for (const [name, runs] of subject.hooks) assert.deepEqual([name, runs], [name, 1]);
  assert.ok(types.lastIndexOf("task-ended") < types.indexOf("cleanup-ended"));

  // The first failure is the first of `failures`, all of which are there, and what the promise rejects with.
  const expected = timedOut?.type === "shutdown-timed-out" ? [...subject.errors, timedOut.error] : subject.errors;
  assert.deepEqual(manager.failures.map((failure) => failure.error), expected);
  assert.equal(manager.failures[0]?.error, expected[0]);
  assert.equal(error, expected[0]);

  // Nothing is left behind.
  assert.equal(getEventListeners(parent.signal, "abort").length, 0);
  assert.equal(vi.getTimerCount(), 0);
  assert.throws(() => manager.run(task), ManagerStoppedError);
  assert.throws(() => manager.cleanup(() => {}), ManagerStoppedError);
}

const names = Object.keys(acts);
describe.each(names)("%s", (first) => {
  test.each(names.slice(names.indexOf(first)))("and %s, at every microtask offset, keep the laws", async (second) => {
    for (const firstOffset of OFFSETS) {
      for (const secondOffset of OFFSETS) await play(first, firstOffset, second, secondOffset);
    }
  });
});
