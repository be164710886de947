/*
 * A program of a user, which uses all that allstop/services exports. It is compiled, never run.
 */
import { type Failure, type LifecycleEvent, Manager, type Task } from "allstop";
import {
  type Service,
  ServiceGroup,
  type ServiceGroupOptions,
  type ServicePhase,
  type ServiceState,
  ServiceTimeoutError,
} from "allstop/services";

/** It has all that a service may have; each member may return a promise or not, but for `run`. */
class Database implements Service {
  readonly name = "database";
  readonly ephemeral = false;

  async init(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
  }
  run(signal: AbortSignal): PromiseLike<boolean> {
    return { then: (resolve) => Promise.resolve(signal.aborted).then(resolve) };
  }
  ready(): number {
    return 1;
  }
  finalize(): void {}
}

class Migration implements Service {
  readonly ephemeral = true;

  async run(): Promise<void> {}
}

const options: ServiceGroupOptions = {
  name: "backend",
  initTimeout: 10_000,
  readyTimeout: Infinity,
  stopTimeout: 15_000,
  shutdownTimeout: 18_000,
  finalizeTimeout: 1_000,
  onEvent: observe,
};

// An option, or a member, that is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults = new ServiceGroup([{ name: undefined, ephemeral: undefined, init() {} }], {
  name: undefined,
  initTimeout: undefined,
  readyTimeout: undefined,
  stopTimeout: undefined,
  shutdownTimeout: undefined,
  finalizeTimeout: undefined,
  onEvent: undefined,
});

export const withErrors = [
  // @ts-expect-error An unknown option is a type error.
  new ServiceGroup([], { timeout: 1 }),
  // @ts-expect-error So is an unknown member.
  new ServiceGroup([{ start() {} }]),
  // @ts-expect-error The run of a service returns a promise.
  new ServiceGroup([{ run: () => 1 }]),
  // @ts-expect-error Stages are not nested.
  new ServiceGroup([[[new Database()]]]),
  // @ts-expect-error A function is no service.
  new ServiceGroup([async () => {}]),
];

const task: Task = { run: async () => "a value" };
const stages: readonly (Service | readonly Service[])[] = [new Database(), [new Migration(), task], [], {}];

export async function main(): Promise<void> {
  const manager = new Manager();
  const inner: Service & Task = new ServiceGroup(stages);
  const services = new ServiceGroup([inner, { name: "server", run: (signal) => inner.run(signal) }], options);
  manager.run(services);
  const ready: Promise<void>[] = [services.ready(), services.ready(AbortSignal.timeout(1_000))];
  await Promise.all(ready);
  const states: Readonly<Record<string, ServiceState>> = services.states;
  const name: string = services.name;
  console.log(name, states["server"] ?? "unknown", ...Object.keys(states));
  const run: Promise<void> = services.run(manager.signal);
  await run.catch((error: unknown) => {
    if (!(error instanceof ServiceTimeoutError)) throw error;
    console.log(error.service.toUpperCase(), error.phase satisfies ServicePhase, error.name);
  });
  const failures: readonly Failure[] = services.failures;
  console.log(...failures.map(({ source }) => source));
}

export const errors: Error[] = [new ServiceTimeoutError("database", "init")];

export const phases: Record<ServicePhase, number> = { init: 1, run: 2, ready: 3, stop: 4, finalize: 5 };
export const order: Record<ServiceState, number> = {
  pending: 1,
  initializing: 2,
  initialized: 3,
  starting: 4,
  running: 5,
  stopping: 6,
  stopped: 7,
  failed: 8,
};

function observe(event: LifecycleEvent): void {
  if (event.type === "service-state") console.log(event.task, event.service, order[event.to] - order[event.from]);
  if (event.type === "service-failed") console.log(event.service, phases[event.phase], event.error.message);
}
