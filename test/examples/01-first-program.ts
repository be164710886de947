// Three tasks: when the first one ends, the other two are told to stop, and waited for.
import { setTimeout as sleep } from "node:timers/promises";
import { Manager } from "allstop";

const manager = new Manager();

manager.run(async function customer() {
  console.log("customer: comes in");
  await sleep(20);
  console.log("customer: leaves");
});

manager.run(async function music(signal) {
  await sleep(60_000, undefined, { signal }); // rejects at the stop, which is a clean end
});

manager.run(async function barkeeper(signal) {
  await sleep(60_000, undefined, { signal }).catch(() => console.log(`barkeeper: ${signal.reason.message}`));
  console.log("barkeeper: washes up");
});

await manager.wait();
console.log("closed");
