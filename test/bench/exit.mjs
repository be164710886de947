/*
 * How long it takes from SIGTERM to the exit when there is nothing to wait for: of a program that only waits for the
 * signal, and of a server without clients. All take turns.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { figure, median, save, spread, withSpread } from "./report.mjs";

const TURNS = Number(process.env.TURNS ?? 15);
const WARM_UP = 1;
/** What a program gets to come to rest before the signal, in milliseconds. */
const REST = 30;

const dist = new URL("../../dist/", import.meta.url);

/** The first one is the floor. */
const PROGRAMS = {
  "by hand": `
    const alive = setInterval(() => {}, 2 ** 31 - 1);
    process.on("SIGTERM", () => clearInterval(alive));
    console.log("ready");`,
  "by hand, process.exit()": `
    setInterval(() => {}, 2 ** 31 - 1);
    process.on("SIGTERM", () => process.exit());
    console.log("ready");`,
  "allstop, runMain": `
    import { once } from "node:events";
    import { runMain } from "${dist}main.js";
    await runMain((manager) => {
      manager.run((signal) => once(signal, "abort"));
      console.log("ready");
    });`,
  "allstop, Manager and OsSignalTask": `
    import { Manager, OsSignalTask } from "${dist}index.js";
    const manager = new Manager();
    manager.run(new OsSignalTask());
    console.log("ready");
    await manager.wait();`,
  "close-with-grace": `
    import closeWithGrace from "close-with-grace";
    setInterval(() => {}, 2 ** 31 - 1);
    closeWithGrace(async () => {});
    console.log("ready");`,
  "effection, main": `
    import { main, suspend } from "effection";
    await main(function* () {
      console.log("ready");
      yield* suspend();
    });`,
  lightship: `
    import { createLightship } from "lightship";
    const lightship = await createLightship();
    lightship.signalReady();
    console.log("ready");`,
};

/** The programs of drain-servers/. */
const SERVERS = {
  "server.close()": "server-close",
  allstop: "allstop",
  "close-with-grace": "close-with-grace",
  "http-terminator": "http-terminator",
  stoppable: "stoppable",
  terminus: "terminus",
  lightship: "lightship",
  "http-graceful-shutdown": "http-graceful-shutdown",
};

const groups = [
  {
    title: "A program that waits for the signal",
    candidates: Object.entries(PROGRAMS).map(([name, source]) => ({
      name,
      args: ["--input-type=module", "--eval", source],
    })),
  },
  {
    title: "A server without clients",
    candidates: Object.entries(SERVERS).map(([name, program]) => ({
      name,
      args: [fileURLToPath(new URL(`drain-servers/${program}.mjs`, import.meta.url))],
    })),
  },
];
for (const { candidates } of groups) await measure(candidates);
await save(result());

/** Adds to each of them its times, and the code with which it exits. */
async function measure(candidates) {
  for (const candidate of candidates) candidate.times = [];
  for (let turn = -WARM_UP; turn < TURNS; turn++) {
    const first = (turn + WARM_UP) % candidates.length;
    for (const candidate of [...candidates.slice(first), ...candidates.slice(0, first)]) {
      const { time, code } = await stop(candidate);
      if (turn >= 0) candidate.times.push(time);
      candidate.code = code;
    }
  }
}

/** @returns How long it took, and how it ended. */
async function stop({ name, args }) {
  const child = spawn(process.execPath, args, {
    cwd: fileURLToPath(new URL(".", import.meta.url)),
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 10_000,
    killSignal: "SIGKILL",
  });
  // None is left behind, should this fail.
  const kill = () => child.kill("SIGKILL");
  process.on("exit", kill);
  const exited = once(child, "exit");
  await Promise.race([
    once(child.stdout, "data"),
    exited.then(() => Promise.reject(new Error(`${name} has ended before it was ready`))),
  ]);
  await sleep(REST);
  const startedAt = performance.now();
  child.kill("SIGTERM");
  const [code, signal] = await exited;
  const time = performance.now() - startedAt;
  process.off("exit", kill);
  if (signal === "SIGKILL") throw new Error(`${name} does not end`);
  return { time, code: code ?? signal };
}

function result() {
  const table = ({ title, candidates: [floor, ...others] }) => ({
    title,
    header: ["", "milliseconds to the exit", "x the first", "exit code"],
    rows: [floor, ...others].map(({ name, times, code }) => [
      name,
      withSpread(spread(times)),
      figure(median(times.map((time, turn) => time / floor.times[turn]))),
      code,
    ]),
  });
  return {
    topic: "exit",
    title: "From SIGTERM to the exit, with nothing to wait for",
    text: [
      "What a library adds to the end of a process. What calls `process.exit` (close-with-grace, effection,",
      "terminus, http-graceful-shutdown) is ahead of what ends by itself, as Node then frees nothing. allstop's",
      "server waits 0 ms for requests here, but some turns of the event loop for clients that are just",
      "connecting. effect has its `runMain` for Node in a package of its own, which is not measured.",
      "http-terminator, stoppable, terminus and http-graceful-shutdown are for servers only; lightship always is",
      "one.",
    ].join(" "),
    tables: groups.map(table),
    plots: groups.map(({ title, candidates }, index) => ({
      name: ["exit-program", "exit-server"][index],
      title: `${title}: from SIGTERM to the exit`,
      x: { title: "", scale: "ordinal" },
      y: { title: "milliseconds", scale: "linear" },
      series: [
        {
          name: "milliseconds",
          points: candidates.map(({ name, times }) => {
            const { median: y, low, high } = spread(times);
            return { x: name, y, low, high };
          }),
        },
      ],
    })),
  };
}
