/*
 * Stopping tasks that each listen to their signal: from the word to stop until all have ended.
 */
import { setMaxListeners } from "node:events";
import process from "node:process";
import { figure, save, withSpread } from "./report.mjs";
import {
  checkAll,
  digest,
  inMicroseconds,
  nextTurn,
  seriesOf,
  sizeNames,
  startCandidates,
  timeOf,
  verdict,
} from "./turns.mjs";

const SIZES = [1_000, 10_000, 100_000];
const ROUNDS = 7;

const OURS = "allstop";
const FLOOR = "floor: a controller each, aborted by hand";
const GOAL = process.versions.node.startsWith("20.") ? 1.5 : 1.75;
const GROWTH_GOAL = 1.1;

/**
 * Each loads a function that starts as many of the tasks, and returns a function that stops them and returns a promise
 * that all have ended.
 */
const candidates = {
  [OURS]: { load: loadManager },
  [FLOOR]: { load: () => startByHand((controller, reason) => controller.abort(reason)) },
  "the same, each with a reason of its own": { load: () => startByHand((controller) => controller.abort()) },
  // To start 100,000 of these takes longer than all the rest of this.
  "one signal for all": { upTo: 10_000, load: () => startWithSharedSignal },
  "abort-controller-x, all": { upTo: 10_000, load: loadAbortControllerX },
  effect: { load: loadEffect },
  effection: { upTo: 10_000, load: loadEffection },
};

const { measure, end } = await startCandidates(import.meta.url, candidates, { times });
const found = await measure("times", SIZES, ROUNDS);
const starts = digest(found.start, FLOOR);
const stops = digest(found.stop, FLOOR);
end();

await save({
  topic: "stop",
  title: "Stopping tasks that listen",
  text:
    "All tasks listen to their signal, with `{ once: true }`, and end when it aborts; measured is the time from the " +
    "word to stop until all have ended, and, in a table of its own, what it took until all listened. The floor is a " +
    "program that keeps an `AbortController` for each task and aborts them one after another, all with one reason; " +
    "without a reason, each `abort()` makes a `DOMException`. One signal for all is the naive way: every " +
    "`addEventListener` walks the list of those before it, so that the start is quadratic, whatever the stop is; the " +
    "tasks of abort-controller-x share a signal, too, which its `execute` listens to. A growth of 1 is linear, of 2 " +
    "quadratic. effection is measured up to 10,000 tasks, for its slowness, those with one signal, for their start. " +
    `The goals are at most 1.5 times the floor on Node 20 and 1.75 times on Node 24, and a growth of at most ` +
    `${GROWTH_GOAL}.`,
  tables: [
    table("Stopping: µs per task, the ratio to the floor, and the growth", stops),
    table("Starting: µs per task until all listen, the ratio to the floor, and the growth", starts),
  ],
  remarks: remarks(),
  plots: [
    {
      name: "stop-time",
      title: "Stopping tasks that listen",
      x: { title: "tasks", scale: "log" },
      y: { title: "milliseconds", scale: "log" },
      series: seriesOf(stops, ({ total }) => total),
    },
    {
      name: "stop-start",
      title: "Starting tasks that listen",
      x: { title: "tasks", scale: "log" },
      y: { title: "milliseconds", scale: "log" },
      series: seriesOf(starts, ({ total }) => total),
    },
  ],
});

async function times(startAll, count) {
  const tasks = listeningTasks();
  let stopAll;
  const start = await timeOf(async () => (stopAll = await startAll(tasks, count)));
  checkAll(tasks.listening, count);
  await nextTurn();
  const stop = await timeOf(() => stopAll());
  checkAll(tasks.ended, count);
  return { start, stop };
}

function listeningTasks() {
  const tasks = {
    listening: 0,
    ended: 0,
    run(signal) {
      return new Promise((resolve) => {
        const onAbort = () => {
          tasks.ended++;
          resolve();
        };
        signal.addEventListener("abort", onAbort, { once: true });
        tasks.listening++;
      });
    },
  };
  return tasks;
}

async function loadManager() {
  const { Manager } = await import("../../dist/index.js");
  return ({ run }, count) => {
    const manager = new Manager();
    for (let index = 0; index < count; index++) manager.run(run);
    return () => manager.stop();
  };
}

function startByHand(abort) {
  return ({ run }, count) => {
    const controllers = [];
    const results = [];
    for (let index = 0; index < count; index++) {
      const controller = new AbortController();
      controllers.push(controller);
      results.push(run(controller.signal));
    }
    return () => {
      const reason = new Error("Stopped");
      for (const controller of controllers) abort(controller, reason);
      return Promise.allSettled(results);
    };
  };
}

function startWithSharedSignal({ run }, count) {
  const controller = new AbortController();
  // As is done when Node 20 warns of a leak.
  setMaxListeners(0, controller.signal);
  const results = [];
  for (let index = 0; index < count; index++) results.push(run(controller.signal));
  return () => {
    controller.abort();
    return Promise.allSettled(results);
  };
}

async function loadAbortControllerX() {
  const { all, execute } = await import("abort-controller-x");
  return (tasks, count) => {
    const controller = new AbortController();
    const over = all(controller.signal, (signal) => {
      setMaxListeners(0, signal);
      return Array.from({ length: count }, () => {
        tasks.listening++;
        return execute(signal, () => () => void tasks.ended++);
      });
    });
    return () => {
      controller.abort();
      return over.catch(() => {});
    };
  };
}

async function loadEffect() {
  const Effect = await import("effect/Effect");
  const Fiber = await import("effect/Fiber");
  return async (tasks, count) => {
    const fiber = Effect.runFork(
      Effect.forEach(Array.from({ length: count }), () => Effect.promise((signal) => tasks.run(signal)), {
        concurrency: "unbounded",
        discard: true,
      }),
    );
    while (tasks.listening < count) await nextTurn();
    return () => Effect.runPromise(Fiber.interrupt(fiber));
  };
}

async function loadEffection() {
  const { call, run, spawn, suspend, useAbortSignal } = await import("effection");
  return async (tasks, count) => {
    const group = run(function* () {
      for (let index = 0; index < count; index++) {
        yield* spawn(function* () {
          const signal = yield* useAbortSignal();
          yield* call(() => tasks.run(signal));
        });
      }
      yield* suspend();
    });
    while (tasks.listening < count) await nextTurn();
    return () => group.halt();
  };
}

function table(title, digests) {
  return {
    title,
    header: ["", ...sizeNames(SIZES), ...sizeNames(SIZES).map((size) => `ratio, ${size}`), "growth"],
    rows: Object.values(digests).map(({ name, bySize, growth }) => [
      name,
      ...SIZES.map((size) => withSpread(inMicroseconds(bySize[size]?.perTask))),
      ...SIZES.map((size) => withSpread(bySize[size]?.ratio, "x")),
      figure(growth),
    ]),
  };
}

function remarks() {
  const ratio = (name, size) => stops[name].bySize[size]?.ratio.median;
  const both = (name, size) => starts[name].bySize[size].total.median + stops[name].bySize[size].total.median;
  const worst = Math.max(...SIZES.map((size) => ratio(OURS, size)));
  const lines = [
    verdict(`At most ${GOAL}x the floor`, worst, GOAL),
    verdict(`A growth of at most ${GROWTH_GOAL}`, stops[OURS].growth, GROWTH_GOAL),
    `The growth of the floor, which is what memory and garbage add: ${figure(stops[FLOOR].growth)}.`,
  ];
  for (const name of Object.keys(candidates)) {
    const ahead = SIZES.filter((size) => name !== FLOOR && ratio(name, size) < ratio(OURS, size));
    if (!ahead.length) continue;
    const together = ahead.map((size) => `${figure(both(name, size) / both(OURS, size))}x`).join(", ");
    lines.push(
      `With ${sizeNames(ahead).join(", ")} tasks ahead of allstop in stopping: ${name}. ` +
        `To start and to stop together take ${together} as long as ours.`,
    );
  }
  return lines;
}
