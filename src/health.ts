/// <reference lib="esnext.disposable" preserve="true" />
/**
 * How a program is, made of how its components are.
 *
 * @module
 */
import { TaskAlreadyStartedError } from "./errors.ts";
import type { HealthStatus, LifecycleEvent } from "./events.ts";
import { onAbort, untilAborted } from "./internal/abort.ts";
import { check, checkMilliseconds, checkType } from "./internal/check.ts";
import { type Observer, observer } from "./internal/observer.ts";
import { placeOf } from "./internal/place.ts";
import { sleep } from "./internal/time.ts";
import type { Task } from "./task.ts";

export type { HealthStatus } from "./events.ts";

export interface HealthOptions {
  /** @default "health" */
  name?: string | undefined;
  /** The pause after a check ended, in milliseconds; of each component that has none of its own. @default 30_000 */
  interval?: number | undefined;
  /** For a check, in milliseconds; of each component that has none of its own. @default 5_000 */
  timeout?: number | undefined;
  /** Is told of each change. @default `onEvent` of the manager that runs it, while it does */
  onEvent?: ((event: LifecycleEvent) => void) | undefined;
}

export interface HealthComponentOptions {
  /**
   * Finds out how it is: healthy if it ends well, whatever it returns, and unhealthy if it throws. Its signal aborts at
   * the timeout, at the stop, and when the component is taken out.
   */
  check?: ((signal: AbortSignal) => unknown) | undefined;
  /** The pause after a check ended, in milliseconds. @default that of the {@link Health} */
  interval?: number | undefined;
  /** For a check, in milliseconds. @default that of the {@link Health} */
  timeout?: number | undefined;
  /** Whether the whole is as bad as this component; else that is degraded at worst. @default true */
  critical?: boolean | undefined;
  /** Components that exist already. While one of them is unhealthy, this one is at best degraded. @default [] */
  dependsOn?: readonly string[] | undefined;
}

/** How a component is. */
export interface ComponentHealth {
  readonly status: HealthStatus;
  /** The text of the last report, or of the error of the failing check. */
  readonly detail?: string;
  /** When its status last changed, in milliseconds since 1970. */
  readonly since: number;
}

/** How all components are, and the whole. */
export interface HealthSnapshot {
  readonly status: HealthStatus;
  readonly components: Readonly<Record<string, ComponentHealth>>;
}

/** A component of a {@link Health}; `starting` until its first check or report. */
export interface HealthComponent extends Disposable {
  readonly status: HealthStatus;
  /**
   * Tells how it is.
   *
   * @throws {TypeError} If the status is none.
   */
  report(status: HealthStatus, detail?: string): void;
  /** Takes it out: its name is free, what depended on it no longer does, and what it reports counts for nothing. */
  [Symbol.dispose](): void;
}

export interface HealthSubscribeOptions {
  /** Ends the subscription. @default undefined */
  signal?: AbortSignal | undefined;
}

export interface HealthWaitOptions {
  /** Ends the waiting: its reason is thrown. @default undefined */
  signal?: AbortSignal | undefined;
  /** Which components are the whole. @default all */
  names?: readonly string[] | undefined;
}

/** From best to worst. */
const STATUSES: readonly HealthStatus[] = ["healthy", "degraded", "starting", "unhealthy"];

interface Component {
  readonly name: string;
  readonly check: ((signal: AbortSignal) => unknown) | undefined;
  readonly interval: number;
  readonly timeout: number;
  readonly critical: boolean;
  readonly dependsOn: Set<Component>;
  /** What it, or its check, told last. */
  reported: HealthStatus;
  /** That, or worse, because of what it depends on. */
  status: HealthStatus;
  detail?: string | undefined;
  since: number;
  /** Ends its checks, with the run of the task or when it is taken out. */
  stop?: AbortController;
  /** The check that has not ended, be it beyond its timeout or of an earlier run. It never rejects. */
  late?: Promise<void> | undefined;
}

interface Subscriber {
  readonly names: Set<string> | undefined;
  readonly tell: (snapshot: HealthSnapshot) => void;
}

/**
 * Keeps how the components of a program are, and tells who wants to know.
 *
 * A component reports how it is, or has a check, which this task calls again and again while it runs; or both, and what
 * was told last counts. The whole is as bad as the worst critical component. What depends on an unhealthy one is
 * degraded at best.
 *
 * A stop changes no status. It may run again after a run has ended. Events: `health-changed` and `health-removed`. The
 * two ways, active and passive, are those of go-nacelle and of srun.
 *
 * @example A database that is checked, and what depends on it
 * ```ts
 * import { Health } from "allstop/health";
 *
 * const health = new Health();
 * const database = health.component("database");
 * const wallet = health.component("wallet", { dependsOn: ["database"] });
 * database.report("healthy");
 * wallet.report("healthy");
 * console.log(health.snapshot().status); // prints healthy
 *
 * database.report("unhealthy", "connection refused");
 * console.log(health.snapshot().components["database"]?.detail); // prints connection refused
 * console.log(wallet.status); // prints degraded
 * ```
 */
export class Health implements Task {
  readonly name: string;
  readonly #interval: number;
  readonly #timeout: number;
  readonly #ownOnEvent: Observer | undefined;
  #onEvent: Observer | undefined;
  readonly #components = new Map<string, Component>();
  readonly #subscribers = new Set<Subscriber>();
  /** What is still to be told, in order: who is told may change something. */
  readonly #queue: (() => void)[] = [];
  #signal: AbortSignal | undefined;
  readonly #watches = new Set<Promise<void>>();

  /**
   * @throws {TypeError} If an option has the wrong type.
   * @throws {RangeError} If a time is below 0.
   */
  constructor(options: HealthOptions = {}) {
    const action = "create a Health";
    const { name = "health", interval = 30_000, timeout = 5_000 } = options;
    checkType(action, "name", "string", name);
    checkMilliseconds(action, "interval", interval);
    checkMilliseconds(action, "timeout", timeout);
    this.name = name;
    this.#interval = interval;
    this.#timeout = timeout;
    this.#onEvent = this.#ownOnEvent = observer(action, options.onEvent);
  }

  /**
   * Adds a component; if it has a check and the task runs, that is called at once.
   *
   * @param name - Unique, and not empty.
   * @throws {TypeError} If there is a component of this name, if it depends on an unknown one, or if an option has the
   * wrong type.
   * @throws {RangeError} If a time is below 0.
   */
  component(name: string, options: HealthComponentOptions = {}): HealthComponent {
    const { check: probe, interval = this.#interval, timeout = this.#timeout } = options;
    const { critical = true, dependsOn = [] } = options;
    const isFree = typeof name === "string" && name > "" && !this.#components.has(name);
    check(isFree, "add a component", "names must be unique and not empty", name);
    const action = `add component ${name}`;
    if (probe !== undefined) checkType(action, "check", "function", probe);
    checkMilliseconds(action, "interval", interval);
    checkMilliseconds(action, "timeout", timeout);
    checkType(action, "critical", "boolean", critical);
    const component: Component = {
      name,
      check: probe,
      interval,
      timeout: timeout < 2 ** 31 ? timeout : Infinity,
      critical,
      dependsOn: new Set(this.#find(action, dependsOn)),
      reported: "starting",
      status: "starting",
      since: Date.now(),
    };
    this.#components.set(name, component);
    this.#tell([[name]]);
    this.#watch(component);
    return {
      get status() {
        return component.status;
      },
      report: (status, detail) => {
        checkStatus(`report on ${name}`, status);
        this.#update(component, status, detail);
      },
      [Symbol.dispose]: () => {
        if (this.#components.get(name) !== component) return;
        this.#components.delete(name);
        this.#components.forEach(({ dependsOn }) => dependsOn.delete(component));
        component.stop?.abort();
        this.#tell([[name, { type: "health-removed", component: name }]]);
      },
    };
  }

  /** How all components are now. */
  snapshot(): HealthSnapshot {
    return this.#snapshot();
  }

  /**
   * Tells how some components are, or all: now, and after each change of a status, of a detail, and of what there is.
   *
   * @param names - Which; `undefined` for all. A name that is taken out may come again.
   * @param listener - Is called at once, with one snapshot for each change; for what a listener changes or subscribes to,
   * after the others have been told of the change before. What it throws changes nothing.
   * @returns What ends it. (Within its first call there is only the option `signal` for that.)
   * @throws {TypeError} If a name is unknown, or the listener is no function.
   */
  subscribe(
    names: readonly string[] | undefined,
    listener: (snapshot: HealthSnapshot) => void,
    { signal }: HealthSubscribeOptions = {},
  ): () => void {
    const action = "subscribe to health";
    checkType(action, "listener", "function", listener);
    if (names) this.#find(action, names);
    const subscriber: Subscriber = {
      names: names && new Set(names),
      tell: observer(
        action,
        (snapshot: HealthSnapshot) => !signal?.aborted && this.#subscribers.has(subscriber) && listener(snapshot),
      ),
    };
    this.#subscribers.add(subscriber);
    const unsubscribe = (): void => {
      unlisten?.();
      this.#subscribers.delete(subscriber);
    };
    let unlisten: (() => void) | undefined;
    unlisten = signal && onAbort(signal, unsubscribe);
    const snapshot = this.#snapshot(subscriber.names);
    if (this.#queue.push(() => subscriber.tell(snapshot)) < 2) this.#deliver();
    return unsubscribe;
  }

  /**
   * Waits until the whole has this very status; without any component it is healthy.
   *
   * @throws {TypeError} If the status, or a name, is unknown.
   * @throws The reason of `signal`, if that aborts first.
   */
  async waitUntil(status: HealthStatus, { signal, names }: HealthWaitOptions = {}): Promise<void> {
    checkStatus("wait for health", status);
    let reach!: () => void;
    const reached = new Promise<void>((resolve) => (reach = resolve));
    const unsubscribe = this.subscribe(names, (snapshot) => snapshot.status === status && reach());
    await untilAborted(signal ?? new AbortController().signal, reached);
    unsubscribe();
    signal?.throwIfAborted();
  }

  /**
   * Runs the checks, until the stop; then waits for those that have begun, until their timeouts.
   *
   * @throws {TaskAlreadyStartedError} If it is running.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { task, onEvent } = placeOf(signal, this.name, this.#ownOnEvent);
    if (this.#signal) throw new TaskAlreadyStartedError(task);
    this.#signal = signal;
    this.#onEvent = onEvent;
    this.#components.forEach((component) => this.#watch(component));
    let unlisten!: () => void;
    await new Promise<void>((resolve) => {
      unlisten = onAbort(signal, () => {
        this.#components.forEach(({ stop }) => stop?.abort(signal.reason));
        resolve();
      });
    });
    unlisten();
    await Promise.all(this.#watches);
    this.#signal = undefined;
    this.#onEvent = this.#ownOnEvent;
  }

  #watch(component: Component): void {
    if (!component.check || this.#signal?.aborted !== false || component.stop?.signal.aborted === false) return;
    component.stop = new AbortController();
    const watch = this.#repeat(component, component.check, component.stop.signal);
    this.#watches.add(watch);
    watch.then(() => this.#watches.delete(watch));
  }

  async #repeat(component: Component, probe: (signal: AbortSignal) => unknown, stop: AbortSignal): Promise<void> {
    if (component.late) await untilAborted(stop, component.late);
    while (!stop.aborted) {
      const controller = new AbortController();
      const ended = new AbortController();
      const unlisten = onAbort(stop, () => controller.abort(stop.reason));
      const check = async (): Promise<void> => {
        let detail: string | undefined;
        try {
          await probe(controller.signal);
        } catch (thrown) {
          detail = textOf(thrown);
        }
        ended.abort();
        component.late = undefined;
        if (!controller.signal.aborted) this.#update(component, detail === undefined ? "healthy" : "unhealthy", detail);
      };
      const checked = check();
      if (!ended.signal.aborted) component.late = checked;
      await sleep(component.timeout, ended.signal);
      unlisten();
      if (!ended.signal.aborted && !stop.aborted) {
        const error = new Error(`timed out after ${component.timeout} ms`);
        controller.abort(error);
        this.#update(component, "unhealthy", error.message);
      }
      await untilAborted(stop, checked);
      await sleep(component.interval, stop);
    }
  }

  #find(action: string, names: readonly string[]): Component[] {
    return names.map((name) => {
      const component = this.#components.get(name);
      check(component !== undefined, action, "components must exist", name);
      return component as Component;
    });
  }

  #update(component: Component, reported: HealthStatus, detail: string | undefined): void {
    const isNews = component.detail !== detail;
    component.reported = reported;
    component.detail = detail;
    this.#tell([], isNews ? component : undefined);
  }

  #tell(news: [string, LifecycleEvent?][], detailed?: Component): void {
    for (const component of this.#components.values()) {
      const { name, status: from, reported, detail, dependsOn } = component;
      const isHeld = [...dependsOn].some((each) => each.reported === "unhealthy");
      const to = isHeld && reported === "healthy" ? "degraded" : reported;
      if (from !== to) {
        component.status = to;
        component.since = Date.now();
        news.push([
          name,
          { type: "health-changed", component: name, from, to, ...(detail !== undefined && { detail }) },
        ]);
      } else if (component === detailed) news.push([name]);
    }
    const isIdle = !this.#queue.length;
    const onEvent = this.#onEvent;
    for (const [name, event] of news) {
      if (event) this.#queue.push(() => onEvent?.(event));
      for (const { names, tell } of this.#subscribers) {
        if (names && !names.has(name)) continue;
        const snapshot = this.#snapshot(names);
        this.#queue.push(() => tell(snapshot));
      }
    }
    if (isIdle) this.#deliver();
  }

  #deliver(): void {
    for (const deliver of this.#queue) deliver();
    this.#queue.length = 0;
  }

  #snapshot(names?: Set<string>): HealthSnapshot {
    let worst = 0;
    const components: [string, ComponentHealth][] = [];
    for (const { name, critical, status, detail, since } of this.#components.values()) {
      if (names && !names.has(name)) continue;
      const rank = STATUSES.indexOf(status);
      worst = Math.max(worst, critical ? rank : Math.min(rank, 1));
      components.push([name, { status, ...(detail !== undefined && { detail }), since }]);
    }
    return { status: STATUSES[worst] as HealthStatus, components: Object.fromEntries(components) };
  }
}

/** What to say of an error, or of whatever else was thrown. */
function textOf(thrown: unknown): string {
  try {
    return String((thrown as Error | undefined)?.message ?? thrown);
  } catch {
    return typeof thrown;
  }
}

function checkStatus(action: string, status: HealthStatus): void {
  check(STATUSES.includes(status), action, `status must be one of ${STATUSES}`, status);
}
