// Two jobs at a time, in order. One that fails stops the group: the others are told, those that wait are never begun.
import { setTimeout as sleep } from "node:timers/promises";
import { Manager } from "allstop";

const manager = new Manager({
  limit: 2,
  onEvent: (event) => {
    if (event.type === "task-ended") console.log(`${event.task}: ${event.outcome}`);
  },
});

for (let page = 1; page <= 6; page++) {
  manager.runEphemeral({
    name: `page ${page}`,
    async run(signal) {
      await sleep(page * 10, undefined, { signal }); // the download
      if (page === 3) throw new Error("404");
    },
  });
}

await manager.wait().catch((error: unknown) => console.log(`first: ${error}`));
