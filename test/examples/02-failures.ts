// One task fails: the group stops, wait() rejects with that very error, and failures has all of them, with their sources.
import { setTimeout as sleep } from "node:timers/promises";
import { Manager } from "allstop";

const manager = new Manager({ name: "shop" });

manager.run(async function consumer() {
  await sleep(10);
  throw new Error("connection lost");
});

manager.run(async function writer(signal) {
  await sleep(60_000, undefined, { signal }).catch(() => {});
  throw new Error("could not flush"); // a real error while stopping is a failure, too
});

manager.runBackground(async function gauge(signal) {
  await sleep(60_000, undefined, { signal }); // only told to stop: no failure
});

try {
  await manager.wait();
} catch (error) {
  console.log(`first: ${error}`);
}
for (const { source, error } of manager.failures) console.log(`${source}: ${error.message}`);
