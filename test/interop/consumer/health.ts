/*
 * A program of a user, which uses all that allstop/health exports. It is compiled, never run.
 */
import { type LifecycleEvent, Manager, type Task } from "allstop";
import {
  type ComponentHealth,
  Health,
  type HealthComponent,
  type HealthComponentOptions,
  type HealthOptions,
  type HealthSnapshot,
  type HealthStatus,
  type HealthSubscribeOptions,
  type HealthWaitOptions,
} from "allstop/health";

const options: HealthOptions = { name: "health", interval: 10_000, timeout: 1_000, onEvent: observe };
const checked: HealthComponentOptions = {
  check: async (signal) => signal.throwIfAborted(),
  interval: Infinity,
  timeout: 1_000,
  critical: false,
  dependsOn: ["database"] as const,
};

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults: Task = new Health({
  name: undefined,
  interval: undefined,
  timeout: undefined,
  onEvent: undefined,
});
const defaults = {
  check: undefined,
  interval: undefined,
  timeout: undefined,
  critical: undefined,
  dependsOn: undefined,
} satisfies HealthComponentOptions;
const whenever: HealthSubscribeOptions & HealthWaitOptions = { signal: undefined, names: undefined };

export async function main(): Promise<void> {
  const manager = new Manager();
  const health = new Health(options);
  const database: HealthComponent & Disposable = health.component("database");
  const wallet = health.component("wallet", checked);
  health.component("ledger", { ...defaults, check: () => 1 });

  database.report("healthy");
  database.report("unhealthy", "connection refused");
  // @ts-expect-error A status is one of those that there are.
  database.report("down");
  // @ts-expect-error A component tells its status by its reports alone.
  wallet.status = "healthy";
  // @ts-expect-error An unknown option is a type error.
  health.component("cache", { retries: 1 });

  const unsubscribe: () => void = health.subscribe(["wallet"], show, { signal: manager.signal });
  health.subscribe(undefined, async (snapshot) => show(snapshot), whenever)();
  unsubscribe();
  manager.run(health);
  const healthy: Promise<void> = health.waitUntil("healthy", { signal: manager.signal, names: ["wallet"] });
  await Promise.all([healthy, health.waitUntil("starting"), health.waitUntil("degraded", whenever)]);
  const run: Promise<void> = health.run(manager.signal);
  await run;
  const name: string = health.name;
  const status: HealthStatus = wallet.status;
  console.log(name, ranks[status]);
  show(health.snapshot());
  wallet[Symbol.dispose]();
}

function show({ status, components }: HealthSnapshot): void {
  console.log(ranks[status]);
  const all: Readonly<Record<string, ComponentHealth>> = components;
  for (const [name, { status, detail, since }] of Object.entries(all)) {
    console.log(name, ranks[status], detail?.toUpperCase(), since.toFixed());
  }
}

const ranks: Record<HealthStatus, number> = { healthy: 1, degraded: 2, starting: 3, unhealthy: 4 };

function observe(event: LifecycleEvent): void {
  if (event.type === "health-removed") console.log(event.component);
  if (event.type !== "health-changed") return;
  console.log(event.component, ranks[event.to] - ranks[event.from], event.detail?.toUpperCase());
}
