/*
 * A service that runs until a signal comes, for any runtime. What else it does, its argument says.
 */
import { Manager, OsSignalTask } from "../../dist/index.js";

const [behaviour] = process.argv.slice(2);
const listeners = () => ["SIGINT", "SIGTERM", "SIGQUIT"].reduce((sum, name) => sum + process.listenerCount(name), 0);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const poll = async (isTrue) => {
  while (!isTrue()) await pause(5);
};

// It listens for repeats for a minute instead of 500 ms, lest a slow machine be past them: nothing may stay for that.
const { setTimeout: start } = globalThis;
if (behaviour !== "hangs in its cleanup") {
  globalThis.setTimeout = (call, delay, ...rest) => start(call, delay === 500 ? 60_000 : delay, ...rest);
}

// A repeat has come, too, when this signal has that was sent after it.
const repeated = new Promise((resolve) => process.once("SIGUSR2", resolve));

const task = new OsSignalTask({ onSignal: (name) => console.log(`got ${name}`) });
const manager = new Manager({ cleanupTimeout: Infinity });

if (behaviour === "is disposed of") {
  task[Symbol.dispose]();
  console.log(`listeners ${listeners()}`);
  console.log("ready");
  await poll(() => false);
}

if (behaviour === "is told before it runs") {
  console.log("ready");
  await poll(() => task.received);
}

manager.run(task);
manager.cleanup(async () => {
  // It must not end the program.
  if (behaviour === "runs") await repeated;
  console.log("cleaned up");
});

if (behaviour === "hangs in its cleanup") {
  manager.cleanup(async () => {
    await poll(() => listeners() === 0);
    console.log("listens no more");
    await poll(() => false);
  });
}

if (behaviour === "runs" || behaviour === "hangs in its cleanup") console.log("ready");
// No `await` out here: under Bun and Deno that, too, would keep the program alive, which is the task's to do.
const ended = behaviour === "stops by itself" ? manager.stop() : manager.wait();
// After the signal it listens for repeats, but does not stay for them.
ended.then(() => process.on("exit", () => console.log(`ends with ${listeners()} listeners`)));
