/*
 * What HttpServerTask adds to a request: the time that a server takes for some, as a ratio to that of the same server
 * without it. Clients ask both in turns of some milliseconds, so that a slow moment hits both, and the median of the
 * turns is taken. Exits with 1 when it exceeds its limit.
 */
import { once } from "node:events";
import { createServer } from "node:http";
import { connect } from "node:net";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { HttpServerTask } from "../../../dist/http.js";

const LIMIT = 1.1;

const CONNECTIONS = 50;
const TURNS = 300;
const WARM_UP = 50;
/** In a turn, of each server. */
const REQUESTS = 500;

const REQUEST = "GET /greeting HTTP/1.1\r\nHost: localhost\r\n\r\n";

if (isMainThread) await serve();
else await measure(workerData);

// The servers

async function serve() {
  const plain = createServer(greet).listen(0, "127.0.0.1");
  await once(plain, "listening");

  const server = createServer(greet);
  const http = new HttpServerTask(server, { host: "127.0.0.1" });
  const controller = new AbortController();
  const run = http.run(controller.signal);
  await http.ready();

  const ports = [plain, server].map((each) => each.address().port);
  const clients = new Worker(new URL(import.meta.url), { workerData: ports });
  const [ratios] = await once(clients, "message");
  plain.close();
  controller.abort();
  await run;
  report(ratios);
}

function greet(_, response) {
  response.writeHead(200, { "content-type": "application/json" }).end('{"greeting":"hello"}');
}

// Their clients, in a thread of their own

async function measure(ports) {
  const groups = [];
  for (const port of ports) {
    groups.push(await Promise.all(Array.from({ length: CONNECTIONS }, () => open(port))));
  }
  const ratios = [];
  for (let turn = -WARM_UP; turn < TURNS; turn++) {
    const times = [];
    for (const index of turn % 2 ? [0, 1] : [1, 0]) times[index] = await timeOf(groups[index]);
    if (turn >= 0) ratios.push(times[1] / times[0]);
  }
  for (const socket of groups.flat()) socket.end();
  parentPort.postMessage(ratios);
}

async function open(port) {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  return socket;
}

/** How long it takes to have requests answered over these connections, over each of them one after the other. */
async function timeOf(sockets) {
  const startedAt = performance.now();
  let unsent = REQUESTS;
  let unanswered = REQUESTS;
  await new Promise((resolve) => {
    const send = (socket) => unsent-- > 0 && socket.write(REQUEST);
    for (const socket of sockets) {
      // An answer is so small that it arrives as one.
      socket.removeAllListeners("data").on("data", () => (--unanswered ? send(socket) : resolve()));
      send(socket);
    }
  });
  return performance.now() - startedAt;
}

function report(ratios) {
  ratios.sort((a, b) => a - b);
  const [low, median, high] = [0.25, 0.5, 0.75].map((part) => ratios[ratios.length * part].toFixed(3));
  const exceeded = !(median <= LIMIT);
  if (exceeded) process.exitCode = 1;
  const what = "a request to a server on HttpServerTask / to the same server without it";
  console.log(`${what}  ${median} x (${low} to ${high})  ${LIMIT} x${exceeded ? "  exceeded" : ""}`);
}
