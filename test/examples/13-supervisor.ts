// A supervisor of two real programs: a queue, and a worker that crashes over its first job and is started again.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Manager } from "allstop";
import { ChildProcessTask } from "allstop/child";
import { RestartTask } from "allstop/restart";

// Any programs will do; these are run by Node.
const queue = `
  let jobs = 0;
  const server = require("node:net").createServer((client) => client.end(String(++jobs)));
  process.on("SIGTERM", () => server.close(() => console.log("  queue: closed after " + jobs + " jobs")));
  server.listen(process.argv[1]);`;
const worker = `
  require("node:net").connect(process.argv[1]).on("data", (job) => {
    console.log("  worker: job " + job);
    process.exitCode = job > 1 ? 0 : 3;
  });`;

const folder = mkdtempSync(join(tmpdir(), "supervisor-"));
const socket = join(folder, "queue");

function supervised(name: string, program: string): RestartTask {
  const task = new ChildProcessTask(process.execPath, ["-e", program, socket], { name, stopTimeout: 5_000 });
  return new RestartTask(task, { maxRestarts: 5, within: 60_000, delay: 10 });
}

const manager = new Manager({
  name: "shop",
  onEvent: (event) => {
    if (event.type === "child-exited") console.log(`${event.task} exited with ${event.exitCode ?? event.signal}`);
    if (event.type === "task-restarting") console.log(`${event.task} again in ${event.delay} ms`);
  },
});
manager.cleanup(() => rmSync(folder, { recursive: true }));

manager.run(supervised("queue", queue));
manager.runEphemeral(async function startWorker(signal) {
  while (!existsSync(socket)) await sleep(5, undefined, { signal });
  manager.run(supervised("worker", worker)); // when that has done a job, the queue is stopped, too
});
await manager.wait();
