import type { AdminServerOptions } from "../admin.ts";

/** What a person sees of a program. What is undefined is not shown. */
export interface AdminView {
  readonly status: string;
  readonly failures: readonly AdminFailure[] | undefined;
  readonly tasks: readonly AdminTask[] | undefined;
  readonly services: Readonly<Record<string, string>> | undefined;
  readonly components: Readonly<Record<string, AdminComponent>> | undefined;
  readonly timeline: AdminTrace | undefined;
  readonly text: string | undefined;
}

export interface AdminFailure {
  readonly source: string;
  readonly error: string;
}

export interface AdminTask {
  readonly name: string;
  readonly state: string;
  readonly restarts: number;
}

export interface AdminComponent {
  readonly status: string;
  readonly detail?: string;
  readonly since: number;
}

/** In milliseconds, on a clock of its own. */
export interface AdminTrace {
  readonly runs: readonly AdminRun[];
  readonly stop: number | undefined;
}

export interface AdminRun {
  readonly name: string;
  readonly state: string;
  readonly start: number;
  readonly end: number;
}

/** A sample of a `Metrics` about a task: which number, the task as a label, and the value. */
const SAMPLE = /^[\w:]+_(task_status|task_restarts_total)\{task="((?:[^"\\]|\\.)*)"\} (\S+)$/gm;

const STATES: Readonly<Record<string, string>> = { "1": "running", "0": "stopped", "-1": "restarting" };

/** Asks the sources of what is known now. */
export function viewOf(isStopping: boolean, sources: AdminServerOptions): AdminView {
  const { health, services, metrics, timeline, manager } = sources;
  const { status = "running", components } = health?.snapshot() ?? {};
  const text = metrics && "render" in metrics ? metrics.render() : "";
  const trace = timeline?.toTrace?.();
  return {
    status: isStopping ? "stopping" : status,
    failures: manager?.failures?.map(({ source, error }) => ({ source, error: String(error.message) })),
    tasks: (manager ?? text) ? tasksOf(text, manager?.pending ?? []) : undefined,
    services: services?.states,
    components,
    timeline: trace === undefined ? undefined : traceOf(trace),
    text: timeline?.toText({ width: 100 }),
  };
}

function tasksOf(text: string, pending: readonly string[]): AdminTask[] {
  const tasks = new Map<string, AdminTask>();
  for (const name of pending) tasks.set(name, { name, state: "running", restarts: 0 });
  for (const [, family, label = "", value = ""] of text.matchAll(SAMPLE)) {
    const name = label.replace(/\\(.)/g, (_, escaped: string) => (escaped === "n" ? "\n" : escaped));
    const { state, restarts } = tasks.get(name) ?? { state: "stopped", restarts: 0 };
    tasks.set(
      name,
      family === "task_status"
        ? { name, state: STATES[value] ?? value, restarts }
        : { name, state, restarts: Number(value) },
    );
  }
  return [...tasks.values()];
}

/** The part of a Chrome trace that is drawn. */
interface TraceEvent {
  readonly name: string;
  readonly ph: string;
  /** Microseconds, as `dur`. */
  readonly ts: number;
  readonly dur?: number;
  readonly args?: { readonly state?: string };
}

function traceOf(trace: string): AdminTrace {
  const { traceEvents }: { traceEvents: readonly TraceEvent[] } = JSON.parse(trace);
  const stop = traceEvents.find(({ ph }) => ph === "i");
  const runs = traceEvents.flatMap(({ name, ph, ts, dur = 0, args }) =>
    ph === "X" ? [{ name, state: args?.state ?? "", start: ts / 1_000, end: (ts + dur) / 1_000 }] : [],
  );
  return { runs, stop: stop && stop.ts / 1_000 };
}
