/*
 * What users ask of a task group, each question with an experiment that answers it for any of them. A group that has
 * no way to be asked must not even mention the matter among its public names, or this fails, for somebody to look.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { PATIENCE, PAUSE } from "./jobs.mjs";

const UNSTOPPED = PATIENCE + 10 * PAUSE;

export const GROUP_QUESTIONS = [
  ["gives back what the jobs return", givesValues],
  ["runs an async function as it is", runsFunctions],
  ["when one job fails, tells the others to stop", tellsOthers],
  ["and reports that when they have ended", waitsForOthers],
  ["stops also a job that looks at no signal, at its next step", stopsSteps],
  ["starts nothing of its queue after a failure", dropsQueue],
  ["of three failures, two of them in cleanups, keeps", keepsFailures],
  ["hands on a thrown string as an Error", makesErrors],
  ["can be stopped from outside", canBeStopped],
  ["cleanup hooks, last first", orderOfHooks],
  ["a hook that fails does not skip the others", failingHook],
  ["gives up on a job that ignores the stop, and names it", deadline],
  ["at most n jobs at once", limits],
  ["priorities", prioritizes],
  ["at most n jobs in a time", limitsRate],
  ["tries a job again that failed", retries],
  ["a timeout for a job", timesOut],
];

/** Whether there is a way to ask for it. */
function has(group, ability, mention) {
  if (group[ability]) return true;
  if (mention.test(group.surface())) throw new Error(`${group.name} seems to have a way: ${mention}`);
  return false;
}

const answer = (isYes) => (isYes ? "yes" : "no");

/** Waits for the end of a run, also of one that fails, then until jobs that nobody told to stop have ended, too. */
async function afterwards(run) {
  await run.catch(() => {});
  await sleep(UNSTOPPED);
}

async function givesValues({ run, jobs }) {
  const values = await run([jobs.returns("a"), jobs.returns("b")]);
  return answer(Array.isArray(values) && values.join() === "a,b");
}

async function runsFunctions({ run, wrap }) {
  let ran = 0;
  const job = async () => void ran++;
  await Promise.resolve(run([job])).catch(() => {});
  if (ran === 1) return "yes";
  await run([wrap(job)]);
  if (ran !== 1) throw new Error("It runs none at all");
  return "wrapped";
}

async function tellsOthers({ run, jobs }) {
  const log = [];
  await afterwards(run([jobs.fails(new Error("lost")), jobs.waits(log)]));
  return answer(log.includes("told"));
}

async function waitsForOthers({ run, jobs }) {
  const log = [];
  const reported = run([jobs.fails(new Error("lost")), jobs.waits(log)]).catch(() => {});
  await reported;
  const hadEnded = log.includes("ended");
  await sleep(UNSTOPPED);
  if (!log.includes("ended")) throw new Error("It never ended");
  return answer(hadEnded);
}

async function stopsSteps({ run, jobs }) {
  const log = [];
  await afterwards(run([jobs.fails(new Error("lost")), jobs.steps(log)]));
  return answer(log.length < PATIENCE / PAUSE / 2);
}

async function dropsQueue(group) {
  if (!has(group, "limited", /concurrency/i)) return "-";
  const { limited, jobs } = group;
  const log = [];
  await afterwards(limited([jobs.fails(new Error("lost")), jobs.call(() => log.push("started"))], 1));
  return answer(!log.length);
}

async function keepsFailures(group) {
  const kept = await keptOf(group, group.failures);
  if (!kept) throw new Error("It keeps none at all");
  if (kept === 3) return "all";
  if (!group.settled) return String(kept);
  if ((await keptOf(group, group.settled)) !== 3) throw new Error("Even its other way does not keep all");
  return `${kept}, or all and tells nobody`;
}

/** How many of three failures this way to ask for them has. */
async function keptOf({ jobs }, failures) {
  const [error, ...later] = ["first", "second", "third"].map((text) => new Error(text));
  const told = later.map((each) => jobs.waits([], { time: PAUSE, error: each }));
  const kept = await failures([jobs.fails(error), ...told]);
  await sleep(UNSTOPPED);
  return [error, ...later].filter((each) => kept.includes(each)).length;
}

async function makesErrors({ failures, jobs }) {
  const [error] = await failures([jobs.fails("lost")]);
  return answer(error instanceof Error);
}

async function canBeStopped(group) {
  if (!has(group, "stopped", /signal|halt/i)) return "no";
  const log = [];
  await afterwards(group.stopped([group.jobs.waits(log)]));
  return answer(log.includes("told") && log.includes("ended"));
}

async function orderOfHooks(group) {
  if (!has(group, "hooks", /cleanup|finali[sz]e|defer/i)) return "no";
  const log = [];
  await group.hooks(["a", "b", "c"].map((name) => () => void log.push(name)));
  return answer(log.join("") === "cba");
}

async function failingHook(group) {
  if (!has(group, "hooks", /cleanup|finali[sz]e|defer/i)) return "-";
  const log = [];
  const failing = () => Promise.reject(new Error("hook failed"));
  await group.hooks([() => void log.push("a"), failing]).catch(() => {});
  return answer(log.join("") === "a");
}

async function deadline(group) {
  const { run, jobs } = group;
  // It ends at last, so that nothing is left of the experiment.
  const time = 40 * PAUSE;
  const failing = jobs.fails(new Error("lost"));
  const deaf = jobs.waits([], { time });
  const startedAt = performance.now();
  const text = group.deadline
    ? await group.deadline([failing, { name: "deaf", run: deaf }], PAUSE)
    : await run([failing, deaf]).catch(String);
  const waited = performance.now() - startedAt;
  await sleep(UNSTOPPED + time);
  if (waited > time) return "no, waits";
  return group.deadline ? answer(text.includes("deaf")) : "does not wait";
}

async function limits(group) {
  if (!has(group, "limited", /concurrency/i)) return "no";
  const { limited, jobs } = group;
  const log = [];
  await limited(Array.from({ length: 6 }, () => jobs.steps(log)), 2);
  // The first steps of two jobs, and no third, come before the second steps.
  return answer(log.slice(0, 4).join() === "0,0,1,1");
}

async function prioritizes(group) {
  if (!has(group, "priorities", /priorit/i)) return "no";
  const log = [];
  const job = (name) => group.jobs.call(() => log.push(name));
  await group.priorities([
    [job("low"), 0],
    [job("high"), 1],
  ]);
  return answer(log.join() === "high,low");
}

async function limitsRate(group) {
  if (!has(group, "rate", /\brate|intervalCap/i)) return "no";
  const times = [];
  const jobs = Array.from({ length: 4 }, () => group.jobs.call(() => times.push(performance.now())));
  await group.rate(jobs, 2, 10 * PAUSE);
  return answer(times.length === 4 && times[3] - times[0] > 5 * PAUSE);
}

async function retries(group) {
  if (!has(group, "retries", /retry|retries/i)) return "no";
  let tries = 0;
  await group.retries(
    group.wrap
      ? group.wrap(() => (tries++ < 2 ? Promise.reject(new Error("lost")) : Promise.resolve()))
      : async () => {
          if (tries++ < 2) throw new Error("lost");
        },
    3,
  );
  return answer(tries === 3);
}

async function timesOut(group) {
  if (!has(group, "timeout", /(^|\s)timeout\??:/i)) return "no";
  const log = [];
  let failed = false;
  await group.timeout(group.jobs.waits(log), 2 * PAUSE).catch(() => {
    failed = true;
  });
  const hadEnded = log.includes("ended");
  await sleep(UNSTOPPED);
  if (!failed) return "no";
  return log.includes("told") && hadEnded ? "yes" : "the job goes on";
}
