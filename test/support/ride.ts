import type { LifecycleEvent } from "allstop";
import { type Service, ServiceGroup } from "allstop/services";
import { expect, vi } from "vitest";
import { type Run, start } from "./by-hand.ts";
import { microtasks } from "./microtasks.ts";
import {
  forget,
  lines,
  REASON,
  seen,
  service,
  slowly,
  untilStopped,
  type Ways,
  whenNoted,
  without,
} from "./services.ts";
import { hangs, nothing } from "./ways.ts";

/** Three stages of all sorts of services, and `x` in one of them, which has nothing but what the test gives it. */
export function threeStages(stage = 0, ways: Ways = {}): Service[][] {
  const stages = [
    [
      service("a"),
      service("b", {
        init: slowly(3),
        run: (signal) => untilStopped(signal).catch(slowly(2)),
        ready: slowly(4),
        finalize: slowly(2),
      }),
    ],
    [
      service("c", without("init", "ready")),
      service("d", { init: slowly(2), ...without("run"), ready: slowly(1) }),
      service("e", { ephemeral: true, run: slowly(2), ready: hangs }),
    ],
    [service("f", { init: slowly(1), finalize: slowly(1) }), service("g", without("finalize")), service("h")],
  ];
  stages[stage]?.push(service("x", { ...without("init", "run", "ready"), ...ways }));
  return stages;
}

/** A run of a group from its start to its end, and what must be true of every such run. */
export class Ride {
  readonly controller = new AbortController();
  readonly group: ServiceGroup;
  readonly #stages: readonly (readonly Service[])[];
  /** The names of the services that were initialised, in the order in which they came to it. */
  readonly #initialized: string[] = [];
  /** The names of those whose turn came. */
  readonly #begun = new Set<string>();
  /** What came to its turn only after the stop. */
  readonly #late: string[] = [];
  /** Is told of each event, from within it. */
  onEvent: (event: LifecycleEvent) => void = nothing;
  /** Is told of each line, from within what it says. */
  onLine: (line: string) => void = nothing;
  run: Run | undefined;

  constructor(stages: readonly (readonly Service[])[]) {
    this.#stages = stages;
    this.group = new ServiceGroup(stages, { onEvent: (event) => this.#observe(event) });
    forget();
    whenNoted((line) => {
      if (line.startsWith("initialized ")) this.#initialized.push(line.slice("initialized ".length));
      this.onLine(line);
    });
  }

  #observe(event: LifecycleEvent): void {
    // One without an `init` takes as long as one whose `init` returns at once.
    if (event.type === "service-state" && event.from === "pending" && event.to === "initialized") {
      queueMicrotask(() => this.#initialized.push(event.service));
    }
    if (event.type === "service-state" && event.from === "pending") {
      if (lines.includes("STOP")) this.#late.push(`${event.service} became ${event.to} after the stop`);
      else this.#begun.add(event.service);
    }
    if (event.type === "service-failed") this.noteStop();
    this.onEvent(event);
  }

  start(): this {
    this.run = start(this.group, this.controller);
    return this;
  }

  noteStop(): void {
    if (!lines.includes("STOP")) lines.push("STOP");
  }

  stop(): void {
    this.noteStop();
    this.controller.abort(REASON);
  }

  /** What is wrong with the way in which it came down. */
  #faults(): string[] {
    const found = [...this.#late];
    const at = (line: string): number => lines.indexOf(line);
    const after = lines.slice(at("STOP") + 1);
    if (at("STOP") < 0) found.push("it was not told to stop");
    for (const line of after.filter((each) => /^(init|run|ready) /.test(each))) found.push(`${line} after the stop`);

    const finalized = seen("finalize").map((line) => line.slice("finalize ".length));
    const finalizable = this.#initialized.filter((name) => this.#find(name)?.finalize).reverse();
    if (`${finalized}` !== `${finalizable}`) found.push(`it finalised ${finalized} instead of ${finalizable}`);

    const down = lines.findIndex((line) => line.startsWith("finalize"));
    for (const line of seen("run")) {
      const ended = at(line.replace("run", "ended"));
      if (ended < 0 || (down >= 0 && ended > down)) found.push(`${line} had not ended before the finalizers`);
    }
    for (const [index, stage] of this.#stages.entries()) {
      for (const earlier of this.#stages.slice(0, index).flat()) {
        for (const { name } of stage) {
          const told = at(`told ${earlier.name}`);
          const end = Math.max(at(`told ${name}`), at(`ended ${name}`));
          if (told >= 0 && told < end) found.push(`${earlier.name} was told before ${name} was down`);
        }
      }
    }
    if (new Set(lines).size !== lines.length) found.push(`something was done twice: ${lines}`);
    return found;
  }

  #find(name: string): Service | undefined {
    return this.#stages.flat().find((each) => each.name === name);
  }

  /** What became of a service, if that is wrong. */
  #misstated(end: unknown): string[] {
    return Object.entries(this.group.states).flatMap(([name, state]) => {
      const right = name === "x" && end !== "returned" ? "failed" : this.#begun.has(name) ? "stopped" : "pending";
      return state === right ? [] : [`${name} is ${state} instead of ${right}`];
    });
  }

  /** Checks that all came down as it must, and that it ended so. */
  async finish(title: string, end: unknown = "returned"): Promise<void> {
    for (let count = 0; this.run?.end === "running" && count < 300; count++) await null;
    await microtasks(20);
    const { group, run } = this;
    const result = { title, faults: [...this.#faults(), ...this.#misstated(end)], timers: vi.getTimerCount() };
    expect(result).toEqual({ title, faults: [], timers: 0 });
    expect(run?.end, title).toBe(end);
    expect(group.failures.map(({ error }) => error), title).toEqual(end === "returned" ? [] : [end]);
  }
}
