// A task that does not hear its signal cannot hold up the exit: the hooks run all the same, and the error names it.
import { Manager } from "allstop";

const manager = new Manager({ shutdownTimeout: 50, cleanupTimeout: 50 });

manager.run(function deaf() {
  return new Promise(() => {});
});

manager.cleanup(() => console.log("cleaned up"));
manager.cleanup(function stuck() {
  return new Promise(() => {});
});

await manager.stop().catch(() => {});
for (const { source, error } of manager.failures) console.log(`${source}: ${error.message}`);
