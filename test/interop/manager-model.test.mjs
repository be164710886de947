/*
 * Random programs, played with a Manager under a clock of our own and with the model of manager-model.mjs, must show
 * the same: each event, each call, what each signal told, what each call threw, and after each turn all that can be
 * asked. A program that shows a difference is made as small as it gets, and printed with what replays it.
 *
 *   ALLSTOP_SCHEDULES=1000000  plays so many programs
 *   ALLSTOP_SEED=2             plays other programs
 *   ALLSTOP_PATH=7:0:3         plays only this one of the seed's programs, as a failure prints it
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { Manager } from "../../dist/index.js";
import { HAPPENINGS, ModelWorld, UNDECIDED } from "./manager-model.mjs";
import { clock, Play, unhandled, World } from "./manager-play.mjs";
import { namesIn, print, program } from "./manager-programs.mjs";

const { ALLSTOP_SCHEDULES = "100000", ALLSTOP_SEED = "1", ALLSTOP_PATH } = process.env;

/** So many programs come to all that the model knows of. */
const ENOUGH = 5_000;

const real = { setTimeout, clearTimeout, now: performance.now, stackTraceLimit: Error.stackTraceLimit };
const onUnhandled = (reason) => unhandled.push(reason);
/** Those of the test runner, which would end the test before the program is made small. */
let others;

before(() => {
  globalThis.setTimeout = (act, milliseconds) => clock.start(act, milliseconds);
  globalThis.clearTimeout = (timer) => clock.clear(timer);
  performance.now = () => clock.now;
  Error.stackTraceLimit = 0;
  others = process.listeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection");
  process.on("unhandledRejection", onUnhandled);
});

after(() => {
  globalThis.setTimeout = real.setTimeout;
  globalThis.clearTimeout = real.clearTimeout;
  delete performance.now;
  Error.stackTraceLimit = real.stackTraceLimit;
  process.off("unhandledRejection", onUnhandled);
  for (const other of others) process.on("unhandledRejection", other);
});

test("a Manager does what the model says, in random programs", async (t) => {
  const schedules = Number(ALLSTOP_SCHEDULES);
  const { counts, report } = await sweep({ schedules, seed: Number(ALLSTOP_SEED), path: ALLSTOP_PATH });
  if (report) assert.fail(report);
  for (const what of HAPPENINGS) t.diagnostic(`${percent(counts[what], schedules)} ${what}`);
  const missing = HAPPENINGS.filter((what) => !counts[what]);
  if (schedules >= ENOUGH && !ALLSTOP_PATH) assert.deepEqual(missing, []);
});

function percent(count = 0, all) {
  return `${((100 * count) / all).toFixed(2).padStart(6)} %`;
}

/** Managers with a mistake each, and how many steps the smallest program has that shows it. */
const MISTAKEN = {
  "background tasks keep the group alive": class extends Manager {
    runBackground(...tasks) {
      this.run(...tasks);
    }
  },
  "a stop for null is one for no reason": class extends Manager {
    stop(reason) {
      return super.stop(reason ?? undefined);
    }
  },
  "of three hooks, one is forgotten": class extends Manager {
    #hooks = 0;

    cleanup(hook) {
      super.cleanup(++this.#hooks === 3 ? () => {} : hook);
    }
  },
  "a second failure takes the place of the first": class extends Manager {
    get failures() {
      return super.failures.slice(-1);
    }
  },
};

for (const [mistake, Mistaken] of Object.entries(MISTAKEN)) {
  test(`a mistake is shown by a small program, which its path replays: ${mistake}`, async () => {
    const found = await sweep({ schedules: ENOUGH, seed: 1, SomeManager: Mistaken });
    assert.ok(found.report, "no program shows it");
    assert.ok(found.smallest.steps.length <= 4);
    const replayed = await sweep({ schedules: 1, seed: 1, path: found.path, SomeManager: Mistaken });
    assert.equal(replayed.report, found.report);
    assert.equal((await sweep({ schedules: 1, seed: 1, path: found.path })).report, undefined);
  });
}

/** Prints where what is seen differs from the model, after the last lines of what does not. */
function printDifference({ model, real }) {
  const length = Math.max(model.log.length, real.log.length);
  const at = Array.from({ length }).findIndex((_, index) => model.log[index] !== real.log[index]);
  return [
    ...model.log.slice(Math.max(0, at - 8), at).map((line) => `  ${line}`),
    `- ${model.log[at] ?? "(nothing)"}`,
    `+ ${real.log[at] ?? "(nothing)"}`,
  ].join("\n");
}

/** Plays so many programs of a seed; returns what they came to, or the smallest that shows a difference. */
async function sweep({ schedules, seed, path, SomeManager = Manager }) {
  const counts = {};
  const property = fc.asyncProperty(program, async (one) => {
    const played = await playBoth(one, SomeManager);
    for (const note of played.notes) counts[note] = (counts[note] ?? 0) + 1;
    return isSame(played);
  });
  const found = await fc.check(property, { numRuns: schedules, seed, unbiased: true, ...(path && { path }) });
  if (!found.failed) return { counts };
  const [smallest] = found.counterexample;
  const played = await playBoth(smallest, SomeManager);
  const replay = `ALLSTOP_SEED=${found.seed} ALLSTOP_PATH=${found.counterexamplePath}`;
  const report = [
    `The manager (+) does not do what the model (-) says. To replay it: ${replay}`,
    print(smallest, played),
    printDifference(played),
  ];
  return { counts, smallest, path: found.counterexamplePath, shrinks: found.numShrinks, report: report.join("\n\n") };
}

/** Plays a program in both worlds. */
async function playBoth(program, SomeManager = Manager) {
  const names = namesIn(program);
  const world = new ModelWorld();
  const model = new Play(world, program, names);
  for (const _ of model.run()) world.endTurn();
  const real = new Play(new World(SomeManager), program, names);
  for (const _ of real.run()) await new Promise(setImmediate);
  return { names, notes: world.notes, model, real };
}

function isSame({ notes, model, real }) {
  const longer = model.log.length < real.log.length ? real.log : model.log;
  const first = longer.findIndex((_, index) => model.log[index] !== real.log[index]);
  if (first < 0) return true;
  return notes.has(UNDECIDED) && /^event .*type: "cleanup-ended"/.test(model.log[first]?.trim());
}
