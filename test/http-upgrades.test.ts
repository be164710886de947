import { once } from "node:events";
import { createServer, type Server as HttpServer } from "node:http";
import type { Http2Server, OutgoingHttpHeaders } from "node:http2";
import type { Server } from "node:net";
import type { Duplex } from "node:stream";
import { HttpServerTask } from "allstop/http";
import { describe, expect, test } from "vitest";
import { Backend, drained, get, post, RawClient, run, useHttp } from "./support/http.ts";
import {
  answerOn,
  closing,
  Http2Client,
  http2Server,
  httpsServer,
  secureClient,
  useHttp2,
  watch,
  whenClosing,
} from "./support/http2.ts";
import { told } from "./support/told.ts";

const SWITCHED = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const ESTABLISHED = "HTTP/1.1 200 Connection Established\r\n\r\n";

useHttp();
useHttp2();

/** How a connection becomes one of another protocol: with which request, told by which event, answered by what. */
const WAYS_OUT = [
  ["upgrade", get("/echo", "Connection: Upgrade", "Upgrade: echo"), SWITCHED],
  ["connect", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", ESTABLISHED],
] as const;

function connectTo(server: Server): Promise<RawClient> {
  return "setSecureContext" in server ? secureClient(server) : RawClient.open(server);
}

describe.concurrent.each([
  ["HTTP", createServer],
  ["HTTPS", httpsServer],
])("%s", (_, create) => {
  describe.each(WAYS_OUT)("a socket after `%s`", (event, request, head) => {
    /** A server that echoes what such sockets send, and all of them. */
    function echoing(): { backend: Backend; sockets: Duplex[] } {
      const backend = new Backend(undefined, create());
      const sockets: Duplex[] = [];
      backend.server.on(event, (_, socket) => {
        sockets.push(socket);
        socket.on("error", () => {});
        socket.write(head);
        socket.on("data", (chunk: Buffer) => void socket.write(chunk));
      });
      return { backend, sockets };
    }

    /** Opens such a socket. */
    async function open(server: Server): Promise<RawClient> {
      const client = await connectTo(server);
      client.send(request);
      await client.until(() => client.text === head);
      return client;
    }

    test("is not idle: it lives until the handler ends it", async () => {
      const { backend, sockets } = echoing();
      const served = await run(backend.server);
      const [client, idle] = await Promise.all([open(backend.server), connectTo(backend.server)]);
      served.begin();
      expect(await idle.closed).toBe("ended");
      client.send("still there");
      await client.until(() => client.text === `${head}still there`);
      expect([client.end, served.drained]).toEqual(["open", undefined]);
      sockets[0]!.end("bye");
      expect(await client.closed).toBe("ended");
      expect(client.text).toBe(`${head}still therebye`);
      await served.end();
      expect(told(served.log)).toContainEqual(drained(0));
    });

    test("lives until the client ends it", async () => {
      const { backend, sockets } = echoing();
      const served = await run(backend.server);
      const client = await open(backend.server);
      served.begin();
      await closing(backend.server);
      sockets[0]!.on("end", () => sockets[0]!.end("bye"));
      client.socket.end("last words, ");
      await client.closed;
      expect(client.text).toBe(`${head}last words, bye`);
      await served.end();
      expect(told(served.log)).toContainEqual(drained(0));
    });

    test("is destroyed at `drainTimeout`, and counted once", async () => {
      const { backend, sockets } = echoing();
      const served = await run(backend.server, { drainTimeout: 20 });
      const clients = await Promise.all([1, 2].map(() => open(backend.server)));
      await connectTo(backend.server); // idle, so it is not counted
      await served.stop();
      await Promise.all(clients.map(({ closed }) => closed));
      expect(sockets.map(({ destroyed }) => destroyed)).toEqual([true, true]);
      expect(told(served.log)).toContainEqual(drained(0, 2));
    });

    test("may come during `drainDelay`", async () => {
      const { backend, sockets } = echoing();
      const served = await run(backend.server, { drainDelay: Infinity });
      served.begin();
      const client = await open(backend.server);
      client.send("still there");
      await client.until(() => client.text === `${head}still there`);
      sockets[0]!.end();
      expect(await client.closed).toBe("ended");
      expect(backend.server.listening).toBe(true);
      backend.server.close();
      await served.end();
    });

    test("may come while it drains, and holds that", async () => {
      const { backend, sockets } = echoing();
      const served = await run(backend.server);
      const [client, idle] = await Promise.all([connectTo(backend.server), connectTo(backend.server)]);
      whenClosing(backend.server, () => client.send(request));
      served.begin();
      await client.until(() => client.text === head);
      await idle.closed;
      client.send("still there");
      await client.until(() => client.text === `${head}still there`);
      sockets[0]!.end();
      expect(await client.closed).toBe("ended");
      await served.end();
      expect(told(served.log)).toContainEqual(drained(0));
    });

    test("that the handler refuses holds nothing", async () => {
      const backend = new Backend(undefined, create());
      backend.server.on(event, (_, socket) => {
        socket.end("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
      });
      const served = await run(backend.server);
      const [early, late] = await Promise.all([1, 2].map(() => connectTo(backend.server)));
      early!.send(request);
      expect(await early!.answer()).toMatchObject({ status: 403, body: "no" });
      whenClosing(backend.server, () => late!.send(request));
      served.begin();
      expect(await late!.answer()).toMatchObject({ status: 403, body: "no" });
      await served.end();
      expect(told(served.log)).toContainEqual(drained(0));
    });

    test("that the handler destroys holds nothing", async () => {
      const backend = new Backend(undefined, create());
      backend.server.on(event, (_, socket) => socket.destroy());
      const served = await run(backend.server);
      const client = await connectTo(backend.server);
      whenClosing(backend.server, () => client.send(request));
      served.begin();
      await client.closed;
      expect(client.text).toBe("");
      await served.end();
      expect(told(served.log)).toContainEqual(drained(0));
    });

    test("gets what came with the request, also if others were before that", async () => {
      const { backend, sockets } = echoing();
      const heads: string[] = [];
      backend.server.on(event, (_, __, first) => void heads.push(first.toString()));
      const served = await run(backend.server);
      const client = await connectTo(backend.server);
      client.get("/1");
      (await backend.request("/1")).answer();
      await client.answer();
      served.begin();
      client.send(`${request}first words`);
      await client.until(() => client.text.endsWith(head));
      expect(heads).toEqual(["first words"]);
      sockets[0]!.end();
      await served.end();
      expect(served.drained).toMatchObject({ destroyed: 0 });
    });
  });
});

/** Requests by hand, each on a connection of its own that ends with its answer. */
const REQUESTS: readonly (readonly [what: string, text: string])[] = [
  ["GET", get("/", "Connection: close")],
  ["two pipelined", get("/") + get("/2", "Connection: close")],
  ["HEAD", "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
  ["HTTP/1.0", "GET / HTTP/1.0\r\n\r\n"],
  ["POST", post("/", "body", 4, "Connection: close")],
  ["100-continue", post("/", "body", 4, "Connection: close", "Expect: 100-continue")],
  ["another expectation", post("/", "body", 4, "Connection: close", "Expect: something")],
  ["an upgrade", get("/", "Connection: Upgrade, close", "Upgrade: echo")],
  ["an upgrade after another", get("/") + get("/2", "Connection: Upgrade, close", "Upgrade: echo")],
  ["CONNECT", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
  ["no Host", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"],
  ["nonsense", "nonsense\r\n\r\n"],
  ["the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
];

/** Listeners that a server may have beside that for `request`, each of which takes something from the server. */
const LISTENERS: Readonly<Record<string, (server: HttpServer) => void>> = {
  none: () => {},
  checkContinue: (server) => {
    server.on("checkContinue", (_, response) => response.writeHead(417).end("none of that"));
  },
  checkExpectation: (server) => {
    server.on("checkExpectation", (_, response) => response.writeHead(200).end("as expected"));
  },
  upgrade: (server) => {
    server.on("upgrade", (_, socket) => socket.end(`${SWITCHED}bye`));
  },
  connect: (server) => {
    server.on("connect", (_, socket) => socket.end(`${ESTABLISHED}bye`));
  },
  clientError: (server) => {
    server.on("clientError", (_, socket) => socket.end("HTTP/1.1 400 So Bad\r\n\r\n"));
  },
  "all of that": (server) => {
    for (const [name, listen] of Object.entries(LISTENERS)) if (name !== "all of that") listen(server);
  },
};

/** What a client sees of such a request, and what the server tells meanwhile, in a moment and by and by. */
async function seen(server: HttpServer, text: string): Promise<unknown> {
  const events: string[] = [];
  const unwatch = watch(server, (event) => void events.push(event));
  const client = await connectTo(server);
  client.send(text);
  await client.closed;
  unwatch();
  return { text: client.text.replaceAll(/Date: .*\r\n/g, ""), end: client.end, events: events.sort() };
}

/** A server that answers whatever it is asked for, with such listeners. */
function answering(create: () => HttpServer, listen: (server: HttpServer) => void): HttpServer {
  const server = create();
  server.on("request", (request, response) => {
    request.resume().on("end", () => response.end(`answer to ${request.method} ${request.url}`));
  });
  listen(server);
  return server;
}

/** Has both listen, the second one as a task, which is told to stop by what this returns, and goes on serving. */
async function listenBoth(plain: Server, server: Server): Promise<() => void> {
  const controller = new AbortController();
  const task = new HttpServerTask(server, { host: "127.0.0.1", drainDelay: Infinity });
  void task.run(controller.signal);
  await Promise.all([once(plain.listen(0, "127.0.0.1"), "listening"), task.ready()]);
  const counts = [plain, server].map((one) => one.eventNames().map((event) => [event, one.listenerCount(event)]));
  expect(counts[1]).toEqual(counts[0]);
  return () => controller.abort();
}

/** Those that are enough over TLS, where each takes a handshake. */
const SECURE_REQUESTS = REQUESTS.filter(([what]) => /^(two|100|an upgrade$|CONNECT|nonsense)/.test(what));

describe.concurrent.each([
  ["HTTP", createServer, Object.keys(LISTENERS), REQUESTS],
  ["HTTPS", httpsServer, ["none", "all of that"], SECURE_REQUESTS],
])("A server of %s does by itself what it does without the task", (_, create, names, requests) => {
  test.each(names)("with a listener for `request`, and one for %s", async (name) => {
    const [plain, server] = [1, 2].map(() => answering(create, LISTENERS[name]!));
    const stop = await listenBoth(plain!, server!);
    const plainly = [] as unknown[];
    for (const [_, text] of requests) plainly.push(await seen(plain!, text));
    for (const isStopping of [false, true]) {
      if (isStopping) stop();
      for (const [i, [what, text]] of requests.entries()) {
        expect({ isStopping, what, seen: await seen(server!, text) }).toEqual({ isStopping, what, seen: plainly[i] });
      }
    }
    for (const one of [plain!, server!]) one.close();
  });
});

/** Requests of HTTP/2, each over a session of its own. */
const STREAMS: readonly (readonly [what: string, headers: OutgoingHttpHeaders])[] = [
  ["GET", { ":path": "/" }],
  ["HEAD", { ":path": "/", ":method": "HEAD" }],
  ["POST", { ":path": "/", ":method": "POST" }],
  ["100-continue", { ":path": "/", ":method": "POST", expect: "100-continue" }],
  ["another expectation", { ":path": "/", ":method": "POST", expect: "something" }],
  ["CONNECT", { ":method": "CONNECT", ":authority": "x:1" }],
];

/** Listeners that a server of HTTP/2 may have, with or without those for requests. */
const LISTENERS_OF_HTTP2: Readonly<Record<string, (server: Http2Server) => void>> = {
  stream: (server) => {
    server.on("stream", (stream, headers) => {
      stream.respond({ ":status": 200 });
      // That of HEAD is ended already.
      if (!stream.writableEnded) stream.end(`streamed to ${headers[":method"]}`);
    });
  },
  request: answerRequests,
  "request and checkContinue": (server) => {
    answerRequests(server);
    server.on("checkContinue", (_, response) => response.writeHead(417).end("none of that"));
  },
  "request and checkExpectation": (server) => {
    answerRequests(server);
    server.on("checkExpectation", (_, response) => response.writeHead(200).end("as expected"));
  },
  "request and connect": (server) => {
    answerRequests(server);
    server.on("connect", (_, response) => response.writeHead(200).end("connected"));
  },
};

function answerRequests(server: Http2Server): void {
  server.on("request", (request, response) => response.end(`answer to ${request.method} ${request.url}`));
}

/** What a client of HTTP/2 sees of such a request, and what the server and its session tell meanwhile. */
async function seenOverHttp2(server: Http2Server, headers: OutgoingHttpHeaders): Promise<unknown> {
  const events: string[] = [];
  const unwatch = watch(server, (event) => void events.push(event));
  const client = await Http2Client.open(server);
  const stream = client.stream(headers, { endStream: true });
  const continued: string[] = [];
  stream.on("continue", () => void continued.push("continue"));
  const { headers: { date: _, ...others }, ...answer } = await answerOn(stream);
  client.session.close();
  await client.closed;
  unwatch();
  return { ...answer, headers: others, continued, events: events.sort() };
}

describe.concurrent.each([
  ["cleartext", Object.keys(LISTENERS_OF_HTTP2)],
  ["secure", ["stream", "request"]],
] as const)("A server of HTTP/2 (%s)", (transport, names) => {
  test.each(names)("does what it does without the task, with listeners for %s", async (name) => {
    const [plain, server] = [1, 2].map(() => http2Server(transport));
    for (const one of [plain!, server!]) LISTENERS_OF_HTTP2[name]!(one);
    const stop = await listenBoth(plain!, server!);
    const plainly = [] as unknown[];
    for (const [_, headers] of STREAMS) plainly.push(await seenOverHttp2(plain!, headers));
    for (const isStopping of [false, true]) {
      if (isStopping) stop();
      for (const [i, [what, headers]] of STREAMS.entries()) {
        const seen = await seenOverHttp2(server!, headers);
        expect({ isStopping, what, seen }).toEqual({ isStopping, what, seen: plainly[i] });
      }
    }
    for (const one of [plain!, server!]) one.close();
  });

  test("that has no listener for streams or requests has none with the task, and gets no compatibility", async () => {
    const [plain, server] = [1, 2].map(() => http2Server(transport));
    await listenBoth(plain!, server!);
    const clients = await Promise.all([plain!, server!].map((one) => Http2Client.open(one)));
    const counts = ["stream", "request", "session", "newListener"].map((name) => server!.listenerCount(name));
    expect(counts).toEqual([0, 0, 0, 1]);
    for (const { session } of clients) session.close();
    for (const one of [plain!, server!]) one.close();
  });
});
