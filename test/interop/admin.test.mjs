/*
 * The admin page as a person sees it: in a browser, in the light and in the dark, on a narrow screen, without
 * JavaScript, while the program changes, stops, and comes back.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { AdminServerTask } from "../../dist/admin.js";
import { startBrowser } from "./chromium.mjs";
import { node, start } from "./support.mjs";

/** The names of admin-service.mjs. */
const hostile = {
  task: "shop/<img src=x onerror=alert(1)>",
  service: `"><script>alert(2)</script>`,
  component: "</td></table><svg onload=alert(3)>",
  detail: "<a href=javascript:alert(4)>&lt;b&gt;</a>",
  error: "</pre></details><script>alert(5)</script>\n  at the second line",
};
const long = `long-${"name".repeat(60)}`;

/** How often the page asks, in milliseconds. */
const PAUSE = 2_000;

/** The part of what is measured that every browser rounds as it likes, in pixels. */
const ROUNDING = 1;

test("the admin page", async (t) => {
  const browser = await startBrowser(t);

  await t.test("shows all that the program knows of itself, names as they are", async (t) => {
    const page = await open(t, browser, await startService(t));
    assert.equal(await page.title(), "admin: degraded");
    assert.equal(await page.getByRole("heading", { level: 1 }).innerText(), "admin");
    const header = await page.locator("header").innerText();
    assert.match(header, /^admin\s+degraded\s+up \d+(\.\d)? m?s, at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    const titles = await page.getByRole("heading", { level: 2 }).allInnerTexts();
    assert.deepEqual(titles, ["Health", "Tasks", "Services", "Timeline"]);

    assert.deepEqual(await tableOf(page, "Health"), [
      ["component", "status", "detail", "for"],
      [hostile.component, "degraded", hostile.detail, "T"],
      ["database", "healthy", "", "T"],
      ["queue", "healthy", "", "T"],
      [long, "healthy", "", "T"],
    ]);
    const running = ["admin", "health", "os-signal", "http", "services", "consumer"].map((name) => `shop/${name}`);
    assert.deepEqual(await tableOf(page, "Tasks"), [
      ["task", "state", "restarts"],
      ...[...running, hostile.task, `shop/${long}`, "shop/mailer"].map((name) => [name, "running", ""]),
      ["shop/migrate", "stopped", ""],
    ]);
    assert.deepEqual(await tableOf(page, "Services"), [
      ["service", "state"],
      ["database", "running"],
      [hostile.service, "running"],
      ["warm-up", "stopped"],
    ]);
    const first = ["migrate", "admin", "health", "os-signal", "http", "services", "services/database", "consumer"];
    const then = [hostile.task, `shop/${long}`, "shop/mailer"];
    const last = ["warm-up", hostile.service].map((name) => `shop/services/${name}`);
    assert.deepEqual(await tableOf(page, "Timeline"), [
      ["run", "when", "lasted"],
      ...[...first.map((name) => `shop/${name}`), ...then, ...last].map((name) => [name, "", "T"]),
    ]);
    assert.match(await section(page, "Timeline").locator("p").innerText(), /^\d+(\.\d)? m?s from left to right$/);

    const text = page.locator("pre");
    assert.equal(await text.isVisible(), false);
    await page.getByText("Timeline as text").click();
    assert.match(await text.innerText(), /^shop\/mailer +=+/m);

    const made = page.locator("main :is(a, img, script, [onload], [onerror], [style])");
    assert.equal(await made.count(), 0, "no name has become an element");
  });

  await t.test("runs no script but its own", async (t) => {
    const page = await open(t, browser, await startService(t));
    await page.evaluate(() => {
      const script = document.createElement("script");
      script.textContent = "window.hasRun = true";
      document.body.append(script);
    });
    assert.equal(await page.evaluate(() => window.hasRun), undefined);
    const [complaint, ...others] = page.complaints.splice(0);
    assert.match(complaint, /Content Security Policy/);
    assert.deepEqual(others, []);
  });

  await t.test("has the colours of the day and of the night, each with enough contrast", async (t) => {
    const service = await startService(t);
    await service.tell("?component=database&status=unhealthy&detail=refused");
    await service.tell("?component=queue&status=starting");
    await service.tell("restart");
    await service.tell("fail");
    const tones = ["bad", "busy", "good", "idle", "warn"];
    const backgrounds = [];
    for (const colorScheme of ["light", "dark"]) {
      const page = await open(t, browser, service, { colorScheme, clock: true });
      await page.locator("summary").click();
      const { texts, badges, background } = await page.evaluate(measureContrasts);
      assert.deepEqual(badges, tones, "all that a state may say is there");
      assert.ok(texts.length > 50);
      assert.deepEqual(texts.filter(({ contrast }) => contrast < 4.5), []);
      backgrounds.push(background);
    }
    const [light, dark] = backgrounds;
    assert.ok(light > 0.9 && dark < 0.02, `${light}, ${dark}`);
  });

  await t.test("says the same without JavaScript", async (t) => {
    const service = await startService(t);
    await service.tell("restart");
    const [texts, without] = await Promise.all(
      [true, false].map(async (javaScriptEnabled) => {
        const page = await open(t, browser, service, { javaScriptEnabled });
        const closed = await page.locator("body").innerText();
        await page.locator("summary").click();
        await page.locator("pre").waitFor();
        return closed.replace(/at \S+Z/, "").replace(/\d+(\.\d)? m?s\b/g, "T");
      }),
    );
    assert.equal(without, texts);
    assert.match(texts, /shop\/consumer\s+restarting\s+1\s/);
  });

  await t.test("follows the program, and leaves what somebody has opened, selected, scrolled to", async (t) => {
    const service = await startService(t);
    const page = await open(t, browser, service, { height: 400, clock: true });
    await page.evaluate(() => (window.isFirst = true));
    await page.locator("summary").click();
    await page.locator("summary").focus();
    await row(page, "Services", "database").getByRole("rowheader").selectText();
    const scroll = () => page.evaluate(() => document.querySelector("pre").getBoundingClientRect().top);
    await page.locator("pre").scrollIntoViewIfNeeded();
    const scrolled = await page.evaluate(() => scrollY);
    assert.ok(scrolled > 0);

    await service.tell("?component=database&status=unhealthy&detail=connection%20refused");
    await page.clock.runFor(PAUSE);
    await row(page, "Health", "database").getByText("connection refused").waitFor();
    assert.deepEqual((await tableOf(page, "Health"))[1], ["database", "unhealthy", "connection refused", "T"]);
    assert.equal(await page.title(), "admin: unhealthy");
    await service.tell("?component=database&status=healthy");
    await page.clock.runFor(PAUSE);
    await row(page, "Health", "database").getByText("healthy", { exact: true }).waitFor();
    assert.deepEqual((await tableOf(page, "Health"))[2], ["database", "healthy", "", "T"]);
    assert.equal(await page.title(), "admin: degraded");
    const place = await scroll();
    await service.tell("restart");
    await page.clock.runFor(PAUSE);
    await row(page, "Tasks", "shop/consumer").getByText("restarting").waitFor();
    assert.deepEqual((await tableOf(page, "Tasks"))[1], ["shop/consumer", "restarting", "1"]);

    assert.ok(Math.abs((await scroll()) - place) <= ROUNDING, "what is read stays where it is");
    assert.equal(await page.locator("details[open] pre").isVisible(), true);
    assert.equal(await page.evaluate(() => document.activeElement.tagName), "SUMMARY");
    assert.equal(await page.evaluate(() => getSelection().toString().trim()), "database");
    assert.equal(await page.evaluate(() => window.isFirst), true, "it was not loaded again");
  });

  await t.test("asks every two seconds, not while it is hidden, and at once when it is seen again", async (t) => {
    const page = await open(t, browser, await startService(t), { clock: true });
    const time = page.locator("time");
    for (let count = 1; count <= 3; count++) {
      await page.clock.runFor(PAUSE - 1);
      assert.equal(page.requests.length, count);
      await time.evaluate((time) => (time.textContent = "before"));
      await page.clock.runFor(1);
      await time.getByText("Z").waitFor();
      assert.equal(page.requests.length, count + 1);
    }
    await hide(page, true);
    await page.clock.runFor(60_000);
    assert.equal(page.requests.length, 4);
    await time.evaluate((time) => (time.textContent = "before"));
    await hide(page, false);
    await time.getByText("Z").waitFor();
    assert.equal(page.requests.length, 5);
  });

  await t.test("goes on during the stop, then says that nothing answers, until something does again", async (t) => {
    const first = await startService(t);
    const page = await open(t, browser, first, { isLost: true });
    first.kill("SIGTERM");
    await row(page, "Tasks", "shop/mailer").getByText("stopping").waitFor();
    assert.equal(await page.title(), "admin: stopping");
    assert.equal(await page.getByRole("heading", { name: "Failures" }).count(), 0);
    await first.tell("release");
    assert.equal((await first.endsWithin(10_000)).code, 0);
    await page.getByText("not answering", { exact: true }).waitFor();
    assert.equal(await page.title(), "admin: not answering");
    assert.equal(await page.locator("header b").getAttribute("class"), "bad");
    assert.match(await section(page, "Tasks").evaluate((section) => getComputedStyle(section).filter), /grayscale/);
    assert.ok((await tableOf(page, "Tasks")).length > 1, "what was known last can still be read");

    const second = await startService(t, first.port);
    await second.tell("restart");
    await row(page, "Tasks", "shop/consumer").getByText("restarting").waitFor();
    assert.equal(await page.title(), "admin: degraded");
    assert.equal(await page.locator("header b").innerText(), "degraded");
    assert.equal(await section(page, "Tasks").evaluate((section) => getComputedStyle(section).filter), "none");
  });

  await t.test("says so when a source fails", async (t) => {
    const health = { snapshot: () => ({ status: "healthy", components: {} }) };
    const page = await open(t, browser, await serve(t, { health }), { isLost: true });
    health.snapshot = () => {
      throw new Error("a secret");
    };
    await page.getByText("answers 500", { exact: true }).waitFor();
  });

  await t.test("shows during the stop what failed, and who is waited for", async (t) => {
    const service = await startService(t);
    const page = await open(t, browser, service);
    await page.locator("summary").click();
    await service.tell("fail");
    await page.getByRole("heading", { name: "Failures" }).waitFor();
    assert.equal(await page.locator("details").getAttribute("open"), "");
    const titles = await page.getByRole("heading", { level: 2 }).allInnerTexts();
    assert.deepEqual(titles, ["Failures", "Health", "Tasks", "Services", "Timeline"]);
    assert.deepEqual(await tableOf(page, "Failures"), [
      ["source", "error"],
      [`shop/${long}`, hostile.error],
    ]);
    await row(page, "Tasks", "shop/http").getByText("stopped").waitFor();
    assert.equal(await page.locator("header b").innerText(), "stopping");
    assert.deepEqual((await tableOf(page, "Tasks")).slice(0, 3), [
      ["task", "state", "restarts"],
      ["shop/admin", "stopping", ""],
      ["shop/mailer", "stopping", ""],
    ]);
    assert.match(await section(page, "Timeline").locator("p").innerText(), / until the stop, \d.* after the stop$/);
    const bars = await barsOf(page);
    const { before, after } = bars.find(({ name }) => name === "shop/mailer");
    assert.deepEqual([before.end, after.start, after.end].map(Math.round), [500, 500, 1_000]);
    const ended = bars.find(({ name }) => name === `shop/services/database`);
    assert.ok(ended.after === undefined || ended.after.end < after.end);
    assert.equal(bars.find(({ name }) => name === "shop/migrate").after, undefined);
  });

  // Traces of known times, in milliseconds.
  const runs = [
    { name: "first", state: "running", start: 1_000, end: 5_000 },
    { name: "second", state: "returned", start: 1_000, end: 2_000 },
    { name: "third", state: "failed", start: 2_000, end: 4_000 },
    { name: "fourth", state: "cancelled", start: 4_500, end: 4_750 },
    { name: "at a point", state: "returned", start: 5_000, end: 5_000 },
  ];

  await t.test("draws each run where it was, as long as it lasted", async (t) => {
    const page = await open(t, browser, await serve(t, { timeline: trace(runs) }));
    assert.equal(await section(page, "Timeline").locator("p").innerText(), "4.0 s from left to right");
    const bars = await barsOf(page);
    assert.deepEqual(
      bars.map(({ name, after, line }) => ({ name, after, line })),
      runs.map(({ name }) => ({ name, after: undefined, line: undefined })),
    );
    assert.deepEqual(bars.map(({ before }) => [before.start, before.end].map(Math.round)), [
      [0, 1_000],
      [0, 250],
      [250, 750],
      [875, 938],
      [998, 1_000],
    ]);
    assert.deepEqual(bars.map(({ before }) => before.tone), ["good", "idle", "bad", "idle", "idle"]);
    const colours = Object.fromEntries(bars.map(({ before }) => [before.tone, before.colour]));
    assert.equal(new Set(Object.values(colours)).size, 3);
    assert.deepEqual(await section(page, "Timeline").locator("svg title").allTextContents(), [
      "first: running, 4.0 s",
      "second: returned, 1.0 s",
      "third: failed, 2.0 s",
      "fourth: cancelled, 250 ms",
      "at a point: returned, 0 ms",
    ]);
  });

  await t.test("draws the stop as a line, and what came after it on its own scale, in its own colour", async (t) => {
    // A long life, and a short stop.
    const stopped = [
      { name: "first", state: "running", start: 0, end: 10_000_100 },
      { name: "second", state: "returned", start: 5_000_000, end: 10_000_025 },
      { name: "third", state: "returned", start: 0, end: 2_500_000 },
      { name: "late", state: "failed", start: 10_000_050, end: 10_000_075 },
    ];
    const page = await open(t, browser, await serve(t, { timeline: trace(stopped, 10_000_000) }));
    const scale = await section(page, "Timeline").locator("p").innerText();
    assert.equal(scale, "3 h until the stop, 100 ms after the stop");
    const bars = await barsOf(page);
    const placeOf = (bar) => bar && [bar.start, bar.end].map(Math.round);
    assert.deepEqual(bars.map(({ before, after }) => [placeOf(before), placeOf(after)]), [
      [[0, 500], [500, 1_000]],
      [[250, 500], [500, 625]],
      [[0, 125], undefined],
      [undefined, [750, 875]],
    ]);
    assert.deepEqual(bars.map(({ line }) => Math.round(line)), [500, 500, 500, 500]);
    const [{ before, after }] = bars;
    assert.deepEqual(bars.map(({ after }) => after?.colour), [after.colour, after.colour, undefined, after.colour]);
    assert.notEqual(after.colour, before.colour);
  });

  await t.test("draws the 200 that ended last, however long ago they began", async (t) => {
    const jobs = Array.from({ length: 300 }, (_, index) => ({ name: `job ${index}`, start: index, end: index + 1 }));
    const server = { name: "server", start: 0, end: 300 };
    const page = await open(t, browser, await serve(t, { timeline: trace([server, ...jobs]) }));
    const names = await section(page, "Timeline").getByRole("rowheader").allInnerTexts();
    assert.deepEqual(names, ["server", ...jobs.slice(101).map(({ name }) => name)]);
  });

  for (const width of [320, 360, 640, 800, 1_600]) {
    await t.test(`fits a window of ${width} pixels, long names and all`, async (t) => {
      const service = await startService(t);
      const detail = "no".repeat(200);
      await service.tell(`?component=queue&status=degraded&detail=${detail}`);
      await service.tell("restart");
      await service.tell("fail");
      const page = await open(t, browser, service, { width });
      await page.locator("summary").click();
      const { scrolls, beyond, cut } = await page.evaluate(measureOverflow);
      assert.deepEqual({ scrolls, beyond, cut }, { scrolls: false, beyond: [], cut: [] });
      for (const text of [long, detail]) {
        const lines = await section(page, "Health").getByText(text).evaluate(countLines);
        assert.ok(lines > 1, text);
      }
    });
  }
});

// The browser

/**
 * Opens a page. At the end of the test, nobody may have complained: no error in the console, nothing that the policy of
 * the page forbids, no dialog, no request to another server. One that loses its server complains of that alone. With
 * `clock`, no time passes for the page but what the test says.
 */
async function open(t, browser, { url }, { width = 1_100, height = 700, isLost, clock, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, ...options });
  t.after(() => context.close());
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  page.complaints = [];
  page.requests = [];
  page.on("console", (message) => page.complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => page.complaints.push(error.message));
  page.on("dialog", (dialog) => page.complaints.push(dialog.message()) && dialog.dismiss());
  context.on("request", (request) => {
    page.requests.push(request.url());
    if (request.url() !== url) page.complaints.push(`it asked ${request.url()}`);
  });
  if (clock) {
    await page.clock.install({ time: 0 });
    await page.clock.pauseAt(3_600_000);
  }
  await page.goto(url);
  t.after(() => {
    const isExpected = (complaint) => isLost && /^error: Failed to load resource/.test(complaint);
    assert.deepEqual(page.complaints.filter((complaint) => !isExpected(complaint)), []);
  });
  return page;
}

async function hide(page, isHidden) {
  await page.evaluate((isHidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, value: isHidden });
    document.dispatchEvent(new Event("visibilitychange"));
  }, isHidden);
}

// What is seen

function section(page, title) {
  return page.locator("section").filter({ has: page.getByRole("heading", { name: title, exact: true }) });
}

function row(page, title, name) {
  const header = page.getByRole("rowheader", { name, exact: true });
  return section(page, title).getByRole("row").filter({ has: header });
}

/** The texts of a table, its head first; all durations are "T". */
async function tableOf(page, title) {
  const table = section(page, title).getByRole("table");
  const head = await table.getByRole("columnheader").allInnerTexts();
  const names = await table.getByRole("rowheader").allInnerTexts();
  const cells = await table.getByRole("cell").allInnerTexts();
  const others = head.length - 1;
  const rows = names.map((name, index) => [name, ...cells.slice(index * others, (index + 1) * others)]);
  return [head, ...rows.map((texts) => texts.map((text) => text.replace(/^\d+(\.\d)? m?s$/, "T")))];
}

/** The bars of the picture, from 0 to 1,000: before and after the line of the stop, if there is one. */
async function barsOf(page) {
  const line = section(page, "Timeline").getByRole("row").filter({ has: page.getByRole("rowheader") });
  return line.evaluateAll((rows) =>
    rows.map((row) => {
      const { left, width } = row.querySelector("svg").getBoundingClientRect();
      const place = (x) => ((x - left) / width) * 1_000;
      const bars = [...row.querySelectorAll("rect")].map((bar) => {
        const { left, right, height } = bar.getBoundingClientRect();
        const { fill } = getComputedStyle(bar);
        if (height < 4) throw new Error("it cannot be seen");
        return { start: place(left), end: place(right), tone: bar.getAttribute("class"), colour: fill };
      });
      const stop = row.querySelector("line")?.getBoundingClientRect().left;
      const line = stop && place(stop);
      const isAfter = ({ start }) => start > (line ?? Infinity) - 1;
      return {
        name: row.querySelector("th").innerText,
        before: bars.find((bar) => !isAfter(bar)),
        after: bars.find(isAfter),
        line,
      };
    }),
  );
}

// What is measured, in the page

/** The contrast of each text with what is behind it, after WCAG; and how light the page is, from 0 to 1. */
function measureContrasts() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  /** Paints colours over each other; returns the luminance of what is seen. */
  const luminanceOf = (colours) => {
    for (const colour of colours) {
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
    }
    const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const backgroundsOf = (element) =>
    element ? [...backgroundsOf(element.parentElement), getComputedStyle(element).backgroundColor] : ["white"];
  const texts = [];
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { data, parentElement } = walker.currentNode;
    if (!data.trim() || !parentElement.checkVisibility() || parentElement.closest("svg")) continue;
    const backgrounds = backgroundsOf(parentElement);
    const back = luminanceOf(backgrounds);
    const front = luminanceOf([...backgrounds, getComputedStyle(parentElement).color]);
    const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    texts.push({ data, contrast });
  }
  return {
    texts,
    badges: [...new Set([...document.querySelectorAll("b")].map(({ className }) => className))].sort(),
    background: luminanceOf(backgroundsOf(document.body)),
  };
}

/** Whether the page can be scrolled sideways, what is beyond its right edge or its cell, and what is cut off. */
function measureOverflow() {
  const { scrollWidth, clientWidth } = document.documentElement;
  const all = [...document.querySelectorAll("main *")];
  const seen = all.filter((each) => each.checkVisibility() && !each.closest("pre"));
  const rightOf = (element) => element.getBoundingClientRect().right;
  const edgeOf = (element) => (element.matches("svg") ? rightOf(element.parentElement) : clientWidth);
  const tell = (elements) => elements.map((element) => element.outerHTML.slice(0, 100));
  return {
    scrolls: scrollWidth > clientWidth,
    beyond: tell(seen.filter((each) => rightOf(each) > edgeOf(each) + 0.5)),
    cut: tell(seen.filter((each) => each.matches("th, td, h1, p") && each.scrollWidth > each.clientWidth)),
  };
}

function countLines(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  return new Set([...range.getClientRects()].map(({ top }) => top)).size;
}

// What is looked at

/** Starts admin-service.mjs. */
async function startService(t, port = 0) {
  const program = fileURLToPath(new URL("admin-service.mjs", import.meta.url));
  const service = start(t, node.command, [program], { env: { ADMIN_PORT: String(port) }, timeout: 60_000 });
  const { admin, control } = JSON.parse(await service.printed("\n"));
  return {
    ...service,
    url: `http://127.0.0.1:${admin}/`,
    port: admin,
    /** Makes happen: "restart", "fail", "release", or a report "?component=...&status=...&detail=...". */
    tell: async (what) => assert.ok((await fetch(`http://127.0.0.1:${control}/${what}`)).ok),
  };
}

/** Serves the page alone, with other sources. */
async function serve(t, sources) {
  const controller = new AbortController();
  const admin = new AdminServerTask({ port: 0, ...sources });
  const ended = admin.run(controller.signal);
  t.after(async () => {
    controller.abort();
    await ended;
  });
  await admin.ready();
  return { url: `http://127.0.0.1:${admin.address.port}/` };
}

function trace(runs, stop) {
  const traceEvents = runs.map(({ name, state, start, end }) => ({
    name,
    ph: "X",
    ts: start * 1_000,
    dur: (end - start) * 1_000,
    args: { state },
  }));
  if (stop !== undefined) traceEvents.push({ name: "stop", ph: "i", ts: stop * 1_000 });
  return { toText: () => "as text", toTrace: () => JSON.stringify({ traceEvents }) };
}
