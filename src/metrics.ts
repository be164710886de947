/**
 * What a program does, in numbers: as a page for Prometheus, or as instruments of OpenTelemetry.
 *
 * @module
 */
import type { Failure, ShutdownTimeoutError } from "./errors.ts";
import type { HealthStatus, LifecycleEvent } from "./events.ts";
import { check } from "./internal/check.ts";

export interface MetricsOptions {
  /** What all names begin with, before a `_`. @default "allstop" */
  prefix?: string | undefined;
}

/** What {@link Metrics.record} needs of a `Meter` of OpenTelemetry. */
export interface MetricsMeter {
  createObservableCounter(name: string, options: { description: string }): MetricsInstrument;
  createObservableGauge(name: string, options: { description: string }): MetricsInstrument;
}

/** An observable instrument: it calls back when it is collected. */
export interface MetricsInstrument {
  addCallback(callback: (result: MetricsResult) => void): void;
}

/** What such a callback tells the value of each series to. */
export interface MetricsResult {
  observe(value: number, attributes: Record<string, string>): void;
}

/** In the order of the page. What ends in `_total` is a counter, all else a gauge. */
const FAMILIES = {
  tasks_running: "Tasks running",
  tasks: "Names of tasks by status",
  task_status: "1 running, 0 stopped, -1 restarting",
  task_started_total: "Tasks started",
  task_ended_total: "Tasks ended",
  task_restarts_total: "Restarts",
  task_restart_count: "Restarts since last healthy",
  task_panics_total: "Panics",
  restart_limit_exceeded_total: "Tasks given up",
  shutdown_timeouts_total: "Shutdown timeouts",
  shutdown_duration_seconds: "Last shutdown",
  health_status: "1 healthy, 0.5 degraded, 0 starting, -1 unhealthy",
};

type Family = keyof typeof FAMILIES;

/** In the order of the values -1, 0 and 1. */
const STATUSES = ["restarting", "stopped", "running"];

const HEALTH: Readonly<Record<HealthStatus, number>> = { healthy: 1, degraded: 0.5, starting: 0, unhealthy: -1 };

/** All that has the same labels. Of a task also how many of its name are `pending`, as the managers told that stop. */
type Values = { readonly labels: Record<string, string> } & { [family in Family | "pending"]?: number };

/** The managers of a name, or a group of services. */
interface Group {
  readonly tasks: Set<Values>;
  /** How many of the managers stop. */
  stopping: number;
}

/**
 * Counts what it observes.
 *
 * Each distinct name of a task is a series that stays, so name tasks by their kind (`mailer`), not by the job at hand
 * (`mail-4711`). Tasks of one name are counted together; of their status the last one told counts.
 *
 * A task that hangs counts as stopped once the manager that gave it up has stopped. So does what is left below a task
 * when that has ended: a group that was given up tells nothing more. A group fails with the error of its task, so a
 * panic is one of both. `_tasks_running` counts what managers run; of what is in a `ServiceGroup` only restarts count.
 *
 * @example A page for Prometheus
 * ```ts
 * import { Manager } from "allstop";
 * import { Metrics } from "allstop/metrics";
 *
 * const metrics = new Metrics();
 * const manager = new Manager({ onEvent: metrics.observe });
 * manager.run(async function consumer() {});
 * await manager.wait();
 *
 * const page = metrics.render(); // to be served with the header Content-Type: metrics.contentType
 * for (const [line] of page.matchAll(/^\w+_ended.*$/gm)) console.log(line);
 * // prints allstop_task_ended_total{task="consumer",outcome="returned"} 1
 * ```
 */
export class Metrics {
  /** Of what {@link Metrics.render} gives. */
  readonly contentType: string = "text/plain; version=0.0.4; charset=utf-8";
  readonly #prefix: string;
  /** By the labels as the page has them. */
  readonly #values = new Map<string, Values>();
  /** By the path of what is in it: `a/b/`, or the empty one of a manager without a name. */
  readonly #groups = new Map<string, Group>();

  /**
   * @throws {TypeError} If an option has the wrong type.
   * @throws {RangeError} If the prefix is no name of a metric.
   */
  constructor({ prefix = "allstop" }: MetricsOptions = {}) {
    const action = "create Metrics";
    check(typeof prefix === "string", action, "prefix must be a string", prefix);
    check(/^[a-z_:][\w:]*$/i.test(prefix), action, "prefix must be a metric name", prefix, RangeError);
    this.#prefix = prefix;
    this.#of({}).shutdown_timeouts_total = 0;
  }

  /** An `onEvent`, bound, which never throws. */
  readonly observe: (event: LifecycleEvent) => void = (event) => {
    try {
      this.#observe(event);
    } catch {
      // It is none, or the name of its error cannot be read.
    }
  };

  /** Gives all metrics in the text format 0.0.4 of Prometheus. */
  render(): string {
    let page = "";
    for (const [name, family, type, help] of this.#families()) {
      page += `# HELP ${name} ${help}\n# TYPE ${name} ${type.toLowerCase()}\n`;
      for (const [labels, values] of this.#read(family)) page += `${name}${labels} ${values[family]}\n`;
    }
    return page;
  }

  /**
   * Makes an observable instrument for each metric, of the same name and with the labels as attributes. It tells the
   * state when it is collected, so it does not matter how late this is called. (The SDK of OpenTelemetry for JavaScript
   * goes on exporting a component that was taken out, unless it reads gauges with delta temporality.)
   *
   * @throws {TypeError} If the meter lacks a method.
   */
  record(meter: MetricsMeter): void {
    for (const [name, family, type, description] of this.#families()) {
      const method = `createObservable${type}` as const;
      check(typeof meter?.[method] === "function", "record metrics", `${method} must be a function`, meter);
      meter[method](name, { description }).addCallback((result) => {
        for (const [, values] of this.#read(family)) result.observe(values[family]!, values.labels);
      });
    }
  }

  #families(): [name: string, family: Family, type: "Counter" | "Gauge", help: string][] {
    return (Object.entries(FAMILIES) as [Family, string][]).map(([family, help]) => [
      this.#prefix + "_" + family,
      family,
      /total/.test(family) ? "Counter" : "Gauge",
      help,
    ]);
  }

  /** Gives what has a value of this family, with the labels as the page has them. */
  #read(family: Family): [string, Values][] {
    const all = [...this.#values];
    for (const [i, status] of STATUSES.entries()) {
      this.#of({ status }).tasks = all.filter(([, values]) => values.task_status === i - 1).length;
    }
    return [...this.#values].filter(([, values]) => family in values);
  }

  #of(labels: Record<string, string>): Values {
    const texts = Object.entries(labels).map(
      ([name, value]) => `${name}="${value.replace(/[\\"]/g, "\\$&").replace(/\n/g, "\\n")}"`,
    );
    const text = texts.length ? `{${texts}}` : "";
    const values = this.#values.get(text) ?? { labels };
    this.#values.set(text, values);
    return values;
  }

  #group(path: string): Group {
    const group = this.#groups.get(path) ?? { tasks: new Set(), stopping: 0 };
    this.#groups.set(path, group);
    return group;
  }

  #observe(event: LifecycleEvent): void {
    const { manager = "", task = "", error }: Common = event;
    const values = this.#of({ task });
    const group = this.#group(manager && `${manager}/`);
    switch (event.type) {
      case "stopping":
        group.stopping++;
        for (const task of event.pending) increase(this.#of({ task }), "pending");
        break;
      case "shutdown-timed-out":
        this.#of({}).shutdown_timeouts_total!++;
        break;
      case "stopped":
        this.#of({}).shutdown_duration_seconds = event.elapsed / 1_000;
        this.#stopped(group, event.failures);
        break;
      case "health-changed":
        this.#of({ component: event.component }).health_status = HEALTH[event.to];
        break;
      case "health-removed":
        delete this.#of({ component: event.component }).health_status;
        break;
      case "service-state": {
        const service = this.#of({ task: `${task}/${event.service}` });
        this.#group(`${task}/`).tasks.add(service);
        if (event.to === "stopped") service.task_status &&= 0;
        break;
      }
      case "task-started":
        group.tasks.add(values);
        increase(values, "task_started_total");
        increase(values, "tasks_running");
        values.task_status = 1;
        break;
      case "task-ended":
        increase(this.#of({ task, outcome: event.outcome }), "task_ended_total");
        this.#end(values, event.outcome === "skipped" ? 0 : 1);
        break;
      case "task-restarting":
        increase(values, "task_restarts_total");
        values.task_restart_count = event.attempt;
        values.task_status = -1;
        break;
      case "task-restarted":
        values.task_status = 1;
        break;
      case "task-healthy":
        values.task_restart_count = 0;
        break;
      case "task-gave-up":
        increase(values, "restart_limit_exceeded_total");
        values.task_status = 0;
        break;
      default:
        return;
    }
    if (error?.name === "PanicError") increase(values, "task_panics_total");
  }

  /** Ends what one of the managers has given up: of the same name there may be another, which goes on. */
  #stopped(group: Group, failures: readonly Failure[]): void {
    for (const { source, error } of failures) {
      if (source === "shutdown") {
        for (const task of (error as ShutdownTimeoutError).pending ?? []) this.#end(this.#of({ task }));
      }
    }
    const { tasks, stopping } = group;
    if (stopping && --group.stopping) return;
    for (const task of tasks) {
      this.#end(task, stopping ? (task.pending ?? 0) : Infinity);
      task.pending = 0;
    }
  }

  /** So many tasks of this name have ended, and with the last one all below it. */
  #end(values: Values, count = 1): void {
    values.pending &&= values.pending - 1;
    values.tasks_running &&= Math.max(0, values.tasks_running - count);
    if (values.tasks_running) {
      values.task_status ||= 1;
      return;
    }
    values.task_status &&= 0;
    for (const [path, group] of this.#groups) {
      if (!path.startsWith(`${values.labels["task"]}/`)) continue;
      group.stopping = 0;
      for (const task of group.tasks) {
        task.tasks_running &&= 0;
        task.task_status &&= 0;
        task.pending &&= 0;
      }
    }
  }
}

/** What more than one kind of event has. */
interface Common {
  readonly type: string;
  readonly manager?: string;
  readonly task?: string;
  readonly error?: Error;
}

function increase(values: Values, family: Exclude<keyof Values, "labels">): void {
  values[family] = (values[family] ?? 0) + 1;
}
