/*
 * Starting trivial tasks and waiting for them all: time per task, also for tasks that listen to their signal while they
 * run, and heap per task while all are pending.
 */
import { setMaxListeners } from "node:events";
import process from "node:process";
import { figure, save, withSpread } from "./report.mjs";
import {
  checkAll,
  digest,
  heapInUse,
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
const LISTENING_SIZES = [1_000, 10_000];
const HEAP_SIZE = 10_000;
const HEAP_ROUNDS = 3;

const OURS = "allstop";
const FLOOR = "floor: allSettled, controllers kept";
const GOAL = process.versions.node.startsWith("20.") ? 1.25 : 1.75;

/**
 * Each loads a function that starts tasks, and returns a promise that all have settled. `signals`: what signal the
 * tasks get. `cancels`: whether the running ones can be told to stop.
 */
const candidates = {
  [OURS]: { signals: "one each", cancels: "yes", load: loadManager },
  [FLOOR]: { signals: "one each", cancels: "yes", load: loadKept },
  "allSettled, controllers dropped": { signals: "one each", cancels: "no", load: loadDropped },
  "effect, forEach": { signals: "one each", cancels: "yes", load: loadEffectForEach },
  "effect, all": { signals: "one each", cancels: "yes", load: loadEffectAll },
  "effection, all": { signals: "none", cancels: "yes", upTo: 10_000, load: loadEffection },
  "abort-controller-x, all": { signals: "one for all", cancels: "yes", load: loadAbortControllerX },
  "p-limit": { signals: "none", cancels: "no", load: loadLimit },
  "p-queue": { signals: "none", cancels: "no", load: loadQueue },
};

const withSignals = Object.keys(candidates).filter((name) => candidates[name].signals !== "none");
const { measure, end } = await startCandidates(import.meta.url, candidates, { time, listening, heap });
const times = digest((await measure("time", SIZES, ROUNDS)).time, FLOOR);
const listeningTimes = digest((await measure("listening", LISTENING_SIZES, ROUNDS, withSignals)).time, FLOOR);
const heaps = digest((await measure("heap", [HEAP_SIZE], HEAP_ROUNDS)).heap, FLOOR);
end();

await save({
  topic: "start",
  title: "Start and settle",
  text:
    "Trivial `async` tasks are started at once, and waited for. The floor is what a program writes by hand that must " +
    "be able to stop them: `Promise.allSettled`, and one `AbortController` each, kept in an array. One that drops " +
    "them is shown too, but could stop nothing. Some do less: the second column says what signal each task gets, " +
    "the third whether tasks that run can be told to stop. The peers also keep the value of each task, which a " +
    "task of allstop has none of. One signal for all is cheap until the tasks listen to it, as real ones do: the " +
    "second table. effection is measured up to 10,000 tasks, for its slowness. The heap is that of " +
    `${HEAP_SIZE.toLocaleString("en-US")} tasks that wait, after a garbage collection. effect asks for Node 22.19, ` +
    "but works here on Node 20. The goal is at most 1.25 times the floor on Node 20 and 1.75 times on Node 24, ahead " +
    "of every peer that can cancel.",
  tables: [
    timeTable("Trivial tasks: µs per task, and the ratio to the floor", SIZES, times),
    timeTable("Tasks that listen to their signal while they run", LISTENING_SIZES, listeningTimes),
    heapTable(),
  ],
  remarks: remarks(),
  plots: [
    {
      name: "start-time",
      title: "Start and settle: microseconds per task",
      x: { title: "tasks", scale: "log" },
      y: { title: "µs per task", scale: "log" },
      series: seriesOf(times, ({ perTask }) => inMicroseconds(perTask)),
    },
    {
      name: "start-heap",
      title: "Bytes of heap per pending task",
      x: { title: null, scale: "ordinal" },
      y: { title: "bytes per task", scale: "linear" },
      series: [
        {
          name: "heap",
          points: Object.values(heaps).map(({ name, bySize }) => ({ x: name, y: bySize[HEAP_SIZE].perTask.median })),
        },
      ],
    },
  ],
});

async function time(start, count) {
  let ran = 0;
  const task = async () => void ran++;
  const tasks = Array.from({ length: count }, () => task);
  const elapsed = await timeOf(() => start(tasks));
  checkAll(ran, count);
  return { time: elapsed };
}

/** As most tasks do, by what they call: it listens while it waits, and stops listening at its end. */
async function listening(start, count) {
  let ran = 0;
  const task = async (signal) => {
    const onAbort = () => {};
    signal.addEventListener("abort", onAbort);
    await undefined;
    signal.removeEventListener("abort", onAbort);
    ran++;
  };
  const tasks = Array.from({ length: count }, () => task);
  const elapsed = await timeOf(() => start(tasks));
  checkAll(ran, count);
  return { time: elapsed };
}

async function heap(start, count) {
  let open;
  let waiting = 0;
  const gate = new Promise((resolve) => (open = resolve));
  // It has its signal until its end, as one that listens.
  const task = async (signal) => {
    waiting++;
    await gate;
    waiting--;
    return signal?.aborted;
  };
  const tasks = Array.from({ length: count }, () => task);
  const before = await heapInUse();
  const over = start(tasks);
  while (waiting < count) await nextTurn();
  const during = await heapInUse();
  open();
  await over;
  checkAll(count - waiting, count);
  return { heap: during - before };
}

async function loadManager() {
  const { Manager } = await import("../../dist/index.js");
  return (tasks) => {
    const manager = new Manager();
    for (const task of tasks) manager.runEphemeral(task);
    return manager.wait();
  };
}

function loadKept() {
  return async (tasks) => {
    const controllers = [];
    const results = tasks.map((task) => {
      const controller = new AbortController();
      controllers.push(controller);
      return task(controller.signal);
    });
    await Promise.allSettled(results);
    return controllers;
  };
}

function loadDropped() {
  return (tasks) => Promise.allSettled(tasks.map((task) => task(new AbortController().signal)));
}

async function loadEffectForEach() {
  const Effect = await import("effect/Effect");
  return (tasks) =>
    Effect.runPromise(
      Effect.forEach(tasks, (task) => Effect.promise((signal) => task(signal)), {
        concurrency: "unbounded",
        discard: true,
      }),
    );
}

async function loadEffectAll() {
  const Effect = await import("effect/Effect");
  return (tasks) => {
    const effects = tasks.map((task) => Effect.promise((signal) => task(signal)));
    return Effect.runPromise(Effect.all(effects, { concurrency: "unbounded" }));
  };
}

/** To `spawn` each and wait for them takes as long. */
async function loadEffection() {
  const { all, call, run } = await import("effection");
  return (tasks) => run(() => all(tasks.map((task) => call(task))));
}

async function loadAbortControllerX() {
  const { all } = await import("abort-controller-x");
  return (tasks) =>
    all(new AbortController().signal, (signal) => {
      silence(signal);
      return tasks.map((task) => task(signal));
    });
}

/** Node 20 takes more than ten listeners for a leak, and would say so. */
function silence(signal) {
  setMaxListeners(0, signal);
}

async function loadLimit() {
  const { default: pLimit } = await import("p-limit");
  return (tasks) => {
    const limit = pLimit(Infinity);
    return Promise.all(tasks.map((task) => limit(task)));
  };
}

async function loadQueue() {
  const { default: PQueue } = await import("p-queue");
  return (tasks) => {
    const queue = new PQueue({ concurrency: Infinity });
    for (const task of tasks) queue.add(() => task());
    return queue.onIdle();
  };
}

function timeTable(title, sizes, digests) {
  return {
    title,
    header: ["", "signals", "cancels", ...sizeNames(sizes), ...sizeNames(sizes).map((size) => `ratio, ${size}`)],
    rows: Object.values(digests).map(({ name, bySize }) => [
      name,
      candidates[name].signals,
      candidates[name].cancels,
      ...sizes.map((size) => withSpread(inMicroseconds(bySize[size]?.perTask))),
      ...sizes.map((size) => withSpread(bySize[size]?.ratio, "x")),
    ]),
  };
}

function heapTable() {
  return {
    title: "Heap per pending task",
    header: ["", "bytes", "ratio to the floor"],
    rows: Object.values(heaps).map(({ name, bySize }) => [
      name,
      figure(Math.round(bySize[HEAP_SIZE].perTask.median)),
      `${figure(bySize[HEAP_SIZE].ratio.median)}x`,
    ]),
  };
}

function remarks() {
  const worst = Math.max(...SIZES.map((size) => times[OURS].bySize[size].ratio.median));
  const lines = [verdict(`At most ${GOAL}x the floor`, worst, GOAL)];
  const faster = Object.keys(candidates).filter(
    (name) =>
      ![OURS, FLOOR].includes(name) &&
      candidates[name].cancels === "yes" &&
      [times, listeningTimes].some((digests) => aheadAt(name, digests).length),
  );
  lines.push(`Ahead of every peer that can cancel: ${faster.length ? `**missed** (${faster.join("; ")})` : "met"}.`);
  lines.push(...ahead("trivial tasks", times), ...ahead("tasks that listen", listeningTimes));
  const behind = Object.values(heaps).filter(
    ({ name, bySize }) => bySize[HEAP_SIZE].perTask.median < heaps[OURS].bySize[HEAP_SIZE].perTask.median,
  );
  if (behind.length) lines.push(`Less heap per pending task: ${behind.map(({ name }) => name).join("; ")}.`);
  return lines;
}

/** Who is faster than we are, and where. */
function ahead(tasks, digests) {
  return Object.keys(digests).flatMap((name) => {
    const sizes = aheadAt(name, digests);
    if (!sizes.length || name === FLOOR) return [];
    const { signals, cancels } = candidates[name];
    const where = `With ${sizeNames(sizes).join(", ")} ${tasks}`;
    return `${where} ahead of allstop: ${name} (signals: ${signals}; cancels: ${cancels}).`;
  });
}

function aheadAt(name, digests) {
  const ours = digests[OURS].bySize;
  return Object.entries(digests[name]?.bySize ?? {})
    .filter(([size, { total }]) => total.median < ours[size].total.median)
    .map(([size]) => Number(size));
}
