/*
 * What all servers of the comparison of drains have in common: their handlers, and the ledger in which these note each
 * request that they got, at once, so that it outlives any end of the process.
 */
import { once } from "node:events";
import { existsSync, openSync, writeSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocketServer } from "ws";

/** How long requests in flight may take after the stop, in milliseconds, wherever that can be said. */
export const GRACE = Number(process.env.GRACE ?? 2_000);

const ledger = process.env.LEDGER ? openSync(process.env.LEDGER, "a") : undefined;
const bodies = new Map();

/** A server that does not listen yet. */
export function createApplication() {
  const server = createServer(answer);
  new WebSocketServer({ server }).on("connection", echo);
  return server;
}

/** Listens, and tells at which port. */
export async function listen(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  tellPort(server);
}

export function tellPort(server) {
  console.log(server.address().port);
}

/** Answers `/<number>?ms=<how late>&size=<how much>`; with `until`, it blocks the process until that file exists. */
async function answer(request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  note(pathname.slice(1));
  const until = searchParams.get("until");
  const blockedAt = performance.now();
  while (until && !existsSync(until) && performance.now() - blockedAt < 3_000);
  if (request.method === "POST") {
    try {
      await once(request.resume(), "end");
    } catch {
      return;
    }
  }
  await sleep(Number(searchParams.get("ms")));
  response.end(bodyOf(Number(searchParams.get("size"))));
}

/** Sends each message back, 300 ms later. It is for the client to close the connection. */
function echo(socket) {
  socket.on("error", () => {});
  socket.on("message", async (message) => {
    note(String(message));
    await sleep(300);
    socket.send(message, () => {});
  });
}

function note(number) {
  if (ledger !== undefined) writeSync(ledger, `${number}\n`);
}

function bodyOf(size) {
  if (!bodies.has(size)) bodies.set(size, Buffer.alloc(size, "x"));
  return bodies.get(size);
}
