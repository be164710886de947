import type { Failure } from "./errors.ts";
import { checkType, show } from "./internal/check.ts";

/** How a task was started: by `run`, `runEphemeral` or `runBackground`. */
export type TaskKind = "main" | "ephemeral" | "background";

/**
 * How a task ended: it returned; it failed; it was cancelled, which is to reject only because it was told to stop; it
 * was skipped, because the stop came before its turn under a `limit`.
 */
export type TaskOutcome = "returned" | "failed" | "cancelled" | "skipped";

/**
 * Where a service of a {@link ServiceGroup} stands: its turn has not come; `init` goes on, or is done; `run` was called,
 * and it is not ready, or is; it was told to stop; its `run` has ended, or it was told before that was called; something
 * of it has failed, which is final.
 */
export type ServiceState =
  | "pending"
  | "initializing"
  | "initialized"
  | "starting"
  | "running"
  | "stopping"
  | "stopped"
  | "failed";

/** In what a service failed: one of its methods, or, with `stop`, to end in time after it was told to. */
export type ServicePhase = "init" | "run" | "ready" | "stop" | "finalize";

/** How a component of {@link Health} is, from best to worst. */
export type HealthStatus = "healthy" | "degraded" | "starting" | "unhealthy";

/**
 * What happens in the life of a group, as told to `onEvent`.
 *
 * `manager` is the name of the {@link Manager}, `""` without one; `task` is the full name of a task; `hook` is the name
 * of a hook, `service` and `component` are bare names, too. `elapsed` is in milliseconds: of a task or hook since it
 * started, of `stopped` and `http-drained` since the stop. What has no `manager` is told by a task itself, to its own
 * `onEvent`, or else to that of the manager that runs it.
 */
export type LifecycleEvent =
  | { readonly type: "task-started"; readonly manager: string; readonly task: string; readonly kind: TaskKind }
  | {
      readonly type: "task-ended";
      readonly manager: string;
      readonly task: string;
      readonly kind: TaskKind;
      readonly outcome: TaskOutcome;
      readonly error?: Error;
      readonly elapsed: number;
    }
  | {
      readonly type: "stopping";
      readonly manager: string;
      readonly reason: unknown;
      readonly pending: readonly string[];
    }
  | {
      readonly type: "shutdown-timed-out";
      readonly manager: string;
      readonly pending: readonly string[];
      readonly error: Error;
    }
  | {
      readonly type: "cleanup-ended";
      readonly manager: string;
      readonly hook: string;
      readonly error?: Error;
      readonly elapsed: number;
    }
  | {
      readonly type: "cleanup-timed-out";
      readonly manager: string;
      readonly pending: readonly string[];
      readonly error: Error;
    }
  | {
      readonly type: "stopped";
      readonly manager: string;
      readonly failures: readonly Failure[];
      readonly elapsed: number;
    }
  | { readonly type: "action-failed"; readonly task: string; readonly error: Error }
  | {
      readonly type: "task-restarting";
      readonly task: string;
      readonly attempt: number;
      readonly delay: number;
      readonly error?: Error;
    }
  | { readonly type: "task-restarted"; readonly task: string; readonly attempt: number }
  | { readonly type: "task-healthy"; readonly task: string }
  | { readonly type: "task-gave-up"; readonly task: string; readonly restarts: number; readonly error?: Error }
  | {
      readonly type: "service-state";
      readonly task: string;
      readonly service: string;
      readonly from: ServiceState;
      readonly to: ServiceState;
    }
  | {
      readonly type: "service-failed";
      readonly task: string;
      readonly service: string;
      readonly phase: ServicePhase;
      readonly error: Error;
    }
  | {
      readonly type: "health-changed";
      readonly component: string;
      readonly from: HealthStatus;
      readonly to: HealthStatus;
      readonly detail?: string;
    }
  | { readonly type: "health-removed"; readonly component: string }
  | {
      readonly type: "http-drained";
      readonly task: string;
      readonly requests: number;
      readonly destroyed: number;
      readonly elapsed: number;
    }
  | { readonly type: "child-started"; readonly task: string; readonly pid: number }
  | {
      readonly type: "child-exited";
      readonly task: string;
      readonly pid: number;
      readonly exitCode: number | null;
      readonly signal: string | null;
    }
  | { readonly type: "child-stop-timed-out"; readonly task: string; readonly pid: number }
  | { readonly type: "upgrade-started"; readonly task: string; readonly pid: number }
  | { readonly type: "upgrade-ready"; readonly task: string; readonly pid: number }
  | { readonly type: "upgrade-failed"; readonly task: string; readonly pid?: number; readonly error: Error };

/** What {@link logEvents} writes to: `console`, or any logger that takes a message and its fields in that order. */
export interface Logger {
  debug(message: string, fields: object): void;
  info(message: string, fields: object): void;
  warn(message: string, fields: object): void;
  error(message: string, fields: object): void;
}

/** What the level and the message of an event are made of; an event of any type has some of it. */
interface Loggable {
  readonly type: string;
  readonly manager?: string;
  readonly task?: string;
  readonly service?: string;
  readonly component?: string;
  readonly hook?: string;
  readonly kind?: string;
  readonly outcome?: string;
  readonly error?: Error;
  readonly failures?: readonly Failure[];
  readonly from?: string;
  readonly to?: string;
}

const LEVELS = ["debug", "info", "warn", "error"] as const;

/** From better to worse. What is not among them, such as `healthy`, is best. */
const HEALTH: readonly (string | undefined)[] = ["degraded", "starting", "unhealthy"];

/**
 * Turns events into log lines: one line an event, also of a type that it does not know.
 *
 * Events with an error, and a `stopped` with failures, are errors. A restart, and a health that got worse, are
 * warnings. Ephemeral tasks, of which there may be many, are for debugging; the rest is information. The message is the
 * event's type, whom it is about and how it ended; the fields are the event's own. (Of them Node's console shows on the
 * same line what the message does not say.)
 *
 * @throws {TypeError} If the logger lacks one of the four methods.
 *
 * @example With the console
 * ```ts
 * import { Manager, logEvents } from "allstop";
 *
 * const manager = new Manager({ name: "shop", onEvent: logEvents(console) });
 * manager.run(async function greet() {});
 * await manager.wait();
 * // prints task-started shop/greet { manager: 'shop', kind: 'main' }
 * // prints task-ended shop/greet returned { manager: 'shop', kind: 'main', elapsed: 1 }
 * // prints stopping shop { reason: 'AbortError: Stopped by shop/greet', pending: [] }
 * // prints stopped shop { failures: [], elapsed: 0 }
 * ```
 *
 * @example With a logger that takes the fields first, such as pino
 * ```ts
 * import { Manager, logEvents } from "allstop";
 *
 * const pino = { info: (fields: object, message: string) => console.log(message, Object.keys(fields).length) };
 *
 * const info = (message: string, fields: object) => pino.info(fields, message);
 * const manager = new Manager({ onEvent: logEvents({ debug: info, info, warn: info, error: info }) });
 * await manager.stop();
 * // prints stopping 4
 * // prints stopped 4
 * ```
 */
export function logEvents(logger: Logger): (event: LifecycleEvent) => void {
  for (const level of LEVELS) {
    checkType("log events", `logger.${level}`, "function", logger?.[level]);
  }
  return (event) => {
    const words = wordsOf(event);
    // What the logger returns is handed on, so that one that rejects is the manager's to swallow.
    return logger[levelOf(event)](words.join(" "), inspectable(event, words));
  };
}

function levelOf({ type, error, failures, from, to, kind }: Loggable): (typeof LEVELS)[number] {
  if (type === "task-restarting") return "warn";
  if (type === "health-changed" && HEALTH.indexOf(to) > HEALTH.indexOf(from)) return "warn";
  if (error !== undefined || failures?.length) return "error";
  return kind === "ephemeral" ? "debug" : "info";
}

function wordsOf({ type, manager, task, service, component, hook, outcome, to }: Loggable): unknown[] {
  return [type, task ?? component ?? hook ?? manager, service, outcome ?? to].filter(Boolean);
}

function briefly({ source, error }: Failure): string {
  return `${source}: ${show(error)}`;
}

/** A copy of the event that Node's `util.inspect` shows on one line, but for the stack of its own error. */
function inspectable(event: LifecycleEvent, said: readonly unknown[]): object {
  const inspect = (_: number, options: object, inspectAny: (value: object, options: object) => string): string => {
    const brief = {
      ...event,
      ...("elapsed" in event && { elapsed: Math.round(event.elapsed) }),
      ...("reason" in event && { reason: show(event.reason) }),
      ...(event.type === "stopped" && { failures: event.failures.map(briefly) }),
    };
    const rest = Object.entries(brief).filter(([, value]) => value !== "" && !said.includes(value));
    return inspectAny(Object.fromEntries(rest), { ...options, breakLength: Infinity, compact: true });
  };
  return Object.defineProperty({ ...event }, Symbol.for("nodejs.util.inspect.custom"), { value: inspect });
}
