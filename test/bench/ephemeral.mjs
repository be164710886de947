/*
 * A million short tasks, one batch after another, through one manager that lives on: does the heap grow?
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { figure, save } from "./report.mjs";
import { checkAll, heapInUse, nextTurn } from "./turns.mjs";

const BATCH = 1_000;
const STEP = 100_000;
const STEPS = 10;
const KIBIBYTE = 2 ** 10;
/** What counts as flat, in KiB: about a byte for each task. To keep but a pointer to each would be eight. */
const GOAL = 1_024;

const OURS = ["allstop", "allstop, limit 16"];

/** Each loads a function that starts a job. They live on, as a service does, until `stop`. */
const candidates = {
  [OURS[0]]: () => loadManager({}),
  [OURS[1]]: () => loadManager({ limit: 16 }),
  "p-limit, 16": loadLimit,
  "p-queue, 16": loadQueue,
  "a Set of promises, each deleted at its end": loadSet,
  "promises in an array, for Promise.allSettled": loadArray,
};

if (process.send) {
  process.send(await heapsOf(candidates[process.argv[2]]));
  process.disconnect();
} else {
  await main();
}

async function main() {
  const series = [];
  for (const name of Object.keys(candidates)) {
    const child = fork(fileURLToPath(import.meta.url), [name], { execArgv: ["--expose-gc"] });
    const [[heaps]] = await Promise.all([once(child, "message"), once(child, "exit")]);
    const points = heaps.map((heap, index) => ({ x: (index + 1) * STEP, y: (heap - heaps[0]) / KIBIBYTE }));
    series.push({ name, points });
  }
  await save({
    topic: "ephemeral",
    title: "A million tasks through one manager",
    text:
      `A million short tasks in batches of ${BATCH.toLocaleString("en-US")}, through one manager, as in a service ` +
      "that runs for weeks: the heap that is in use after a garbage collection, beside that after the first " +
      `${STEP.toLocaleString("en-US")}. Beside it is what else keeps track of running jobs, so as to wait for the ` +
      "last: p-limit, p-queue and a `Set` that each promise is deleted from, which should be flat as well, and an " +
      "array that is waited for at the end, which must grow. Each has a process of its own. The goal is a heap that " +
      `is flat: within ${figure(GOAL)} KiB, a byte for each task.`,
    tables: [
      {
        title: "KiB more than after the first 100,000, and bytes per task",
        header: ["", "after 400,000", "after 700,000", "after 1,000,000", "bytes per task"],
        rows: series.map(({ name, points }) => [
          name,
          ...[3, 6, 9].map((index) => figure(Math.round(points[index].y))),
          figure(Number(perTask(points).toFixed(2))),
        ]),
      },
    ],
    remarks: OURS.map((name) => {
      const worst = Math.max(...series.find((each) => each.name === name).points.map(({ y }) => y));
      const is = worst <= GOAL ? "is flat" : "is **not flat**";
      return `${name} ${is}: never more than ${figure(Math.round(worst))} KiB above the first.`;
    }),
    plots: [
      {
        name: "ephemeral-heap",
        title: "Heap during a million tasks",
        x: { title: "tasks so far", scale: "linear" },
        y: { title: "KiB more than after the first 100,000", scale: "linear" },
        series,
      },
    ],
  });
}

function perTask(points) {
  return (points.at(-1).y * KIBIBYTE) / (STEP * (STEPS - 1));
}

async function heapsOf(load) {
  const { start, stop } = await load();
  const heaps = [];
  let ran = 0;
  const job = async () => void ran++;
  for (let step = 0; step < STEPS; step++) {
    for (let batch = 0; batch < STEP / BATCH; batch++) {
      for (let index = 0; index < BATCH; index++) start(job);
      await nextTurn();
    }
    checkAll(ran, (step + 1) * STEP);
    heaps.push(await heapInUse());
  }
  await stop();
  return heaps;
}

async function loadManager(options) {
  const { Manager } = await import("../../dist/index.js");
  const manager = new Manager(options);
  manager.run((signal) => new Promise((resolve) => signal.addEventListener("abort", resolve)));
  return { start: (job) => manager.runEphemeral(job), stop: () => manager.stop() };
}

async function loadLimit() {
  const { default: pLimit } = await import("p-limit");
  const limit = pLimit(16);
  return { start: (job) => limit(job), stop() {} };
}

async function loadQueue() {
  const { default: PQueue } = await import("p-queue");
  const queue = new PQueue({ concurrency: 16 });
  return { start: (job) => queue.add(() => job()), stop: () => queue.onIdle() };
}

function loadSet() {
  const running = new Set();
  return {
    start(job) {
      const promise = job().finally(() => running.delete(promise));
      running.add(promise);
    },
    stop: () => Promise.allSettled(running),
  };
}

function loadArray() {
  const promises = [];
  return { start: (job) => promises.push(job()), stop: () => Promise.allSettled(promises) };
}
