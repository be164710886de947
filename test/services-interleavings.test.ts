import { type LifecycleEvent, TaskAlreadyStartedError } from "allstop";
import { ServiceGroup, ServiceTimeoutError } from "allstop/services";
import { describe, expect, test, vi } from "vitest";
import { type Run, start } from "./support/by-hand.ts";
import { microtasks } from "./support/microtasks.ts";
import { Ride, threeStages } from "./support/ride.ts";
import {
  type Call,
  ERROR,
  forget,
  gate,
  lines,
  pass,
  REASON,
  rest,
  seen,
  service,
  slowly,
  stop,
  timeout,
  untilStopped,
  up,
  useServices,
} from "./support/services.ts";
import { stubborn } from "./support/stubborn.ts";
import { nothing, throwing } from "./support/ways.ts";

useServices();

describe("a stop at every microtask of a three-stage start", () => {
  /** How many microtasks it takes until three stages are up, and some more. */
  async function lengthOfStart(): Promise<number> {
    const ride = new Ride(threeStages()).start();
    let isUp = false;
    void ride.group.ready().then(() => (isUp = true));
    let count = 0;
    for (; !isUp && count < 1_000; count++) await null;
    ride.stop();
    await ride.finish("stopped when it is up");
    expect(count).toBeGreaterThan(20);
    return count + 20;
  }

  /** A whole run, stopped from within what it tells at this moment, or else once it is up; how much it tells. */
  async function stopWithin(hook: "onLine" | "onEvent", target?: number): Promise<number> {
    let moment = 0;
    let title = "stopped when it is up";
    let second: Run | undefined;
    const ride = new Ride(threeStages());
    ride[hook] = (what: unknown) => {
      if (moment++ !== target) return;
      title = `stopped from within ${JSON.stringify(what)}`;
      ride.stop();
      second = start(ride.group);
    };
    ride.start();
    await rest();
    ride.stop();
    await ride.finish(title);
    if (target !== undefined) expect([title, second?.end]).toEqual([title, expect.any(TaskAlreadyStartedError)]);
    return moment;
  }

  test("nothing is ever started after the stop, everything initialised is finalised, in order", async () => {
    const length = await lengthOfStart();
    const begun = new Set<number>();
    for (let offset = 0; offset < length; offset++) {
      const ride = new Ride(threeStages()).start();
      await microtasks(offset);
      ride.stop();
      begun.add(seen("init", "run", "ready").length);
      await ride.finish(`stopped at microtask ${offset}`);
    }
    // It was stopped after each of the six steps of the start: `init`, then `run` and `ready`, of each stage.
    expect(begun.size).toBe(6);
  });

  test.each<[Call, number]>(
    (["init", "run", "ready"] as const).flatMap((call) => [0, 1, 2].map((stage) => [call, stage] as [Call, number])),
  )("so it is if instead `%s` of a service in stage %i fails, at whatever microtask", async (call, stage) => {
    const length = await lengthOfStart();
    for (let offset = 0; offset < length; offset++) {
      const fails = (): Promise<never> => microtasks(offset).then(throwing(ERROR));
      await new Ride(threeStages(stage, { [call]: fails })).start().finish(`failed at microtask ${offset}`, ERROR);
    }
    const throws = new Ride(threeStages(stage, { [call]: throwing(ERROR) })).start();
    await throws.finish("threw at once", ERROR);
  });

  test.each([0, 1, 2])("or if a `run` that is not ephemeral returns in stage %i, whenever it does", async (stage) => {
    const length = await lengthOfStart();
    for (let offset = 0; offset < length; offset++) {
      const ride = new Ride(threeStages(stage, { run: slowly(offset) }));
      ride.onLine = (line) => {
        // The group hears of it next.
        if (line === "ended x") queueMicrotask(() => ride.noteStop());
      };
      await ride.start().finish(`returned after ${offset} microtasks`);
    }
  });

  test.each([
    ["anything that a service does or hears", "onLine"],
    ["`onEvent`, of every event", "onEvent"],
  ] as const)("or if the stop comes from within %s, from where a second `run` is refused", async (_, hook) => {
    const count = await stopWithin(hook);
    expect(count).toBeGreaterThan(40);
    for (let moment = 0; moment < count; moment++) await stopWithin(hook, moment);
  });

  test("or if it comes before `run`, which starts nothing, so that all stays pending", async () => {
    const ride = new Ride(threeStages());
    ride.stop();
    await ride.start().finish("stopped before the start");
    expect(lines).toEqual(["STOP"]);
    expect(new Set(Object.values(ride.group.states))).toEqual(new Set(["pending"]));
  });

  test("so it is with a group in a group", async () => {
    for (let offset = 0; offset < 70; offset++) {
      forget();
      const inner = new ServiceGroup([service("b"), service("c", { init: slowly(2), ready: slowly(2) })]);
      const outer = new ServiceGroup([service("a"), inner, service("d")]);
      const run = start(outer);
      await microtasks(offset);
      lines.push("STOP");
      run.controller.abort(REASON);
      await rest();
      const after = lines.slice(lines.indexOf("STOP"));
      expect([offset, after.filter((line) => /^(init|run|ready) /.test(line))]).toEqual([offset, []]);
      const names = (verb: string): string[] => seen(verb).map((line) => line.at(-1) as string);
      expect([offset, names("finalize").sort()]).toEqual([offset, names("initialized").sort()]);
      expect([offset, names("told").join("")]).toEqual([offset, names("init").reverse().join("")]);
      expect([offset, run.end]).toEqual([offset, "returned"]);
    }
  });
});

describe("what is left of a run", () => {
  const leftovers = ["init", "run", "finalize"] as const;

  /** A group of which this call goes on in `a` after its first run, and is as usual in the next ones. */
  async function leftover(call: Call, onEvent: (event: LifecycleEvent) => void = nothing) {
    const task = stubborn();
    const usual: (signal: AbortSignal) => unknown = call === "run" ? untilStopped : nothing;
    let count = 0;
    const way = (signal = new AbortController().signal): unknown => (count++ ? usual(signal) : task.run(signal));
    const group = new ServiceGroup([service("a", { [call]: way }), service("b")], {
      stopTimeout: 100,
      finalizeTimeout: 100,
      onEvent,
    });
    const run = await up(group);
    await stop(run);
    await pass(100);
    expect(run.end).toBeInstanceOf(ServiceTimeoutError);
    forget();
    return { task, group };
  }

  test("an `init` is finalised exactly once, at whatever microtask around the end of `run` it finishes", async () => {
    const leaked: string[] = [];
    for (let offset = 0; offset < 40; offset++) {
      for (const others of [[], [service("a")], [service("a"), service("b", { finalize: slowly(3) })]]) {
        forget();
        const init = stubborn();
        const late = service("late", { init: gate(init) });
        const run = await up(new ServiceGroup([[...others, late]], { stopTimeout: 100 }));
        await stop(run);
        vi.advanceTimersByTime(100);
        await microtasks(offset);
        init.return();
        await rest();
        expect(run.end).toEqual(timeout("late", "stop"));
        const count = seen("finalize").filter((line) => line === "finalize late").length;
        if (count !== 1) leaked.push(`finalised ${count} times with ${others.length} others at microtask ${offset}`);
      }
    }
    expect(leaked).toEqual([]);
  });

  test.each(leftovers)("refuses another while `%s` has not ended, with `TaskAlreadyStartedError`", async (call) => {
    for (const end of ["return", "fail"] as const) {
      const { task, group } = await leftover(call);
      const { states, failures } = group;
      const early = await up(group);
      expect(early.end).toBeInstanceOf(TaskAlreadyStartedError);
      expect([group.states, group.failures, lines]).toEqual([states, failures, []]);
      task[end](ERROR);
      await rest();
      forget();
      const run = await up(group);
      expect([group.states, group.failures]).toEqual([{ a: "running", b: "running" }, []]);
      await stop(run);
      expect([run.end, seen("finalize")]).toEqual(["returned", ["finalize b", "finalize a"]]);
    }
  });

  test.each(leftovers)("changes nothing of the next, at whatever microtask `%s` ends before it", async (call) => {
    for (const end of ["return", "fail"] as const) {
      const accepted: boolean[] = [];
      for (let offset = 0; offset < 15; offset++) {
        const { task, group } = await leftover(call);
        task[end](ERROR);
        await microtasks(offset);
        const run = await up(group);
        accepted.push(run.end === "running");
        if (run.end instanceof TaskAlreadyStartedError) continue;
        expect([end, offset, run.end, group.states]).toEqual([end, offset, "running", { a: "running", b: "running" }]);
        await stop(run);
        expect([end, offset, run.end, group.failures]).toEqual([end, offset, "returned", []]);
      }
      expect(accepted).toEqual([...accepted].sort());
      expect(new Set(accepted)).toEqual(new Set([false, true]));
    }
  });

  test.each(leftovers)("nor does the failure of `%s` when the next run begins from within its event", async (call) => {
    let again: Run | undefined;
    let isOver = false;
    const { task, group } = await leftover(call, ({ type }) => {
      if (isOver && type === "service-failed") again ??= start(group);
    });
    isOver = true;
    task.fail(ERROR);
    await rest();
    // It may still count as something of the last run that has not ended.
    const run = again?.end instanceof TaskAlreadyStartedError ? await up(group) : (again as Run | undefined);
    expect([run?.end, group.failures, group.states]).toEqual(["running", [], { a: "running", b: "running" }]);
    run?.controller.abort();
    await rest();
    expect(run?.end).toBe("returned");
  });
});
