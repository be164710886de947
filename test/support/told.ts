import type { Failure, LifecycleEvent, TaskKind, TaskOutcome } from "allstop";
import type { ServicePhase, ServiceState } from "allstop/services";
import type { EventLog } from "allstop/testing";

/*
 * The events that are to be told, by functions of a word. A task is given by its full name; its manager is what comes
 * before the last slash.
 */

/** All that was told, but for how long it took. */
export function told(log: EventLog): LifecycleEvent[] {
  return log.events.map((event) => ("elapsed" in event ? { ...event, elapsed: 0 } : event));
}

function above(task: string): string {
  return task.slice(0, Math.max(0, task.lastIndexOf("/")));
}

export function started(task: string, kind: TaskKind = "main"): LifecycleEvent {
  return { type: "task-started", manager: above(task), task, kind };
}

export function ended(task: string, end: Error | TaskOutcome = "returned", kind: TaskKind = "main"): LifecycleEvent {
  const outcome = end instanceof Error ? { outcome: "failed" as const, error: end } : { outcome: end };
  return { type: "task-ended", manager: above(task), task, kind, ...outcome, elapsed: 0 };
}

export function stopping(manager: string, reason: unknown, ...pending: string[]): LifecycleEvent {
  return { type: "stopping", manager, reason, pending };
}

export function cleaned(manager: string, hook: string): LifecycleEvent {
  return { type: "cleanup-ended", manager, hook, elapsed: 0 };
}

export function stopped(manager: string, ...failures: Failure[]): LifecycleEvent {
  return { type: "stopped", manager, failures, elapsed: 0 };
}

export function actionFailed(task: string, error: Error): LifecycleEvent {
  return { type: "action-failed", task, error };
}

export function restarting(task: string, attempt: number, delay: number, error: Error): LifecycleEvent {
  return { type: "task-restarting", task, attempt, delay, error };
}

export function restarted(task: string, attempt: number): LifecycleEvent {
  return { type: "task-restarted", task, attempt };
}

export function gaveUp(task: string, restarts: number, error: Error): LifecycleEvent {
  return { type: "task-gave-up", task, restarts, error };
}

/** That a service of a group goes from one state to the next, and the next. */
export function goes(task: string, service: string, from: ServiceState, ...states: ServiceState[]): LifecycleEvent[] {
  return states.map((to, i) => ({ type: "service-state", task, service, from: states[i - 1] ?? from, to }));
}

export function serviceFailed(task: string, service: string, phase: ServicePhase, error: Error): LifecycleEvent {
  return { type: "service-failed", task, service, phase, error };
}
