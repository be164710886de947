import { getEventListeners } from "node:events";
import type { HealthComponent, HealthComponentOptions, HealthSnapshot, HealthStatus } from "allstop/health";
import type { ControlledTask } from "allstop/testing";
import { expect, vi } from "vitest";
import { type Run, useRunsByHand } from "./by-hand.ts";
import { useFakeTime } from "./fake-time.ts";
import { useNoUnhandledRejections } from "./process-events.ts";
import { settle } from "./settle.ts";
import { stubborn } from "./stubborn.ts";

/** From best to worst. */
export const STATUSES: readonly HealthStatus[] = ["healthy", "degraded", "starting", "unhealthy"];
export const LONGEST_DELAY = 2 ** 31 - 1;

export const failure = new Error("refused");

export type Check = NonNullable<HealthComponentOptions["check"]>;

interface ControlledCheck {
  readonly check: Check;
  readonly calls: ControlledTask[];
  readonly signals: AbortSignal[];
}

/** A check whose calls last until the test ends them, whatever their signals do. */
export function controlled(): ControlledCheck {
  const calls: ControlledTask[] = [];
  const signals: AbortSignal[] = [];
  const check: Check = (signal) => {
    const call = stubborn("check");
    calls.push(call);
    signals.push(signal);
    return call.run(signal);
  };
  return { check, calls, signals };
}

/** The snapshot in one line: `degraded: db unhealthy (refused), wallet degraded`. */
export function brief({ status, components }: HealthSnapshot): string {
  const each = Object.entries(components).map(
    ([name, { status, detail }]) => `${name} ${status}${detail === undefined ? "" : ` (${detail})`}`,
  );
  return `${status}: ${each.join(", ")}`;
}

/** A listener that keeps what it is told, in brief. */
export function listener(): { readonly told: string[]; readonly listen: (snapshot: HealthSnapshot) => void } {
  const told: string[] = [];
  return { told, listen: (snapshot) => void told.push(brief(snapshot)) };
}

export function listening(signal: AbortSignal): number {
  return getEventListeners(signal, "abort").length;
}

/** Lets time pass, with all that is due in each millisecond, or so many at once. */
export async function pass(milliseconds: number, step = 1): Promise<void> {
  await settle();
  for (let passed = 0; passed < milliseconds; passed += step) {
    vi.advanceTimersByTime(step);
    await settle();
  }
}

/** Stops a run, which must return at once, and take its timers with it. */
export async function stop(run: Run, reason?: Error): Promise<void> {
  run.controller.abort(reason);
  await settle();
  expect([run.end, vi.getTimerCount()]).toEqual(["returned", 0]);
}

export function remove(component: HealthComponent | undefined): void {
  component?.[Symbol.dispose]();
}

/** Prepares every test of a file; none may leave anything behind. */
export function useHealth(): void {
  useRunsByHand();
  useNoUnhandledRejections();
  useFakeTime();
}
