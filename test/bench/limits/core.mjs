/*
 * What the core costs, a restart, and an ordered start: times as ratios to something that does the same by hand or is ten
 * times smaller, memory in MiB. Exits with 1 when a figure that has a limit exceeds it.
 */
import { Manager } from "../../../dist/index.js";
import { RestartTask } from "../../../dist/restart.js";
import { ServiceGroup } from "../../../dist/services.js";

const ROUNDS = 7;
const MEBIBYTE = 2 ** 20;

const rows = [];

{
  const [few, many] = await fastest([() => timeOfStop(10_000), () => timeOfStop(100_000)]);
  report("stopping 100,000 tasks that listen / 10,000", many / few, "x", 13);
}

for (const [few, many, shape] of [
  [100, 1_000, "10,000 services in 1,000 stages / 1,000 in 100"],
  [1, 1, "10,000 services in one stage / 1,000"],
]) {
  const [byFew, byMany] = await fastest([() => timeOfServices(1_000, few), () => timeOfServices(10_000, many)]);
  // Were it not linear, it would be near 100.
  report(`starting and stopping ${shape}`, byMany / byFew, "x", 20);
}

report("heap after a million ephemeral tasks", await growth({}), "MiB", 1);
report("heap after a million ephemeral tasks, limit 16", await growth({ limit: 16 }), "MiB", 1);

report("heap after 100,000 restarts", await growthByRestarts(100_000), "MiB", 1);

{
  const jobs = trivialJobs(100_000);
  const [byManager, byHand] = await fastest([
    () => timeOf(() => runAll(jobs, {})),
    () => timeOf(() => Promise.allSettled(jobs.map((job) => job(new AbortController().signal)))),
  ]);
  report("start and settle 100,000 ephemeral tasks / Promise.allSettled", byManager / byHand, "x");
}

{
  const jobs = trivialJobs(200_000);
  const [byManager, byHand] = await fastest([
    () => timeOf(() => runAll(jobs, { limit: 16 })),
    () => timeOf(() => runInLoops(jobs, 16)),
  ]);
  report("200,000 jobs, limit 16 / 16 loops by hand", byManager / byHand, "x");
}

report("1,000 tasks with two listeners each: warnings", await countWarnings(), "", 0);

printTable();

/** The best time of each of several measurements, taken in turns, so that a slow moment hits all of them. */
async function fastest(measurements) {
  const best = measurements.map(() => Infinity);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [index, measure] of measurements.entries()) {
      globalThis.gc();
      best[index] = Math.min(best[index], await measure());
    }
  }
  return best;
}

async function timeOf(action) {
  const startedAt = performance.now();
  await action();
  return performance.now() - startedAt;
}

async function timeOfStop(count) {
  const manager = new Manager();
  for (let index = 0; index < count; index++) manager.run(untilAborted);
  return timeOf(() => manager.stop());
}

async function timeOfServices(count, stages) {
  const service = { init: async () => {}, run: untilAborted, ready: async () => {}, finalize: async () => {} };
  const stage = Array.from({ length: count / stages }, () => ({ ...service }));
  const group = new ServiceGroup(Array.from({ length: stages }, () => stage));
  const controller = new AbortController();
  return timeOf(async () => {
    const run = group.run(controller.signal);
    await group.ready();
    controller.abort();
    await run;
  });
}

/** By how many MiB the heap of a group that lives on grows while a million tasks come and go. */
async function growth(options) {
  const manager = new Manager(options);
  manager.run(untilAborted);
  const runBatch = async () => {
    for (let index = 0; index < 10_000; index++) manager.runEphemeral(async () => {});
    await new Promise((resolve) => setImmediate(resolve));
    if (manager.pending.length !== 1) throw new Error("The batch has not ended");
  };
  const heapAfter = async (batches) => {
    for (let batch = 0; batch < batches; batch++) await runBatch();
    globalThis.gc();
    return process.memoryUsage().heapUsed;
  };
  const before = await heapAfter(10);
  const after = await heapAfter(100);
  await manager.stop();
  return (after - before) / MEBIBYTE;
}

/** By how many MiB the heap grows while a task fails and is restarted so many times. */
async function growthByRestarts(count) {
  const warmUp = 10_000;
  const heaps = [];
  let runs = 0;
  const fail = async () => {
    runs++;
    if (runs === warmUp || runs === warmUp + count) {
      globalThis.gc();
      heaps.push(process.memoryUsage().heapUsed);
    }
    if (runs < warmUp + count) throw new Error("Failed");
  };
  await new RestartTask(fail, { maxRestarts: Infinity, delay: 0 }).run(new AbortController().signal);
  return (heaps[1] - heaps[0]) / MEBIBYTE;
}

async function runAll(jobs, options) {
  const manager = new Manager(options);
  for (const job of jobs) manager.runEphemeral(job);
  await manager.wait();
}

async function runInLoops(jobs, count) {
  let next = 0;
  const loop = async () => {
    while (next < jobs.length) await jobs[next++](new AbortController().signal);
  };
  await Promise.all(Array.from({ length: count }, loop));
}

/** How many warnings the process gets; Node warns at the eleventh listener on one signal. */
async function countWarnings() {
  let warnings = 0;
  const count = () => warnings++;
  process.on("warning", count);
  const manager = new Manager();
  for (let index = 0; index < 1_000; index++) {
    manager.run((signal) => {
      signal.addEventListener("abort", () => {});
      return untilAborted(signal);
    });
  }
  await manager.stop();
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", count);
  return warnings;
}

function trivialJobs(count) {
  return Array.from({ length: count }, () => async () => {});
}

function untilAborted(signal) {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}

function report(what, figure, unit, limit) {
  const exceeded = limit !== undefined && !(figure <= limit);
  if (exceeded) process.exitCode = 1;
  const show = (number) => `${number.toLocaleString("en", { maximumFractionDigits: 2, signDisplay: "negative" })} ${unit}`.trim();
  rows.push([what, show(figure), limit === undefined ? "" : show(limit), exceeded ? "exceeded" : ""]);
}

function printTable() {
  const table = [[`on Node ${process.versions.node}`, "figure", "limit", ""], ...rows];
  const widths = table[0].map((_, column) => Math.max(...table.map((row) => row[column].length)));
  for (const row of table) {
    const [what, ...cells] = row.map((cell, column) =>
      column === 0 || column === 3 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]),
    );
    console.log([what, ...cells].join("  ").trimEnd());
  }
}
