// A consumer whose broker stays away is run again after growing delays, and given up in the end, which stops the group.
import { Manager } from "allstop";
import { backoff, RestartLimitError, RestartTask } from "allstop/restart";

let connections = 0;
async function consumer(): Promise<void> {
  throw new Error(`connection ${++connections} refused`);
}

const manager = new Manager({
  name: "shop",
  onEvent: (event) => {
    if (event.type !== "task-restarting") return;
    console.log(`${event.task}: ${event.error?.message}, again in ${event.delay} ms`);
  },
});

manager.run(new RestartTask(consumer, { maxRestarts: 3, delay: backoff({ base: 5, jitter: 0 }) }));
manager.cleanup(() => console.log("closed the database"));

await manager.wait().catch((error: unknown) => {
  if (error instanceof RestartLimitError) console.log(`${error.message}: ${error.cause}`);
});
