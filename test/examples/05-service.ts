// A whole service: a step at the start, HTTP that loses no request, a heartbeat, probes, metrics and a page for who
// looks after it, a cleanup hook, logs, Ctrl-C, and at the end who held it up.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { logEvents, Manager, OsSignalTask } from "allstop";
import { AdminServerTask } from "allstop/admin";
import { Health } from "allstop/health";
import { HttpServerTask } from "allstop/http";
import { Metrics } from "allstop/metrics";
import { Timeline } from "allstop/timeline";

const signals = new OsSignalTask(); // first of all, so that a Ctrl-C during the start is not lost
const visits = new Map<string, number>();

const server = createServer((request, response) => {
  const path = request.url ?? "/";
  visits.set(path, (visits.get(path) ?? 0) + 1);
  response.end(`Visit ${visits.get(path)} of ${path}\n`);
});
const http = new HttpServerTask(server, {
  host: "127.0.0.1",
  port: Number(process.env["PORT"] ?? 0),
  drainDelay: Number(process.env["DRAIN_DELAY"] ?? 0), // as long as a load balancer takes to hear of /ready
});

const metrics = new Metrics();
const timeline = new Timeline();
const health = new Health();
const log = logEvents(console);
const manager = new Manager({
  name: "shop",
  onEvent(event) {
    log(event);
    metrics.observe(event);
    timeline.observe(event);
  },
});

const store = health.component("visits");
const ready = () => store.status === "healthy";
const port = Number(process.env["ADMIN_PORT"] ?? 0);
const admin = new AdminServerTask({ port, manager, health, ready, metrics, timeline });

manager.cleanup(function saveVisits() {
  console.log(`Saved the visits of ${visits.size} pages`);
});

manager.runBackground(admin, health);
manager.run(signals);
manager.runEphemeral(async function loadVisits(signal) {
  await sleep(50, undefined, { signal });
  store.report("healthy");
});
manager.run(http);
manager.run(async function heartbeat(signal) {
  for (;;) {
    await sleep(10_000, undefined, { signal });
    console.log(`Still here, with ${visits.size} pages`);
  }
});

for (const task of [http, admin]) {
  await task.ready();
  console.log(`${task.name}: http://127.0.0.1:${(task.address as AddressInfo).port}`);
}
await manager.wait().finally(() => console.log(timeline.toText()));
