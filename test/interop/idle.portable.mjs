/*
 * A program with nothing to do but a group whose only task never ends, for any runtime. The group waits without having
 * been told to stop, or was told to by its parent, and nobody waits, or would run its task again if that failed.
 */
import { Manager } from "../../dist/index.js";
import { RestartTask } from "../../dist/restart.js";

const [behaviour] = process.argv.slice(2);
const parent = new AbortController();
const manager = new Manager({ signal: parent.signal });
const task = () => new Promise(() => {});
manager.run(behaviour === "would restart it" ? new RestartTask(task) : task);
if (behaviour === "is told to stop") parent.abort();
else manager.wait();
console.log("idle");
