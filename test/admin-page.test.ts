import { Script } from "node:vm";
import { type LifecycleEvent, Manager } from "allstop";
import { type AdminServerOptions, AdminServerTask } from "allstop/admin";
import { Health } from "allstop/health";
import { Metrics } from "allstop/metrics";
import { RestartTask } from "allstop/restart";
import { ServiceGroup } from "allstop/services";
import { ControlledTask, EventLog } from "allstop/testing";
import { Timeline } from "allstop/timeline";
import { describe, expect, test } from "vitest";
import {
  all,
  clientOf,
  type Element,
  first,
  pageOf,
  parsePage,
  question,
  serveAdmin,
  tablesOf,
  textOf,
  useAdmin,
} from "./support/admin.ts";
import { stubborn } from "./support/stubborn.ts";

useAdmin();

const HOSTILE = `</td></main></script><script>alert("1")</script>'&amp;<!-- --><img src=x onerror=alert(1)>&#0;\\{}$&`;

/** What a page shows of these sources. */
async function shown(options: AdminServerOptions = {}): Promise<Element> {
  return pageOf(await serveAdmin(options));
}

/** A timeline that gives just this. */
function timelineOf(...traceEvents: object[]): NonNullable<AdminServerOptions["timeline"]> {
  return { toText: () => "as text", toTrace: () => JSON.stringify({ traceEvents }) };
}

/** A run in a trace, in milliseconds. */
function ran(name: string, start: number, end: number, state = "returned"): object {
  return {
    name,
    ph: "X",
    ts: start * 1_000,
    dur: (end - start) * 1_000,
    pid: 1,
    tid: 0,
    args: { kind: "main", state },
  };
}

function stop(at: number): object {
  return { name: "stop", ph: "i", ts: at * 1_000, s: "g", pid: 1, tid: 0, args: {} };
}

/** The bars of a picture, as `warn 50+50`, and a line as `| 50`, in percent, for each run by name. */
function pictureOf(page: Element): Record<string, string> {
  const rows = all(page, "tr").filter((row) => all(row, "svg").length);
  const percent = (text = ""): number => Number(/^(\d+(?:\.\d+)?)%$/.exec(text)?.[1]);
  return Object.fromEntries(
    rows.map((row) => [
      textOf(first(row, "th")),
      [
        ...all(row, "rect").map(
          ({ attributes: { class: tone, x, width } }) => `${tone} ${percent(x)}+${percent(width)}`,
        ),
        ...all(row, "line").map(({ attributes: { x1, x2 } }) => (x1 === x2 ? `| ${percent(x1)}` : "askew")),
      ].join(", "),
    ]),
  );
}

/** The headings of the sections, in order. */
function headings(page: Element): string[] {
  return all(page, "h2").map(textOf);
}

/** Each state that is shown, with its tone. */
function tones(page: Element): Record<string, string> {
  return Object.fromEntries(all(page, "b").map((badge) => [textOf(badge), badge.attributes["class"] ?? ""]));
}

describe.concurrent("The page", () => {
  test("is one well-formed document in UTF-8, in a language, with a title, and fit for small screens", async () => {
    const page = await shown();
    expect(page.children.filter((child) => typeof child !== "string" || child.trim() !== "")).toHaveLength(1);
    expect(first(page, "html").attributes).toEqual({ lang: "en" });
    expect(all(page, "meta").map(({ attributes }) => attributes)).toEqual([
      { charset: "utf-8" },
      { name: "viewport", content: "width=device-width, initial-scale=1" },
    ]);
    expect(textOf(first(page, "title"))).toBe("admin: running");
    expect(all(page, "h1").map(textOf)).toEqual(["admin"]);
    expect(all(page, "title")).toHaveLength(1);
  });

  test("is self-contained: it names nothing that would be fetched, and nothing of it runs but its script", async () => {
    const page = await shown(await everything());
    const attributes = all(page).flatMap((element) => Object.keys(element.attributes));
    const known = ["lang", "charset", "name", "content", "nonce", "class", "scope", "colspan", "hidden", "data-label"];
    const ofPicture = ["role", "x", "width", "x1", "x2", "y1", "y2"];
    expect(attributes.filter((attribute) => ![...known, ...ofPicture].includes(attribute))).toEqual([]);
    expect(textOf(first(page, "style"))).not.toMatch(/@import|url\(|expression|\/\//);
    expect(textOf(first(page, "script"))).not.toMatch(/https?:|import|innerHTML|document\.write|eval|Function/);
    expect(() => new Script(textOf(first(page, "script")))).not.toThrow();
  });

  test("has one `<main>` and one `</main>` as its script sees it, which shows what is between them", async () => {
    const { body } = await (await serveAdmin(await everything())).ask("/");
    expect(textOf(first(parsePage(body), "script"))).toContain("/<main>[^]*<\\/main>/.exec(");
    const [main = ""] = /<main>[^]*<\/main>/.exec(body) ?? [];
    expect(body.split(main)).toEqual([expect.stringMatching(/<body>\n$/), expect.stringMatching(/^\n<script /)]);
  });

  test("has a policy that allows its own style, script and address, by a nonce that differs per answer", async () => {
    const run = await serveAdmin();
    const nonces = new Set<string>();
    for (let i = 0; i < 5; i++) {
      const { body, headers } = await run.ask("/");
      const policy = (headers["content-security-policy"] ?? "").split("; ");
      const nonce = /'nonce-([\w-]{22,})'/.exec(policy.join())?.[1] ?? "";
      nonces.add(nonce);
      expect(policy).toEqual([
        "default-src 'none'",
        `style-src 'nonce-${nonce}'`,
        `script-src 'nonce-${nonce}'`,
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
      ]);
      const carriers = all(parsePage(body)).filter(
        ({ name, attributes }) => /^(style|script)$/.test(name) || attributes["nonce"],
      );
      expect(carriers.map(({ name, attributes }) => [name, attributes])).toEqual([
        ["style", { nonce }],
        ["script", { nonce }],
      ]);
    }
    expect(nonces.size).toBe(5);
  });

  test("is light and dark, as the reader has it", async () => {
    const style = textOf(first(await shown(), "style"));
    expect(style).toContain("color-scheme: light dark");
    const [light = "", dark = ""] = style.split("@media (prefers-color-scheme: dark)");
    const names = (text: string): string[] => [...text.matchAll(/(--[a-z]+): #/g)].map(([, name = ""]) => name).sort();
    expect(names(dark)).toEqual(names(light));
    for (const [, name = ""] of style.matchAll(/var\((--[a-z]+)\)/g)) {
      expect([...names(light), "--tone"]).toContain(name);
    }
  });

  test("is readable without its script: that only asks for it again", async () => {
    const page = await shown(await everything());
    const outside = all(page, "main");
    expect(outside).toHaveLength(1);
    expect(headings(outside[0] ?? page)).toEqual(["Failures", "Health", "Tasks", "Services", "Timeline"]);
    expect(all(page).filter(({ attributes }) => "hidden" in attributes)).toEqual([]);
    const hidden = all(await shown()).filter(({ attributes }) => "hidden" in attributes);
    expect(hidden.map(textOf)).toEqual(["", "", "", "", "", ""]);
  });

  test("says how long the process has been up, and when it was made", async () => {
    const before = Math.floor(Date.now() / 1_000) * 1_000;
    const page = await shown();
    const at = Date.parse(textOf(first(page, "time")));
    expect(at).toBeGreaterThanOrEqual(before);
    expect(at).toBeLessThanOrEqual(Date.now());
    expect(textOf(first(page, "header"))).toMatch(/up \d+(\.\d)? (s|min|h|ms), at 20/);
  });
});

/** Sources of all kinds, each with something to show. */
async function everything(): Promise<AdminServerOptions> {
  const health = new Health();
  health.component("db").report("degraded", "slow");
  const error = new Error("it failed", { cause: new Error("because of this") });
  const manager = { signal: new AbortController().signal, pending: ["a"], failures: [{ source: "b", error }] };
  const timeline = timelineOf(ran("a", 0, 1), stop(0.5));
  return { health, manager, timeline, metrics: new Metrics(), services: { states: { db: "running" } } };
}

describe.concurrent("Whatever names are like", () => {
  const health = (name: string, detail?: string): AdminServerOptions["health"] => ({
    snapshot: () => ({ status: name, components: { [name]: { status: name, since: 0, ...(detail && { detail }) } } }),
  });
  const pending: readonly string[] = [];
  const { signal } = new AbortController();
  const places: [place: string, options: (text: string) => AdminServerOptions][] = [
    ["the name of the task", (name) => ({ name })],
    ["a status", (text) => ({ health: health(text) })],
    ["a component and its detail", (text) => ({ health: health(text, text) })],
    ["a service and its state", (text) => ({ services: { states: { [text]: text } } })],
    ["a task of the manager", (text) => ({ manager: { signal, pending: [text] } })],
    ["a task of the metrics", (text) => ({ metrics: metricsOf(text) })],
    ["a failure", (text) => ({ manager: { signal, pending, failures: [{ source: text, error: new Error(text) }] } })],
    ["a run and its state", (text) => ({ timeline: timelineOf(ran(text, 0, 1, text)) })],
    ["the timeline as text", (text) => ({ timeline: { toText: () => text } })],
  ];

  test.each(places)("%s is escaped", async (_, options) => {
    const page = await shown(options(HOSTILE));
    expect(textOf(first(page, "main"))).toContain(HOSTILE);
    expect(all(page, "main")).toHaveLength(1);
    expect(all(page, "img")).toEqual([]);
    expect(all(page, "script")).toHaveLength(1);
  });

  test.each(places)("%s with control characters leaves a valid page", async (_, options) => {
    const text = [..."\0\u0001\b\u001b[31m\u007f\u0085\u009f"].join("x");
    const { body } = await (await serveAdmin(options(text))).ask("/");
    // What the HTML standard calls control characters, which no text may have.
    expect(body.match(/[\0-\x08\x0b\x0e-\x1f\x7f-\x9f]/g)).toBeNull();
  });

  test("is decoded from the labels of metrics as it was", async () => {
    const names = [
      "plain",
      "C:\\new",
      'say "hi"',
      "two\nlines",
      "\\",
      "\\\\n",
      "\\n",
      'a",outcome="x',
      "}",
      "a b",
      "é\u2028☃",
    ];
    const metrics = metricsOf(...names);
    const page = await shown({ metrics });
    expect(tablesOf(page)["Tasks"]).toEqual(names.map((name) => [name, "running", ""]));
  });

  test("is one of a task whatever the prefix of the metrics is", async () => {
    for (const prefix of ["x", "_a1", "shop:jobs", ":"]) {
      const metrics = new Metrics({ prefix });
      metrics.observe({ type: "task-started", manager: "", task: "consumer", kind: "main" });
      expect(tablesOf(await shown({ metrics }))["Tasks"]).toEqual([["consumer", "running", ""]]);
    }
  });
});

test("A page of sources by somebody else shows what they tell, as far as that is known", async () => {
  const metrics = { render: () => 'x_task_status{task="a"} 7\nx_task_restarts_total{task="b"} 2\n' };
  const timeline = timelineOf({ name: "a", ph: "X", ts: 0, dur: 1_000 }, { name: "b", ph: "X", ts: 0 });
  const page = await shown({ metrics, timeline });
  expect(tablesOf(page)["Tasks"]).toEqual([
    ["a", "7", ""],
    ["b", "stopped", "2"],
  ]);
  expect(Object.keys(pictureOf(page)).sort()).toEqual(["a", "b"]);
});

/** Metrics of running tasks of these names. */
function metricsOf(...names: string[]): Metrics {
  const metrics = new Metrics();
  for (const task of names) metrics.observe({ type: "task-started", manager: "", task, kind: "main" });
  return metrics;
}

describe.concurrent("Its sections", () => {
  const { signal } = new AbortController();
  const health = new Health();
  const failures = [{ source: "a", error: new Error("b") }];
  const empty = { toText: () => "" };
  test.each<[string, AdminServerOptions, string[]]>([
    ["nothing", {}, []],
    ["health", { health }, ["Health"]],
    ["services", { services: { states: {} } }, ["Services"]],
    ["a manager", { manager: { signal, pending: [] } }, ["Tasks"]],
    ["a manager without failures", { manager: { signal, pending: [], failures: [] } }, ["Tasks"]],
    ["a manager with failures", { manager: { signal, pending: [], failures } }, ["Failures", "Tasks"]],
    ["metrics", { metrics: new Metrics() }, ["Tasks"]],
    ["a registry of prom-client", { metrics: { metrics: () => "up 1", contentType: "a/b" } }, []],
    ["a timeline without a trace", { timeline: empty }, []],
    ["a timeline of no run", { timeline: new Timeline() }, []],
    ["a timeline", { timeline: timelineOf(ran("a", 0, 1)) }, ["Timeline"]],
    [
      "all",
      {
        health,
        services: { states: {} },
        manager: { signal, pending: [], failures },
        timeline: timelineOf(ran("a", 0, 1)),
      },
      ["Failures", "Health", "Tasks", "Services", "Timeline"],
    ],
  ])("are those of what it is given: %s", async (_, options, expected) => {
    const page = await shown(options);
    expect(headings(page)).toEqual(expected);
    expect(all(page, "details")).toHaveLength(options.timeline ? 1 : 0);
    for (const table of all(page, "table")) {
      const columns = all(table, "th").filter(({ attributes }) => attributes["scope"] === "col").length;
      for (const row of all(first(table, "tbody"), "tr")) {
        const cells = row.children.reduce(
          (sum, cell) => sum + (typeof cell === "string" ? Number.NaN : Number(cell.attributes["colspan"] ?? 1)),
          0,
        );
        expect(cells).toBe(columns);
      }
    }
  });

  test("say so when there is none", async () => {
    const manager = { signal, pending: [] };
    const page = await shown({ health: new Health(), services: { states: {} }, manager });
    expect(tablesOf(page)).toEqual({ Health: [["none"]], Tasks: [["none"]], Services: [["none"]] });
  });

  test("have columns with headings, and rows with one", async () => {
    const page = await shown(await everything());
    const columns = all(page, "thead").map((head) => all(head, "th").map(textOf));
    expect(columns).toEqual([
      ["source", "error"],
      ["component", "status", "detail", "for"],
      ["task", "state", "restarts"],
      ["service", "state"],
      ["run", "when", "lasted"],
    ]);
    const scopes = all(page, "tbody").flatMap((body) => all(body, "th").map(({ attributes }) => attributes["scope"]));
    expect(new Set(scopes)).toEqual(new Set(["row"]));
  });

  test.each<[string, tone: string]>([
    ["healthy", "good"],
    ["running", "good"],
    ["degraded", "warn"],
    ["restarting", "warn"],
    ["stopping", "warn"],
    ["unhealthy", "bad"],
    ["failed", "bad"],
    ["starting", "busy"],
    ["initializing", "busy"],
    ["initialized", "busy"],
    ["pending", "idle"],
    ["stopped", "idle"],
    ["constructor", "idle"],
    ["not healthy", "idle"],
    ["still running", "good"],
    ["refailed", "idle"],
    ["restarted", "idle"],
    ["given up", "bad"],
  ])("show that something is %s in a tone of its own", async (state, tone) => {
    const page = await shown({ services: { states: { a: state } } });
    expect(tones(page)).toEqual({ running: "good", [state]: tone });
    expect(textOf(first(page, "style"))).toMatch(new RegExp(`\\.${tone} \\{ --tone: var\\(--[a-z]+\\); \\}`));
  });

  test.each<[milliseconds: number, text: string]>([
    [0, "0 ms"],
    [900, "900 ms"],
    [1_000, "1.0 s"],
    [42_440, "42.4 s"],
    [99_000, "99.0 s"],
    [100_000, "2 min"],
    [7_000_000, "117 min"],
    [7_200_000, "2 h"],
    [100_000_000, "28 h"],
    [172_800_000, "2 days"],
    [864_000_000, "10 days"],
  ])("show a time of %d ms as %s", async (milliseconds, text) => {
    const page = await shown({ timeline: timelineOf(ran("a", 5, 5 + milliseconds)) });
    const [row] = all(first(page, "tbody"), "tr").filter((each) => all(each, "svg").length);
    expect(row && textOf(row).endsWith(text)).toBe(true);
    expect(row && textOf(first(row, "title"))).toBe(`a: returned, ${text}`);
  });

  test("show for how long a component has its status, and its detail", async () => {
    const since = Date.now() - 36_000_000;
    const components = { db: { status: "healthy", since }, queue: { status: "unhealthy", detail: "refused", since } };
    const page = await shown({ health: { snapshot: () => ({ status: "unhealthy", components }) } });
    const [queue, db] = tablesOf(page)["Health"] ?? [];
    expect(db).toEqual(["db", "healthy", "", "10 h"]);
    expect(queue).toEqual(["queue", "unhealthy", "refused", "10 h"]);
    expect(textOf(first(page, "title"))).toBe("admin: unhealthy");
    expect(tones(page)).toEqual({ healthy: "good", unhealthy: "bad" });
  });

  test("show tasks of the manager and of the metrics, each once, with their states and restarts", async () => {
    const metrics = metricsOf("running", "restarting", "stopped", "gone");
    const tell = (event: object): void => metrics.observe(event as LifecycleEvent);
    for (const attempt of [1, 2]) tell({ type: "task-restarting", task: "restarting", attempt, delay: 0 });
    for (const task of ["stopped", "gone"]) {
      tell({ type: "task-ended", manager: "", task, kind: "main", outcome: "returned", elapsed: 0 });
    }
    tell({ type: "task-restarting", task: "again", attempt: 1, delay: 0 });
    tell({ type: "task-restarted", task: "again", attempt: 1 });
    const manager = { signal, pending: ["queued", "running", "running", "restarting"] };
    expect(tablesOf(await shown({ metrics, manager }))["Tasks"]?.sort()).toEqual([
      ["again", "running", "1"],
      ["gone", "stopped", ""],
      ["queued", "running", ""],
      ["restarting", "restarting", "2"],
      ["running", "running", ""],
      ["stopped", "stopped", ""],
    ]);
  });

  test("show what is wrong first, and all else in its order", async () => {
    const names = ["stopped", "running", "pending", "starting", "failed", "running", "stopping", "failed"];
    const sorted = [
      "failed 4",
      "failed 7",
      "stopping 6",
      "starting 3",
      "running 1",
      "running 5",
      "stopped 0",
      "pending 2",
    ];
    const states = Object.fromEntries(names.map((state, i) => [`${state} ${i}`, state]));
    const components = Object.fromEntries(names.map((status, i) => [`${status} ${i}`, { status, since: 0 }]));
    const page = await shown({ services: { states }, health: { snapshot: () => ({ status: "odd", components }) } });
    expect(tablesOf(page)["Services"]?.map(([name]) => name)).toEqual(sorted);
    expect(tablesOf(page)["Health"]?.map(([name]) => name)).toEqual(sorted);
    const metrics = metricsOf("ended", "runs", "restarts");
    metrics.observe({ type: "task-restarting", task: "restarts", attempt: 1, delay: 0 });
    metrics.observe({ type: "task-ended", manager: "", task: "ended", kind: "main", outcome: "returned", elapsed: 0 });
    expect(tablesOf(await shown({ metrics }))["Tasks"]?.map(([name]) => name)).toEqual(["restarts", "runs", "ended"]);
  });

  test("show that a running task has been told to stop once its manager stops, and only then", async () => {
    const manager = { signal, pending: ["a", "b"] };
    const metrics = metricsOf("a", "c");
    metrics.observe({ type: "task-restarting", task: "b", attempt: 1, delay: 0 });
    const running = [
      ["b", "restarting", "1"],
      ["a", "running", ""],
      ["c", "running", ""],
    ];
    expect(tablesOf(await shown({ metrics, manager }))["Tasks"]).toEqual(running);
    const stopped = { ...manager, signal: AbortSignal.abort() };
    const stopping = [
      ["a", "stopping", ""],
      ["b", "restarting", "1"],
      ["c", "running", ""],
    ];
    expect(tablesOf(await shown({ metrics, manager: stopped }))["Tasks"]).toEqual(stopping);
  });

  test("end with the timeline as text, 100 columns wide, which is closed at first", async () => {
    const page = await shown({ timeline: { toText: (options) => JSON.stringify(options) } });
    const details = first(page, "details");
    expect(details.attributes).toEqual({});
    expect([textOf(first(details, "summary")), textOf(first(details, "pre"))]).toEqual([
      "Timeline as text",
      '{"width":100}',
    ]);
  });
});

describe.concurrent("The picture", () => {
  const scaleOf = (page: Element): string => textOf(first(all(page, "section").at(-1) ?? page, "p"));

  test("has a bar for each run, from left to right in time", async () => {
    const runs = [
      ran("a", 100, 200),
      ran("b", 150, 250, "running"),
      ran("c", 200, 300, "failed"),
      ran("d", 250, 250.01),
    ];
    const page = await shown({ timeline: timelineOf(...runs, ran("e", 299.99, 300)) });
    const bars = { a: "idle 0+50", b: "good 25+50", c: "bad 50+50", d: "idle 75+0.2", e: "idle 99.8+0.2" };
    expect(pictureOf(page)).toEqual(bars);
    expect(scaleOf(page)).toBe("200 ms from left to right");
    const lasted = tablesOf(page)["Timeline"]?.map(([name, , time]) => `${name} ${time}`);
    expect(lasted).toEqual(["a 100 ms", "b 100 ms", "c 100 ms", "d 0 ms", "e 0 ms"]);
    expect(all(page, "title").map(textOf)).toContain("b: running, 100 ms");
  });

  test("has the stop in the middle; after it there is a scale of its own, and the tone of a warning", async () => {
    const runs = [ran("a", 0, 5_000), ran("b", 0, 10_100), ran("hook", 10_050, 10_100), ran("c", 2_500, 7_500)];
    const page = await shown({ timeline: timelineOf(...runs, ran("at", 10_000, 10_050), stop(10_000)) });
    expect(pictureOf(page)).toEqual({
      a: "idle 0+25, | 50",
      b: "idle 0+50, warn 50+50, | 50",
      hook: "warn 75+25, | 50",
      c: "idle 12.5+25, | 50",
      at: "warn 50+25, | 50",
    });
    expect(scaleOf(page)).toBe("10.0 s until the stop, 100 ms after the stop");
  });

  test("has no line before the stop, nor for one that nothing came after", async () => {
    expect(pictureOf(await shown({ timeline: timelineOf(ran("a", 0, 500)) }))).toEqual({ a: "idle 0+100" });
    const page = await shown({ timeline: timelineOf(ran("a", 0, 500), stop(500)) });
    expect(pictureOf(page)).toEqual({ a: "idle 0+100" });
    expect(scaleOf(page)).toBe("500 ms from left to right");
  });

  test("has nothing outside of it, also of what began after a stop that is over", async () => {
    const page = await shown({ timeline: timelineOf(ran("next", 5_000, 5_500), stop(4_500)) });
    expect(pictureOf(page)).toEqual({ next: "warn 75+25, | 50" });
    expect(scaleOf(page)).toBe("0 ms until the stop, 1.0 s after the stop");
    const point = await shown({ timeline: timelineOf(ran("a", 7, 7)) });
    expect(pictureOf(point)).toEqual({ a: "idle 0+0.2" });
  });

  test("has what still runs, however long ago it began", async () => {
    const jobs = Array.from({ length: 1_000 }, (_, i) => ran(`job-${i}`, i, i + 1));
    const names = Object.keys(
      pictureOf(await shown({ timeline: timelineOf(ran("server", 0, 1_000, "running"), ...jobs) })),
    );
    expect(names).toEqual(["server", ...Array.from({ length: 199 }, (_, i) => `job-${801 + i}`)]);
  });

  test("has the newest 200 runs, however many there were", async () => {
    const runs = Array.from({ length: 10_000 }, (_, i) => ran(`job-${i}`, i, i + 1));
    const run = await serveAdmin({ timeline: timelineOf(...runs) });
    const { body } = await run.ask("/");
    const names = Object.keys(pictureOf(parsePage(body)));
    expect(names).toEqual(Array.from({ length: 200 }, (_, i) => `job-${9_800 + i}`));
    expect(body.length).toBeLessThan(90_000);
  });

  test("of a real timeline of 10,000 runs is small as well", async () => {
    const timeline = new Timeline();
    const manager = new Manager({ onEvent: timeline.observe, limit: 10 });
    for (let i = 0; i < 10_000; i++) manager.runEphemeral(async function job() {});
    await manager.wait();
    const { body } = await (await serveAdmin({ timeline, manager })).ask("/");
    expect(all(parsePage(body), "svg")).toHaveLength(200);
    expect(body.length).toBeLessThan(300_000);
  });
});

describe("Of a real program", () => {
  /** A program of all kinds of tasks, each of which ends when the test says so. */
  async function program(): Promise<{ tasks: Record<"job" | "consumer" | "server" | "db", ControlledTask>; run: Run }> {
    const timeline = new Timeline();
    const metrics = new Metrics();
    const log = new EventLog();
    const manager = new Manager({
      name: "shop",
      onEvent: (event) => [timeline, metrics, log].forEach(({ observe }) => observe(event)),
    });
    const health = new Health();
    const db = new ControlledTask("db");
    const [job, consumer, server] = [stubborn("job"), stubborn("consumer"), stubborn("server")];
    const services = new ServiceGroup([
      [{ name: "db", run: (signal) => db.run(signal) }],
      [{ name: "api", run: hangUntil }],
    ]);
    let runs = 0;
    const restarting = new RestartTask(
      { name: "consumer", run: (signal) => (runs++ ? consumer.run(signal) : Promise.reject(new Error("lost"))) },
      { delay: 1 },
    );
    const task = new AdminServerTask({ port: 0, manager, health, services, metrics, timeline });
    manager.runBackground(task, health);
    manager.run(server, restarting, services);
    manager.runEphemeral(job);
    health.component("queue", { critical: false }).report("unhealthy", "refused");
    await task.ready();
    await services.ready();
    await consumer.started;
    return { tasks: { job, consumer, server, db }, run: { task, manager, log } };
  }
  interface Run {
    readonly task: AdminServerTask;
    readonly manager: Manager;
    readonly log: EventLog;
  }
  function hangUntil(signal: AbortSignal): Promise<unknown> {
    return new Promise((resolve) => signal.addEventListener("abort", resolve));
  }
  async function look({ task }: Run): Promise<Element> {
    const client = await clientOf(task, question("/", { header: ["Connection: close"] }));
    const { status, body } = await client.answer();
    expect(status).toBe(200);
    return parsePage(Buffer.from(body, "latin1").toString());
  }

  test("it shows tasks, services, health, failures and the timeline, as they are now", async () => {
    const { tasks, run } = await program();
    const page = await look(run);
    expect(textOf(first(page, "title"))).toBe("admin: degraded");
    expect(headings(page)).toEqual(["Health", "Tasks", "Services", "Timeline"]);
    const { Tasks, Services, Health: components } = tablesOf(page);
    expect(Tasks?.sort()).toEqual([
      ["shop/admin", "running", ""],
      ["shop/consumer", "running", "1"],
      ["shop/health", "running", ""],
      ["shop/job", "running", ""],
      ["shop/server", "running", ""],
      ["shop/services", "running", ""],
    ]);
    expect(Services).toEqual([
      ["db", "running"],
      ["api", "running"],
    ]);
    expect(components).toEqual([["queue", "unhealthy", "refused", expect.stringMatching(/ m?s$/)]]);
    const names = ["admin", "health", "server", "consumer", "services", "job", "services/db", "services/api"];
    expect(Object.keys(pictureOf(page)).sort()).toEqual(names.map((name) => `shop/${name}`).sort());
    expect(new Set(Object.values(pictureOf(page)).map((bar) => bar.split(" ")[0]))).toEqual(new Set(["good"]));
    expect(textOf(first(page, "pre"))).toContain("shop/server");

    tasks.job.return();
    await run.log.until("task-ended", ({ task }) => task === "shop/job");
    expect(tablesOf(await look(run))["Tasks"]).toContainEqual(["shop/job", "stopped", ""]);

    // Its end stops the group, where the server and the consumer take their time.
    const failure = new Error("connection lost", { cause: new Error("a secret cause") });
    tasks.db.fail(failure);
    await run.log.until("stopping");
    await run.log.until("task-ended", ({ task }) => task === "shop/services");
    const stopping = await look(run);
    expect(textOf(first(stopping, "title"))).toBe("admin: stopping");
    expect(tones(first(stopping, "header"))).toEqual({ stopping: "warn" });
    expect(tablesOf(stopping)["Failures"]).toEqual([["shop/services", "connection lost"]]);
    expect(tablesOf(stopping)["Services"]).toEqual([
      ["db", "failed"],
      ["api", "stopped"],
    ]);
    expect(tablesOf(stopping)["Tasks"]).toContainEqual(["shop/server", "stopping", ""]);
    expect(tablesOf(stopping)["Tasks"]).toContainEqual(["shop/services", "stopped", ""]);
    const bars = pictureOf(stopping);
    expect(bars["shop/server"]).toMatch(/^good [\d.]+\+[\d.]+, warn 50\+50, \| 50$/);
    expect(bars["shop/job"]).toMatch(/^idle [\d.]+\+[\d.]+, \| 50$/);
    expect(textOf(stopping)).toMatch(/ until the stop, \d+(\.\d)? m?s after the stop/);
    const html = JSON.stringify(stopping);
    expect(html).not.toContain("a secret cause");

    tasks.consumer.return();
    tasks.server.return();
    await expect(run.manager.wait()).rejects.toBe(failure);
  });

  test("it shows no path, no environment and no stack", async () => {
    process.env["ADMIN_TEST_PASSWORD"] = "correct-horse-battery";
    const { tasks, run } = await program();
    tasks.db.fail(new TypeError("connection lost", { cause: new RangeError("inner") }));
    await run.log.until("stopping");
    const html = JSON.stringify(await look(run));
    expect(html).toContain("connection lost");
    for (const secret of [
      process.cwd(),
      import.meta.dirname,
      ".ts:",
      "node:",
      " at ",
      "node_modules",
      process.execPath,
    ]) {
      // What the script and the header say is not meant.
      expect(html.replace(/up [^"]+, at /, "").replaceAll(textOf(first(await look(run), "script")), "")).not.toContain(
        secret,
      );
    }
    const telling = Object.values(process.env).filter((value) => value !== undefined && value.length > 6);
    expect(telling).toContain("correct-horse-battery");
    for (const value of telling) expect(html).not.toContain(JSON.stringify(value).slice(1, -1));
    delete process.env["ADMIN_TEST_PASSWORD"];
    for (const task of [tasks.consumer, tasks.server, tasks.job]) task.return();
    await run.manager.wait().catch(() => {});
  });
});
