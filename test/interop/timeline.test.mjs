/*
 * The trace is what the Trace Event Format asks for, of a program that really ran; a timeline that is told a million
 * events stays as small as it is, and an end costs the same however much runs.
 *
 * The format: "Trace Event Format" by Google, which Perfetto and chrome://tracing read.
 */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { root, run, temporaryFolder } from "./support.mjs";

const { GroupTask } = await import(join(root, "dist/group.js"));
const { Manager, OsSignalTask } = await import(join(root, "dist/index.js"));
const { RestartTask } = await import(join(root, "dist/restart.js"));
const { ServiceGroup } = await import(join(root, "dist/services.js"));
const { Timeline } = await import(join(root, "dist/timeline.js"));

const timelineUrl = JSON.stringify(new URL("../../dist/timeline.js", import.meta.url).href);

test("the trace of a service is in the Trace Event Format", async () => {
  const timeline = new Timeline();
  const manager = new Manager({ name: "shop", onEvent: timeline.observe, shutdownTimeout: 1_000 });
  const idle = (signal) => sleep(60_000, undefined, { signal });
  const serve = (name, drain) => ({ name, run: (signal) => idle(signal).catch(() => sleep(drain)) });
  manager.cleanup(async function closeDatabase() {
    await sleep(5);
  });
  manager.runBackground(new OsSignalTask());
  manager.run(new ServiceGroup([serve("db", 5), serve("http", 30)]));
  let runs = 0;
  const flaky = async () => {
    if (runs++ < 3) throw new Error("connection reset");
    await new Promise(() => {}); // hangs
  };
  const orders = new GroupTask("orders", (group) => group.run(flaky), { shutdownTimeout: 2_000 });
  manager.run(new RestartTask(orders, { delay: 3 }));
  for (let i = 0; i < 50; i++) manager.runEphemeral((signal) => sleep(i % 7, undefined, { signal }));
  for (let i = 0; i < 10; i++) {
    await sleep(3);
    manager.runEphemeral(async function job() {
      await sleep(i);
    });
  }
  await sleep(20);
  check(timeline.toTrace(), { stops: 0 });
  const stopped = manager.stop(new Error("enough"));
  check(timeline.toTrace(), { stops: 1 });
  await stopped.catch(() => {});

  const { runs: slices, stop } = check(timeline.toTrace(), { stops: 1 });
  assert.deepEqual([stop.args.manager, stop.args.reason], ["shop", "Error: enough"]);
  const statesOf = (name) => slices.filter((slice) => slice.name === name).map(({ args }) => args.state);
  assert.equal(statesOf("shop/ephemeral").length, 50);
  assert.equal(statesOf("shop/job").length, 10);
  assert.deepEqual(statesOf("shop/orders/flaky"), ["failed", "failed", "failed", "given up"]);
  assert.deepEqual(statesOf("shop/orders"), ["given up"]);
  assert.deepEqual(statesOf("shop/services/http"), ["stopped"]);
  assert.deepEqual(statesOf("shop/closeDatabase"), ["returned"]);
  assert.equal(timeline.toText().split("\n").filter((line) => line.length > 80).length, 0);
  assert.match(timeline.toText(), /^held up by shop\/services\/http stopped \S+s$/m);
});

test("a trace without any event is in the Trace Event Format", () => {
  assert.deepEqual(check(new Timeline().toTrace(), { stops: 0 }).runs, []);
});

/** Checks all that the format says of the events that there are; returns them. */
function check(json, { stops }) {
  const { traceEvents, displayTimeUnit, ...metadata } = JSON.parse(json);
  assert.equal(displayTimeUnit, "ms");
  assert.deepEqual(Object.keys(metadata), ["dropped"]);
  assert.ok(Array.isArray(traceEvents));
  for (const event of traceEvents) {
    assert.equal(typeof event.name, "string");
    for (const key of ["pid", "tid"]) assert.ok(Number.isInteger(event[key]) && event[key] >= 0, key);
    assert.ok(Number.isFinite(event.ts) && event.ts >= 0, `${event.ts}`);
    assert.equal(Object.getPrototypeOf(event.args), Object.prototype);
    const keys = Object.keys(event).filter((key) => !["name", "ph", "ts", "pid", "tid", "args"].includes(key));
    assert.deepEqual(keys, { X: ["dur"], M: [], i: ["s"] }[event.ph], `an event of the phase ${event.ph}`);
  }
  const of = (phase) => traceEvents.filter(({ ph }) => ph === phase);
  const [runs, names, instants] = [of("X"), of("M"), of("i")];

  const tracks = new Map();
  for (const run of runs) tracks.set(run.tid, [...(tracks.get(run.tid) ?? []), run]);
  // Each track has one name, which is told once.
  assert.deepEqual(new Set(names.map(({ name }) => name)), new Set(names.length ? ["thread_name"] : []));
  assert.deepEqual(names.map(({ tid }) => tid).sort(), [...tracks.keys()].sort());
  for (const { tid, args } of names) {
    assert.deepEqual([...new Set(tracks.get(tid).map(({ name }) => name))], [args.name]);
  }
  for (const slices of tracks.values()) {
    let end = 0;
    for (const { ts, dur, name } of slices.sort((a, b) => a.ts - b.ts)) {
      assert.ok(Number.isFinite(dur) && dur >= 0, `${dur}`);
      assert.ok(ts >= end, `${name} begins on its track at ${ts}, before ${end}`);
      end = ts + dur;
    }
  }
  for (const { s } of instants) assert.ok(["g", "p", "t"].includes(s));
  assert.equal(instants.length, stops);
  return { runs, stop: instants[0] };
}

test("after a million events a timeline is as small as after 10,000", async (t) => {
  const program = `
    import { Timeline } from ${timelineUrl};
    const timeline = new Timeline();
    const tell = (count) => {
      for (let i = 0; i < count / 2; i++) {
        // Of their own name, and of one name, while there always is one that runs.
        const task = i % 2 ? "app/job" : "app/job-" + Math.random();
        const about = { manager: "app", task, kind: "ephemeral" };
        timeline.observe({ type: "task-started", ...about });
        timeline.observe({ type: "task-ended", ...about, outcome: "returned", elapsed: 0 });
      }
      gc();
      return process.memoryUsage().heapUsed;
    };
    timeline.observe({ type: "task-started", manager: "app", task: "app/job", kind: "ephemeral" });
    const before = tell(10_000);
    console.log(JSON.stringify([tell(1_000_000) - before, timeline.toText().split("\\n").length]));`;
  const [growth, lines] = await printedBy(t, program);
  t.diagnostic(`heap growth: ${(growth / 1_024).toFixed()} KiB`);
  assert.ok(growth < 1_048_576, `${growth} bytes`);
  assert.equal(lines, 1_002);
});

for (const [what, name] of [
  ["of names of their own", '"app/job-" + i'],
  ["of one name", '"app/job"'],
]) {
  test(`an end costs as much among 100,000 that run as among 10,000, ${what}`, async (t) => {
    const program = `
      import { Timeline } from ${timelineUrl};
      const measure = (count) => {
        const timeline = new Timeline();
        const starts = Array.from({ length: count }, (_, i) => {
          const task = ${name};
          timeline.observe({ type: "task-started", manager: "app", task, kind: "ephemeral" });
          return [task, performance.now()];
        });
        for (let i = count; i--; ) {
          const j = Math.floor(Math.random() * (i + 1));
          [starts[i], starts[j]] = [starts[j], starts[i]];
        }
        const begun = performance.now();
        for (const [task, start] of starts) {
          const elapsed = performance.now() - start;
          const about = { manager: "app", task, kind: "ephemeral" };
          timeline.observe({ type: "task-ended", ...about, outcome: "returned", elapsed });
        }
        const time = (performance.now() - begun) / count;
        // All of them were found.
        return [time, timeline.toText().split("\\n").length];
      };
      measure(10_000);
      console.log(JSON.stringify([measure(10_000), measure(100_000)]));`;
    const [[few, fewLines], [many, manyLines]] = await printedBy(t, program);
    t.diagnostic(`${(few * 1_000).toFixed(2)} and ${(many * 1_000).toFixed(2)} µs`);
    assert.deepEqual([fewLines, manyLines], [1_001, 1_001]);
    assert.ok(many < few * 20, `${many / few} times as much`);
  });
}

async function printedBy(t, program) {
  const file = join(await temporaryFolder(t), "program.mjs");
  await writeFile(file, program);
  return JSON.parse(await run(t, process.execPath, ["--expose-gc", file]));
}
