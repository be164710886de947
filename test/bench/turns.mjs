/*
 * Measures candidates in turns. Each has a process of its own for the whole run, so that the garbage of one is not
 * cleared at the cost of the next, and what the compiler learned from one does not slow down another; but only one of
 * them works at a time, they take turns, and the order turns too.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { figure, growthExponent, median, spread } from "./report.mjs";

/** A sample is the mean of as many runs as fit in so many milliseconds: a run of 1,000 tasks may last less than one. */
const SAMPLE_TIME = 60;

/** Samples that are dropped, in which the code is compiled. */
const WARM_UP = 2;

/** A candidate that has taken this long for a size, in milliseconds, gets no more turns than the least. */
const PATIENCE = 2_000;
const LEAST_ROUNDS = 3;

/**
 * Starts the processes, which load the topic's file again; there this never returns. A candidate is
 * `{ load, upTo? }`: `load()` returns what `measures[what](loaded, count)` measures, and above the size `upTo` it is
 * left out. A measure returns a promise of `{ [part]: number }`, milliseconds or bytes.
 */
export async function startCandidates(url, candidates, measures) {
  if (process.send) return serve(candidates[process.argv[2]], measures);
  const processes = {};
  for (const name of Object.keys(candidates)) {
    processes[name] = fork(fileURLToPath(url), [name], { execArgv: ["--expose-gc"] });
    await reply(processes[name], name);
  }

  /** Takes the samples of all candidates, or of those named: { [part]: { [name]: { [size]: [one per round] } } }. */
  async function measure(what, sizes, rounds, names = Object.keys(candidates)) {
    const samples = {};
    for (const size of sizes) {
      const few = names.filter((name) => size <= (candidates[name].upTo ?? Infinity));
      await measureSize(what, size, rounds, few, (part, name, round, value) => {
        samples[part] ??= Object.fromEntries(names.map((each) => [each, {}]));
        (samples[part][name][size] ??= [])[round] = value;
      });
    }
    return samples;
  }

  async function measureSize(what, size, rounds, names, keep) {
    const spent = Object.fromEntries(names.map((name) => [name, 0]));
    for (let round = -WARM_UP; round < rounds; round++) {
      for (const name of inTurn(names, round + WARM_UP)) {
        if (spent[name] > PATIENCE && (round < 0 || round >= LEAST_ROUNDS)) continue;
        const startedAt = performance.now();
        processes[name].send({ what, size });
        const { parts } = await reply(processes[name], `${name}, ${what}, ${size}`);
        spent[name] += performance.now() - startedAt;
        if (round >= 0) for (const [part, value] of Object.entries(parts)) keep(part, name, round, value);
      }
    }
  }

  /** The processes end by themselves when nobody talks to them any more. */
  function end() {
    for (const child of Object.values(processes)) child.disconnect();
  }

  return { measure, end };
}

/** The order of a round: each comes first in turn, and every other round goes backwards, so that all follow others. */
function inTurn(names, round) {
  const first = (round >> 1) % names.length;
  const turned = [...names.slice(first), ...names.slice(0, first)];
  return round % 2 ? turned.reverse() : turned;
}

async function reply(child, what) {
  const aborter = new AbortController();
  const { signal } = aborter;
  try {
    const answer = await Promise.race([
      once(child, "message", { signal }).then(([message]) => message),
      once(child, "exit", { signal }).then(([code]) => ({ error: `it exited with ${code}` })),
    ]);
    if (answer.error) throw new Error(`${what}: ${answer.error}`);
    return answer;
  } finally {
    aborter.abort();
  }
}

/** What a candidate's process does. */
async function serve({ load }, measures) {
  const loaded = await load();
  process.on("message", async ({ what, size }) => {
    try {
      process.send({ parts: await sample(() => measures[what](loaded, size)) });
    } catch (error) {
      process.send({ error: error.stack });
    }
  });
  process.once("disconnect", () => process.exit());
  process.send({ ready: true });
  return new Promise(() => {});
}

/** Of many runs the mean, not the median: what the clearing of their garbage costs must be in it. */
async function sample(run) {
  const startedAt = performance.now();
  const found = [];
  do found.push(await run());
  while (performance.now() - startedAt < SAMPLE_TIME);
  const mean = (part) => found.reduce((sum, parts) => sum + parts[part], 0) / found.length;
  return Object.fromEntries(Object.keys(found[0]).map((part) => [part, mean(part)]));
}

/** How many milliseconds an action takes. */
export async function timeOf(action) {
  const startedAt = performance.now();
  await action();
  return performance.now() - startedAt;
}

/** Who does less is no peer. */
export function checkAll(done, count) {
  if (done !== count) throw new Error(`${done} of ${count} tasks did what they should`);
}

/** The bytes that are in use after all garbage has been cleared. */
export async function heapInUse() {
  // What the last turn left on the stack is no garbage before the next one, and a finalizer may leave some.
  for (let index = 0; index < 3; index++) {
    await nextTurn();
    globalThis.gc();
  }
  return process.memoryUsage().heapUsed;
}

/** Lets everything happen that is due. */
export function nextTurn() {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * What the samples of a candidate say: of each size the spread of the whole, of the part of one task, and of the ratio
 * to the floor's neighbour in time; over all sizes, how the whole grows.
 */
export function digest(samples, floor) {
  const digests = {};
  for (const [name, bySize] of Object.entries(samples)) {
    const sizes = Object.keys(bySize).map(Number);
    const growth = growthExponent(sizes.map((size) => ({ x: size, y: median(found(bySize[size])) })));
    digests[name] = { name, growth, bySize: {} };
    for (const size of sizes) {
      const ratios = bySize[size].map((value, round) => value / samples[floor]?.[size]?.[round]);
      digests[name].bySize[size] = {
        total: spread(found(bySize[size])),
        perTask: spread(found(bySize[size]).map((value) => value / size)),
        ratio: found(ratios).length ? spread(found(ratios)) : undefined,
      };
    }
  }
  return digests;
}

/** Without the rounds that were not taken. */
function found(values) {
  return values.filter((value) => Number.isFinite(value));
}

/** A spread of milliseconds as one of microseconds. */
export function inMicroseconds(values) {
  if (!values) return undefined;
  return { median: values.median * 1_000, low: values.low * 1_000, high: values.high * 1_000 };
}

/** The lines of a plot: of each candidate a figure by the size. */
export function seriesOf(digests, pick) {
  return Object.values(digests).map(({ name, bySize }) => ({
    name,
    points: Object.entries(bySize).map(([size, of]) => {
      const { median: y, low, high } = pick(of);
      return { x: Number(size), y, low, high };
    }),
  }));
}

/** `1,000`, `10,000`, as heads of columns. */
export function sizeNames(sizes) {
  return sizes.map((size) => size.toLocaleString("en-US"));
}

/** What became of a goal: the worst figure must not be above the limit. */
export function verdict(goal, worst, limit) {
  return `${goal}: ${worst <= limit ? "met" : "**missed**"} (${figure(worst)}).`;
}
