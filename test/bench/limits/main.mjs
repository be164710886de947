/*
 * What runMain adds to the end of a process: the time from SIGTERM to the exit, as a ratio to that of a program with a
 * listener for the signal. One that is idle, and one that is a server, which HttpServerTask drains: that looks for
 * clients that have just come, and for the ends of answers, before it closes. They take turns, so that a slow moment
 * hits all, and the fastest of each are compared, as a busy machine only ever adds to what they take: when a ratio
 * exceeds its limit, both get more turns. Exits with 1 when it still does after some rounds.
 *
 * (Programs that call `process.exit` are faster by a millisecond, as Node then frees nothing.)
 */
import { spawn } from "node:child_process";
import { once } from "node:events";

const TURNS = 30;
const ROUNDS = 4;
const WARM_UP = 3;

const dist = new URL("../../../dist/", import.meta.url);

const PAIRS = [
  {
    what: "an idle program",
    limit: 1.5,
    bare: `
      const alive = setInterval(() => {}, 2 ** 31 - 1);
      process.on("SIGTERM", () => clearInterval(alive));
      console.log("ready");`,
    ours: `
      import { once } from "node:events";
      import { runMain } from "${dist}main.js";
      await runMain((manager) => {
        manager.run((signal) => once(signal, "abort"));
        console.log("ready");
      });`,
  },
  {
    what: "an idle server",
    limit: 2,
    bare: `
      import { createServer } from "node:http";
      const server = createServer(() => {}).listen(0, "127.0.0.1", () => console.log("ready"));
      process.on("SIGTERM", () => server.close());`,
    ours: `
      import { createServer } from "node:http";
      import { HttpServerTask } from "${dist}http.js";
      import { runMain } from "${dist}main.js";
      await runMain(async (manager) => {
        const http = new HttpServerTask(createServer(() => {}), { host: "127.0.0.1" });
        manager.run(http);
        await http.ready();
        console.log("ready");
      });`,
  },
];

for (const { what, limit, ...programs } of PAIRS) {
  const fastest = { bare: Infinity, ours: Infinity };
  const isExceeded = () => !(fastest.ours / fastest.bare <= limit);
  for (let turn = -WARM_UP; turn < TURNS || (isExceeded() && turn < ROUNDS * TURNS); turn++) {
    for (const name of turn % 2 ? ["bare", "ours"] : ["ours", "bare"]) {
      const time = await timeOf(programs[name]);
      if (turn >= 0) fastest[name] = Math.min(fastest[name], time);
    }
  }
  const { bare, ours } = fastest;
  const exceeded = isExceeded();
  if (exceeded) process.exitCode = 1;
  const ratio = `${(ours / bare).toFixed(2)} x (${ours.toFixed(1)} / ${bare.toFixed(1)} ms)`;
  console.log(`from SIGTERM to the exit, ${what} with runMain / by hand  ${ratio}  ${limit} x${exceeded ? "  exceeded" : ""}`);
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
