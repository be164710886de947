// A tree: when one task of a group fails, all of that group is restarted, and the rest of the service goes on.
import { setTimeout as sleep } from "node:timers/promises";
import { Manager } from "allstop";
import { GroupTask } from "allstop/group";
import { RestartTask } from "allstop/restart";

const manager = new Manager({
  name: "shop",
  onEvent: (event) => {
    if (event.type === "task-started") console.log(`+ ${event.task}`);
    if (event.type === "task-ended") console.log(`- ${event.task} ${event.outcome}`);
    if (event.type === "task-restarting") console.log(`  ${event.task} again, after: ${event.error?.message}`);
  },
});

async function idle(signal: AbortSignal): Promise<void> {
  await sleep(60_000, undefined, { signal });
}

let connections = 0;
const orders = new GroupTask("orders", (group) => {
  const connection = ++connections;
  group.cleanup(() => console.log(`  connection ${connection} closed`));
  group.run({ name: "writer", run: idle });
  group.run(async function reader() {
    await sleep(10);
    if (connection === 1) throw new Error("connection reset");
    manager.stop(); // enough of it
  });
});

manager.run({ name: "http", run: idle });
manager.run(new RestartTask(orders, { delay: 10 }));
await manager.wait();
