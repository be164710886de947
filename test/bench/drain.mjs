/*
 * How servers are drained: what becomes of the requests that clients have sent when the process is told to stop, and
 * how long it takes to exit. Each server, a process of its own, is stopped several times in each of several
 * situations.
 *
 * It takes the names of servers, or parts of the names of situations, to measure only those, and then saves nothing.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
  askFromBacklog,
  askSlow,
  block,
  HALF_BODY,
  HALF_HEAD,
  idle,
  keepBusy,
  pipeline,
  readSlowly,
  restAfterRequest,
  talk,
  Target,
  uploadSlowly,
} from "./drain-clients.mjs";
import { figure, save } from "./report.mjs";

const STOPS = Number(process.env.STOPS ?? 5);

/** How long the servers let requests in flight go on, wherever that can be said, in milliseconds. */
const GRACE = 2_000;
/** When the end of a process is not waited for any longer. */
const LIMIT = 6_000;

/** How many are stopped at once; the machine has to have room for that. */
const LANES = 2;
/** From the stop on, a process has its lane for so long; what happens after it is mostly waiting. */
const HOLD = 300;

const PEERS = [
  { name: "allstop", program: "allstop" },
  { name: "server.close()", program: "server-close" },
  { name: "close-with-grace", program: "close-with-grace" },
  { name: "http-terminator", program: "http-terminator" },
  { name: "stoppable", program: "stoppable" },
  { name: "terminus", program: "terminus" },
  { name: "lightship", program: "lightship" },
  { name: "http-graceful-shutdown", program: "http-graceful-shutdown" },
];

/** Beside these, five clients keep their connections busy. */
const SITUATIONS = [
  { name: "busy clients", clients: [[keepBusy, 15]] },
  { name: "pipelining clients", clients: [[pipeline, 10]] },
  { name: "answers that take 1 s", clients: [[askSlow, 5]] },
  { name: "uploads in progress", clients: [[uploadSlowly, 5]] },
  { name: "downloads in progress", clients: [[readSlowly, 2]] },
  { name: "idle keep-alive connections", clients: [[restAfterRequest, 20]] },
  { name: "connections that sent nothing", clients: [[idle(), 20]] },
  { name: "half a request header", clients: [[idle(HALF_HEAD), 20]] },
  { name: "half a request body", clients: [[idle(HALF_BODY), 5]] },
  { name: "WebSockets, a message in flight", clients: [[talk, 5]] },
  { name: "connections in the backlog", clients: [], backlog: 50 },
];
SITUATIONS.push({
  name: "all of these",
  clients: SITUATIONS.flatMap(({ clients }) => clients),
  backlog: 50,
});

const BUSY = 5;

const wanted = process.argv.slice(2);
const wantedOf = (all, isWanted) => {
  const some = all.filter((each) => wanted.some((word) => isWanted(each, word)));
  return some.length ? some : all;
};
const peers = wantedOf(PEERS, ({ program }, word) => program === word);
const situations = wantedOf(SITUATIONS, ({ name }, word) => name.includes(word));
let started = 0;
/** Those that have not ended. None is left behind, should this fail. */
const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));
const folder = await mkdtemp(join(tmpdir(), "allstop-drain-"));
try {
  const cells = await measureAll();
  if (wanted.length) printDetails(cells);
  else await save(resultOf(cells));
} finally {
  await rm(folder, { recursive: true, force: true });
}

// Measuring

/** Stops all servers in one situation after the other, again and again. */
async function measureAll() {
  const cells = new Map(situations.flatMap((situation) => peers.map((peer) => [keyOf(situation, peer), []])));
  const ends = [];
  for (let round = 0; round < STOPS; round++) {
    for (const [index, situation] of situations.entries()) {
      const turn = (round + index) % peers.length;
      const order = [...peers.slice(turn), ...peers.slice(0, turn)];
      // All are up before the first one is stopped, as to start a process takes a processor.
      const servers = await Promise.all(order.map(start));
      const work = async () => {
        for (let server; (server = servers.shift()); ) {
          let free;
          const isFree = new Promise((resolve) => (free = resolve));
          const cell = cells.get(keyOf(situation, server));
          const end = stop(server, situation, free).then((result) => cell.push(result));
          ends.push(end);
          await Promise.race([isFree, end]);
        }
      };
      await Promise.all(Array.from({ length: LANES }, work));
    }
  }
  await Promise.all(ends);
  return cells;
}

async function start({ name, program }) {
  const ledger = join(folder, `${program}-${++started}`);
  const child = spawn(process.execPath, [fileURLToPath(new URL(`drain-servers/${program}.mjs`, import.meta.url))], {
    env: { ...process.env, LEDGER: ledger, GRACE: String(GRACE) },
    stdio: ["ignore", "pipe", "ignore"],
    timeout: 60_000,
    killSignal: "SIGKILL",
  });
  running.add(child);
  const exited = once(child, "exit").then(([code, signal]) => {
    running.delete(child);
    return { at: performance.now(), code, signal };
  });
  const [port] = await Promise.race([
    once(createInterface(child.stdout), "line"),
    exited.then(() => Promise.reject(new Error(`${name} has ended before it listened`))),
  ]);
  return { name, ledger, child, exited, port: Number(port) };
}

/** Puts a server into the situation, stops it, and tells what became of it and its clients. */
async function stop(server, { clients, backlog }, free) {
  const { ledger, child, exited } = server;
  const target = new Target(server.port);
  const gate = `${ledger}-gate`;
  await engage(server, target, clients);
  const before = target.answered;
  if (backlog) {
    block(target, gate);
    await entered(server, target.issued);
    await Promise.all(Array.from({ length: backlog }, () => askFromBacklog(target)));
    await sleep(10);
  }

  const stoppedAt = performance.now();
  child.kill("SIGTERM");
  target.tellStop();
  if (backlog) await writeFile(gate, "");
  const holding = setTimeout(free, HOLD);
  const end = await Promise.race([exited, sleep(LIMIT, undefined, { ref: false })]);
  clearTimeout(holding);
  if (end) await target.settled();
  const { answered } = target;
  const unanswered = [...target.unanswered];
  const unansweredAsTold = [...target.unansweredAsTold];
  if (!end) {
    // What is cut by this is not the server's doing.
    child.kill("SIGKILL");
    target.isOver = true;
    await target.settled();
  }
  target.close();

  const known = await ledgerOf(ledger);
  const isKnown = ([number]) => known.has(number);
  const unknown = unanswered.filter((each) => !isKnown(each));
  return {
    time: end ? end.at - stoppedAt : Infinity,
    code: end && (end.code ?? end.signal),
    after: answered - before,
    lost: [...unanswered, ...unansweredAsTold].filter(isKnown).map(([, { how }]) => how),
    cut: unknown.filter(([, { isLate }]) => !isLate).map(([, { how }]) => how),
    late: unknown.filter(([, { isLate }]) => isLate).map(([, { how }]) => how),
  };
}

/** Has all clients go on until the handlers have got what is to be in flight. */
async function engage(server, target, clients) {
  const isBusy = ([client]) => client === keepBusy || client === pipeline;
  const each = (some, call) => some.flatMap(([client, count]) => Array.from({ length: count }, () => call(client)));
  each([[keepBusy, BUSY], ...clients.filter(isBusy)], (client) => target.goOn(client(target)));
  const acts = await Promise.all(
    each(
      clients.filter((client) => !isBusy(client)),
      (client) => client(target),
    ),
  );
  while (target.answered < 20 && !target.unanswered.size) await sleep(2);
  for (const act of acts) if (act) target.goOn(act());
  await entered(server, target.issued);
  await sleep(20);
  if (target.unanswered.size) throw new Error(`${server.name} left ${target.unanswered.size} without an answer`);
}

/** Waits until the handlers have got as many requests. */
async function entered({ name, ledger }, count) {
  const startedAt = performance.now();
  for (let known; (known = await ledgerOf(ledger)).size < count; await sleep(5)) {
    if (performance.now() - startedAt > 5_000) throw new Error(`${name} has got ${known.size} of ${count} requests`);
  }
}

/** The numbers of the requests that the handlers have got. */
async function ledgerOf(ledger) {
  return new Set((await readFile(ledger, "utf8")).split("\n").filter((number) => Number(number) > 0));
}

function keyOf(situation, peer) {
  return `${situation.name}, ${peer.name}`;
}

// Reporting

function printDetails(cells) {
  for (const [key, stops] of cells) {
    const counts = (lists) => {
      const all = {};
      for (const how of lists.flat()) all[how] = (all[how] ?? 0) + 1;
      return JSON.stringify(all);
    };
    const times = stops.map(({ time, code }) => `${figure(time)}/${code}`).join(" ");
    const [lost, cut, late] = ["lost", "cut", "late"].map((what) => counts(stops.map((each) => each[what])));
    const after = stops.map((each) => each.after).join(" ");
    console.log(`${key}: ${times} ms; answered after ${after}; lost ${lost} cut ${cut} late ${late}`);
  }
}

function resultOf(cells) {
  const names = peers.map(({ name }) => name);
  const cellOf = (situation, name) => cells.get(keyOf(situation, { name }));
  const tableOf = (title, show) => ({
    title,
    header: ["situation", ...names],
    rows: situations.map((situation) => [situation.name, ...names.map((name) => show(cellOf(situation, name)))]),
  });
  const stopsOf = (name) => situations.flatMap((situation) => cellOf(situation, name));
  const goodOf = (name) => situations.filter((situation) => isGood(cellOf(situation, name)));
  const perStop = (name, what) => countOf(stopsOf(name), what) / stopsOf(name).length;
  const barsOf = (name, y) => ({ name, points: names.map((peer) => ({ x: peer, y: y(peer) })) });
  const mediansOf = (name) =>
    situations.map((situation) => Math.min(median(cellOf(situation, name).map(({ time }) => time)), LIMIT));
  return {
    topic: "drain",
    title: "Drain of an HTTP server",
    text: [
      "A server, a process of its own, is told to stop by SIGTERM while five clients keep their connections busy,",
      "with pauses of at most 20 ms, and others do what the row says: a request or message that is answered late,",
      "of 16 MB, or never; 50 connections that are made, and asked over, while the server is too busy to accept",
      "them; or all of that. Each server is used as its README says, terminus with `useExit0`, lightship with a",
      "handler that waits for `server.close()` (with those of its README it ends the process a second later,",
      "whatever is in flight), and, where there is an option for it, requests in flight may take 2 s. A request is",
      "*lost* if a handler got it, and the client no full answer. It is *cut off* if no handler got it, though the",
      "client made its connection before the stop, and had not been told that this ends. It is *too late* if that",
      "was made after the stop, and neither refused nor served: whoever closes a listener resets what connects in",
      "the same instant, so that a balancer has to know first (allstop's `drainDelay`); but http-terminator goes on",
      "accepting connections to destroy them. A connection that goes on as it is (half a body, a WebSocket) takes",
      "allstop its whole timeout, and an idle one 50 ms, in which requests that are on their way arrive; a peer",
      "that ends those at once exits sooner.",
    ].join(" "),
    tables: [
      {
        title: `Situations, of ${situations.length}, with nothing lost or cut off, and an exit in ${LIMIT / 1_000} s`,
        header: ["", ...names],
        rows: [["situations", ...names.map((name) => goodOf(name).length)]],
      },
      tableOf(`Requests lost, in ${STOPS} stops`, (stops) => countOf(stops, "lost")),
      tableOf(`Requests cut off, in ${STOPS} stops`, (stops) => countOf(stops, "cut")),
      tableOf(`Requests that came too late, in ${STOPS} stops`, (stops) => countOf(stops, "late")),
      tableOf("From SIGTERM to the exit: median (worst), and the exit code if it is not 0", timeOf),
    ],
    remarks: remarksOf(cellOf, names),
    plots: [
      {
        name: "drain-lost",
        title: "Requests lost in a stop, mean over all situations",
        x: { title: "", scale: "ordinal" },
        y: { title: "requests", scale: "linear" },
        series: [
          barsOf("lost, though a handler got it", (name) => perStop(name, "lost")),
          barsOf("cut off before that", (name) => perStop(name, "cut")),
          barsOf("too late, but not refused", (name) => perStop(name, "late")),
        ],
      },
      {
        name: "drain-exit",
        title: `From SIGTERM to the exit (${LIMIT / 1_000} s: not seen)`,
        x: { title: "", scale: "ordinal" },
        y: { title: "milliseconds", scale: "linear" },
        series: [
          barsOf("median of the situations", (name) => median(mediansOf(name))),
          barsOf("slowest situation", (name) => Math.max(...mediansOf(name))),
        ],
      },
    ],
  };
}

function isGood(stops) {
  return countOf(stops, "lost") + countOf(stops, "cut") === 0 && stops.every(({ time }) => time < LIMIT);
}

/** The one in the middle, which may be infinite. */
function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

function countOf(stops, what) {
  return stops.reduce((sum, each) => sum + each[what].length, 0);
}

function timeOf(stops) {
  const times = stops.map(({ time }) => time);
  const codes = [...new Set(stops.map(({ code }) => code).filter(Boolean))].map((code) => `, ${code}`);
  return `${milliseconds(median(times))} (${milliseconds(Math.max(...times))})${codes.join("")}`;
}

function milliseconds(time) {
  return time === Infinity ? `> ${LIMIT / 1_000} s` : `${Math.round(time).toLocaleString("en-US")} ms`;
}

/** Where a peer does as well, or better. */
function remarksOf(cellOf, [ours, ...others]) {
  return situations.flatMap((situation) => {
    const timeIn = (name) => median(cellOf(situation, name).map(({ time }) => time));
    const equals = others.filter((name) => isGood(cellOf(situation, name)));
    const faster = equals.filter((name) => timeIn(name) < timeIn(ours) * 0.9);
    const listed = (names) => names.map((name) => `${name} (${milliseconds(timeIn(name))})`).join(", ");
    const remarks = [];
    if (equals.length) remarks.push(`${situation.name}: nothing is lost or cut off either by ${equals.join(", ")}`);
    if (faster.length) remarks[0] += `; sooner than ${ours} (${milliseconds(timeIn(ours))}) exits ${listed(faster)}`;
    if (!isGood(cellOf(situation, ours))) {
      const failed = cellOf(situation, ours).flatMap(({ lost, cut }) => [...lost, ...cut]);
      remarks.push(`${situation.name}: ${ours} is not without a loss: ${failed.join(", ") || "late exits"}`);
    }
    return remarks;
  });
}
