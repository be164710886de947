/*
 * In a browser, in a page and in a worker, the laws of the core hold, and so do the batteries that need nothing of
 * Node's, but for what is about signals, which are refused.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join, posix } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { startBrowser } from "./chromium.mjs";
import { entries, installed, node, root, run } from "./support.mjs";

/** The programs, and those of their checks that only hold where there is a process. */
const programs = {
  "laws.portable.mjs": [],
  "batteries.portable.mjs": [
    "ok      repeat: a SIGHUP before the run is not lost, and five during an action cause one more",
    "ok      repeat: a trigger that is disposed of listens no more, and is not run",
    "ok      repeat: a signal that the system does not know never comes, or is refused by the runtime, as by Deno",
  ],
};

/** What is for Node alone. */
const ofNode = ["admin", "child", "daemon", "http", "main", "pid-file", "upgrade"].map((name) => `allstop/${name}`);
const portable = entries.filter(({ name }) => !ofNode.includes(name));

/** Of Node's assertions, those that the programs make. */
const assertions = `
  import { assert } from "/chai.js";
  const { isOk: ok, strictEqual: equal, notStrictEqual: notEqual, deepStrictEqual: deepEqual } = assert;
  const { fail, match, throws } = assert;
  export default { ok, equal, notEqual, deepEqual, fail, match, throws };
`;

const imports = Object.fromEntries(portable.map(({ name, targets }) => [name, posix.join("/", targets.default)]));

/** The page allows what its own server has, and nothing else: neither `eval`, nor a script in the page but its map. */
const page = `<!doctype html>
  <title>allstop</title>
  <script type="importmap" nonce="map">${JSON.stringify({ imports })}</script>`;
const policy = "default-src 'self'; script-src 'self' 'nonce-map'";

test("in a browser", async (t) => {
  const browser = await startBrowser(t);
  const url = await serve(t);

  for (const [program, ofSignals] of Object.entries(programs)) {
    const printed = await run(t, node.command, [fileURLToPath(new URL(program, import.meta.url))]);
    const expected = printed.trim().split("\n").slice(0, -1).filter((line) => !ofSignals.includes(line));
    expected.push(`${expected.length} passed, 0 failed`);

    for (const [place, start] of Object.entries({ page: startInPage, worker: startInWorker })) {
      await t.test(`${program} prints in a ${place} what it prints under Node`, async (t) => {
        assert.ok(expected.length > 30 && ofSignals.every((line) => printed.includes(`${line}\n`)));
        const page = await open(t, browser, url);
        const ended = page.printed(/ failed$/);
        await page.evaluate(start, `/${program}`);
        await ended;
        assert.deepEqual(page.lines, expected);
        t.diagnostic(page.lines.at(-1));
      });
    }
  }

  await t.test("each entry that is not for Node alone is imported by its name", async (t) => {
    const page = await open(t, browser, url);
    const names = portable.map(({ name }) => name);
    assert.ok(names.length > 5);
    const exported = await Promise.all(
      portable.map(async ({ targets }) => Object.keys(await import(join(root, targets.default)))),
    );
    assert.deepEqual(await page.evaluate(importAll, names), exported);
  });

  await t.test("a task that waits for signals is refused, in words that say why", async (t) => {
    const page = await open(t, browser, url);
    assert.deepEqual(await page.evaluate(waitForSignals), [
      "Error: Cannot create an OsSignalTask: there is no process with signals",
      "Error: Cannot create a SignalTriggerTask: there is no process with signals",
    ]);
  });
});

/** Opens an empty page that keeps each line that is printed. Nothing else may be told to the console, nor thrown. */
async function open(t, browser, url) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  page.lines = [];
  const complaints = [];
  page.on("console", (message) => {
    (message.type() === "log" ? page.lines : complaints).push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => request.url().startsWith(url) || complaints.push(`it asked ${request.url()}`));
  /** Waits for a line. Its text is there as soon as it is logged, also by a worker. */
  page.printed = (pattern) =>
    page.waitForEvent("console", { predicate: (message) => pattern.test(message.text()), timeout: 60_000 });
  await page.goto(url);
  t.after(() => assert.deepEqual(complaints, []));
  return page;
}

/** Serves the page, what is built, and the programs. */
async function serve(t) {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/silence") return; // for ever
    const [type, content, status = 200] = await contentOf(pathname);
    response.writeHead(status, { "Content-Type": type, "Content-Security-Policy": policy }).end(content);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}/`;
}

async function contentOf(path) {
  const script = "text/javascript";
  if (path === "/") return ["text/html", page];
  if (path === "/favicon.ico") return ["image/svg+xml", ""];
  if (path === "/hello") return ["text/plain", "hello"];
  if (path === "/assert.js") return [script, assertions];
  if (path === "/chai.js") return [script, await readFile(installed("chai/index.js"))];
  if (/^\/dist\/[\w/-]+\.js$/.test(path)) return [script, await readFile(join(root, path))];
  if (!/^\/\w+\.portable\.mjs$/.test(path)) return ["text/plain", "not found", 404];
  // A worker has no import map.
  const program = await readFile(new URL(`.${path}`, import.meta.url), "utf8");
  return [script, program.replaceAll('"node:assert/strict"', '"/assert.js"').replaceAll('"../../dist/', '"/dist/')];
}

// In the browser

function startInPage(program) {
  const script = Object.assign(document.createElement("script"), { type: "module", src: program });
  document.head.append(script);
}

function startInWorker(program) {
  window.worker = new Worker(program, { type: "module" });
  window.worker.addEventListener("error", ({ message }) => console.error(message));
}

async function importAll(names) {
  const modules = await Promise.all(names.map((name) => import(name)));
  return modules.map((module) => Object.keys(module));
}

async function waitForSignals() {
  const { OsSignalTask } = await import("allstop");
  const { SignalTriggerTask } = await import("allstop/repeat");
  return [() => new OsSignalTask(), () => new SignalTriggerTask(() => {})].map((construct) => {
    try {
      construct();
    } catch (error) {
      return String(error);
    }
  });
}
