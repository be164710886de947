/*
 * The task groups, each with the ways to run jobs that its documentation tells of.
 */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import * as abortControllerX from "abort-controller-x";
import { Cause, Effect, Exit } from "effect";
import { RateLimiter } from "effect/persistence";
import * as effection from "effection";
import pLimit from "p-limit";
import PQueue from "p-queue";
import { Manager } from "../../../dist/index.js";
import { backoff, RestartTask } from "../../../dist/restart.js";
import { effects, functions, operations, PAUSE } from "./jobs.mjs";

/** What declares the public names of a package: where it says nothing of a thing, there is no way to ask for it. */
const declarations = (path) => () => readFileSync(new URL(path, import.meta.url), "utf8");

/** The errors that somebody who has this one can find in it. */
function within(error) {
  return error instanceof AggregateError ? error.errors : [error];
}

async function reasonOf(promise) {
  return promise.then(
    () => [],
    (reason) => within(reason),
  );
}

/** Aborts this soon. */
function soon() {
  return AbortSignal.timeout(2 * PAUSE);
}

function managerOf(jobs, options) {
  const manager = new Manager(options);
  manager.runEphemeral(...jobs);
  return manager;
}

const allstop = {
  name: "allstop",
  jobs: functions,
  surface: declarations("../../../dist/manager.d.ts"),
  run: (jobs) => managerOf(jobs).wait(),
  limited: (jobs, limit) => managerOf(jobs, { limit }).wait(),
  async failures(jobs) {
    const manager = managerOf(jobs);
    await manager.wait().catch(() => {});
    return manager.failures.flatMap(({ error }) => within(error));
  },
  stopped: (jobs) => managerOf(jobs, { signal: soon() }).wait(),
  async deadline(jobs, shutdownTimeout) {
    const manager = managerOf(jobs, { shutdownTimeout });
    await manager.wait().catch(() => {});
    return manager.failures.map(({ error }) => error.message).join(" ");
  },
  retries(job, maxRestarts) {
    return managerOf([new RestartTask(job, { maxRestarts, delay: backoff({ base: 1 }) })]).wait();
  },
  hooks(hooks) {
    const manager = managerOf([async () => {}]);
    for (const hook of hooks) manager.cleanup(hook);
    return manager.wait();
  },
};

const promiseAll = {
  name: "Promise.all",
  jobs: functions,
  surface: () => "",
  run: (jobs) => Promise.all(jobs.map((job) => job())),
  failures: (jobs) => reasonOf(promiseAll.run(jobs)),
};

const promiseAllSettled = {
  name: "Promise.allSettled",
  jobs: functions,
  surface: () => "",
  run: async (jobs) => (await Promise.allSettled(jobs.map((job) => job()))).map(({ value }) => value),
  async failures(jobs) {
    const results = await Promise.allSettled(jobs.map((job) => job()));
    return results.filter(({ status }) => status === "rejected").map(({ reason }) => reason);
  },
};

const limiter = {
  name: "p-limit",
  jobs: functions,
  surface: declarations("../node_modules/p-limit/index.d.ts"),
  run: (jobs) => limiter.limited(jobs, Infinity),
  limited(jobs, count) {
    const limit = pLimit(count);
    return Promise.all(jobs.map((job) => limit(job)));
  },
  failures: (jobs) => reasonOf(limiter.run(jobs)),
  settled(jobs) {
    const limit = pLimit(Infinity);
    return promiseAllSettled.failures(jobs.map((job) => () => limit(job)));
  },
};

const queue = {
  name: "p-queue",
  jobs: functions,
  surface: () => ["index", "options"].map((file) => declarations(`../node_modules/p-queue/dist/${file}.d.ts`)()).join(),
  run: (jobs) => queue.limited(jobs, Infinity),
  limited: (jobs, concurrency) => new PQueue({ concurrency }).addAll(jobs.map(takeSignal)),
  failures: (jobs) => reasonOf(queue.run(jobs)),
  settled(jobs) {
    const one = new PQueue();
    return promiseAllSettled.failures(jobs.map((job) => () => one.add(takeSignal(job))));
  },
  stopped: (jobs) => new PQueue().addAll(jobs.map(takeSignal), { signal: soon() }),
  timeout: (job, timeout) => new PQueue({ timeout }).add(takeSignal(job)),
  priorities(jobs) {
    const one = new PQueue({ concurrency: 1, autoStart: false });
    const all = Promise.all(jobs.map(([job, priority]) => one.add(job, { priority })));
    one.start();
    return all;
  },
  rate: (jobs, intervalCap, interval) => new PQueue({ intervalCap, interval }).addAll(jobs),
};

/** Its jobs take an object. */
function takeSignal(job) {
  return ({ signal }) => job(signal);
}

const effect = {
  name: "effect",
  jobs: effects,
  wrap: (job) => Effect.tryPromise({ try: job, catch: (error) => error }),
  surface: () => Object.keys(Effect).join(" "),
  run: (jobs) => Effect.runPromise(effect.all(jobs)),
  limited: (jobs, concurrency) => Effect.runPromise(Effect.all(jobs, { concurrency })),
  all: (jobs) => Effect.all(jobs, { concurrency: "unbounded" }),
  async failures(jobs) {
    const exit = await Effect.runPromiseExit(effect.all(jobs));
    return Exit.isFailure(exit) ? exit.cause.reasons.flatMap(({ error, defect }) => error ?? defect ?? []) : [];
  },
  async settled(jobs) {
    const options = { concurrency: "unbounded", mode: "result" };
    const results = await Effect.runPromise(Effect.all(jobs.map(Effect.sandbox), options));
    return results.flatMap(({ failure }) => failure?.reasons.map(({ error, defect }) => error ?? defect) ?? []);
  },
  stopped: (jobs) => Effect.runPromise(effect.all(jobs), { signal: soon() }),
  retries: (job, times) => Effect.runPromise(job.pipe(Effect.retry({ times }))),
  timeout: (job, time) => Effect.runPromise(job.pipe(Effect.timeout(time))),
  rate: (jobs, limit, window) =>
    Effect.runPromise(
      Effect.gen(function* () {
        const withLimit = yield* RateLimiter.makeWithRateLimiter;
        const limited = jobs.map((job) => withLimit({ onExceeded: "delay", window, limit, key: "jobs" })(job));
        yield* effect.all(limited);
      }).pipe(Effect.provide(RateLimiter.layer), Effect.provide(RateLimiter.layerStoreMemory)),
    ),
  async hooks(hooks) {
    const added = hooks.map((hook) => Effect.addFinalizer(() => Effect.promise(async () => hook())));
    const exit = await Effect.runPromiseExit(Effect.scoped(Effect.all(added)));
    if (Exit.isFailure(exit)) throw Cause.squash(exit.cause);
  },
};

const effectionGroup = {
  name: "effection",
  jobs: operations,
  wrap: (job) => effection.call(job),
  // All that it has is a function of its own.
  surface: () => Object.keys(effection).join(" "),
  run: (jobs) => effection.run(() => effection.all(jobs)),
  failures: (jobs) => reasonOf(effectionGroup.run(jobs)),
  async settled(jobs) {
    const results = await effection.run(() => effection.allSettled(jobs));
    return results.filter(({ ok }) => !ok).map(({ error }) => error);
  },
  async stopped(jobs) {
    const task = effection.run(() => effection.all(jobs));
    task.catch(() => {});
    await sleep(2 * PAUSE);
    await task.halt();
  },
  timeout: (job, time) =>
    effection.run(() =>
      effection.race([
        job,
        effection.call(function* () {
          yield* effection.sleep(time);
          throw new Error("Timed out");
        }),
      ]),
    ),
  hooks: (hooks) =>
    effection.run(function* () {
      for (const hook of hooks) yield* effection.ensure(() => effection.call(async () => hook()));
    }),
};

const abortable = {
  name: "abort-controller-x",
  jobs: functions,
  surface: () => Object.keys(abortControllerX).join(" "),
  run: (jobs, signal = new AbortController().signal) =>
    abortControllerX.all(signal, (inner) => jobs.map((job) => job(inner))),
  failures: (jobs) => reasonOf(abortable.run(jobs)),
  stopped: (jobs) => abortable.run(jobs, soon()),
  retries: (job, maxAttempts) => abortControllerX.retry(new AbortController().signal, job, { baseMs: 1, maxAttempts }),
  timeout: (job, time) =>
    abortControllerX.race(new AbortController().signal, (signal) => [
      job(signal),
      abortControllerX.delay(signal, time).then(() => Promise.reject(new Error("Timed out"))),
    ]),
  hooks: (hooks) =>
    abortControllerX.spawn(new AbortController().signal, async (_, { defer }) => {
      for (const hook of hooks) defer(hook);
    }),
};

export const GROUPS = [allstop, promiseAll, promiseAllSettled, limiter, queue, effect, effectionGroup, abortable];
