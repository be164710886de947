// A whole service on the core alone: a step at the start, HTTP, a heartbeat, a cleanup hook, logs, and Ctrl-C.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { logEvents, Manager, OsSignalTask } from "allstop";

const signals = new OsSignalTask(); // first of all, so that a Ctrl-C during the start is not lost
const visits = new Map<string, number>();

const server = createServer((request, response) => {
  const path = request.url ?? "/";
  visits.set(path, (visits.get(path) ?? 0) + 1);
  response.end(`Visit ${visits.get(path)} of ${path}\n`);
});
server.listen(Number(process.env["PORT"] ?? 0), "127.0.0.1");
await once(server, "listening");
console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);

const manager = new Manager({ name: "shop", onEvent: logEvents(console) });

manager.cleanup(function saveVisits() {
  console.log(`Saved the visits of ${visits.size} pages`);
});

manager.runEphemeral(async function loadVisits(signal) {
  await sleep(50, undefined, { signal });
  console.log("Loaded the visits");
});

manager.run(signals);

manager.run(async function http(signal) {
  if (!signal.aborted) await once(signal, "abort");
  server.close(); // takes no new connections, closes idle ones, and waits for the others
  setTimeout(() => server.closeAllConnections(), 5_000).unref();
  await once(server, "close");
});

manager.run(async function heartbeat(signal) {
  for (;;) {
    await sleep(10_000, undefined, { signal });
    console.log(`Still here, with ${visits.size} pages`);
  }
});

await manager.wait();
