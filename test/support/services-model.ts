import { type LifecycleEvent, StopReason } from "allstop";
import { type ServicePhase, type ServiceState, ServiceTimeoutError } from "allstop/services";

/*
 * The laws of ServiceGroup ("services" in DESIGN.md), as a judge of what is seen of one run. It is told one thing after
 * the other, and refuses what may not happen then. At the end of each turn (no microtask is left, and the next timer
 * has not fired) it refuses that something is missing which had to happen at once.
 *
 * An end is seen when it happens, the group hears of it later in that turn. So in the turn in which several things end,
 * any of them may be the one that the group acts upon.
 */

export const CALLS = ["init", "run", "ready", "finalize"] as const;
export type Call = (typeof CALLS)[number];

/** What a service is like. */
export interface Shape {
  readonly name: string;
  readonly has: readonly Call[];
  readonly ephemeral: boolean;
}

export interface Layout {
  /** The full name of the group. */
  readonly name: string;
  readonly stages: readonly (readonly Shape[])[];
  readonly timeouts: Readonly<Record<"init" | "ready" | "stop" | "shutdown" | "finalize", number>>;
}

/** What can be seen. Where there is no `error`, something ended well. */
export type Sight =
  | { readonly type: "call"; readonly service: string; readonly call: Call; readonly signal?: AbortSignal }
  | { readonly type: "end"; readonly service: string; readonly call: Call; readonly error?: unknown }
  /** The signal of a service aborts. */
  | { readonly type: "abort"; readonly service: string; readonly reason: unknown }
  | { readonly type: "event"; readonly event: LifecycleEvent }
  /** The signal of the group aborts. */
  | { readonly type: "stop"; readonly reason: unknown }
  /** The promise of a `ready()` settles. */
  | { readonly type: "ready"; readonly error?: unknown }
  /** The promise of `run` settles. */
  | { readonly type: "settled"; readonly error?: unknown; readonly leaks: number }
  /** Another `run` is tried. */
  | { readonly type: "again"; readonly isRefused: boolean }
  /** A turn ends, with this many that still wait for `ready()`. */
  | { readonly type: "turn"; readonly states: States; readonly failures: Failures; readonly waiting: number };

type States = Readonly<Record<string, ServiceState>>;
type Failures = readonly { readonly source: string; readonly error: unknown }[];

/** When it was seen, in milliseconds. */
export type Entry = Sight & { readonly at: number };

/** Which states may follow. */
export const NEXT: Readonly<Record<ServiceState, readonly ServiceState[]>> = {
  pending: ["initializing", "initialized"],
  initializing: ["initialized", "stopped", "failed"],
  initialized: ["starting", "stopped"],
  starting: ["running", "stopping", "stopped", "failed"],
  running: ["stopping", "stopped", "failed"],
  stopping: ["stopped", "failed"],
  stopped: ["failed"],
  failed: [],
};

export class BrokenLaw extends Error {}

function law(holds: boolean, sentence: string): asserts holds {
  if (!holds) throw new BrokenLaw(sentence);
}

/** What a call has come to. */
interface Progress {
  readonly at: number;
  ended?: { readonly turn: number; readonly error: unknown };
  /** The phase in which it was reported as timed out. */
  givenUp?: ServicePhase;
}

function isOver(progress: Progress | undefined): boolean {
  return !progress || progress.ended !== undefined || progress.givenUp !== undefined;
}

class Member {
  readonly shape: Shape;
  readonly stage: number;
  readonly calls: { [call in Call]?: Progress } = {};
  state: ServiceState = "pending";
  /** Whether its turn to run has come, which it has without a `run`, too. */
  isStarted = false;
  signal: AbortSignal | undefined;
  toldAt: number | undefined;
  /** The last error that was reported. */
  error: unknown;
  /** What it failed with in this turn, and is not reported yet. */
  owed: unknown[] = [];
  /** Whether the group was coming down already when its state became `failed`, until it is reported why. */
  failedLate: boolean | undefined;

  constructor(shape: Shape, stage: number) {
    this.shape = shape;
    this.stage = stage;
  }

  has(call: Call): boolean {
    return this.shape.has.includes(call);
  }

  returned(call: Call): boolean {
    return this.calls[call]?.ended !== undefined && this.calls[call].ended.error === undefined;
  }

  /** Without `ready`, it is ready as soon as `run` was called; one that is ephemeral and has ended is ready, too. */
  get isReady(): boolean {
    return this.isStarted && (!this.has("ready") || this.returned("ready") || this.hasEndedWell);
  }

  get hasEndedWell(): boolean {
    return this.shape.ephemeral && this.returned("run");
  }

  get isFinalized(): boolean {
    return !this.has("finalize") || this.calls.finalize !== undefined;
  }
}

export class ServicesModel {
  readonly #layout: Layout;
  readonly #members: readonly Member[];
  #turn = 0;
  #now = 0;
  /** What may have brought the group down: all that happened in the turn of the first. `tells` knows its reason. */
  readonly #causes: { readonly turn: number; readonly at: number; tells(reason: unknown): boolean }[] = [];
  /** Whether the group has certainly heard of one of them. */
  #isHeard = false;
  /** The reason that services were told. */
  #reason: unknown;
  readonly #failures: { readonly source: string; readonly error: unknown; readonly isLate: boolean }[] = [];
  /** In the order in which each init finished. */
  readonly #initialized: Member[] = [];
  #isSettled = false;

  constructor(layout: Layout) {
    this.#layout = layout;
    this.#members = layout.stages.flatMap((stage, index) => stage.map((shape) => new Member(shape, index)));
  }

  /** @throws {BrokenLaw} If this may not happen now. */
  see(entry: Entry): void {
    this.#now = entry.at;
    switch (entry.type) {
      case "call":
        return this.#seeCall(this.#member(entry.service), entry.call, entry.signal);
      case "end":
        return this.#seeEnd(this.#member(entry.service), entry.call, entry.error);
      case "abort":
        return this.#seeAbort(this.#member(entry.service), entry.reason);
      case "event":
        return this.#seeEvent(entry.event);
      case "stop":
        this.#cause((reason) => reason === entry.reason);
        this.#isHeard = true;
        return;
      case "ready":
        return this.#seeReady(entry.error);
      case "settled":
        return this.#seeSettled(entry.error, entry.leaks);
      case "again":
        return this.#seeAgain(entry.isRefused);
      case "turn":
        this.#seeEndOfTurn(entry.states, entry.failures, entry.waiting);
        this.#turn++;
    }
  }

  #seeCall(member: Member, call: Call, signal: AbortSignal | undefined): void {
    law(!member.calls[call], `The ${call} of a service is called once`);
    if (call === "finalize") this.#checkFinalizer(member);
    else {
      law(!this.#isHeard, "Nothing is started after the stop");
      law(signal === (member.signal ??= signal), "The init, run and ready of a service get one signal");
    }
    if (call === "init") law(member.state === "initializing", "A service is initializing when its init is called");
    if (call === "run") law(member.isStarted, "A service is starting when its run is called");
    if (call === "ready") {
      const areRunning = this.#stage(member).every((peer) => peer.isStarted && (peer.calls.run || !peer.has("run")));
      law(areRunning, "Within a stage, ready is called after every run");
    }
    member.calls[call] = { at: this.#now };
  }

  #checkFinalizer(member: Member): void {
    law(this.#initialized.includes(member), "Only what was initialized is finalized");
    if (this.#isSettled) return law(this.#isLate(member), "After the end, only a late init is finalized");
    const areDown = this.#members.every(({ state }) => ["pending", "stopped", "failed"].includes(state));
    law(areDown && this.#isDown(this.#now), "Finalizers come after the end of every run, and of every abandoned init");
    law(!this.#isFinalizing, "Finalizers come one at a time");
    const isFirst = this.#isLate(member) || this.#initializedAfter(member).every((other) => other.isFinalized);
    law(isFirst, "Finalizers come in reverse order of the ends of the inits");
  }

  #initializedAfter(member: Member): readonly Member[] {
    const index = this.#initialized.indexOf(member);
    const after = this.#initialized.slice(index + 1).filter((other) => !this.#isLate(other));
    const { ended } = member.calls.init ?? {};
    const isStopped = ended !== undefined && ended.turn === this.#causes[0]?.turn;
    if (member.has("init") || !isStopped) return after;
    // Without init, its place is just after the event, in which it may have been stopped, and so ended other inits.
    return after.filter((other) => other.calls.init?.ended?.turn !== ended.turn);
  }

  #seeEnd(member: Member, call: Call, error: unknown): void {
    const progress = member.calls[call];
    law(progress !== undefined, "What ends was called");
    progress.ended = { turn: this.#turn, error };
    if (call === "init" && error === undefined) this.#initialized.push(member);
    if (call === "run" && error === undefined && !member.shape.ephemeral) this.#cause(this.#by(member));
    const isFailure = error !== undefined && (call === "finalize" || !this.#isEcho(error));
    if (isFailure && call !== "ready") member.owed.push(error);
    this.#seeLastEnd();
  }

  /** Once the last stage is up, the group comes down by itself if every run (at least one) has ended, all ephemeral. */
  #seeLastEnd(): void {
    const runs = this.#members.filter((member) => member.has("run"));
    if (!runs[0] || !this.#isUp || !runs.every(({ hasEndedWell }) => hasEndedWell)) return;
    this.#cause((reason) => reason instanceof StopReason && reason.task === undefined && reason.cause === undefined);
  }

  #seeAbort(member: Member, reason: unknown): void {
    law(member.toldAt === undefined, "A service is told once");
    law(this.#isTurnToComeDown(member), "A stage is told when every run of the later ones has ended");
    if (this.#reason !== undefined) law(reason === this.#reason, "All services are told the same reason");
    law(this.#causes.some(({ tells }) => tells(reason)), "The reason is that of the stop, or names the service");
    this.#reason = reason;
    this.#isHeard = true;
    member.toldAt = this.#now;
  }

  #seeEvent(event: LifecycleEvent): void {
    law(event.type === "service-state" || event.type === "service-failed", "The group tells no other events");
    law(event.task === this.#layout.name, "Events have the full name of the group");
    const member = this.#member(event.service);
    if (event.type === "service-state") this.#seeState(member, event.from, event.to);
    else this.#seeFailure(member, event.phase, event.error);
  }

  #seeState(member: Member, from: ServiceState, to: ServiceState): void {
    law(from === member.state, "Each change of a state is told");
    law(NEXT[from].includes(to), `What is ${from} does not become ${to}`);
    law(!this.#isSettled || to === "failed", "After the end a service can only fail");
    const isUpwards = ["initializing", "initialized", "starting", "running"].includes(to);
    law(!isUpwards || !this.#isHeard, "Nothing comes up after the stop");
    member.state = to;
    if (from === "pending") {
      law(this.#earlier(member).every(({ isReady }) => isReady), "A stage comes up when the earlier ones are ready");
      law(member.has("init") === (to === "initializing"), "A service without init is initialized at its turn");
      if (to !== "initialized") return;
      member.calls.init = { at: this.#now, ended: { turn: this.#turn, error: undefined } };
      this.#initialized.push(member);
    } else if (to === "starting") {
      const areInitialized = this.#stage(member).every((peer) => peer.returned("init"));
      law(areInitialized, "No run of a stage starts before all its inits are done");
      member.isStarted = true;
      this.#seeLastEnd();
    } else if (to === "running") {
      law(member.isReady, "What is running is ready");
    } else if (to === "stopping") {
      law(this.#isTurnToComeDown(member), "What is stopping had its turn to come down");
    } else if (to === "failed") {
      member.failedLate = this.#isHeard;
    }
  }

  #seeFailure(member: Member, phase: ServicePhase, error: unknown): void {
    law(member.state === "failed", "The state of a service is failed when it is told why");
    const progress = member.calls[phase !== "stop" ? phase : member.calls.run ? "run" : "init"];
    law(progress !== undefined, "What fails was called");
    const { ended, givenUp } = progress;
    if (error instanceof ServiceTimeoutError) {
      law(error.service === member.shape.name && error.phase === phase, "A timeout names service and phase");
      law(!givenUp && (!ended || ended.turn === this.#turn), "Only what goes on is reported to have timed out, once");
      law(this.#now === this.#limit(member, phase), "A timeout is reported when it has passed");
      const isUp = this.#causes.every(({ turn }) => turn === this.#turn);
      law(isUp || phase === "stop" || phase === "finalize", "A start that is abandoned does not time out");
      progress.givenUp = phase;
    } else {
      law(ended?.turn === this.#turn && ended?.error === error, "A failure is reported with its error, at once");
      law(error !== member.error, "One error of a service is reported once");
      const isAbandoned = member.failedLate ?? this.#isHeard;
      law(phase !== "ready" || !(isAbandoned || givenUp), "How an abandoned or late ready ends counts for nothing");
    }
    member.failedLate = undefined;
    member.owed = member.owed.filter((other) => other !== error && other !== member.error);
    member.error = error;
    // What was given up and fails later is only an event.
    if (givenUp || this.#isSettled) return;
    this.#failures.push({ source: member.shape.name, error, isLate: phase === "finalize" && this.#isLate(member) });
    this.#cause(this.#by(member, error));
    this.#isHeard = true;
  }

  #seeReady(error: unknown): void {
    if (error === undefined) return law(this.#isUp, "ready() resolves when the last stage is up");
    const isOfStop = this.#causes.some(({ tells }) => tells(error)) && !(error instanceof StopReason && error.cause);
    law(isOfStop || error === this.#failures[0]?.error, "ready() rejects with the first failure, or the stop's reason");
  }

  #seeSettled(error: unknown, leaks: number): void {
    const isDown = this.#causes.length > 0 && this.#isDown(this.#now);
    law(isDown && !this.#isSettled, "run settles when everything is down, once");
    const isDone = this.#initialized.every((m) => this.#isLate(m) || (m.isFinalized && isOver(m.calls.finalize)));
    law(isDone, "run settles after the finalizers of all that was initialized");
    law(error === this.#failures.find(({ isLate }) => !isLate)?.error, "run rejects with the first failure, if any");
    law(leaks === 0, "No timer and no listener is left");
    this.#isSettled = true;
  }

  #seeAgain(isRefused: boolean): void {
    const calls = this.#members.flatMap(({ calls: { init, run, finalize } }) => [init, run, finalize]);
    const goesOn = !this.#isSettled || calls.some((call) => call && !call.ended);
    law(isRefused || !goesOn, "A second run is refused while something of the last has not ended");
    const isUnheard = calls.some((call) => call?.ended?.turn === this.#turn);
    law(!isRefused || goesOn || isUnheard, "A group may run again when everything has ended");
  }

  #seeEndOfTurn(states: States, failures: Failures, waiting: number): void {
    for (const member of this.#members) this.#checkMember(member, states[member.shape.name]);
    this.#checkFailures(failures);
    if (this.#isSettled) {
      law(this.#initialized.every(({ isFinalized }) => isFinalized), "An init that finishes late is finalized then");
    } else if (this.#causes.length > 0) {
      law(waiting === 0, "ready() rejects at once when the group comes down");
      law(this.#now <= this.#shutdownAt, "shutdownTimeout bounds the whole way down");
      const goesOn = this.#isFinalizing || !this.#isDown(this.#now - 1);
      law(goesOn, "When all is down, the next finalizer is called at once; after the last one, run settles");
    } else {
      law(waiting === 0 || !this.#isUp, "ready() resolves at once when the last stage is up");
      for (const member of this.#members) this.#checkStart(member);
    }
  }

  #checkFailures(failures: Failures): void {
    const expected = this.#failures.filter(({ error, isLate }) => !isLate || failures.some((f) => f.error === error));
    const areEqual = expected.every((one, i) => one.source === failures[i]?.source && one.error === failures[i].error);
    law(areEqual && failures.length === expected.length, "failures holds all in order, but what failed when given up");
  }

  #checkMember(member: Member, state: unknown): void {
    const { shape, signal, toldAt, owed, calls } = member;
    law(state === member.state, "states says what was told");
    const expected = this.#stateOf(member);
    law(state === expected, `${shape.name} must be ${expected}, not ${state}`);
    law(!signal || (toldAt !== undefined) === this.#isTurnToComeDown(member), "A stage is told at once at its turn");
    law(owed.every((error) => error === member.error), `The failure of ${shape.name} is reported at once`);
    member.owed = [];

    const isUp = this.#causes.length === 0;
    const checkTime = (call: Call, phase: ServicePhase): void => {
      const isInTime = isOver(calls[call]) || this.#now <= this.#limit(member, phase);
      law(isInTime, `That the ${call} of ${shape.name} has timed out is reported`);
    };
    checkTime("init", isUp ? "init" : "stop");
    if (isUp && !member.hasEndedWell) checkTime("ready", "ready");
    if (toldAt !== undefined) checkTime("run", "stop");
    if (!this.#isSettled) checkTime("finalize", "finalize");
  }

  /** What must have been started, while nothing brings the group down. */
  #checkStart(member: Member): void {
    if (!this.#earlier(member).every(({ isReady }) => isReady)) return;
    law(member.calls.init !== undefined, "A stage comes up at once when the earlier ones are ready");
    if (!this.#stage(member).every((peer) => peer.returned("init"))) return;
    const { run, ready } = member.calls;
    law(run !== undefined || !member.has("run"), "run is called at once when all inits of the stage are done");
    law(ready !== undefined || !member.has("ready"), "ready is called at once when all inits of the stage are done");
    law(ready?.ended?.error === undefined || member.hasEndedWell, "A ready that fails brings the group down");
  }

  /** What its state must be at the end of a turn. */
  #stateOf(member: Member): ServiceState {
    const { init, run } = member.calls;
    if (member.error !== undefined) return "failed";
    if (member.state === "pending") return "pending";
    if (init && !init.ended) return "initializing";
    // Either it did not come to its init any more, or that was cancelled.
    if (!member.returned("init") || run?.ended) return "stopped";
    if (this.#isTurnToComeDown(member)) return run ? "stopping" : "stopped";
    if (!member.isStarted) return "initialized";
    return member.isReady ? "running" : "starting";
  }

  /** When a call is to be over. For `stop`, that is a run, since it was told, or an abandoned init, since the stop. */
  #limit({ calls, toldAt = 0 }: Member, phase: ServicePhase): number {
    const { timeouts } = this.#layout;
    if (phase === "run") return Infinity;
    if (phase === "init" || phase === "ready") return (calls[phase]?.at ?? 0) + timeouts[phase];
    const since = phase === "finalize" ? calls.finalize?.at : calls.run ? toldAt : this.#causes[0]?.at;
    return Math.min((since ?? 0) + timeouts[phase], this.#shutdownAt);
  }

  get #shutdownAt(): number {
    return (this.#causes[0]?.at ?? Infinity) + this.#layout.timeouts.shutdown;
  }

  /** A stage still coming up is first; the next one follows when every run of this one has ended, or was given up. */
  #isTurnToComeDown(member: Member): boolean {
    const later = this.#members.filter(({ stage }) => stage > member.stage);
    return this.#causes.length > 0 && later.every(({ calls }) => isOver(calls.run));
  }

  /** Whether all was over by then that comes before the finalizers. */
  #isDown(by: number): boolean {
    return this.#members.every((member) => {
      const { init, run } = member.calls;
      const isWaitedFor = init?.givenUp === "init" && !init.ended && by < this.#limit(member, "stop");
      return isOver(init) && isOver(run) && !isWaitedFor;
    });
  }

  get #isUp(): boolean {
    return this.#members.every(({ isReady }) => isReady);
  }

  get #isFinalizing(): boolean {
    return this.#members.some(({ calls: { finalize } }) => !isOver(finalize));
  }

  /** Whether its init was given up, and finished in this very turn. */
  #isLate({ calls: { init } }: Member): boolean {
    return init?.givenUp !== undefined && init.ended?.turn === this.#turn;
  }

  /** Ending because it was told to is no failure. */
  #isEcho(error: unknown): boolean {
    const { name, cause = this.#reason } = error as Error;
    return this.#isHeard && (error === this.#reason || (name === "AbortError" && cause === this.#reason));
  }

  #by({ shape }: Member, error?: unknown): (reason: unknown) => boolean {
    const task = `${this.#layout.name}/${shape.name}`;
    return (reason) => reason instanceof StopReason && reason.task === task && reason.cause === error;
  }

  #cause(tells: (reason: unknown) => boolean): void {
    const { turn = this.#turn } = this.#causes[0] ?? {};
    if (turn === this.#turn) this.#causes.push({ turn, at: this.#now, tells });
  }

  #stage(member: Member): readonly Member[] {
    return this.#members.filter(({ stage }) => stage === member.stage);
  }

  #earlier(member: Member): readonly Member[] {
    return this.#members.filter(({ stage }) => stage < member.stage);
  }

  #member(name: string): Member {
    const member = this.#members.find(({ shape }) => shape.name === name);
    law(member !== undefined, "Services go by their names");
    return member;
  }
}
