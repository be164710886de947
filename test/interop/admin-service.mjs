/*
 * A service with all that the admin page shows, some of it under hostile names. Its first line says where it listens. A
 * server beside it lets somebody else decide what happens, also during the stop, which one of its tasks holds up.
 */
import { once } from "node:events";
import { createServer } from "node:http";
import { AdminServerTask } from "../../dist/admin.js";
import { Health } from "../../dist/health.js";
import { HttpServerTask } from "../../dist/http.js";
import { Manager, OsSignalTask } from "../../dist/index.js";
import { Metrics } from "../../dist/metrics.js";
import { RestartTask } from "../../dist/restart.js";
import { ServiceGroup } from "../../dist/services.js";
import { Timeline } from "../../dist/timeline.js";

/** What would run if a name were taken for HTML, at the places where names are. */
const hostile = {
  task: "<img src=x onerror=alert(1)>",
  service: `"><script>alert(2)</script>`,
  component: "</td></table><svg onload=alert(3)>",
  detail: "<a href=javascript:alert(4)>&lt;b&gt;</a>",
  error: "</pre></details><script>alert(5)</script>\n  at the second line",
};
const long = `long-${"name".repeat(60)}`;

const metrics = new Metrics();
const timeline = new Timeline();
const health = new Health();
const components = Object.fromEntries(
  ["database", "queue", hostile.component, long].map((name) => [name, health.component(name)]),
);
for (const component of Object.values(components)) component.report("healthy");
components[hostile.component].report("degraded", hostile.detail);

const manager = new Manager({
  name: "shop",
  onEvent(event) {
    metrics.observe(event);
    timeline.observe(event);
  },
});

/** What somebody else decides, and when. */
const told = new EventTarget();

const untilStopped = (signal) => (signal.aborted ? undefined : once(signal, "abort"));
const services = new ServiceGroup([
  { name: "database", init() {}, run: untilStopped },
  [
    { name: "warm-up", ephemeral: true, async run() {} },
    { name: hostile.service, run: untilStopped },
  ],
]);
const consumer = new RestartTask(
  async function consumer(signal) {
    await Promise.race([once(told, "restart"), untilStopped(signal)]);
    if (!signal.aborted) throw new Error("connection refused");
  },
  { delay: Infinity },
);
const http = new HttpServerTask(createServer((_, response) => response.end("hello\n")), { host: "127.0.0.1" });
const admin = new AdminServerTask({
  port: Number(process.env.ADMIN_PORT ?? 0),
  manager,
  health,
  services,
  metrics,
  timeline,
  profiling: true,
});

manager.runEphemeral(async function migrate() {});
manager.runBackground(admin, health);
manager.run(new OsSignalTask(), http, services, consumer, { name: hostile.task, run: untilStopped });
manager.runEphemeral({
  name: long,
  async run(signal) {
    await Promise.race([once(told, "fail"), untilStopped(signal)]);
    if (!signal.aborted) throw new Error(hostile.error);
  },
});
manager.run(async function mailer() {
  await once(told, "release");
});

const control = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://control");
  const { component, status, detail } = Object.fromEntries(searchParams);
  if (component) components[component].report(status, detail);
  else told.dispatchEvent(new Event(pathname.slice(1)));
  response.end();
});
await Promise.all([http.ready(), admin.ready(), services.ready(), once(control.listen(0, "127.0.0.1"), "listening")]);
console.log(JSON.stringify({ admin: admin.address.port, control: control.address().port }));
await manager.wait().catch(() => {});
control.close();
control.closeAllConnections();
