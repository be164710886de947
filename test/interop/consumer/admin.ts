/*
 * A program of a user, which uses all that allstop/admin exports. It is compiled, never run.
 */
import { Manager, type Task } from "allstop";
import {
  type AdminComponent,
  type AdminHealth,
  type AdminManager,
  type AdminMetrics,
  type AdminServerOptions,
  AdminServerTask,
  type AdminTimeline,
} from "allstop/admin";
import { Health } from "allstop/health";
import { HttpServerTask } from "allstop/http";
import { Metrics } from "allstop/metrics";
import { type Service, ServiceGroup } from "allstop/services";
import { Timeline } from "allstop/timeline";

const manager = new Manager();

// All that allstop knows of itself fits, and so does what has the same shape.
const options: AdminServerOptions = {
  name: "admin",
  port: 9464,
  host: "127.0.0.1",
  path: "/run/shop/admin.sock",
  listen: async (server, { port, host, path }) => server.listen({ port, host, path }),
  drainDelay: 5_000,
  drainTimeout: 10_000,
  onEvent: ({ type }) => console.log(type.toUpperCase()),
  health: new Health(),
  ready: async () => false,
  services: new ServiceGroup([]),
  metrics: new Metrics(),
  timeline: new Timeline(),
  manager,
  profiling: true,
};
const component: AdminComponent = { status: "degraded", detail: "slow", since: Date.now() };
const sources: [AdminHealth, AdminMetrics, AdminMetrics, AdminMetrics, AdminTimeline, AdminTimeline, AdminManager] = [
  { snapshot: () => ({ status: "healthy", components: { queue: component, store: { status: "healthy", since: 0 } } }) },
  { render: () => "a 1\n" },
  // As a registry of prom-client.
  { metrics: async () => "a 1\n", contentType: "text/plain; version=0.0.4" },
  { metrics: () => "a 1\n", contentType: "text/plain; version=0.0.4" },
  { toText: ({ width }) => "=".repeat(width) },
  { toText: () => "", toTrace: () => '{ "traceEvents": [] }' },
  { signal: manager.signal, pending: [], failures: [{ source: "shop/consumer", error: new Error("refused") }] },
];

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults: HttpServerTask = new AdminServerTask({
  name: undefined,
  port: undefined,
  host: undefined,
  path: undefined,
  listen: undefined,
  drainDelay: undefined,
  drainTimeout: undefined,
  onEvent: undefined,
  health: undefined,
  ready: undefined,
  services: undefined,
  metrics: undefined,
  timeline: undefined,
  manager: undefined,
  profiling: undefined,
});

export const withErrors = [
  // @ts-expect-error An unknown option is a type error.
  new AdminServerTask({ password: "secret" }),
  // @ts-expect-error A source has what it is asked for.
  new AdminServerTask({ health: { status: "healthy" } }),
  // @ts-expect-error A registry says what the type of its page is.
  new AdminServerTask({ metrics: { metrics: () => "" } }),
  // @ts-expect-error The states of services are texts.
  new AdminServerTask({ services: { states: { database: 1 } } }),
];

export async function main(): Promise<void> {
  const admin: Task & Service = new AdminServerTask(options);
  const [health, page, registry, text, , timeline, shop] = sources;
  const other = new AdminServerTask({ health, metrics: page, timeline, manager: shop, services: { states: {} } });
  const more = [registry, text].map((metrics) => new AdminServerTask({ port: 0, metrics, ready: () => 1 }));
  manager.runBackground(admin, other, ...more, new AdminServerTask());
  const ready: Promise<void> = other.ready();
  await ready;
  const { name, address, stopping }: { name: string; address: object | string | null; stopping: boolean } = other;
  console.log(name.toUpperCase(), address, stopping);
  const run: Promise<void> = other.run(manager.signal);
  await run;
}
