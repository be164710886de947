import { type LifecycleEvent, Manager, type ManagerOptions, type TaskLike } from "allstop";
import { GroupTask } from "allstop/group";
import { Metrics } from "allstop/metrics";
import { RestartTask } from "allstop/restart";
import { type Service, ServiceGroup } from "allstop/services";
import { ControlledTask } from "allstop/testing";
import { describe, expect, test, vi } from "vitest";
import { useFakeTime } from "./support/fake-time.ts";
import { Meter, onPage, values } from "./support/metrics.ts";
import { useNoUnhandledRejections } from "./support/process-events.ts";
import { settle } from "./support/settle.ts";
import { stubborn } from "./support/stubborn.ts";
import { hangs, nothing, throwing } from "./support/ways.ts";

useNoUnhandledRejections();
useFakeTime();

const ERROR = new Error("connection lost");

function named(name: string, run: (signal: AbortSignal) => PromiseLike<unknown>): { name: string; run: typeof run } {
  return { name, run };
}

/** Stops it, and lets so much time pass as that takes. */
async function stop(manager: Manager): Promise<void> {
  const stopped = manager.stop().catch(nothing);
  await vi.advanceTimersByTimeAsync(200_000);
  await stopped;
}

function running(metrics: Metrics): Record<string, number> {
  return values(metrics, "tasks_running");
}

/** Whether it shows nothing as running, and no name as anything but stopped. */
function expectAllStopped(metrics: Metrics): void {
  const names = Object.keys(values(metrics, "task_status")).length;
  expect(Object.entries(running(metrics)).filter(([, value]) => value !== 0)).toEqual([]);
  expect(values(metrics, "tasks")).toEqual({ running: 0, stopped: names, restarting: 0 });
}

describe("`_tasks_running` returns to 0", () => {
  const metricsOf = (): { metrics: Metrics; manager: Manager } => {
    const metrics = new Metrics();
    return { metrics, manager: new Manager({ name: "app", onEvent: metrics.observe }) };
  };

  test("of a task that hangs: when its manager has stopped, not before", async () => {
    const { metrics, manager } = metricsOf();
    manager.run(named("x", hangs), new ControlledTask("y"));
    manager.cleanup(hangs);
    const stopped = manager.stop().catch(nothing);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(running(metrics)).toEqual({ "app/x": 1, "app/y": 0 });
    expect(values(metrics, "shutdown_timeouts_total")).toEqual({ "": 1 });
    await vi.advanceTimersByTimeAsync(5_000);
    await stopped;
    expectAllStopped(metrics);
    expect(values(metrics, "shutdown_duration_seconds")).toEqual({ "": 25 });
    expect(values(metrics, "task_ended_total")).toEqual({ "app/y returned": 1 });
  });

  test.each([1_000, 20_000, 60_000])("of what hangs in a group in a group, with %i ms for its stop", async (time) => {
    const { metrics, manager } = metricsOf();
    const options = { shutdownTimeout: time };
    const inner = new GroupTask("inner", (group) => group.run(named("x", hangs), new ControlledTask("y")), options);
    manager.run(new GroupTask("outer", (group) => group.run(inner, named("z", hangs)), options));
    await settle();
    expect(values(metrics, "tasks")).toEqual({ running: 5, stopped: 0, restarting: 0 });
    await stop(manager);
    expect(Object.keys(running(metrics))).toHaveLength(5);
    expectAllStopped(metrics);
  });

  test("of a group whose hook hangs beyond the deadline of the outer one", async () => {
    const { metrics, manager } = metricsOf();
    const fill = (group: Manager): void => {
      group.run(named("x", hangs));
      group.cleanup(hangs);
    };
    manager.run(new GroupTask("group", fill, { shutdownTimeout: 19_000, cleanupTimeout: 60_000 }));
    await stop(manager);
    expectAllStopped(metrics);
  });

  test.each([
    ["never", 0],
    ["on-failure", 3],
  ] as const)("of a group that is restarted (%s), with a task that hangs each time", async (policy, times) => {
    const { metrics, manager } = metricsOf();
    const fill = (group: Manager): void => group.run(named("x", hangs), named("y", throwing(ERROR)));
    const group = new GroupTask("group", fill, { shutdownTimeout: 10 });
    manager.run(new RestartTask(group, { policy, delay: 100 }));
    const seen = new Set<string>();
    for (let time = 0; time <= 500; time += 5) {
      seen.add(JSON.stringify([running(metrics)["app/group/x"], values(metrics, "task_status")["app/group"]]));
      await vi.advanceTimersByTimeAsync(5);
    }
    expect([...seen].sort()).toEqual(times ? ["[0,-1]", "[0,0]", "[1,1]"] : ["[0,0]", "[1,1]"]);
    await stop(manager);
    expectAllStopped(metrics);
    const started = { "app/group": 1, "app/group/x": times + 1, "app/group/y": times + 1 };
    expect(values(metrics, "task_started_total")).toEqual(started);
    expect(values(metrics, "task_restarts_total")).toEqual(times ? { "app/group": 3 } : {});
  });

  test("of a task that waits for its restart, inside a group of services, at the stop", async () => {
    const { metrics, manager } = metricsOf();
    const restart = new RestartTask(named("db", throwing(ERROR)), { delay: 1_000 });
    manager.run(new ServiceGroup([restart, new ControlledTask("server")]));
    await settle();
    expect(values(metrics, "task_status")).toEqual({ "app/services": 1, "app/services/db": -1 });
    expect(running(metrics)).toEqual({ "app/services": 1 });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(values(metrics, "task_restarts_total")).toEqual({ "app/services/db": 2 });
    await stop(manager);
    expectAllStopped(metrics);
  });

  test("of a restarted task, and of a group, that hang in a group of services", async () => {
    const metrics = new Metrics();
    const manager = new Manager({ name: "app", shutdownTimeout: 60_000, onEvent: metrics.observe });
    let runs = 0;
    const task = named("db", () => (++runs === 1 ? Promise.reject(ERROR) : hangs()));
    const group = new GroupTask("group", (inner) => inner.run(named("x", hangs), stubborn("y")));
    const late = stubborn("late");
    const restart = new RestartTask(task, { delay: 1, healthyAfter: 1 });
    manager.run(new ServiceGroup([restart, group], { stopTimeout: 5_000 }), late);
    await vi.advanceTimersByTimeAsync(1);
    expect(values(metrics, "task_status")["app/services/db"]).toBe(1);
    const stopped = manager.stop().catch(nothing);
    await vi.advanceTimersByTimeAsync(15_000);
    expect(running(metrics)).toEqual({
      "app/services": 0,
      "app/services/group/x": 0,
      "app/services/group/y": 0,
      "app/late": 1,
    });
    await vi.advanceTimersByTimeAsync(5_000); // the group tells of its end, which was counted already
    late.return();
    await vi.advanceTimersByTimeAsync(5_000);
    await stopped;
    expectAllStopped(metrics);
  });

  test("of ephemeral tasks under a limit, those that were skipped included", async () => {
    const metrics = new Metrics();
    const manager = new Manager({ limit: 2, onEvent: metrics.observe });
    manager.runEphemeral(...Array.from({ length: 5 }, () => new ControlledTask("job")));
    expect(running(metrics)).toEqual({ job: 2 });
    await stop(manager);
    expectAllStopped(metrics);
    expect(values(metrics, "task_started_total")).toEqual({ job: 2 });
    expect(values(metrics, "task_ended_total")).toEqual({ "job returned": 2, "job skipped": 3 });
  });

  test.each(["", "app"])("of one of two managers with the name %j, while the other one goes on", async (name) => {
    const metrics = new Metrics();
    const [hanging, living] = [0, 1].map(() => new Manager({ name, onEvent: metrics.observe }));
    const path = name && `${name}/`;
    hanging?.run(named("x", hangs), named("x", hangs));
    living?.run(new ControlledTask("x"));
    const job = new ControlledTask("x");
    living?.runEphemeral(job);
    const stopped = stop(hanging as Manager);
    await vi.advanceTimersByTimeAsync(10_000);
    job.return(); // while the other manager waits for one of this name
    await stopped;
    expect(running(metrics)).toEqual({ [`${path}x`]: 1 });
    await stop(living as Manager);
    expectAllStopped(metrics);
  });

  test("of a manager whose parent aborts, and of one that nobody waits for", async () => {
    const metrics = new Metrics();
    const parent = new AbortController();
    const managers = ["a", "b"].map((name) => new Manager({ name, signal: parent.signal, onEvent: metrics.observe }));
    for (const manager of managers) manager.run(new ControlledTask("x"), hangsUntil(100));
    expect(running(metrics)).toEqual({ "a/x": 1, "a/late": 1, "b/x": 1, "b/late": 1 });
    parent.abort();
    await vi.advanceTimersByTimeAsync(100);
    expectAllStopped(metrics);
    await managers[0]?.wait();
  });
});

function hangsUntil(milliseconds: number): TaskLike {
  return named("late", () => new Promise((resolve) => setTimeout(resolve, milliseconds)));
}

type Random = (below: number) => number;
type NamedTask = ReturnType<typeof named>;

function randomOf(seed: number): Random {
  let state = seed;
  const random = (below: number): number => (state = (state * 48_271) % 2_147_483_647) % below;
  for (let i = 0; i < 5; i++) random(2);
  return random;
}

/** Ends after so many milliseconds, or, if it heeds it, at once when it is told to stop; else as long after that. */
function ending(name: string, time: number, end: () => void, heeds: boolean): NamedTask {
  return named(name, async (signal) => {
    const pass = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, time));
    const stopped = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    if (heeds) return Promise.race([pass().then(end), stopped]);
    await stopped;
    await pass();
    end();
  });
}

/** A program of tasks of all kinds, which end in all ways, in groups of groups; only plain tasks share their names. */
class RandomProgram {
  readonly shared = new Metrics();
  readonly #own: Metrics[] = [];
  readonly #meters: Meter[];
  readonly #random: Random;
  readonly #managers: Manager[] = [];
  #groups = 0;
  readonly problems = new Set<string>();
  events = 0;

  constructor(seed: number) {
    this.#random = randomOf(seed);
    this.#meters = [new Meter()];
    this.shared.record(this.#meters[0] as Meter);
  }

  /** Runs it to the end. */
  async run(): Promise<void> {
    const random = this.#random;
    const parent = new AbortController();
    for (let i = random(3); i >= 0; i--) {
      const [own, meter] = [new Metrics(), new Meter()];
      own.record(meter);
      this.#own.push(own);
      this.#meters.push(meter);
      const manager = new Manager({
        ...this.#options(),
        name: ["", "", "app"][random(3)],
        ...(random(2) && { signal: parent.signal }),
        onEvent: (event) => this.#observe(own, event),
      });
      this.#managers.push(manager);
      for (let k = random(5); k >= 0; k--) this.#start(manager, this.#task(2));
    }
    await vi.advanceTimersByTimeAsync(random(150));
    if (random(2)) parent.abort(ERROR);
    await vi.advanceTimersByTimeAsync(random(50));
    const ends: Promise<void>[] = [];
    for (const manager of this.#managers) {
      ends.push(manager.stop().catch(nothing));
      await vi.advanceTimersByTimeAsync(random(30));
    }
    await vi.advanceTimersByTimeAsync(1_000);
    await Promise.all(ends);
    this.#own.forEach(expectAllStopped);
    expectAllStopped(this.shared);
    expect(this.#meters[0]?.collect()).toEqual(onPage(this.shared));
  }

  #options(): ManagerOptions {
    const random = this.#random;
    return { shutdownTimeout: random(80), cleanupTimeout: random(40), limit: 1 + random(4) };
  }

  #start(manager: Manager, task: TaskLike): void {
    if (manager.signal.aborted) return;
    const methods = ["runEphemeral", "runEphemeral", "runEphemeral", "run", "runBackground"] as const;
    manager[methods[this.#random(5)] ?? "run"](task);
    if (this.#random(6) === 0) manager.cleanup(hangs);
  }

  #task(depth: number): NamedTask {
    const random = this.#random;
    const name = ["a", "b", "__proto__"][random(3)] ?? "a";
    const time = random(60);
    switch (random(depth ? 13 : 8)) {
      case 0:
        return named(name, throwing("at once"));
      case 1:
        return named(name, hangs);
      case 2:
        return ending(name, time, throwing(ERROR), true);
      case 3:
        return ending(name, time, throwing("oops"), random(2) > 0);
      case 4:
        return ending(name, time, nothing, false);
      case 5:
      case 6:
      case 7:
        return ending(name, time * 4, nothing, true);
      case 8:
      case 9:
        return this.#restart(depth);
      case 10:
        return this.#services(depth);
      default:
        return this.#group(depth);
    }
  }

  #group(depth: number): NamedTask {
    const count = this.#random(4);
    const fill = (group: Manager): void => {
      for (let i = 0; i < count; i++) this.#start(group, this.#task(depth - 1));
    };
    return new GroupTask(`group-${++this.#groups}`, fill, this.#options());
  }

  #restart(depth: number): NamedTask {
    const [maxRestarts, delay, healthyAfter] = [this.#random(4), this.#random(40), this.#random(40)];
    const policy = (["on-failure", "always", "never"] as const)[this.#random(3)];
    return new RestartTask(this.#task(depth - 1), { maxRestarts, delay, healthyAfter, policy });
  }

  #services(depth: number): NamedTask {
    const random = this.#random;
    const services = Array.from({ length: 1 + random(3) }, (_, i): Service => {
      const task = this.#task(depth - 1);
      const ready = random(4) ? nothing : hangs;
      return { name: `${task.name}-${i}`, run: (signal) => task.run(signal), ready, ephemeral: random(2) > 0 };
    });
    const [readyTimeout, stopTimeout, shutdownTimeout] = [random(40), random(60), random(80)];
    const name = `services-${++this.#groups}`;
    return new ServiceGroup(services, { name, readyTimeout, stopTimeout, shutdownTimeout });
  }

  #observe(own: Metrics, event: LifecycleEvent): void {
    this.events++;
    own.observe(event);
    this.shared.observe(event);
    const [shared, ...others] = this.#meters.map((meter) => {
      return new Map(meter.collect("allstop_tasks_running").map(([, , { task = "" }, value]) => [task, value]));
    });
    for (const [task, value] of shared ?? []) {
      const sum = others.reduce((sum, running) => sum + (running.get(task) ?? 0), 0);
      if (value < 0) this.problems.add(`${task}: ${value}`);
      // Each program by itself shows the same as all of them together, though some have one name.
      if (value !== sum) this.problems.add(`${event.type} ${task}: ${value}, not ${sum}`);
    }
  }
}

describe("A random program", () => {
  const firstSeeds = Array.from({ length: 8 }, (_, i) => i * 15 + 1);
  test.each(firstSeeds)("counts no less than 0, its own tasks only, and at the end 0 (from seed %i)", async (first) => {
    let events = 0;
    for (let seed = first; seed < first + 15; seed++) {
      const program = new RandomProgram(seed);
      await program.run();
      expect([seed, ...program.problems]).toEqual([seed]);
      events += program.events;
    }
    expect(events).toBeGreaterThan(300);
  });
});
