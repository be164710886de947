import { getEventListeners } from "node:events";
import { setImmediate } from "node:timers/promises";
import { TaskAlreadyStartedError } from "allstop";
import { type Service, ServiceGroup, ServiceTimeoutError } from "allstop/services";
import { expect, test, vi } from "vitest";
import { useFakeTime } from "./support/fake-time.ts";
import { useNoUnhandledRejections } from "./support/process-events.ts";
import {
  type Call,
  CALLS,
  type Entry,
  type Layout,
  NEXT,
  ServicesModel,
  type Shape,
  type Sight,
} from "./support/services-model.ts";

/*
 * Random groups of services, with random fates, under fake time; all that is seen of each run is judged by the model in
 * support/services-model.ts. A schedule is made of its seed alone. One that breaks a law is shown, with seed and log.
 *
 *   ALLSTOP_SCHEDULES=100000  plays the schedules of the seeds from 1 to that, instead of to 600
 *   ALLSTOP_SEED=123          plays only the schedule of this seed, and prints its log
 */

const { ALLSTOP_SCHEDULES = "600", ALLSTOP_SEED } = process.env;

/** Longer than any timeout that is one, so that what takes so long hangs. */
const HANGS = 150;

const ABORT_ERROR = { name: "AbortError" };

useNoUnhandledRejections();
useFakeTime();

/** So many milliseconds, if any, and then so many microtasks. */
type Delay = { readonly ms?: number; readonly microtasks: number } | "at once" | "never";

type End = "returns" | "fails" | "echoes" | "echoes an AbortError" | "echoes a bare AbortError";

interface Ending {
  readonly after: Delay;
  readonly end: End;
}

/** How one call goes: it throws synchronously, or ends after a while, or else when it is told to stop. */
type Fate = "throws" | (Ending & { readonly told?: Ending });

interface RunPlan {
  /** For each service and what it has. */
  readonly fates: Readonly<Record<string, Readonly<Partial<Record<Call, Fate>>>>>;
  /** The services that fail with the same error whenever they fail. */
  readonly oneError: readonly string[];
  /** When the outer signal aborts, at the latest; or before the run. */
  readonly stopAt: number | "before";
  /** Or at this entry of the log, that is, in a callback or an observer; and so many microtasks later. */
  readonly stopEntry: number;
  readonly stopMicrotasks: number;
  readonly reason: unknown;
  /** At this entry, someone waits for `ready()`. */
  readonly readyEntry: number;
  /** When an entry after this one is a call, someone calls `run` a second time. */
  readonly againEntry: number;
  /** How many microtasks after the start of a turn this run is tried, if it is the second. */
  readonly startMicrotasks: number;
  /** Whether the next run is tried when this one settles, and at all that is seen of it after that. */
  readonly isNextAtOnce: boolean;
}

interface Schedule {
  readonly layout: Layout;
  readonly doesObserverThrow: boolean;
  /** Whether all that is due in one millisecond happens in one turn. */
  readonly isInStep: boolean;
  readonly runs: readonly RunPlan[];
}

/** Makes a schedule from a seed. */
function makeSchedule(seed: number): Schedule {
  let state = seed;
  /** Mulberry32. */
  function random(): number {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), 1 | state);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  }
  const chance = (probability: number): boolean => random() < probability;
  const below = (limit: number): number => Math.floor(random() * limit);
  const pick = <Value>(...values: readonly Value[]): Value => values[below(values.length)] as Value;

  const trouble = pick(0, 0.03, 0.1, 0.3);
  const slowness = pick(1, 5, 30);
  const microtasks = (): number => pick(0, below(12));
  const delay = (): Delay => ({ ...(chance(0.5) && { ms: below(slowness) }), microtasks: microtasks() });
  const hang = (): Delay => ({ ms: HANGS + below(5), microtasks: microtasks() });
  const echo = (): End => pick<End>("echoes", "echoes an AbortError", "echoes a bare AbortError");

  function fate(call: Call, isEphemeral: boolean): Fate {
    const isRun = call === "run";
    if (chance(trouble)) {
      const after = pick(delay(), hang());
      // It has no signal whose echo that could be.
      const fails = call === "finalize" && chance(0.2) ? "echoes a bare AbortError" : "fails";
      return pick<Fate>("throws", { after, end: fails }, { after, end: "returns" });
    }
    const end = chance(trouble) ? "fails" : pick("returns", echo());
    const told = call !== "finalize" && chance(isRun ? 1 - trouble : 0.5) && { after: delay(), end };
    const endsItself = !isRun || chance(isEphemeral ? 0.8 : 0.03);
    const after = !endsItself ? (told ? "never" : hang()) : !isRun && chance(0.3) ? "at once" : delay();
    return { after, end: "returns", ...(told && { told }) };
  }

  const timeout = (): number => (chance(0.6) ? 1_000 : pick(0, 1, 2, 5, 10, 20, 40));
  const ephemeral = pick(0.2, 0.2, 1);
  let count = 0;
  const shape = (): Shape => ({
    name: `s${++count}`,
    has: CALLS.filter(() => chance(0.75)),
    ephemeral: chance(ephemeral),
  });
  const layout: Layout = {
    name: "services",
    stages: Array.from({ length: below(5) }, () => Array.from({ length: pick(0, 1, 1, 1, 2, 2, 3) }, shape)),
    timeouts: { init: timeout(), ready: timeout(), stop: timeout(), shutdown: timeout(), finalize: timeout() },
  };
  const run = (): RunPlan => ({
    fates: Object.fromEntries(
      layout.stages.flat().map(({ name, has, ephemeral }) => {
        return [name, Object.fromEntries(has.map((call) => [call, fate(call, ephemeral)]))];
      }),
    ),
    oneError: layout.stages.flat().flatMap(({ name }) => (chance(0.2) ? name : [])),
    stopAt: chance(0.03) ? "before" : pick(below(10), below(80)),
    stopEntry: chance(0.6) ? below(60) : Infinity,
    stopMicrotasks: microtasks(),
    reason: pick<unknown>(new Error("told to stop"), "told to stop", new DOMException("Told to stop", "AbortError")),
    readyEntry: below(60),
    againEntry: chance(0.2) ? below(60) : Infinity,
    startMicrotasks: pick(below(12), 50),
    isNextAtOnce: chance(0.5),
  });
  const runs = chance(0.4) ? [run(), run()] : [run()];
  return { layout, doesObserverThrow: chance(0.1), isInStep: chance(0.5), runs };
}

function onAbort(signal: AbortSignal, listener: () => void): void {
  if (signal.aborted) listener();
  else signal.addEventListener("abort", listener);
}

/** A run of a schedule: what was planned, and what was seen. */
class Run {
  readonly plan: RunPlan;
  readonly controller = new AbortController();
  log: Entry[] = [];
  /** The services that have a signal. */
  readonly told = new Set<string>();
  isSettled = false;
  isTimed = false;
  isStopDue = false;
  isReadyDue = false;
  isAgainDue = false;

  constructor(plan: RunPlan) {
    this.plan = plan;
  }

  write(sight: Sight): Entry {
    const entry = { at: Date.now(), ...sight };
    this.log.push(entry);
    return entry;
  }

  /** Hands what was seen to the last run, as this one was refused. */
  becomePartOf(last: Run): void {
    last.log.push(...this.log.filter(({ type }) => type !== "stop"));
    this.log = last.log;
    this.isSettled = true;
  }
}

/** Plays a schedule, and writes down what is seen. */
class Play {
  readonly #schedule: Schedule;
  readonly #group: ServiceGroup;
  readonly runs: Run[] = [];
  #run!: Run;
  /** How many wait for `ready()`. */
  #waiting = 0;
  /** The one error of each service that has one. */
  readonly #errors: Record<string, Error> = {};
  /** Our own timers: what is to be done then. */
  readonly #timers = new Map<unknown, (() => void)[]>();

  constructor(schedule: Schedule) {
    const { layout, doesObserverThrow } = schedule;
    const { init, ready, stop, shutdown, finalize } = layout.timeouts;
    this.#schedule = schedule;
    this.#group = new ServiceGroup(
      layout.stages.map((stage) => stage.map((shape) => this.#service(shape))),
      {
        initTimeout: init,
        readyTimeout: ready,
        stopTimeout: stop,
        shutdownTimeout: shutdown,
        finalizeTimeout: finalize,
        onEvent: (event) => {
          this.#see(this.#run, { type: "event", event });
          if (doesObserverThrow) throw new Error("an observer throws");
        },
      },
    );
  }

  async play(): Promise<void> {
    this.#waitUntilReady();
    for (const plan of this.#schedule.runs) {
      while (!this.#isAccepted(plan)) {
        for (let i = 0; i < plan.startMicrotasks; i++) await null;
        if (!this.#isAccepted(plan)) this.#start(plan);
        await this.#endTurn();
      }
      while (!this.#run.isSettled) await this.#endTurn();
    }
    while (await this.#endTurn());
  }

  #isAccepted(plan: RunPlan): boolean {
    return this.runs.some((run) => run.plan === plan);
  }

  /** Lets all happen that is due in this turn, and starts the next by firing the next timer, if there is one. */
  async #endTurn(): Promise<boolean> {
    await setImmediate();
    const run = this.#run;
    const { stopAt } = run.plan;
    if (!run.isTimed && stopAt !== "before") this.#onTimer(stopAt, () => this.#stopSoon(run));
    run.isTimed = true;
    run.write({ type: "turn", states: this.#group.states, failures: this.#group.failures, waiting: this.#waiting });
    if (run.log.length > 2_000) throw new Error("It goes on for ever");
    const isLast = vi.getTimerCount() === 0;
    if (!isLast) vi.advanceTimersToNextTimer();
    return !isLast;
  }

  /** Calls `run`; if that is refused, the last run is still the one that goes on. */
  #start(plan: RunPlan): void {
    const last = this.#run;
    const run = new Run(plan);
    const again = last?.write({ type: "again", isRefused: false });
    this.#run = run;
    this.runs.push(run);
    if (plan.stopAt === "before") this.#stop(run);
    const settle = (error?: unknown): void => {
      if (error instanceof TaskAlreadyStartedError) {
        Object.assign(again ?? {}, { isRefused: true });
        run.becomePartOf(last);
        this.#run = last;
        this.runs.pop();
        return;
      }
      run.isSettled = true;
      const leaks = vi.getTimerCount() - this.#timers.size + getEventListeners(run.controller.signal, "abort").length;
      run.write({ type: "settled", error, leaks });
      if (plan.isNextAtOnce) this.#startNext();
    };
    this.#group.run(run.controller.signal).then(() => settle(), settle);
  }

  #startNext(): void {
    const next = this.#schedule.runs[1];
    if (next && !this.#isAccepted(next)) this.#start(next);
  }

  /** Writes down what is seen, and does what is planned for that moment. */
  #see(run: Run, sight: Sight): void {
    const { plan, log } = run;
    run.write(sight);
    if (run.isSettled) {
      if (plan.isNextAtOnce && run === this.#run) this.#startNext();
      return;
    }
    if (log.length > plan.readyEntry && !run.isReadyDue) {
      run.isReadyDue = true;
      this.#waitUntilReady();
    }
    if (log.length > plan.againEntry && !run.isAgainDue && sight.type === "call" && sight.call !== "finalize") {
      run.isAgainDue = true;
      const again = run.write({ type: "again", isRefused: false });
      const note = (error: unknown): void => {
        Object.assign(again, { isRefused: error instanceof TaskAlreadyStartedError });
      };
      this.#group.run(new AbortController().signal).catch(note);
    }
    if (log.length > plan.stopEntry && !run.isStopDue) {
      run.isStopDue = true;
      this.#stopSoon(run);
    }
  }

  #stopSoon(run: Run): void {
    this.#after({ microtasks: run.plan.stopMicrotasks }, () => this.#stop(run));
  }

  #stop(run: Run): void {
    const { plan, controller } = run;
    if (controller.signal.aborted || run.isSettled) return;
    run.write({ type: "stop", reason: plan.reason });
    controller.abort(plan.reason);
  }

  #waitUntilReady(): void {
    this.#waiting++;
    const note = (error?: unknown): void => {
      this.#waiting--;
      this.#see(this.#run, { type: "ready", error });
    };
    this.#group.ready().then(() => note(), note);
    // Nobody handles this one.
    void this.#group.ready();
  }

  #service({ name, has, ephemeral }: Shape): Service {
    const members: Record<Call, (signal?: AbortSignal) => unknown> = {
      init: (signal) => this.#call(name, "init", signal),
      run: (signal) => this.#call(name, "run", signal),
      ready: (signal) => this.#call(name, "ready", signal),
      finalize: () => this.#call(name, "finalize"),
    };
    return { name, ephemeral, ...Object.fromEntries(has.map((call) => [call, members[call]])) };
  }

  #call(service: string, call: Call, signal?: AbortSignal): Promise<void> | undefined {
    const run = this.#run;
    const fate = run.plan.fates[service]?.[call] ?? "throws";
    if (signal && !run.told.has(service)) {
      run.told.add(service);
      signal.addEventListener("abort", () => this.#see(run, { type: "abort", service, reason: signal.reason }));
    }
    this.#see(run, { type: "call", service, call, ...(signal && { signal }) });
    const errorOf = (end: End): unknown => this.#errorOf(run, service, call, end, signal?.reason);
    if (fate === "throws" || fate.after === "at once") {
      const error = fate === "throws" ? errorOf("fails") : undefined;
      // Not a moment to do anything at, for it has not ended yet.
      run.write({ type: "end", service, call, error });
      if (error) throw error;
      return undefined;
    }
    return new Promise((resolve, reject) => {
      let isOver = false;
      const settle = (end: End): void => {
        if (isOver) return;
        isOver = true;
        const error = errorOf(end);
        if (error === undefined) resolve();
        else reject(error);
        this.#see(run, { type: "end", service, call, error });
      };
      const { told } = fate;
      if (told && signal) onAbort(signal, () => this.#after(told.after, () => settle(told.end)));
      this.#after(fate.after, () => settle(fate.end));
    });
  }

  #errorOf(run: Run, service: string, call: Call, end: End, reason: unknown): unknown {
    if (end === "returns") return undefined;
    if (end === "echoes") return reason;
    if (end === "echoes an AbortError") return Object.assign(new Error("echo", { cause: reason }), ABORT_ERROR);
    if (end === "echoes a bare AbortError") return Object.assign(new Error("echo"), ABORT_ERROR);
    if (!run.plan.oneError.includes(service)) return new Error(`${service}.${call}`);
    return (this.#errors[service] ??= new Error(service));
  }

  async #after(delay: Delay, act: () => void): Promise<void> {
    if (delay === "never") return;
    if (delay === "at once") return act();
    const { ms, microtasks } = delay;
    if (ms !== undefined) await new Promise<void>((resolve) => this.#onTimer(ms, resolve));
    for (let i = 0; i < microtasks; i++) await null;
    act();
  }

  #onTimer(ms: number, act: () => void): void {
    const due = this.#schedule.isInStep ? Date.now() + ms : Symbol();
    const acts = this.#timers.get(due) ?? [];
    acts.push(act);
    if (acts.length > 1) return;
    this.#timers.set(due, acts);
    setTimeout(() => {
      this.#timers.delete(due);
      for (const each of acts) each();
    }, ms);
  }
}

/** Plays the schedule of a seed, and judges each of its runs. */
async function check(seed: number): Promise<readonly Entry[]> {
  vi.setSystemTime(0);
  const schedule = makeSchedule(seed);
  const play = new Play(schedule);
  const seen: Entry[] = [];
  try {
    const [end] = await Promise.allSettled([play.play()]);
    for (const { log } of play.runs) {
      const model = new ServicesModel(schedule.layout);
      for (const entry of log) {
        seen.push(entry);
        model.see(entry);
      }
    }
    if (end.status === "rejected") throw end.reason;
  } catch (thrown) {
    const { message } = thrown as Error;
    throw new Error([`Seed ${seed}: ${message}`, show(schedule), ...seen.map(line)].join("\n"), { cause: thrown });
  }
  return seen;
}

function show(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => (isPlain(part) ? part : String(part)));
}

function isPlain(value: unknown): boolean {
  return value !== Infinity && !(value instanceof Error);
}

/** For instance `12 end s1 run Error: s1.run`. */
function line({ at, type, ...sight }: Entry): string {
  const { event, signal, ...words } = { event: undefined, signal: undefined, ...sight };
  const texts = Object.values({ ...event, ...words }).map((value) => {
    return isPlain(value) && typeof value === "object" ? show(value) : String(value);
  });
  return [at, type, ...texts].join(" ");
}

/** What kind of thing was seen. */
function kindOf(entry: Entry): string {
  if (entry.type === "call") return `${entry.call} is called`;
  if (entry.type === "end") return `${entry.call} ${entry.error === undefined ? "returns" : "fails"}`;
  if (entry.type === "again") return entry.isRefused ? "a second run is refused" : "a second run is taken";
  if (entry.type === "ready" || entry.type === "settled") return `${entry.type} ${entry.error ? "badly" : "well"}`;
  if (entry.type !== "event") return entry.type;
  const { event } = entry;
  if (event.type === "service-state") return `${event.from} becomes ${event.to}`;
  if (event.type !== "service-failed") return event.type;
  return `${event.phase} is reported to have ${event.error instanceof ServiceTimeoutError ? "timed out" : "failed"}`;
}

/** All that can happen must happen, lest the laws hold for want of a case. */
const KINDS = [
  ...CALLS.flatMap((call) => [`${call} is called`, `${call} returns`, `${call} fails`]),
  ...CALLS.map((call) => `${call} is reported to have failed`),
  ...["init", "ready", "stop", "finalize"].map((phase) => `${phase} is reported to have timed out`),
  ...Object.entries(NEXT).flatMap(([from, next]) => next.map((to) => `${from} becomes ${to}`)),
  ...["a second run is taken", "a second run is refused", "abort", "stop", "turn"],
  ...["ready well", "ready badly", "settled well", "settled badly"],
];

if (ALLSTOP_SEED) {
  test(`the schedule of seed ${ALLSTOP_SEED} keeps every law`, async () => {
    const seen = await check(Number(ALLSTOP_SEED));
    console.log([show(makeSchedule(Number(ALLSTOP_SEED))), ...seen.map(line)].join("\n"));
  });
} else {
  const count = Number(ALLSTOP_SCHEDULES);
  test("A group keeps every law, whatever its services do, and whenever it is told to stop", async () => {
    const kinds = new Set<string>();
    for (let seed = 1; seed <= count; seed++) for (const entry of await check(seed)) kinds.add(kindOf(entry));
    expect([...kinds].sort()).toEqual(KINDS.sort());
  }, 30_000 + 20 * count);
}
