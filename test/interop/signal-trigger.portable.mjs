/*
 * A service that does something on SIGHUP, the second time its last, for any runtime. Nothing but that task keeps it
 * alive; in particular no `await` out here, which would do so under Bun, and let timers do so under Deno.
 */
import { Manager } from "../../dist/index.js";
import { SignalTriggerTask } from "../../dist/repeat.js";

let reloads = 0;
const reload = () => {
  console.log(`reload ${++reloads}`);
  if (reloads === 2) manager.stop();
  else setTimeout(() => console.log("idle again"), 50).unref();
};

const manager = new Manager({ cleanupTimeout: Infinity });
manager.run(new SignalTriggerTask(reload));
manager.cleanup(() => {
  console.log(`cleans up with ${process.listenerCount("SIGHUP")} listeners`);
  return new Promise(() => {});
});
manager.wait();
setTimeout(() => console.log("idle"), 50).unref();
