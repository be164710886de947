/*
 * Mutation testing: changes the sources in one small way after the other, and looks whether the unit tests notice.
 *
 *     npm run mutation --prefix test/interop                    the core
 *     npm run mutation --prefix test/interop -- repeat restart  some batteries, by their names
 *     npm run mutation --prefix test/interop -- all
 *
 * It fails when too few changes of a part are noticed, and unless those that are not are exactly those that
 * mutation-survivors.json lists, each with the reason why it may stay.
 */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { Stryker } from "@stryker-mutator/core";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** How many of a hundred changes have to be noticed, at least. */
const THRESHOLD = 95;

/**
 * What is mutated together, and the tests that have to notice. Where most of it runs in processes that the tests start,
 * nobody knows which test runs what, so that for each change all of them run, which takes long.
 */
const parts = {
  core: {
    files: [
      ...["errors", "events", "manager", "os-signal-task", "task"],
      ...["abort", "check", "failure", "observer", "os-signals", "place", "task", "time"].map(internal),
    ],
    // The last five are the users of what the core only shares out: places, sleeps, repeated signals.
    tests: [
      ...["laws", "manager", "errors", "interleaving", "os-signal-task", "events", "types"],
      ...["composition", "group", "main", "repeat", "restart"],
    ],
  },
  repeat: { files: ["repeat"], tests: ["repeat"] },
  restart: { files: ["restart"], tests: ["restart"] },
  group: { files: ["group", internal("fill")], tests: ["group", "main"] },
  services: { files: ["services"], tests: ["services", "services-*", "composition-services"] },
  health: { files: ["health"], tests: ["health", "health-checks"] },
  metrics: { files: ["metrics"], tests: ["metrics", "metrics-programs", "prometheus"] },
  timeline: { files: ["timeline"], tests: ["timeline"] },
  testing: { files: ["testing"], tests: ["testing"] },
  http: { files: ["http", internal("http-connections"), internal("sockets")], tests: ["http", "http-*"] },
  admin: { files: ["admin", internal("admin-view"), internal("profile")], tests: ["admin", "admin-*"] },
  main: { files: ["main", internal("report"), internal("uncaught-errors")], tests: ["main"], inProcesses: true },
  child: {
    files: ["child", internal("process-group"), internal("process-stat")],
    tests: ["child"],
    inProcesses: true,
  },
  "pid-file": { files: ["pid-file", internal("held-file")], tests: ["pid-file", "pid-file-*"], inProcesses: true },
  daemon: { files: ["daemon", internal("respawn")], tests: ["daemon"], inProcesses: true },
  upgrade: { files: ["upgrade"], tests: ["upgrade", "upgrade-*"], inProcesses: true },
};

/** The first has no code of its own, the second is one text, most of which only a browser reads. */
const left = ["index", internal("admin-page")];

const sources = (await readdir(`${root}src`, { recursive: true })).filter((file) => file.endsWith(".ts"));
const named = [...Object.values(parts).flatMap(({ files }) => files), ...left].map((file) => `${file}.ts`);
assert.deepEqual(named.sort(), sources.sort(), "each file of src is in one part");

const [first = "core", ...others] = process.argv.slice(2);
const chosen = first === "all" ? Object.keys(parts) : [first, ...others];
for (const name of chosen) assert.ok(name in parts, `${name} is none of ${Object.keys(parts).join(", ")}`);

const listed = JSON.parse(await readFile(new URL("mutation-survivors.json", import.meta.url), "utf8"));
for (const { reason, ...survivor } of listed) assert.ok(reason, `without a reason: ${JSON.stringify(survivor)}`);

process.chdir(root);
const complaints = [];
for (const name of chosen) complaints.push(...(await mutate(name)));
for (const complaint of complaints) console.error(complaint);
if (complaints.length > 0) process.exitCode = 1;

/** Runs one part; returns what is wrong with it. */
async function mutate(name) {
  const { files, tests, inProcesses = false } = parts[name];
  console.log(`\n== ${name}`);
  process.env.ALLSTOP_MUTATION_TESTS = tests.join(" ");
  const stryker = new Stryker({
    configFile: "test/interop/stryker.config.mjs",
    mutate: files.map((file) => `src/${file}.ts`),
    concurrency: availableParallelism(),
    coverageAnalysis: inProcesses ? "off" : "perTest",
  });
  // With a few of them no test can run at all, which says nothing of the tests.
  const mutants = (await stryker.runMutationTest()).filter(({ status }) => !/Error/.test(status));
  const survivors = mutants.filter(({ status }) => /Survived|NoCoverage/.test(status));
  const score = 100 * (1 - survivors.length / mutants.length);
  printScores(mutants);

  const expected = listed.filter(({ file }) => files.some((each) => file === `src/${each}.ts`));
  const found = await Promise.all(survivors.map(describe));
  return [
    ...(score < THRESHOLD ? [`${name}: ${score.toFixed(2)} % is less than ${THRESHOLD} %`] : []),
    ...without(found, expected).map((each) => `${name}: survived, and is not listed:\n${show(each)}`),
    ...without(expected, found).map((each) => `${name}: is listed, and was noticed:\n${show(each)}`),
  ];
}

function printScores(mutants) {
  const rows = {};
  for (const { fileName, status } of mutants) {
    for (const row of [relative(root, fileName), "all"]) {
      rows[row] ??= { Killed: 0, Timeout: 0, Survived: 0, NoCoverage: 0 };
      rows[row][status]++;
    }
  }
  const scored = Object.entries(rows).map(([row, { Killed, Timeout, Survived, NoCoverage }]) => {
    const score = (100 * (Killed + Timeout)) / (Killed + Timeout + Survived + NoCoverage);
    return [row, { score: score.toFixed(2), Killed, Timeout, Survived, NoCoverage }];
  });
  console.table(Object.fromEntries(scored.sort(([a], [b]) => (a < b ? -1 : 1))));
}

/** Names a change in a way that lasts while its first line does, wherever in the file that is. */
async function describe({ fileName, mutatorName, location: { start, end }, replacement }) {
  const lines = (await readFile(fileName, "utf8")).split("\n").slice(start.line - 1, end.line);
  const line = lines[0].trim();
  const column = start.column - lines[0].search(/\S/);
  lines[lines.length - 1] = lines.at(-1).slice(0, end.column - 1);
  lines[0] = lines[0].slice(start.column - 1);
  return {
    file: relative(root, fileName),
    line,
    column,
    mutator: mutatorName,
    original: onOneLine(lines.join("\n")),
    replacement: onOneLine(replacement),
  };
}

function onOneLine(text) {
  const short = text.replace(/\s+/g, " ");
  return short.length > 100 ? `${short.slice(0, 80)} ... ${short.slice(-15)}` : short;
}

/** Those of `ones` that are not among `others`, each of which stands for one. */
function without(ones, others) {
  const left = others.map(keyOf);
  return ones.filter((one) => {
    const index = left.indexOf(keyOf(one));
    if (index >= 0) left.splice(index, 1);
    return index < 0;
  });
}

function show(survivor) {
  return JSON.stringify(survivor, null, 2);
}

function keyOf({ file, line, column, mutator, replacement }) {
  return JSON.stringify([file, line, column, mutator, replacement]);
}

function internal(name) {
  return `internal/${name}`;
}
