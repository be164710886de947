/*
 * The numbers of a busy program, as others see them: the page is what prom-client writes of the same values, and the
 * SDK of OpenTelemetry collects every series of it, with the same name, kind, attributes and value.
 */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  AggregationTemporality,
  DataPointType,
  InstrumentType,
  MeterProvider,
  MetricReader,
} from "@opentelemetry/sdk-metrics";
import { Counter, Gauge, Registry } from "prom-client";
import { GroupTask } from "../../dist/group.js";
import { Health } from "../../dist/health.js";
import { Manager, PanicError } from "../../dist/index.js";
import { Metrics } from "../../dist/metrics.js";
import { RestartTask } from "../../dist/restart.js";
import { ServiceGroup } from "../../dist/services.js";
import { EventLog } from "../../dist/testing.js";
import { installed, root, run, temporaryFolder } from "./support.mjs";

test("the page is, but for the order, what prom-client writes of the same values", async () => {
  const metrics = new Metrics();
  await busyProgram(metrics);
  const registry = new Registry();
  assert.equal(metrics.contentType, registry.contentType);
  const families = new Map();
  metrics.record({
    createObservableCounter: (name, { description }) => instrument(Counter, name, description),
    createObservableGauge: (name, { description }) => instrument(Gauge, name, description),
  });
  assert.equal(families.size, 12);
  for (const { Metric, name, help, series } of families.values()) {
    assert.ok(series.length > 0, `the program has nothing of ${name}`);
    const labelNames = [...new Set(series.flatMap(({ labels }) => Object.keys(labels)))];
    const metric = new Metric({ name, help, labelNames, registers: [registry] });
    for (const { labels, value } of series) metric.inc(labels, value);
  }
  assert.deepEqual(lines(metrics.render()), lines(await registry.metrics()));

  function instrument(Metric, name, help) {
    const series = [];
    families.set(name, { Metric, name, help, series });
    return { addCallback: (collect) => collect({ observe: (value, labels) => series.push({ labels, value }) }) };
  }
});

test("the SDK of OpenTelemetry collects every series of the page", async (t) => {
  const metrics = new Metrics({ prefix: "shop" });
  const [early, late] = [sdk(t), sdk(t)];
  const counts = [];
  const compare = async ({ collect }) => {
    const series = seriesOf(metrics); // of the same turn in which it begins to collect
    assert.deepEqual(await collect(), series);
    counts.push(series.length);
  };
  metrics.record(early.meter);
  await compare(early);
  await busyProgram(metrics, () => compare(early));
  metrics.record(late.meter);
  await compare(late);
  await compare(early);
  assert.equal(counts.length, 7);
  assert.ok(counts[0] < 10 && counts[6] > 40, `${counts}`);
});

test("the SDK of OpenTelemetry does not collect a component any more that was taken out", async (t) => {
  const metrics = new Metrics();
  const { meter, collect } = sdk(t);
  metrics.record(meter);
  const health = new Health({ onEvent: metrics.observe });
  const database = health.component("database");
  health.component("queue").report("degraded");
  database.report("healthy");
  const components = async () => (await collect()).filter((series) => series.includes("health_status"));
  assert.deepEqual(await components(), [
    'gauge allstop_health_status [["component","database"]] 1',
    'gauge allstop_health_status [["component","queue"]] 0.5',
  ]);
  database[Symbol.dispose]();
  assert.deepEqual(await components(), ['gauge allstop_health_status [["component","queue"]] 0.5']);
});

test("the SDK of OpenTelemetry finds no fault with names and descriptions", async (t) => {
  const { meter, collect } = sdk(t);
  const metrics = new Metrics();
  const warnings = [];
  const { diag, DiagLogLevel } = await import("@opentelemetry/api");
  const warn = (...words) => warnings.push(words.join(" "));
  diag.setLogger({ error: warn, warn, info: warn, debug() {}, verbose() {} }, DiagLogLevel.ALL);
  t.after(() => diag.disable());
  warnings.length = 0;
  metrics.record(meter);
  await busyProgram(metrics);
  await collect();
  assert.deepEqual(warnings, []);
});

test("a Meter of OpenTelemetry is one by its type", async (t) => {
  const project = await temporaryFolder(t);
  await writeFile(
    join(project, "meter.ts"),
    `import { type Meter, metrics as api } from "${installed("@opentelemetry/api/build/src/index")}";
import { MeterProvider } from "${installed("@opentelemetry/sdk-metrics/build/src/index")}";
import { Metrics, type MetricsMeter } from "${join(root, "dist/metrics")}";

const metrics = new Metrics();
metrics.record(api.getMeter("allstop"));
metrics.record(new MeterProvider().getMeter("allstop"));
export const meterOf = (meter: Meter): MetricsMeter => meter;
// @ts-expect-error A provider is none.
metrics.record(new MeterProvider());
`,
  );
  const compilerOptions = {
    target: "es2022",
    module: "esnext",
    moduleResolution: "bundler",
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: true,
    types: ["node"],
    typeRoots: [installed("@types")],
    noEmit: true,
  };
  await writeFile(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["meter.ts"] }));
  for (const compiler of ["typescript-5.4", "typescript-7"]) {
    await run(t, process.execPath, [installed(`${compiler}/bin/tsc`)], { cwd: project });
  }
});

/** A meter, and what collects all of its series. Gauges are collected as they are now, without those of before. */
function sdk(t) {
  class Reader extends MetricReader {
    async onForceFlush() {}
    async onShutdown() {}
  }
  const reader = new Reader({
    aggregationTemporalitySelector: (type) =>
      type === InstrumentType.OBSERVABLE_GAUGE ? AggregationTemporality.DELTA : AggregationTemporality.CUMULATIVE,
  });
  const provider = new MeterProvider({ readers: [reader] });
  t.after(() => provider.shutdown());
  return {
    meter: provider.getMeter("allstop"),
    async collect() {
      const { resourceMetrics, errors } = await reader.collect();
      assert.deepEqual(errors, []);
      const all = resourceMetrics.scopeMetrics.flatMap((scope) => scope.metrics);
      const series = all.flatMap(({ descriptor, dataPointType, isMonotonic, dataPoints }) => {
        const kind = dataPointType === DataPointType.GAUGE ? "gauge" : isMonotonic ? "counter" : "up and down";
        return dataPoints.map(({ attributes, value }) => textOf(kind, descriptor.name, attributes, value));
      });
      return series.sort();
    },
  };
}

/** The series of the page, read here once more. */
function seriesOf(metrics) {
  const series = [];
  let kind;
  for (const line of metrics.render().trimEnd().split("\n")) {
    if (line.startsWith("# TYPE")) kind = line.split(" ")[3];
    if (line.startsWith("#")) continue;
    const [, name, labels = "", value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? assert.fail(line);
    // A value of these escapes is a string of JSON.
    const pairs = Array.from(labels.matchAll(/(\w+)=("(?:[^\\"]|\\.)*")/g));
    const attributes = Object.fromEntries(pairs.map(([, label, text]) => [label, JSON.parse(text)]));
    series.push(textOf(kind, name, attributes, Number(value)));
  }
  return series.sort();
}

function textOf(kind, name, attributes, value) {
  return `${kind} ${name} ${JSON.stringify(Object.entries(attributes).sort())} ${value}`;
}

function lines(page) {
  return page.split("\n").filter(Boolean).sort();
}

/** A program in which everything happens that is counted. It is looked at four times, from its start to its end. */
async function busyProgram(metrics, look = async () => {}) {
  const log = new EventLog();
  const onEvent = (event) => {
    metrics.observe(event);
    log.observe(event);
  };
  const manager = new Manager({ name: "shop", limit: 2, shutdownTimeout: 150, onEvent });
  const health = new Health({ onEvent });
  const database = health.component("database");
  const untilStopped = (signal) => new Promise((resolve) => signal.addEventListener("abort", resolve));

  // Keeps the process alive, too.
  const untilCancelled = (signal) => sleep(60_000, undefined, { signal });

  let connections = 0;
  const consumer = async (signal) => {
    if (++connections === 1) throw "refused";
    if (connections === 2) throw new Error("connection lost");
    await untilStopped(signal);
  };
  manager.run({ name: 'the "consumer"', run: untilStopped }, { name: "C:\\mailer\n", run: untilCancelled });
  manager.run(new RestartTask({ name: "consumer", run: consumer }, { delay: 10, healthyAfter: 30 }));
  manager.run(new GroupTask("orders", fill, { shutdownTimeout: 100 }));
  function fill(orders) {
    orders.run({ name: "hanging", run: () => new Promise(() => {}) });
    orders.runEphemeral({ name: "jobs", run: async () => {} });
  }
  const breaks = { name: "flaky", run: () => Promise.reject(new Error("broken")) };
  const flaky = new RestartTask(breaks, { delay: 10, maxRestarts: 1 });
  manager.runEphemeral(
    ...Array.from({ length: 5 }, (_, i) => ({ name: "job", run: () => sleep(i) })),
    new ServiceGroup([{ name: "cache", ephemeral: true, run: (signal) => flaky.run(signal).catch(() => {}) }]),
  );
  await look();

  await log.until("task-gave-up");
  database.report("healthy");
  const queue = health.component("queue");
  queue.report("degraded");
  await look();

  await log.until("task-healthy");
  queue[Symbol.dispose]();
  await look();

  manager.runEphemeral({ name: "broken", run: () => Promise.reject("in pieces") });
  await assert.rejects(manager.wait(), PanicError);
  await look();
}
