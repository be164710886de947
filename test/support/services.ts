import type { Service, ServiceGroup } from "allstop/services";
import type { ControlledTask, EventLog } from "allstop/testing";
import { beforeEach, expect, vi } from "vitest";
import { type Run, start, useRunsByHand } from "./by-hand.ts";
import { useFakeTime } from "./fake-time.ts";
import { microtasks } from "./microtasks.ts";
import { useNoUnhandledRejections, useNoWarnings } from "./process-events.ts";
import { settle } from "./settle.ts";
import { nothing } from "./ways.ts";

/*
 * Services that tell of all that they do, and what a test of a group does with them.
 */

export const ERROR = new Error("connection lost");
export const OTHER = new Error("disk full");
export const REASON = new Error("enough");

export type Call = "init" | "run" | "ready" | "finalize";
/** What a service does in a call; it has no such member where this is undefined. */
export type Ways = { [Member in keyof Service]?: Service[Member] | undefined };

/** What the services did, in order: `init a`, `initialized a`, `told a` (its signal aborted), `ended a` (its `run`). */
export let lines: string[] = [];
let onLine: (line: string) => void = nothing;

/** Begins with an empty list of lines. */
export function forget(): void {
  lines = [];
}

/** Is told of each further line, from within what it says, until the test ends or another one is given. */
export function whenNoted(listener: (line: string) => void): void {
  onLine = listener;
}

function note(line: string): void {
  lines.push(line);
  onLine(line);
}

/** Those of the lines that begin with one of these words. */
export function seen(...verbs: string[]): string[] {
  return lines.filter((line) => verbs.includes(line.split(" ")[0] ?? ""));
}

/** Rejects with the reason of the stop. */
export function untilStopped(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
}

/** Lets all that is due in this turn happen, of several stages, too. */
export async function rest(): Promise<void> {
  for (let i = 0; i < 5; i++) await settle();
}

/** Does nothing for so many microtasks. */
export function slowly(count: number): () => Promise<void> {
  return () => microtasks(count);
}

/** Goes on when it is told to stop, and then ends well. */
export function endsWhenStopped(signal: AbortSignal): Promise<unknown> {
  return untilStopped(signal).catch(nothing);
}

/** What the test ends, as a method of a service. */
export function gate(task: ControlledTask): (signal?: AbortSignal) => Promise<void> {
  return (signal = new AbortController().signal) => task.run(signal);
}

/** A service with all four methods, or as the ways say, which tells of all that it does. */
export function service(name: string, ways: Ways = {}): Service {
  const all = { init: nothing, run: untilStopped, ready: nothing, finalize: nothing, ...ways };
  const { init, run, ready, finalize, ...rest } = all;
  const heard = new Set<AbortSignal>();
  const hear = (signal: AbortSignal): void => {
    if (!heard.has(signal)) signal.addEventListener("abort", () => note(`told ${name}`));
    heard.add(signal);
  };
  return {
    name,
    ...rest,
    ...(init && {
      init(signal) {
        hear(signal);
        note(`init ${name}`);
        const done = init(signal);
        // Hears of it before the group does.
        Promise.resolve(done).then(() => note(`initialized ${name}`), nothing);
        return done;
      },
    }),
    ...(run && {
      run(signal) {
        hear(signal);
        note(`run ${name}`);
        const over = (): void => note(`ended ${name}`);
        let end: PromiseLike<unknown> | undefined;
        try {
          end = run(signal);
        } finally {
          // Hears of it before the group does.
          if (end) end.then(over, over);
          else over();
        }
        return end;
      },
    }),
    ...(ready && {
      ready(signal) {
        hear(signal);
        note(`ready ${name}`);
        return ready(signal);
      },
    }),
    ...(finalize && {
      finalize() {
        note(`finalize ${name}`);
        return finalize();
      },
    }),
  };
}

export function without(...calls: Call[]): Ways {
  return Object.fromEntries(calls.map((call) => [call, undefined]));
}

/** Runs it, and lets it come as far as it can without time. */
export async function up(group: ServiceGroup): Promise<Run> {
  const run = start(group);
  await rest();
  return run;
}

export async function stop(run: Run, reason: unknown = REASON): Promise<void> {
  run.controller.abort(reason);
  await rest();
}

/** Lets so much time pass. */
export async function pass(milliseconds: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
  await rest();
}

/** The changes of state, as `a: pending -> initialized`, and failures, as `a failed to run: connection lost`. */
export function story(log: EventLog): string[] {
  return log.events.map((event) => {
    if (event.type === "service-state") return `${event.service}: ${event.from} -> ${event.to}`;
    if (event.type === "service-failed") return `${event.service} failed to ${event.phase}: ${event.error.message}`;
    return event.type;
  });
}

/** An error that is like this one. */
export function timeout(name: string, phase: string): unknown {
  return expect.objectContaining({ name: "ServiceTimeoutError", service: name, phase });
}

/** Prepares every test of a file for such services; none may leave anything behind. */
export function useServices(): void {
  useNoUnhandledRejections();
  useNoWarnings();
  useRunsByHand();
  useFakeTime();
  beforeEach(() => {
    forget();
    whenNoted(nothing);
  });
}
