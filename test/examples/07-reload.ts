// SIGHUP reads the configuration again. A bad file is reported, and the old configuration stays in force.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Manager } from "allstop";
import { SignalTriggerTask } from "allstop/repeat";

const folder = mkdtempSync(join(tmpdir(), "allstop-"));
const file = join(folder, "config.json");

/** What an operator does. */
function edit(text: string): void {
  writeFileSync(file, text);
  process.kill(process.pid, "SIGHUP");
}

let config = { greeting: "hello" };

function reload(): void {
  config = JSON.parse(readFileSync(file, "utf8"));
  console.log(`reloaded: ${config.greeting}`);
  manager.stop();
}

const manager = new Manager({
  onEvent: (event) => {
    if (event.type !== "action-failed") return;
    console.log(`${event.task}: ${event.error.name}, so it is still: ${config.greeting}`);
    edit('{ "greeting": "good day" }');
  },
});

manager.cleanup(() => rmSync(folder, { recursive: true }));
manager.run(new SignalTriggerTask(reload, { name: "reload", onError: "continue" }));
edit('{ "greeting": "good');
await manager.wait();
