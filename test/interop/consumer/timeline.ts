/*
 * A program of a user, which uses all that allstop/timeline exports. It is compiled, never run.
 */
import { type LifecycleEvent, Manager } from "allstop";
import { Timeline, type TimelineTextOptions } from "allstop/timeline";

const wide: TimelineTextOptions = { width: 200 };

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
const defaults = { width: undefined } satisfies TimelineTextOptions;

export async function main(): Promise<void> {
  const timeline = new Timeline();
  const { observe } = timeline;
  const observer: (event: LifecycleEvent) => void = observe;
  const manager = new Manager({ onEvent: observer });
  manager.run(async () => {});
  await manager.wait();

  const texts: string[] = [timeline.toText(), timeline.toText({}), timeline.toText(wide), timeline.toText(defaults)];
  const trace: string = timeline.toTrace();
  console.log(texts.join("\n"), trace);
  // @ts-expect-error An unknown option is a type error.
  timeline.toText({ height: 1 });
  // @ts-expect-error What is told is handed over once, and for all.
  timeline.observe = () => {};
}
