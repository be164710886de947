/*
 * Programs on HttpServerTask, whatever framework is in them, and one of gRPC: SIGTERM under load loses no request.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request } from "node:http";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Client, credentials, status } from "@grpc/grpc-js";
import { WebSocket } from "ws";
import { http1, http2, idle, Load } from "./load.mjs";
import { service } from "./servers/grpc-service.mjs";
import { node, start } from "./support.mjs";

/** How long a program goes on serving, above the pauses of the clients. */
const DRAIN_DELAY = 500;

/** How long the longest request takes after that. */
const LONGEST = 300;

/** A drain takes at most so much more, which `drain.test.mjs` is strict about; on a busy machine, much more. */
const MARGIN = 100;
const SLACK = 3_000;

for (const { name, connect, pause = 50 } of [
  { name: "node", connect: http1 },
  { name: "node", connect: http1, pause: 0 },
  { name: "express", connect: http1 },
  { name: "fastify", connect: http1 },
  { name: "koa", connect: http1 },
  { name: "hono", connect: http1 },
  { name: "http2", connect: http2 },
  { name: "http2", connect: http2, pause: 0 },
]) {
  test(`${name} loses no request by a SIGTERM under load, of clients that pause up to ${pause} ms`, async (t) => {
    const { program, url } = await startServer(t, name, { DRAIN_DELAY });
    const idles = [await idle(url), await idle(url)];
    if (connect === http1) idles.push(await idle(url, "GET / HTTP/1.1\r\nHost: "));
    const load = new Load(url, { connect, pause });
    await load.answers(100);
    const client = connect(url);
    const longest = client.get(`/slow?ms=${DRAIN_DELAY + LONGEST}`);
    await load.answers(120);
    program.kill("SIGTERM");

    await load.ended();
    // A machine can be so busy that a client comes after its time.
    assert.deepEqual(load.failures.filter(({ age }) => age < DRAIN_DELAY), []);
    assert.deepEqual(await longest, { status: 200, body: "hello" });
    await Promise.all(idles.map(({ ended }) => ended));
    client.close();

    const { requests, destroyed, elapsed } = await endOf(program);
    assert.ok(requests > 1, `${requests} requests`);
    assert.equal(destroyed, 0);
    const afterDelay = elapsed - DRAIN_DELAY;
    assert.ok(afterDelay < LONGEST + MARGIN + SLACK, `${afterDelay} ms`);
  });
}

test("node: the listener is closed while a request is in flight", async (t) => {
  const { program, url } = await startServer(t, "node", { DRAIN_DELAY: 0 });
  const upload = request(new URL("/upload", url), { method: "POST", headers: { expect: "100-continue" } });
  upload.flushHeaders();
  await once(upload, "continue");
  program.kill("SIGTERM");
  const isOpen = () => idle(url).then(
    () => true,
    () => false,
  );
  while (await isOpen()) await sleep(5);
  upload.end("hello");
  const [response] = await once(upload, "response");
  assert.equal(await text(response), "hello");
  const { requests, destroyed } = await endOf(program);
  assert.deepEqual({ requests, destroyed }, { requests: 1, destroyed: 0 });
});

test("ws: each socket is told that the server goes away", async (t) => {
  const { program, url } = await startServer(t, "ws");
  const sockets = await Promise.all(Array.from({ length: 20 }, () => openSocket(url)));
  const closed = sockets.map((socket) => once(socket, "close"));
  program.kill("SIGTERM");
  for (const [code] of await Promise.all(closed)) assert.equal(code, 1001);
  const { destroyed, elapsed } = await endOf(program);
  assert.equal(destroyed, 0);
  assert.ok(elapsed < MARGIN + SLACK, `${elapsed} ms`);
});

test("ws: a program that does nothing about its sockets has them destroyed", async (t) => {
  const DRAIN_TIMEOUT = 2_000;
  const { program, url } = await startServer(t, "ws-silent", { DRAIN_TIMEOUT });
  const sockets = await Promise.all(Array.from({ length: 20 }, () => openSocket(url)));
  const closed = sockets.map((socket) => once(socket, "close"));
  program.kill("SIGTERM");
  await program.printed("stopping");
  // They go on until then.
  await Promise.all(sockets.map((socket) => echo(socket)));
  for (const [code] of await Promise.all(closed)) assert.equal(code, 1006);
  const { destroyed, elapsed } = await endOf(program);
  assert.equal(destroyed, sockets.length);
  assert.ok(elapsed >= DRAIN_TIMEOUT - 1 && elapsed < DRAIN_TIMEOUT + MARGIN + SLACK, `${elapsed} ms`);
});

test("grpc: each call in flight is answered", async (t) => {
  const { program, url } = await startServer(t, "grpc", { DRAIN_TIMEOUT: 10_000 });
  const clients = Array.from({ length: 5 }, () => grpcClient(t, url));
  for (const { wait } of clients) await wait({ ms: 0 });
  const requests = [1, 2, 3, 4].map((number) => ({ ms: 300, number }));
  const calls = clients.flatMap(({ wait }) => requests.map(wait));
  // What a client has sent before is in flight by then.
  await Promise.all(clients.map(({ wait }) => wait({ ms: 0 })));
  program.kill("SIGTERM");
  const answers = await Promise.all(calls);
  assert.deepEqual(
    answers,
    clients.flatMap(() => requests),
  );
  await endOf(program);
});

test("grpc: a call that takes too long is cut", async (t) => {
  const { program, url } = await startServer(t, "grpc", { DRAIN_TIMEOUT: 200 });
  const { wait } = grpcClient(t, url);
  await wait({ ms: 0 });
  const cut = assert.rejects(wait({ ms: 60_000 }), { code: status.CANCELLED });
  await wait({ ms: 0 });
  program.kill("SIGTERM");
  await cut;
  await endOf(program);
});

/** Starts one of the programs, and waits until it listens. */
async function startServer(t, name, env = {}) {
  const file = fileURLToPath(new URL(`servers/${name}.mjs`, import.meta.url));
  const program = start(t, node.command, [file], { env, timeout: 60_000 });
  const [url] = /(http|ws|grpc):\/\/127\.0\.0\.1:\d+/.exec(await program.printed("://127.0.0.1:"));
  return { program, url };
}

/** Waits for the end of a program, which has to be a clean one; returns what was drained, if it says so. */
async function endOf(program) {
  const { code, stdout, stderr } = await program.endsWithin(20_000);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" }, stdout);
  const drained = /http-drained http \{ requests: (\d+), destroyed: (\d+), elapsed: (\d+) \}/.exec(stdout) ?? [];
  const [requests, destroyed, elapsed] = drained.slice(1).map(Number);
  return { requests, destroyed, elapsed };
}

async function openSocket(url) {
  const socket = new WebSocket(url);
  socket.on("error", () => {}); // it is told as a close code, too
  await once(socket, "open");
  await echo(socket);
  return socket;
}

async function echo(socket) {
  socket.send("hello");
  const [answer] = await once(socket, "message");
  assert.equal(answer.toString(), "hello");
}

function grpcClient(t, url) {
  const { host } = new URL(url);
  const client = new Client(host, credentials.createInsecure());
  t.after(() => client.close());
  const { path, requestSerialize, responseDeserialize } = service.wait;
  const call = promisify(client.makeUnaryRequest).bind(client, path, requestSerialize, responseDeserialize);
  return { wait: (request) => call(request) };
}
