/*
 * Trivial jobs, of which at most 16 run at once.
 */
import process from "node:process";
import { figure, save, withSpread } from "./report.mjs";
import { checkAll, digest, inMicroseconds, seriesOf, sizeNames, startCandidates, timeOf, verdict } from "./turns.mjs";

const LIMIT = 16;
const SIZES = [1_000, 10_000, 100_000];
const ROUNDS = 7;

const OURS = "allstop";
const FLOOR = "floor: 16 loops, a controller per job";
const GROWTH_GOAL = 1.05;

/** Each loads a function that runs the jobs, and returns a promise that all are done. `signals`: what a job gets. */
const candidates = {
  [OURS]: { signals: "one each", load: loadManager },
  [FLOOR]: { signals: "one each", load: () => runInLoops((job) => job(new AbortController().signal)) },
  "16 loops, no controllers": { signals: "none", load: () => runInLoops((job) => job()) },
  "p-limit": { signals: "none", load: loadLimit },
  "p-queue": { signals: "none", load: loadQueue },
  "p-map": { signals: "none", load: loadMap },
  effect: { signals: "one each", load: loadEffect },
};

const { measure, end } = await startCandidates(import.meta.url, candidates, { time });
const times = digest((await measure("time", SIZES, ROUNDS)).time, FLOOR);
end();

await save({
  topic: "limit",
  title: `At most ${LIMIT} at once`,
  text:
    `Trivial \`async\` jobs, handed over all at once, of which at most ${LIMIT} run at a time; measured is the time ` +
    "until the last is done. The floor is 16 loops by hand, which give each job an `AbortController`: without it, " +
    "none could be told to stop; loops that only count are shown too. p-limit, p-queue and p-map give their " +
    "jobs no signal, but keep their values, which a task of allstop has none of. A growth of 1 is linear. The goals " +
    "are: on Node 24 ahead of p-limit, p-queue and effect; on Node 20 at most 1.2 times the floor; a growth of at " +
    `most ${GROWTH_GOAL}.`,
  tables: [
    {
      title: "µs per job, the ratio to the floor, and the growth",
      header: ["", "signals", ...sizeNames(SIZES), ...sizeNames(SIZES).map((size) => `ratio, ${size}`), "growth"],
      rows: Object.values(times).map(({ name, bySize, growth }) => [
        name,
        candidates[name].signals,
        ...SIZES.map((size) => withSpread(inMicroseconds(bySize[size].perTask))),
        ...SIZES.map((size) => withSpread(bySize[size].ratio, "x")),
        figure(growth),
      ]),
    },
  ],
  remarks: remarks(),
  plots: [
    {
      name: "limit-time",
      title: `At most ${LIMIT} at once: microseconds per job`,
      x: { title: "jobs", scale: "log" },
      y: { title: "µs per job", scale: "log" },
      series: seriesOf(times, ({ perTask }) => inMicroseconds(perTask)),
    },
  ],
});

async function time(run, count) {
  let ran = 0;
  const job = async () => void ran++;
  const jobs = Array.from({ length: count }, () => job);
  const elapsed = await timeOf(() => run(jobs));
  checkAll(ran, count);
  return { time: elapsed };
}

async function loadManager() {
  const { Manager } = await import("../../dist/index.js");
  return (jobs) => {
    const manager = new Manager({ limit: LIMIT });
    for (const job of jobs) manager.runEphemeral(job);
    return manager.wait();
  };
}

function runInLoops(run) {
  return async (jobs) => {
    let next = 0;
    const loop = async () => {
      while (next < jobs.length) await run(jobs[next++]);
    };
    await Promise.all(Array.from({ length: LIMIT }, loop));
  };
}

async function loadLimit() {
  const { default: pLimit } = await import("p-limit");
  return (jobs) => {
    const limit = pLimit(LIMIT);
    return Promise.all(jobs.map((job) => limit(job)));
  };
}

async function loadQueue() {
  const { default: PQueue } = await import("p-queue");
  return (jobs) => {
    const queue = new PQueue({ concurrency: LIMIT });
    for (const job of jobs) queue.add(() => job());
    return queue.onIdle();
  };
}

async function loadMap() {
  const { default: pMap } = await import("p-map");
  return (jobs) => pMap(jobs, (job) => job(), { concurrency: LIMIT });
}

async function loadEffect() {
  const Effect = await import("effect/Effect");
  return (jobs) =>
    Effect.runPromise(
      Effect.forEach(jobs, (job) => Effect.promise((signal) => job(signal)), { concurrency: LIMIT, discard: true }),
    );
}

function remarks() {
  const median = (name, size) => times[name].bySize[size].perTask.median;
  const worst = (name) => Math.max(...SIZES.map((size) => median(OURS, size) / median(name, size)));
  const goals = process.versions.node.startsWith("20.")
    ? [verdict("At most 1.2x the floor", worst(FLOOR), 1.2)]
    : ["p-limit", "p-queue", "effect"].map((name) => verdict(`Ahead of ${name}, at most 1x`, worst(name), 1));
  const faster = Object.keys(candidates).flatMap((name) => {
    const sizes = SIZES.filter((size) => name !== FLOOR && median(name, size) < median(OURS, size));
    if (!sizes.length) return [];
    return `With ${sizeNames(sizes).join(", ")} jobs ahead of allstop: ${name} (signals: ${candidates[name].signals}).`;
  });
  const growth = verdict(`A growth of at most ${GROWTH_GOAL}`, times[OURS].growth, GROWTH_GOAL);
  return [...goals, growth, `The growth of the floor: ${figure(times[FLOOR].growth)}.`, ...faster];
}
