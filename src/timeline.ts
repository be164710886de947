/**
 * Who ran when, and who held up the stop.
 *
 * @module
 */
import type { LifecycleEvent } from "./events.ts";
import { check, show } from "./internal/check.ts";

export interface TimelineTextOptions {
  /** How many columns a line has at most; a whole number, 20 or more. @default 80 */
  width?: number | undefined;
}

/** A task, a service or a hook. */
interface Run {
  /** Its full name; `manager/hook`, `group/service`. */
  readonly name: string;
  /** That of a task, or `service`, or `hook`. */
  readonly kind: string;
  readonly start: number;
  /** How it ended. */
  readonly state?: string;
  readonly end?: number;
  /** Of a service: since when it alone is to blame that it has not ended. */
  due?: number;
}

/** That of the outermost manager. */
interface Stop {
  readonly manager: string;
  readonly reason: string;
  readonly at: number;
}

/**
 * Keeps who ran when, and draws it: as text, and as a trace for https://ui.perfetto.dev.
 *
 * Drawn are tasks that ran, services and hooks. A task that hung at the deadline was given up then, with all that ran
 * inside it. There is one stop, the last one that is no part of another: a manager is part of one in which it runs as a
 * task, and of one that stopped before it and whose name it is below.
 *
 * However long a program runs, it keeps only what has not ended, and the last 1,000 of what has.
 *
 * @example Finds out who held up the stop
 * ```ts
 * import { once } from "node:events";
 * import { setTimeout as sleep } from "node:timers/promises";
 * import { Manager } from "allstop";
 * import { Timeline } from "allstop/timeline";
 *
 * const timeline = new Timeline();
 * const manager = new Manager({ onEvent: timeline.observe });
 * manager.run(async function consumer() {});
 * manager.run(async function server(signal) {
 *   await once(signal, "abort");
 *   await sleep(20); // for the last answers
 * });
 * await manager.wait();
 * console.log(timeline.toText().split("\n").at(-1)?.slice(0, 17)); // prints held up by server
 * ```
 */
export class Timeline {
  /** When it was told last, or drawn while something ran. */
  #now = 0;
  /** What runs, by its name and by the millisecond of its start: of one name there may be very many. */
  readonly #running = new Map<string, Map<number, Run[]>>();
  /** What has ended. When there are 1,000, the next one takes the place of the oldest. */
  readonly #ended: Run[] = [];
  #endings = 0;
  #stop: Stop | undefined;

  /** An `onEvent`, bound to the timeline. */
  readonly observe: (event: LifecycleEvent) => void = (event) => {
    const now = (this.#now = performance.now());
    if (event.type === "task-started") this.#start(event.task, event.kind);
    if (event.type === "task-ended" && event.outcome !== "skipped") {
      this.#end({ name: event.task, kind: event.kind, start: now - event.elapsed }, event.outcome);
    }
    if (event.type === "cleanup-ended") {
      const name = (event.manager ? `${event.manager}/` : "") + event.hook;
      this.#end({ name, kind: "hook", start: now - event.elapsed }, event.error ? "failed" : "returned");
    }
    if (event.type === "service-state") {
      const name = `${event.task}/${event.service}`;
      const [[run] = []] = (this.#running.get(name) ?? this.#start(name, "service")).values();
      // Whoever waits for its turn holds up nothing.
      if (event.from !== "stopping") run!.due = now;
      if (/stopped|failed/.test(event.to)) this.#end(run!, event.to);
    }
    if (event.type === "shutdown-timed-out") {
      // Nobody will tell of the ends of these, nor of what runs inside them.
      const pending = new Set(event.pending);
      for (const run of this.#runs()) if (!run.end && isIn(pending, run.name)) this.#end(run, "given up");
    }
    if (event.type === "stopping") {
      const { manager, reason } = event;
      const isPart = isIn(this.#running, manager) || manager.startsWith(`${this.#stop?.manager}/`);
      if (!isPart) this.#stop = { manager, reason: show(reason), at: now };
    }
  };

  /**
   * Draws a line for each run, by their starts: `=` until the stop, `|`, and `#` after it, each to a scale of its own,
   * as a service of days may stop within a second. The first line tells how long the two are. The last ones tell who
   * ran on after the stop, the slowest first.
   *
   * What is too long loses its beginning. A character beyond U+FFFF, as most emoji, counts as two columns.
   *
   * @throws {TypeError} If `width` is no number.
   * @throws {RangeError} If it is no whole number, or below 20.
   */
  toText({ width = 80 }: TimelineTextOptions = {}): string {
    const isWide = Number.isInteger(width) && width >= 20;
    const Refusal = typeof width === "number" ? RangeError : TypeError;
    check(isWide, "draw a timeline", "width must be a whole number, 20 or more", width, Refusal);
    const runs = this.#runs();
    const now = this.#now;
    const at = this.#stop?.at ?? now;
    const from = runs[0]?.start ?? at;
    const left = width >> 2;
    const columns = width - left - 9;
    const middle = this.#stop ? columns >> 1 : columns - 1;
    const timeAt = (column: number): number =>
      column > middle
        ? at + ((now - at) * (column - middle)) / (columns - middle - 1)
        : from + ((at - from) * column) / middle;

    const late: [number, string][] = [];
    const lines = runs.map(({ name, state, start, kind, end = now, due = start }) => {
      const time = end - Math.max(at, due);
      if (time >= 1 && (start <= at || kind === "hook")) late.push([time, `${name} ${state}`]);
      const bar = Array.from({ length: columns }, (_, i) =>
        i === middle ? "|" : start < timeAt(i + 1) && timeAt(i) <= end ? (i < middle ? "=" : "#") : " ",
      );
      return `${fit(name, left).padEnd(left)} ${bar.join("")} ${seconds(end - start)}`;
    });
    late.sort(([a], [b]) => b - a);
    return [
      `${runs.length} runs, ${this.#endings - this.#ended.length} dropped: ${seconds(at - from)}|${seconds(now - at)}`,
      ...lines,
      ...late.map(([time, name]) => `held up by ${name} ${seconds(time)}`),
    ]
      .map((line) => fit(line, width))
      .join("\n");
  }

  /** Gives a Chrome trace, as JSON. What has one name is on one track, or on several if some of it ran at once. */
  toTrace(): string {
    const tracks: Run[] = [];
    const traceEvents: object[] = [];
    for (const run of this.#runs()) {
      const { name, end = this.#now, start } = run;
      let tid = run.end ? tracks.findIndex((last) => last.name === name && last.end! < start) : -1;
      if (tid < 0) {
        tid = tracks.length;
        traceEvents.push({ name: "thread_name", ts: 0, ph: "M", pid: 1, tid, args: { name } });
      }
      tracks[tid] = run;
      traceEvents.push({ name, args: run, dur: (end - start) * 1_000, ph: "X", ts: start * 1_000, pid: 1, tid });
    }
    const args = this.#stop;
    if (args) traceEvents.push({ name: "stop", ts: args.at * 1_000, ph: "i", s: "g", pid: 1, tid: 0, args });
    return JSON.stringify({ traceEvents, displayTimeUnit: "ms", dropped: this.#endings - this.#ended.length });
  }

  #start(name: string, kind: string): Map<number, Run[]> {
    const start = this.#now;
    const starts = this.#running.get(name) ?? new Map<number, Run[]>();
    const runs = starts.get(Math.round(start)) ?? [];
    runs.push({ name, state: "still running", start, kind });
    this.#running.set(name, starts);
    return starts.set(Math.round(start), runs);
  }

  /** Keeps it as one that has ended. Of those that run, it is the one of that name whose start is nearest; no hook is. */
  #end(run: Run, state: string): void {
    const { start, kind, name } = run;
    const starts = this.#running.get(name);
    if (starts && kind !== "hook") {
      let nearest = Math.round(start);
      if (!starts.has(nearest)) {
        nearest = [...starts.keys()].reduce((a, b) => ((a - start) ** 2 < (b - start) ** 2 ? a : b));
      }
      const runs = starts.get(nearest)!;
      run = runs.pop()!;
      if (!runs.length) starts.delete(nearest);
      if (!starts.size) this.#running.delete(name);
    }
    this.#ended[this.#endings++ % 1_000] = { ...run, state, end: this.#now };
  }

  /** All that is kept, in the order of the starts. */
  #runs(): Run[] {
    const running = [...this.#running.values()].flatMap((starts) => [...starts.values()].flat());
    if (running.length) this.#now = performance.now();
    return [...this.#ended, ...running].sort((a, b) => a.start - b.start);
  }
}

/** Whether a name, or one that it is below, is among others. */
function isIn(names: { has(name: string): boolean }, name: string): boolean {
  return names.has(name) || (name > "" && isIn(names, name.replace(/\/?[^/]*$/, "")));
}

function seconds(milliseconds: number): string {
  return `${+(Math.round(milliseconds) / 1_000).toPrecision(4)}s`;
}

/** Cuts a text to so many columns, and shows as `?` what a terminal would obey, as line ends and turns of direction. */
function fit(text: string, columns: number): string {
  // Names differ at their ends. A character that is cut in half is shown as `?`, too.
  return (text.length > columns ? `…${text.slice(1 - columns)}` : text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "?");
}
