import { type LifecycleEvent, Manager, type TaskOutcome } from "allstop";
import { GroupTask } from "allstop/group";
import { LoopTask } from "allstop/repeat";
import { RestartTask } from "allstop/restart";
import { type Service, ServiceGroup, type ServiceState } from "allstop/services";
import { ControlledTask } from "allstop/testing";
import { Timeline } from "allstop/timeline";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { useFakeTime } from "./support/fake-time.ts";
import { useNoUnhandledRejections, useNoWarnings } from "./support/process-events.ts";
import { settle } from "./support/settle.ts";
import { stubborn } from "./support/stubborn.ts";
import { thrownBy } from "./support/thrown-by.ts";
import { ended, started, stopped, stopping } from "./support/told.ts";
import { hangs, nothing, rejecting } from "./support/ways.ts";

useNoUnhandledRejections();
useNoWarnings();
useFakeTime();

const KINDS = ["main", "ephemeral", "background"] as const;

let timeline = new Timeline();
let startedAt = 0;

beforeEach(renew);

/** Begins anew, with a timeline that was told of nothing. */
function renew(): void {
  timeline = new Timeline();
  startedAt = performance.now();
}

interface TraceEvent {
  name: string;
  ph: string;
  ts: number;
  dur?: number;
  pid: number;
  tid: number;
  s?: string;
  args: Record<string, unknown>;
}

function trace(of = timeline): { traceEvents: TraceEvent[]; displayTimeUnit: string; dropped: number } {
  return JSON.parse(of.toTrace());
}

/** What ran, as `name state from-to`, in milliseconds since the test began; in the order of the starts. */
function runs(of = timeline): string[] {
  const at = (microseconds: number): number => Math.round(microseconds / 1_000 - startedAt);
  return trace(of).traceEvents.flatMap(({ name, ph, ts, dur = 0, args }) =>
    ph === "X" ? `${name} ${args["state"]} ${at(ts)}-${at(ts + dur)}` : [],
  );
}

/** The stop, as `manager reason at`; none, as an empty list. */
function stops(of = timeline): string[] {
  return trace(of).traceEvents.flatMap(({ ph, ts, args }) =>
    ph === "i" ? `${args["manager"]} ${args["reason"]} ${Math.round(ts / 1_000 - startedAt)}` : [],
  );
}

function lines(width?: number): string[] {
  return timeline.toText({ width }).split("\n");
}

/** The lines about the stop, without their beginning. */
function heldUp(): string[] {
  return lines(200).flatMap((line) => line.match(/^held up by (.*)/)?.[1] ?? []);
}

/** Tells the events, and that they happened so many milliseconds after the test began. */
function tell(at: number, ...events: LifecycleEvent[]): void {
  vi.advanceTimersByTime(startedAt + at - performance.now());
  for (const event of events) timeline.observe(event);
}

/** That a task ended, after so many milliseconds. */
function over(task: string, elapsed: number, outcome: TaskOutcome = "returned"): LifecycleEvent {
  return { ...ended(task, outcome), elapsed } as LifecycleEvent;
}

function goes(service: string, ...states: [ServiceState, ServiceState][]): LifecycleEvent[] {
  return states.map(([from, to]) => ({ type: "service-state", task: "app/services", service, from, to }));
}

function hook(manager: string, name: string, elapsed: number): LifecycleEvent {
  return { type: "cleanup-ended", manager, hook: name, elapsed };
}

function timedOut(manager: string, ...pending: string[]): LifecycleEvent {
  return { type: "shutdown-timed-out", manager, pending, error: new Error("late") };
}

/** Tells of a service whose `http` takes 1.2 s to stop, after 8.4 s. */
function tellOfShop(): void {
  tell(0, started("shop/os-signal"), started("shop/http"));
  tell(2_000, started("shop/worker"));
  tell(2_100, over("shop/worker", 100));
  tell(8_400, over("shop/os-signal", 8_400), stopping("shop", "SIGTERM"));
  tell(9_600, over("shop/http", 9_600, "cancelled"));
  tell(9_640, hook("shop", "flushLogs", 40), stopped("shop"));
}

describe("toText", () => {
  test("draws who ran when, the moment of the stop, who held it up and for how long", () => {
    tellOfShop();
    expect(lines(60)).toEqual([
      "4 runs, 0 dropped: 8.4s|1.24s",
      "shop/os-signal  ==================|                  8.4s",
      "shop/http       ==================|################  9.6s",
      "shop/worker         =             |                  0.1s",
      "shop/flushLogs                    |               ## 0.04s",
      "held up by shop/http cancelled 1.2s",
      "held up by shop/flushLogs returned 0.04s",
    ]);
  });

  test("draws the same of a program whose clock has run for long", () => {
    tellOfShop();
    const first = lines(60);
    vi.advanceTimersByTime(1_000_000);
    renew();
    tellOfShop();
    expect(lines(60)).toEqual(first);
  });

  test("has lines of 80 columns, unless it is told otherwise", () => {
    tellOfShop();
    expect(timeline.toText()).toBe(timeline.toText({ width: 80 }));
    expect(timeline.toText({ width: undefined })).toBe(timeline.toText({ width: 80 }));
    expect(timeline.toText({})).not.toBe(timeline.toText({ width: 79 }));
  });

  test.each([20, 21, 40, 80, 200])("has no line wider than %i, whatever is told", (width) => {
    for (const name of ["x".repeat(999), "😀".repeat(99), "a/".repeat(99), "x😀".repeat(99)]) tell(1, started(name));
    tell(999, stopping("", "enough"));
    for (const time of [1_001, 86_400_999, 1e10, 1e12]) {
      tell(time, over("x".repeat(999), time));
      const all = lines(width);
      for (const line of all) expect(line.length).toBeLessThanOrEqual(width);
      expect(all.join("")).not.toMatch(/\p{Cs}/u);
    }
  });

  test("cuts what is too long at its beginning", () => {
    tell(0, started("api/services/db"), started("api/services/cache"));
    expect(lines(40).slice(1).map((line) => line.slice(0, 11))).toEqual(["…rvices/db ", "…ces/cache "]);
    tell(1, started("exactly-10"));
    expect(lines(40)[3]?.slice(0, 11)).toBe("exactly-10 ");
  });

  test("shows half a character, which the cut leaves, as `?`", () => {
    tell(0, started("api/😀12345678"));
    expect(lines(40)[1]?.slice(0, 11)).toBe("…?12345678 ");
  });

  test.each([
    ["a control", "\0\x07\b\t\n\v\f\r\x1b\x1f\x7f\x80\x85\x9b\x9f"],
    ["an end of a line", "\u2028\u2029"],
    ["what turns the direction", "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"],
  ])("shows %s in a name as `?`, and the trace keeps it", (_, characters) => {
    for (const character of characters) {
      renew();
      const name = `a${character}b${character}`;
      tell(0, started(name));
      tell(0, stopping("", "enough"));
      tell(1_500);
      expect(lines()[1]).toMatch(/^a\?b\? /);
      expect(lines().slice(2)).toEqual(["held up by a?b? still running 1.5s"]);
      expect(trace().traceEvents[1]?.name).toBe(name);
    }
  });

  test("keeps letters of all scripts, with their accents, and emoji", () => {
    tell(0, started("é e\u0301 ж 数据 ⚙ 🚀"));
    expect(lines()[1]).toMatch(/^é e\u0301 ж 数据 ⚙ 🚀 /);
  });

  test("says on one line that there was nothing", () => {
    expect(timeline.toText()).toBe("0 runs, 0 dropped: 0s|0s");
    expect(trace()).toEqual({ traceEvents: [], displayTimeUnit: "ms", dropped: 0 });
  });

  test("without a stop, a bar ends now at the latest, and nobody held up anything", () => {
    tell(0, started("a"), started("b"));
    tell(500, over("b", 500));
    tell(1_000);
    expect(lines(39)).toEqual([
      "2 runs, 0 dropped: 1s|0s",
      "b         ===========         | 0.5s",
      "a         ====================| 1s",
    ]);
  });

  test("tells times in seconds, to the millisecond, but no more than four digits", () => {
    const times = [0, 0.4, 0.6, 1, 12, 999, 1_234, 12_345.6, 99_999, 259_200_123];
    tell(0);
    for (const time of times) tell(performance.now() - startedAt + time, over("a", time));
    const told = lines().slice(1).map((line) => line.split(" ").at(-1));
    const expected = ["0s", "0s", "0.001s", "0.001s", "0.012s", "0.999s", "1.234s", "12.35s", "100s", "259200s"];
    expect(told).toEqual(expected);
  });

  test("gives a bar at least one column before the stop, and one after it only for what ran on", () => {
    tell(0, started("long"), started("late"));
    tell(5_000, started("short"));
    tell(5_001, over("short", 1));
    tell(9_000, over("long", 9_000), stopping("", "enough"));
    tell(10_000, over("late", 10_000));
    const [, ...bars] = lines(69);
    // After 17 columns for the name and one between, 43 for the bar: 21, the stop, 21.
    const bar = (name: string): string => bars.find((line) => line.startsWith(name))?.slice(18, 61) ?? "";
    expect(bar("long")).toBe(`${"=".repeat(21)}|${" ".repeat(21)}`);
    expect(bar("late")).toBe(`${"=".repeat(21)}|${"#".repeat(21)}`);
    expect(bar("short")).toBe(`${" ".repeat(11)}=${" ".repeat(9)}|${" ".repeat(21)}`);
  });

  test("takes a whole number from 20 as the width", () => {
    const widths = [20, 23, 24, 25, 1_000];
    const text = "0 runs, 0 dropped: 0s|0s";
    expect(widths.map((width) => timeline.toText({ width }).length)).toEqual([20, 23, 24, 24, 24]);
    expect(lines(20)).toEqual([`…${text.slice(-19)}`]);
    expect(lines(24)).toEqual([text]);
  });

  test.each([null, "80", 80n, true, [80], {}])("refuses %o as the width: it is no number", (width) => {
    const error = thrownBy(() => timeline.toText({ width: width as never }));
    expect(error).toBeInstanceOf(TypeError);
    expect(String(error)).toMatch(/^TypeError: Cannot draw a timeline: width must be a whole number, 20 or more, got /);
  });

  test.each([19, 0, -80, 20.5, NaN, Infinity])("refuses %d as the width: it is no whole number from 20", (width) => {
    const error = thrownBy(() => timeline.toText({ width }));
    expect(error).toBeInstanceOf(RangeError);
    const text = "RangeError: Cannot draw a timeline: width must be a whole number, 20 or more, got ";
    expect(String(error)).toBe(text + width);
  });

  test("begins a bar in the column of its start, and ends it in that of its end", () => {
    tell(0, started("a"));
    tell(2_000, started("b"));
    tell(3_000, over("b", 1_000));
    tell(5_000);
    expect(lines(20).slice(1)).toEqual(["a     =====| 5s", "b       == | 1s"]);
  });

  test("is the same later, when nothing runs any more", () => {
    tellOfShop();
    const text = timeline.toText();
    tell(99_999);
    expect(timeline.toText()).toBe(text);
  });
});

describe("A run", () => {
  test("is drawn in the order of its start, with its kind and how it ended, or that it still runs", () => {
    for (const [i, kind] of KINDS.entries()) tell(i, started(`a/${kind}`, kind));
    tell(10, { ...over("a/ephemeral", 9), kind: "ephemeral" } as LifecycleEvent, over("a/main", 10, "failed"));
    tell(20);
    expect(runs()).toEqual(["a/main failed 0-10", "a/ephemeral returned 1-10", "a/background still running 2-20"]);
    const told = trace().traceEvents.filter(({ ph }) => ph === "X");
    expect(told.map(({ args }) => args["kind"])).toEqual(KINDS);
  });

  test.each(["returned", "failed", "cancelled"] as const)("that %s is said to have done so", (outcome) => {
    tell(5, started("a"));
    tell(8, over("a", 3, outcome));
    expect(runs()).toEqual([`a ${outcome} 5-8`]);
  });

  test("that was skipped never ran, also while another one of its name runs", () => {
    tell(0, started("a"), over("a", 0, "skipped"), over("b", 0, "skipped"));
    tell(7);
    expect(runs()).toEqual(["a still running 0-7"]);
  });

  test("ends as the one whose start its `elapsed` points to, among several of its name", () => {
    for (const at of [0, 10, 20, 30]) tell(at, started("a"));
    tell(40, over("a", 30));
    const others = ["a still running 20-40", "a still running 30-40"];
    expect(runs()).toEqual(["a still running 0-40", "a returned 10-40", ...others]);
    tell(50, over("a", 18)); // told late: nobody started at 32
    tell(60, over("a", 42)); // or at 18
    expect(runs()).toEqual(["a still running 0-60", "a returned 10-40", "a returned 20-60", "a returned 30-50"]);
    tell(70, over("a", 70));
    expect(runs().filter((run) => run.includes("still"))).toEqual([]);
  });

  test("is the nearest one, be it earlier or later", () => {
    for (const at of [0, 100, 200]) tell(at, started("a"));
    tell(300, over("a", 160)); // 140
    expect(runs().filter((run) => run.includes("still"))).toEqual(["a still running 0-300", "a still running 200-300"]);
    tell(301, over("a", 151)); // 150: of the others, 200 is the nearest
    expect(runs().filter((run) => run.includes("still"))).toEqual(["a still running 0-301"]);
  });

  test("that began before the timeline is drawn at its end, from its start", () => {
    tell(100, over("old", 90));
    expect(runs()).toEqual(["old returned 10-100"]);
  });

  test("that is restarted goes on", async () => {
    const manager = new Manager({ onEvent: timeline.observe });
    let count = 0;
    const flaky = { name: "flaky", run: () => (++count < 3 ? Promise.reject(new Error("no")) : Promise.resolve()) };
    manager.run(new RestartTask(flaky, { delay: 10 }));
    const waited = manager.wait();
    await vi.advanceTimersByTimeAsync(20);
    await waited;
    expect(runs()).toEqual(["flaky returned 0-20"]);
  });

  test("of an unknown kind of event is none", () => {
    for (const type of ["task-healthy", "health-removed", "http-drained", "child-started", "toString", ""]) {
      timeline.observe({ type, task: "a", component: "a", elapsed: 1, manager: "m" } as never);
    }
    expect(timeline.toText()).toBe("0 runs, 0 dropped: 0s|0s");
  });

  test("may be told of by an `observe` that was handed on by itself", () => {
    const { observe } = timeline;
    observe(started("a"));
    expect(runs()).toEqual(["a still running 0-0"]);
  });
});

describe("A service", () => {
  test("is drawn as `group/service`, from when it begins until it stopped or failed", () => {
    tell(1, ...goes("db", ["pending", "initializing"]));
    tell(2, ...goes("db", ["initializing", "initialized"]), ...goes("cache", ["pending", "initialized"]));
    tell(3, ...goes("db", ["initialized", "starting"], ["starting", "running"]));
    tell(4, ...goes("cache", ["initialized", "failed"]));
    expect(runs()).toEqual(["app/services/db still running 1-4", "app/services/cache failed 2-4"]);
    tell(8, ...goes("db", ["running", "stopping"]));
    tell(9, ...goes("db", ["stopping", "stopped"]));
    expect(runs()).toEqual(["app/services/db stopped 1-9", "app/services/cache failed 2-4"]);
    const told = trace().traceEvents.filter(({ ph }) => ph === "X");
    expect(told.map(({ args }) => args["kind"])).toEqual(["service", "service"]);
  });

  test("that runs again is another run", () => {
    tell(0, ...goes("db", ["pending", "starting"]));
    tell(1, ...goes("db", ["starting", "stopped"]));
    tell(5, ...goes("db", ["pending", "starting"]));
    tell(6, ...goes("db", ["starting", "failed"]));
    expect(runs()).toEqual(["app/services/db stopped 0-1", "app/services/db failed 5-6"]);
  });

  test("held up the stop from when it was told to stop, not while it waited for its turn", async () => {
    const manager = new Manager({ name: "app", onEvent: timeline.observe });
    const serve = (name: string, drain: number): Service => ({
      name,
      run: (signal) => new Promise((resolve) => signal.addEventListener("abort", () => setTimeout(resolve, drain))),
    });
    const cache = { name: "cache", init: nothing };
    manager.run(new ServiceGroup([cache, serve("db", 50), serve("http", 1_200)]));
    await vi.advanceTimersByTimeAsync(8_400);
    const waited = manager.stop();
    await vi.advanceTimersByTimeAsync(1_250);
    await waited;
    expect(heldUp()).toEqual([
      "app/services returned 1.25s",
      "app/services/http stopped 1.2s",
      "app/services/db stopped 0.05s",
    ]);
    expect(runs().sort()).toEqual([
      "app/services returned 0-9650",
      "app/services/cache stopped 0-9650",
      "app/services/db stopped 0-9650",
      "app/services/http stopped 0-9600",
    ]);
  });
});

describe("A hook", () => {
  test("of the name of a task that runs is not that task", () => {
    tell(0, started("close"));
    tell(50, hook("", "close", 10));
    tell(60);
    expect(runs()).toEqual(["close still running 0-60", "close returned 40-50"]);
  });

  test("is drawn as `manager/hook`, by when it ended and how long it took", async () => {
    for (const name of ["app", ""]) {
      renew();
      const manager = new Manager({ name, onEvent: timeline.observe });
      manager.cleanup(rejecting(new Error("disk full")));
      manager.cleanup(async function flush() {
        await new Promise((resolve) => setTimeout(resolve, 30));
      });
      const stop = manager.stop().catch(nothing);
      await vi.advanceTimersByTimeAsync(30);
      await stop;
      expect(runs()).toEqual([`${name && "app/"}flush returned 0-30`, `${name && "app/"}hook failed 30-30`]);
    }
  });

  test("holds up the stop for as long as it takes", () => {
    tell(0, started("a"));
    tell(5, over("a", 5), stopping("", "enough"));
    tell(105, hook("", "quick", 100));
    tell(405, hook("", "slow", 300));
    expect(heldUp()).toEqual(["slow returned 0.3s", "quick returned 0.1s"]);
  });
});

describe("The stop", () => {
  test("is told with its manager and its reason, whatever that is", () => {
    for (const [reason, text] of [
      [new Error("enough"), "Error: enough"],
      ["SIGTERM", '"SIGTERM"'],
      [undefined, "undefined"],
      [Object.create(null), "object"],
    ]) {
      timeline.observe(stopping("app", reason));
      expect(stops()).toEqual([`app ${text} 0`]);
    }
  });

  test("is held up by who ran on after it, slowest first, if for a millisecond or longer", () => {
    const tasks = ["a", "b", "c", "d", "e"];
    tell(0, ...tasks.map((task) => started(task)));
    tell(10, over("a", 10), stopping("", "enough"));
    tell(10.5, over("e", 10.5));
    tell(11, over("b", 11));
    tell(30, over("c", 30, "failed"));
    tell(60);
    expect(heldUp()).toEqual(["d still running 0.05s", "c failed 0.02s", "b returned 0.001s"]);
  });

  test("is held up by who was told to have started before it, however late its end is told", () => {
    tell(0, started("a"));
    tell(1, stopping("", "enough"));
    tell(30, over("a", 20));
    expect(heldUp()).toEqual(["a returned 0.029s"]);
  });

  test("is not held up by what started after it, but for hooks", () => {
    tell(0, started("app/a"));
    tell(10, over("app/a", 10), stopping("app", "enough"), stopped("app"));
    tell(20, started("app/a"));
    tell(100, over("app/a", 50));
    tell(500);
    expect(heldUp()).toEqual([]);
  });

  test("of several managers one after the other is the last", () => {
    tell(1, started("a/x"), over("a/x", 0), stopping("a", 1), stopped("a"));
    tell(2, started("b/x"), over("b/x", 0), stopping("b", 2), stopped("b"));
    expect(stops()).toEqual(["b 2 2"]);
    tell(3, stopping("b", 3));
    expect(stops()).toEqual(["b 3 3"]);
  });

  test.each(["app", ""])("is that of the outermost manager, here %o, not of a group in it", async (name) => {
    const manager = new Manager({ name, onEvent: timeline.observe });
    const prefix = name && "app/";
    let fails = true;
    const task = (): Promise<never> => (fails ? Promise.reject(new Error("no")) : hangs());
    const inner = new GroupTask("inner", (group) => group.run({ name: "task", run: task }), { shutdownTimeout: 5 });
    const outer = new GroupTask("outer", (group) => group.run(inner));
    manager.run(new RestartTask(outer, { delay: 10 }));
    await vi.advanceTimersByTimeAsync(1);
    expect(runs().some((run) => run.startsWith(`${prefix}outer/inner/task failed`))).toBe(true);
    expect(stops()).toEqual([]);
    fails = false;
    await vi.advanceTimersByTimeAsync(99);
    const waited = manager.stop("enough").catch(nothing);
    await vi.advanceTimersByTimeAsync(5);
    await waited;
    expect(stops()).toEqual([`${name} "enough" 100`]);
  });

  test("of a manager below another's name is part of that one's", () => {
    tell(5, stopping("app", 1));
    tell(6, stopping("app/db", 2), stopping("app/db/x", 2));
    expect(stops()).toEqual(["app 1 5"]);
    tell(7, stopping("apple", 3));
    expect(stops()).toEqual(["apple 3 7"]);
    tell(8, stopping("app", 4));
    expect(stops()).toEqual(["app 4 8"]);
  });

  test("of a manager below a task that runs is part of that one's", () => {
    tell(1, started("app/import"));
    tell(5, stopping("app/import/files", 1), stopping("app/import", 1));
    expect(stops()).toEqual([]);
    tell(6, over("app/import", 5), stopping("app/import", 2));
    expect(stops()).toEqual(["app/import 2 6"]);
  });
});

describe("What was given up at the deadline", () => {
  test("is known by its place, also one whose name begins before most letters", () => {
    tell(0, started("API"), started("API/0"));
    tell(5, timedOut("", "API"));
    expect(runs()).toEqual(["API given up 0-5", "API/0 given up 0-5"]);
  });

  test("is said to have been given up, with all that ran inside it", async () => {
    const manager = new Manager({ name: "app", shutdownTimeout: 50, onEvent: timeline.observe });
    const deafInside = (): Promise<never> => hangs();
    const [deaf, fine] = [stubborn("deaf"), new ControlledTask("fine")];
    const service = { name: "db", run: hangs };
    const options = { stopTimeout: 999, shutdownTimeout: 999 };
    const fill = (group: Manager): void => group.run(deafInside, new ServiceGroup([service], options));
    manager.run(deaf, fine, new GroupTask("group", fill, { shutdownTimeout: 999 }));
    manager.cleanup(function flush() {
      return new Promise((resolve) => setTimeout(resolve, 7));
    });
    await vi.advanceTimersByTimeAsync(100);
    const waited = manager.stop().catch(nothing);
    await vi.advanceTimersByTimeAsync(60);
    await waited;
    expect(runs().sort()).toEqual([
      "app/deaf given up 0-150",
      "app/fine returned 0-100",
      "app/flush returned 150-157",
      "app/group given up 0-150",
      "app/group/deafInside given up 0-150",
      "app/group/services given up 0-150",
      "app/group/services/db given up 0-150",
    ]);
    expect(heldUp()[0]).toMatch(/ given up 0.05s$/);
    expect(heldUp().length).toBe(6);
    deaf.return();
    await vi.advanceTimersByTimeAsync(2_000);
    expect(runs().filter((run) => run.includes("still"))).toEqual([]);
  });

  test("is only what the deadline names, and what is below that", () => {
    tell(0, ...["a/x", "a/xy", "a/x/y", "a/x/y/z", "b/x", "a"].map((task) => started(task)));
    tell(9, timedOut("a", "a/x", "a/missing"));
    const given = runs().filter((run) => run.includes("given up"));
    expect(given.map((run) => run.split(" ")[0]).sort()).toEqual(["a/x", "a/x/y", "a/x/y/z"]);
  });

  test("is all of one name that runs, and nothing that has ended", () => {
    tell(0, started("x"), started("x"), started("x"));
    tell(3, over("x", 3));
    tell(5, started("x"));
    tell(9, timedOut("", "x", "x", "x"));
    expect(runs()).toEqual(["x returned 0-3", "x given up 0-9", "x given up 0-9", "x given up 5-9"]);
  });
});

describe("toTrace", () => {
  test("gives complete events in microseconds, names of the tracks, and an instant event for the stop", () => {
    tell(0, started("shop/http", "main"));
    tell(2, stopping("shop", "SIGTERM"));
    tell(5, over("shop/http", 5, "cancelled"));
    const [at, end] = [startedAt, startedAt + 5];
    expect(trace()).toEqual({
      traceEvents: [
        { name: "thread_name", ph: "M", ts: 0, pid: 1, tid: 0, args: { name: "shop/http" } },
        {
          name: "shop/http",
          ph: "X",
          ts: at * 1_000,
          dur: 5_000,
          pid: 1,
          tid: 0,
          args: { name: "shop/http", kind: "main", state: "cancelled", start: at, end },
        },
        {
          name: "stop",
          ph: "i",
          ts: (at + 2) * 1_000,
          pid: 1,
          tid: 0,
          s: "g",
          args: { manager: "shop", reason: '"SIGTERM"', at: at + 2 },
        },
      ],
      displayTimeUnit: "ms",
      dropped: 0,
    });
  });

  test("puts what has one name on one track, and on several what ran at once", () => {
    tell(0, started("a"), started("b"));
    tell(1, over("a", 1));
    tell(2, started("a"));
    tell(3, started("a"));
    tell(4, over("a", 2));
    tell(5, over("a", 2), started("a"));
    tell(6, over("a", 1));
    tell(7, started("a"));
    const events = trace().traceEvents;
    const track = events.filter(({ ph }) => ph === "X").map(({ name, tid }) => `${name} ${tid}`);
    expect(track).toEqual(["a 0", "b 1", "a 0", "a 2", "a 0", "a 3"]);
    const names = events.filter(({ ph }) => ph === "M").map(({ tid, args }) => `${args["name"]} ${tid}`);
    expect(names).toEqual(["a 0", "b 1", "a 2", "a 3"]);
  });

  test("puts runs of other names, and those that touch, on tracks of their own", () => {
    tell(1, started("a"));
    tell(2, over("a", 1), started("a"));
    tell(3, over("a", 1));
    tell(4, started("b"));
    tell(5, over("b", 1));
    const told = trace().traceEvents.filter(({ ph }) => ph === "X");
    expect(told.map(({ name, tid }) => `${name} ${tid}`)).toEqual(["a 0", "a 1", "b 2"]);
  });

  test("keeps any name", () => {
    for (const name of ['"', "\\", "\0", "\u2028", "\ud800", "__proto__", "</script>", "数据 🚀"]) {
      timeline = new Timeline();
      timeline.observe(started(name));
      expect(trace().traceEvents.map((event) => [event.name, event.args["name"]])).toEqual([
        ["thread_name", name],
        [name, name],
      ]);
    }
  });
});

describe("Memory", () => {
  test("is bounded: of what ended the last 1,000 are kept, and it is told how many were dropped", () => {
    tell(0, started("eternal"));
    for (let i = 1; i <= 1_000; i++) tell(i, started(`job-${i}`), over(`job-${i}`, 0));
    expect([runs().length, trace().dropped, lines()[0]]).toEqual([1_001, 0, "1001 runs, 0 dropped: 1s|0s"]);
    for (let i = 1_001; i <= 2_345; i++) tell(i, over(`job-${i}`, 0));
    const names = runs().map((run) => run.split(" ")[0]);
    expect(names).toEqual(["eternal", ...Array.from({ length: 1_000 }, (_, i) => `job-${i + 1_346}`)]);
    expect([trace().dropped, lines()[0]]).toEqual([1_345, "1001 runs, 1345 dropped: 2.345s|0s"]);
  });

  test.each([
    ["of names of their own", (i: number) => `job-${i}`],
    ["of one name", () => "job"],
  ])("holds all tasks that run at once, %s", (_, nameOf) => {
    const count = 10_000;
    for (let i = 0; i < count; i++) timeline.observe(started(nameOf(i)));
    expect(lines()[0]).toBe("10000 runs, 0 dropped: 0s|0s");
    vi.advanceTimersByTime(10);
    for (let i = count; i--; ) timeline.observe(over(nameOf(i), 10));
    expect([runs().length, trace().dropped]).toEqual([1_000, count - 1_000]);
  });

  test("holds 1,000 ended tasks, and nothing that runs, after so many events", () => {
    const [start, end] = [started("job"), over("job", 0)];
    for (let i = 0; i < 50_000; i++) {
      timeline.observe(start);
      timeline.observe(end);
    }
    expect([runs().length, trace().dropped]).toEqual([1_000, 49_000]);
    expect(runs().every((run) => run === "job returned 0-0")).toBe(true);
  });
});

test("A manager is drawn to its end, of a task that loops", async () => {
  const manager = new Manager({ name: "app", onEvent: timeline.observe });
  manager.run(new LoopTask(nothing, { name: "loop", delay: 10 }));
  await vi.advanceTimersByTimeAsync(95);
  await manager.stop();
  await settle();
  expect(runs()).toEqual(["app/loop returned 0-95"]);
  expect(lines()[0]).toBe("1 runs, 0 dropped: 0.095s|0s");
});
