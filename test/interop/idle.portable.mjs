/*
 * A program with nothing to do but a group whose only task never ends, for any runtime. The group either waits without
 * having been told to stop, or was told to by its parent, and nobody waits.
 */
import { Manager } from "../../dist/index.js";

const [behaviour] = process.argv.slice(2);
const parent = new AbortController();
const manager = new Manager({ signal: parent.signal });
manager.run(() => new Promise(() => {}));
if (behaviour === "waits for the end") manager.wait();
if (behaviour === "is told to stop") parent.abort();
console.log("idle");
