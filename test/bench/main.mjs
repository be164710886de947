/*
 * What runMain adds to the end of a process: the time from SIGTERM to the exit of an idle service, as a ratio to that of
 * the same server by itself, with a listener for the signal that closes it. (One that calls `process.exit` instead is
 * shown, too: Node then frees nothing, which alone takes about as long as all the rest.) They take turns, so that a slow
 * moment hits all, and the medians are compared. Exits with 1 when the ratio exceeds its limit.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";

const LIMIT = 1.5;

const TURNS = 30;
const WARM_UP = 3;

const dist = new URL("../../dist/", import.meta.url);

const PROGRAMS = {
  exits: `
    import { createServer } from "node:http";
    process.on("SIGTERM", () => process.exit());
    createServer(() => {}).listen(0, "127.0.0.1", () => console.log("ready"));`,
  closes: `
    import { createServer } from "node:http";
    const server = createServer(() => {}).listen(0, "127.0.0.1", () => console.log("ready"));
    process.on("SIGTERM", () => server.close());`,
  runMain: `
    import { createServer } from "node:http";
    import { HttpServerTask } from "${dist}http.js";
    import { runMain } from "${dist}main.js";
    await runMain(async (manager) => {
      const http = new HttpServerTask(createServer(() => {}), { host: "127.0.0.1" });
      manager.run(http);
      await http.ready();
      console.log("ready");
    });`,
};

const names = Object.keys(PROGRAMS);
const times = Object.fromEntries(names.map((name) => [name, []]));
for (let turn = -WARM_UP; turn < TURNS; turn++) {
  for (const name of turn % 2 ? names : [...names].reverse()) {
    const time = await timeOf(PROGRAMS[name]);
    if (turn >= 0) times[name].push(time);
  }
}
const [exits, closes, runMain] = names.map((name) => times[name].sort((a, b) => a - b)[TURNS / 2]);
const exceeded = !(runMain / closes <= LIMIT);
if (exceeded) process.exitCode = 1;
for (const [what, bare] of [["closed", closes], ["left to process.exit", exits]]) {
  const ratio = `${(runMain / bare).toFixed(2)} x (${runMain.toFixed(1)} / ${bare.toFixed(1)} ms)`;
  const limit = bare === closes ? `${LIMIT} x${exceeded ? "  exceeded" : ""}` : "";
  console.log(`from SIGTERM to the exit, an idle server with runMain / the same server, ${what}  ${ratio}  ${limit}`);
}

/** How long an idle program takes to end after a SIGTERM, in milliseconds. */
async function timeOf(program) {
  const args = ["--input-type=module", "--eval", program];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"], timeout: 10_000 });
  await once(child.stdout, "data");
  // Let it come to rest.
  await new Promise((resolve) => setTimeout(resolve, 50));
  const startedAt = performance.now();
  child.kill("SIGTERM");
  const [code] = await once(child, "exit");
  if (code !== 0) throw new Error(`It ended with ${code}`);
  return performance.now() - startedAt;
}
