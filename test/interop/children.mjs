/*
 * A program that starts programs of all sorts. With "stop" it stops each of them after a while and tells how they
 * ended; with "exit" or "throw" it ends itself, after so many milliseconds, while they go on.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { StopReason } from "../../dist/index.js";
import { ChildProcessTask } from "../../dist/child.js";

const RUNS = 100;
const AT_ONCE = 10;

/** Each starts others, or is deaf to SIGTERM, so that something of it has to be killed. */
const programs = {
  plain: ["sh", "sleep 60 & sh -c 'sleep 60 & wait' & wait"],
  leader: ["sh", "sh -c 'trap \"sleep 0.02; exit\" TERM; while :; do sleep 0.01; done' & exec sleep 60"],
  deaf: ["sh", "trap '' TERM; sh -c 'sleep 60 & sleep 60' & sleep 60"],
  deafChild: ["sh", "sh -c 'trap \"\" TERM; sleep 60' & exec sleep 60"],
  growing: ["sh", "(while :; do sleep 60 & sleep 0.005; done) & wait"],
  leaving: ["sh", "sh -c 'sleep 60 & sleep 60' & exit 0"],
  crashing: ["sh", "sleep 60 & sleep 0.02; exit 3"],
  suspended: ["sh", "sleep 60 & kill -STOP $! $$; wait"],
  node: [process.execPath, "require('node:child_process').spawn('sleep', ['60']); setTimeout(() => {}, 60_000);"],
};

const [mode, milliseconds] = process.argv.slice(2);
const listeners = process.listenerCount("exit");
const names = Object.keys(programs);

function taskOf(number) {
  const name = names[number % names.length];
  const [command, script] = programs[name];
  const args = [command === "sh" ? "-c" : "-e", script];
  const stopTimeout = name.startsWith("deaf") ? 50 : 5_000;
  return new ChildProcessTask(command, args, { name, stdio: "ignore", stopTimeout });
}

/** Starts and stops one; tells how that ended, by its name. */
async function ride(number) {
  const controller = new AbortController();
  const task = taskOf(number);
  // From the turn of the start on.
  const timer = setTimeout(() => controller.abort(new StopReason()), Math.floor(Math.random() * 60));
  const end = await task.run(controller.signal).then(
    () => "returned",
    (error) => error.message,
  );
  clearTimeout(timer);
  return [task.name, end];
}

if (mode === "stop") {
  const ends = {};
  let number = 0;
  const rider = async () => {
    while (number < RUNS) {
      const [name, end] = await ride(number++);
      ends[name] ??= {};
      ends[name][end] = (ends[name][end] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, rider));
  // The handle of a process that has ended is gone at the end of the turn, which comes after its timers.
  for (let i = 0; i < 2; i++) await sleep(1);
  const left = process.getActiveResourcesInfo().filter((name) => name !== "PipeWrap");
  console.log(JSON.stringify({ ends, left, listeners: process.listenerCount("exit") - listeners }));
} else {
  setTimeout(() => {
    if (mode === "exit") process.exit(9);
    throw new Error("nobody catches this");
  }, Number(milliseconds));
  for (let i = 0; i < 2 * names.length; i++) taskOf(i).run(new AbortController().signal).catch(() => {});
}
