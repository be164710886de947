/*
 * A program of a user, which uses all that allstop/repeat exports. It is compiled, never run.
 */
import { type LifecycleEvent, Manager, type Task } from "allstop";
import {
  type Action,
  type LoopOptions,
  LoopTask,
  type PollOptions,
  PollTask,
  type RepeatOptions,
  type SignalTriggerOptions,
  SignalTriggerTask,
} from "allstop/repeat";

const common: RepeatOptions = { name: "consumer", onError: "continue", onEvent: observe };
const loop: LoopOptions = { ...common, delay: 10, initialDelay: 100 };
const poll: PollOptions = { ...common, interval: 1_000, runAtStart: true };
const reload: SignalTriggerOptions = { ...common, signals: ["SIGHUP", "SIGUSR2"] as const };

// An option that is undefined takes its default, also under exactOptionalPropertyTypes; an interval has none.
const defaults = { name: undefined, onError: undefined, onEvent: undefined } satisfies RepeatOptions;
export const withDefaults: Task[] = [
  new LoopTask(() => {}, { ...defaults, delay: undefined, initialDelay: undefined }),
  new PollTask(() => {}, { ...defaults, interval: 1, runAtStart: undefined }),
  new SignalTriggerTask(() => {}, { ...defaults, signals: undefined }),
];

export const withErrors = [
  // @ts-expect-error An interval is needed.
  new PollTask(() => {}, {}),
  // @ts-expect-error So is an object for it.
  new PollTask(() => {}),
  // @ts-expect-error An unknown option is a type error.
  new LoopTask(() => {}, { interval: 1 }),
  // @ts-expect-error A behaviour is one of those that there are.
  new LoopTask(() => {}, { onError: "ignore" }),
];

/** An action may return anything; of a promise the end is waited for. */
export const actions: Action[] = [
  () => {},
  () => 1,
  async () => "a value",
  async (signal) => signal.throwIfAborted(),
  (signal: AbortSignal): PromiseLike<boolean> => ({ then: (resolve) => Promise.resolve(signal.aborted).then(resolve) }),
];

export async function main(): Promise<void> {
  const manager = new Manager();
  const trigger: Disposable & Task = new SignalTriggerTask(() => {}, reload);
  manager.run(...actions.map((action) => new LoopTask(action, loop)), new PollTask(() => {}, poll), trigger);
  manager.runBackground(new LoopTask(() => {}), new SignalTriggerTask(() => {}));
  const name: string = new LoopTask(() => {}).name;
  const run: Promise<void> = new LoopTask(() => {}).run(AbortSignal.abort());
  await run.then(() => console.log(name));
  new SignalTriggerTask(() => {})[Symbol.dispose]();
  await manager.wait();
}

function observe(event: LifecycleEvent): void {
  if (event.type === "action-failed") console.log(event.task.toUpperCase(), event.error.message);
}
