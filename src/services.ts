/**
 * Services that are started in order, and stopped in reverse.
 *
 * @module
 */
import { type Failure, StopReason, TaskAlreadyStartedError } from "./errors.ts";
import type { LifecycleEvent, ServicePhase, ServiceState } from "./events.ts";
import { onAbort } from "./internal/abort.ts";
import { check, checkMilliseconds, checkType } from "./internal/check.ts";
import { failureOf } from "./internal/failure.ts";
import { type Observer, observer } from "./internal/observer.ts";
import { type Place, PLACE, type PlacedSignal, placeOf } from "./internal/place.ts";
import { callTask, taskName } from "./internal/task.ts";
import { startTimer, type Timer } from "./internal/time.ts";
import type { Task } from "./task.ts";

export type { ServicePhase, ServiceState } from "./events.ts";

/**
 * Part of a program that takes its turn at the start and at the stop. It has what it needs of these members, or none.
 *
 * All of `init`, `run` and `ready` get the same signal, which aborts when it is this service's turn to stop.
 */
export interface Service {
  /**
   * Not empty, and unique in its group (other tasks of allstop need one of their own to be in it twice). Default: the
   * name of its class, else `service`; with a number when that is taken.
   */
  readonly name?: string | undefined;
  /** Prepares it: connects, migrates, warms up. If it fails, it has to release itself what it took. */
  init?(signal: AbortSignal): unknown;
  /** Does its work, as the `run` of a {@link Task}. An end of it brings the group down. */
  run?(signal: AbortSignal): PromiseLike<unknown>;
  /** Resolves when it can serve. Without it, a service is ready as soon as `run` was called. */
  ready?(signal: AbortSignal): unknown;
  /** Releases what `init` took; is called if that was done, or its turn had come and there is none. */
  finalize?(): unknown;
  /** Whether `run` may end cleanly without bringing the group down. @default false */
  readonly ephemeral?: boolean | undefined;
}

/** Timeouts are in milliseconds; `Infinity`, or more than 2^31-1, is no limit. */
export interface ServiceGroupOptions {
  /** @default "services" */
  name?: string | undefined;
  /** For each `init`. @default 60_000 */
  initTimeout?: number | undefined;
  /** For each `ready`. @default 60_000 */
  readyTimeout?: number | undefined;
  /** For each `run`, from when it is told to stop. @default 15_000 */
  stopTimeout?: number | undefined;
  /** From the stop until everything is down: the two others of that time are cut to what is left. @default 18_000 */
  shutdownTimeout?: number | undefined;
  /** For each `finalize`. @default 5_000 */
  finalizeTimeout?: number | undefined;
  /** Is told of each service's states and failures. @default `onEvent` of the manager that runs the group */
  onEvent?: ((event: LifecycleEvent) => void) | undefined;
}

/** What a service does: a method of it, while that is waited for. */
type Call = Exclude<ServicePhase, "stop">;

/** What is waited for, each with a timeout. */
type Wait = Exclude<ServicePhase, "run">;

/** A service, during one run of its group. */
interface Member extends Place {
  name: string;
  readonly service: Service;
  readonly controller: AbortController;
  state: ServiceState;
  /** What has not ended, nor been given up. */
  readonly open: Set<Call>;
  /** Its last failure. */
  error?: Error | undefined;
  /** The ends of what was called; none of them rejects. */
  readonly ended: { [call in Call]?: Promise<unknown> };
}

/** A service was not done in time. */
export class ServiceTimeoutError extends Error {
  /** The name of the service. */
  declare readonly service: string;
  /** In what it was too slow; with `stop`, to end after it was told to. */
  declare readonly phase: ServicePhase;

  constructor(service: string, phase: ServicePhase) {
    super(`The ${phase} of ${service} timed out`);
    this.service = service;
    this.phase = phase;
  }

  override get name(): string {
    return "ServiceTimeoutError";
  }
}

/**
 * Starts services stage by stage, and stops them in reverse.
 *
 * Up: within a stage all `init` at once, then all `run`, then it waits for all `ready`; then the next stage. Down: from
 * the last stage to the first, the next only when every `run` of this one has ended; then it finalizes what was
 * initialized, one at a time, in reverse. It comes down when it is told to stop, when a service fails or is not done in
 * time, when a `run` that is not ephemeral ends, and when all of them are ephemeral and have ended. The order is always
 * the same, also if that comes in the middle of the start, which is then abandoned at once.
 *
 * It is itself a task, and a service of another group; then give it a `shutdownTimeout` below the `stopTimeout` of that
 * one, for which its finalizers are part of its `run`. It may run again after a run has ended; as long as a service of
 * the last run hangs, each attempt is refused.
 *
 * Events: `service-state` and `service-failed`. After go-nacelle/process, and swift-service-lifecycle.
 *
 * @example A database, and a server that needs it
 * ```ts
 * import { Manager } from "allstop";
 * import { ServiceGroup } from "allstop/services";
 *
 * const database = {
 *   name: "database",
 *   init: async () => console.log("connected"), // prints connected
 *   finalize: async () => console.log("disconnected"), // prints disconnected
 * };
 * const server = {
 *   name: "server",
 *   async run() {
 *     console.log("serving"); // prints serving
 *     throw new Error("port is taken");
 *   },
 * };
 * const manager = new Manager();
 * manager.run(new ServiceGroup([database, server]));
 * await manager.wait().catch((error) => console.log(error.message)); // prints port is taken
 * ```
 */
export class ServiceGroup implements Service, Task {
  readonly name: string;
  readonly #stages: readonly (readonly Member[])[];
  readonly #timeouts = { init: 60_000, ready: 60_000, stop: 15_000, shutdown: 18_000, finalize: 5_000 };
  readonly #onEvent: Observer | undefined;
  #ready!: Promise<void>;
  #settle!: (ready?: Promise<void>) => void;
  /** How many calls of the last run have not ended, that of the group itself included. */
  #pending = 0;

  // What follows is of one run, or, before the first, of none.
  #place!: Place;
  /** The stages whose turn to start has come, last first; then an empty one, so that there always is a last. */
  #begun!: (readonly Member[])[];
  /** Aborts when the group comes down. */
  #stop!: AbortController;
  #stopped!: Promise<void>;
  /** In the order in which each `init` finished; absent when no run would finalize them. */
  #initialized: Member[] | undefined;
  #failures!: Failure[];

  /**
   * @param stages - Each is a service, or a list of those that start together.
   * @throws {TypeError} If a service is no object; if a name is empty or given twice; if an option has the wrong type.
   * @throws {RangeError} If a timeout is below 0.
   */
  constructor(stages: readonly (Service | readonly Service[])[], options: ServiceGroupOptions = {}) {
    const action = "create a ServiceGroup";
    const { name = "services" } = options;
    // The keys of an object may be more than its type says; of this one they are not.
    for (const phase of Object.keys(this.#timeouts) as (Wait | "shutdown")[]) {
      const option = `${phase}Timeout` as const;
      const { [option]: milliseconds = this.#timeouts[phase] } = options;
      checkMilliseconds(action, option, milliseconds);
      this.#timeouts[phase] = milliseconds;
    }

    checkType(action, "name", "string", name);
    this.name = name;
    this.#stages = enlist(action, stages);
    this.#onEvent = observer(action, options.onEvent);
    this.#reset({ task: name, onEvent: undefined });
    this.#expect();
  }

  /** The state of each service, by its name. */
  get states(): Readonly<Record<string, ServiceState>> {
    return Object.fromEntries(this.#stages.flat().map(({ name, state }) => [name, state]));
  }

  /** All failures of the last run, in order; the source is the name of the service. */
  get failures(): readonly Failure[] {
    return [...this.#failures];
  }

  /**
   * Waits until the last stage is up, in this run or, if there is none, in the next.
   *
   * @param signal - Ends the waiting.
   * @returns A promise, whose rejection is never an unhandled one.
   * @throws The first failure, or the reason of the stop, if the group comes down first.
   */
  ready(signal?: AbortSignal): Promise<void> {
    let unlisten = (): void => {};
    const ready = new Promise<void>((resolve, reject) => {
      if (signal) unlisten = onAbort(signal, () => reject(signal.reason));
      this.#ready.then(resolve, reject);
    });
    ready.then(unlisten, unlisten);
    return ready;
  }

  /**
   * @returns A promise that resolves when everything is down.
   * @throws The first failure itself.
   * @throws {TaskAlreadyStartedError} If it is running, or something of its last run has not ended.
   */
  async run(signal: AbortSignal): Promise<void> {
    const place = placeOf(signal, this.name, this.#onEvent);
    if (this.#pending) throw new TaskAlreadyStartedError(place.task);
    this.#reset(place);
    this.#initialized = [];
    const unlisten = onAbort(signal, () => this.#comeDown(signal.reason));
    this.#pending++;
    await this.#goUp();
    await this.#stopped;
    let deadline: Timer | undefined;
    await this.#goDown(new Promise((resolve) => (deadline = startTimer(this.#timeouts.shutdown, resolve))));

    clearTimeout(deadline);
    unlisten();
    this.#expect();
    this.#pending--;
    if (this.#failures[0]) throw this.#failures[0].error;
  }

  #reset(place: Place): void {
    this.#place = place;
    this.#stop = new AbortController();
    this.#stopped = new Promise((resolve) => onAbort(this.#stop.signal, resolve));
    this.#begun = [[]];
    this.#failures = [];
    for (const member of this.#stages.flat()) {
      const controller = new AbortController();
      (controller.signal as PlacedSignal<Member>)[PLACE] = member;
      Object.assign(member, place, {
        task: `${place.task}/${member.name}`,
        controller,
        state: "pending",
        open: new Set(),
        ended: {},
        error: undefined,
      } satisfies Partial<Member>);
    }
  }

  async #goUp(): Promise<void> {
    const { signal } = this.#stop;
    for (const stage of this.#stages) {
      if (signal.aborted) return;
      this.#begun.unshift(stage);
      for (const member of stage) this.#init(member);
      await this.#within(this.#stopped, "init", stage);
      for (const member of stage) this.#run(member);
      for (const member of stage) this.#awaitReady(member);
      await this.#within(this.#stopped, "ready", stage);
    }
    // After a stop neither of these has any effect.
    this.#settle();
    const runs = this.#stages.flat().flatMap(({ ended }) => ended.run ?? []);
    if (runs.length) Promise.all(runs).then(() => signal.aborted || this.#comeDown(new StopReason()));
  }

  // None of these three calls a service after a stop, be it one by the observer who is told of its turn just before.

  #init(member: Member): void {
    const { service, controller } = member;
    if (this.#stop.signal.aborted) return;
    this.#set(member, service.init ? "initializing" : "initialized");
    if (service.init && controller.signal.aborted) return;
    this.#call(member, "init", "initialized", async () => {
      await service.init?.(controller.signal);
      if (this.#initialized) this.#initialized.push(member);
      else this.#finalize(member);
    });
  }

  #run(member: Member): void {
    const { service, task, controller } = member;
    if (this.#stop.signal.aborted) return;
    this.#set(member, "starting");
    if (controller.signal.aborted || !service.run) return;
    // It has a `run`, so that it is a task.
    this.#call(member, "run", "stopped", () => callTask(service as Task, task, controller.signal));
  }

  #awaitReady(member: Member): void {
    const { service, controller, ended } = member;
    if (member.state !== "starting") return;
    if (!service.ready) this.#set(member, "running");
    else {
      // If its `run` ends first, there is nothing to wait for: it was ephemeral, or the group comes down.
      this.#call(member, "ready", "running", () =>
        Promise.race([service.ready?.(controller.signal), ended.run ?? this.#stopped]),
      );
    }
  }

  #finalize(member: Member): void {
    this.#call(member, "finalize", "stopped", () => member.service.finalize?.());
  }

  /** Calls one of its methods, after which the service is in another state, or has failed. */
  #call(member: Member, call: Call, to: ServiceState, work: () => unknown): void {
    const { signal } = this.#stop;
    const { open } = member;
    const watch = async (): Promise<void> => {
      let error: Error | undefined;
      try {
        await work();
      } catch (thrown) {
        error = call === "finalize" ? failureOf(thrown) : failureOf(thrown, signal);
        // A group in this one came down without a failure: how its `run` ends is what counts.
        if (call === "ready" && error instanceof StopReason) await member.ended.run;
      }
      const isOpen = open.delete(call);
      if (call !== "ready" || member.state === "starting") {
        if (error) this.#fail(member, call, error, isOpen);
        else this.#set(member, signal.aborted ? "stopped" : to);
        if (call === "run" && !member.service.ephemeral) this.#comeDown(new StopReason(member.task));
      }
      // Last of all: what an observer runs in the meantime would be brought down by the above.
      this.#pending--;
    };
    this.#pending++;
    open.add(call);
    member.ended[call] = watch();
  }

  /** Abandons the start, and tells the last stage; {@link ServiceGroup.run} does the rest. */
  #comeDown(reason: unknown): void {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort(reason);
    this.#expect(Promise.reject(this.#failures[0]?.error ?? reason));
    this.#settle(this.#ready);
    this.#tell(this.#begun[0]!);
  }

  async #goDown(deadline: Promise<void>): Promise<void> {
    const abandoned = this.#within(deadline, "stop", this.#begun[0]!, "init");
    for (const stage of this.#begun) {
      this.#tell(stage);
      await this.#within(deadline, "stop", stage, "run");
    }
    await abandoned;
    for (let member; (member = this.#initialized?.pop()); ) {
      this.#finalize(member);
      await this.#within(deadline, "finalize", [member]);
    }
    this.#initialized = undefined;
  }

  #tell(stage: readonly Member[]): void {
    for (const member of stage) {
      const { open } = member;
      if (open.has("run")) this.#set(member, "stopping");
      else if (!open.has("init") && member.state !== "pending") this.#set(member, "stopped");
      member.controller.abort(this.#stop.signal.reason);
    }
  }

  /** Waits for the ends of calls; those that have not ended when the time is up, be it that of all, have failed. */
  async #within(
    cut: Promise<void>,
    phase: Wait,
    members: readonly Member[],
    call: Call = phase as Call, // but for `stop`
  ): Promise<void> {
    let timer: Timer | undefined;
    const isOver = await Promise.race<unknown>([
      cut,
      new Promise<void>((resolve) => (timer = startTimer(this.#timeouts[phase], resolve))),
      Promise.all(members.map(({ ended }) => ended[call])),
    ]);
    clearTimeout(timer);
    // A stop comes with its event, and the ends with a list; a time that is up, with nothing.
    if (isOver) return;
    for (const member of members.filter(({ open }) => open.delete(call))) {
      this.#fail(member, phase, new ServiceTimeoutError(member.name, phase), true);
    }
  }

  /** @param isOpen - Whether it was still waited for; otherwise the failure is only told. */
  #fail(member: Member, phase: ServicePhase, error: Error, isOpen: boolean): void {
    if (member.error === error) return;
    member.error = error;
    if (isOpen && this.#initialized) this.#failures.push({ source: member.name, error });
    this.#set(member, "failed");
    member.onEvent?.({ type: "service-failed", task: this.#place.task, service: member.name, phase, error });
    this.#comeDown(new StopReason(member.task, error));
  }

  #set(member: Member, to: ServiceState): void {
    const { state: from } = member;
    if (from === to || from === "failed") return;
    member.state = to;
    member.onEvent?.({ type: "service-state", task: this.#place.task, service: member.name, from, to });
  }

  /** What `ready()` waits for from now on: the next run, unless something else is known. */
  #expect(ready: Promise<void> = new Promise((resolve) => (this.#settle = resolve))): void {
    this.#ready = ready;
    ready.catch(() => {});
  }
}

/** Gives each service a name: its own, or else that of its class, with a number when that is taken. */
function enlist(action: string, stages: readonly (Service | readonly Service[])[]): Member[][] {
  const taken = new Map<string, number>();
  const unnamed: Member[] = [];
  const members = stages.map((stage) =>
    [stage].flat().map((service) => {
      checkType(action, "a service", "object", service ?? undefined);
      // The rest of it is of a run.
      const member = { service, name: taskName(service, "service") } as Member;
      const { name = "services" } = service;
      if (name === "services") unnamed.push(member);
      else {
        check(name > "" && !taken.has(name), action, "names must be unique and not empty", name);
        taken.set(name, 1);
      }
      return member;
    }),
  );
  for (const member of unnamed) {
    const { name } = member;
    let number = taken.get(name) ?? 1;
    while (taken.has(member.name)) member.name = `${name}-${++number}`;
    taken.set(member.name, 1).set(name, number);
  }
  return members;
}
