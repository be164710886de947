import { createHash, randomBytes } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { createServer, type Server, type ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { setImmediate } from "node:timers/promises";
import type { HttpServerOptions } from "allstop/http";
import { describe, expect, test } from "vitest";
import {
  type Answer,
  Backend,
  drained,
  get,
  post,
  PROMPT,
  RawClient,
  run,
  serve,
  type ServerRun,
  useHttp,
  whenClosed,
} from "./support/http.ts";
import { told } from "./support/told.ts";

useHttp();

const CLOSE = { connection: "close" };
const KEEP = { connection: "keep-alive" };

/** In what order the answers of a client came, with what each said of the connection. */
function order({ body, headers }: Answer): string {
  return `${body.replace("answer to ", "")} ${headers["connection"]}`;
}

/** Checks how it ended: what it told, and that it had no failure. */
async function expectDrained(server: ServerRun, requests: number, destroyed = 0): Promise<void> {
  await server.end();
  expect(told(server.log).filter(({ type }) => type === "http-drained")).toEqual([drained(requests, destroyed)]);
}

/** A text of so many megabytes, no end of which is like another. */
function megabytes(count: number): string {
  return randomBytes(1 << 15).toString("hex").repeat(count * 16);
}

function digest(text: string): string {
  return createHash("sha1").update(text, "latin1").digest("hex");
}

describe("A request in flight at the stop", () => {
  test.concurrent("is answered in full, and its answer says `Connection: close`", async () => {
    const { backend, server } = await serve();
    const client = await server.client(get("/a"));
    const { answer } = await backend.request("/a");
    server.begin();
    await whenClosed(server);
    answer();
    expect(await client.answer()).toMatchObject({ status: 200, body: "answer to /a", headers: CLOSE });
    expect(await client.closed).toBe("ended");
    await expectDrained(server, 1);
  });

  test.concurrent("of each of many connections is answered in full", async () => {
    const { backend, server } = await serve();
    const paths = Array.from({ length: 40 }, (_, i) => `/${i}`);
    const clients = await Promise.all(paths.map((path) => server.client(get(path))));
    await Promise.all(paths.map((path) => backend.request(path)));
    server.begin();
    for (const { answer } of [...backend.exchanges].reverse()) {
      await setImmediate();
      answer();
    }
    const answers = await Promise.all(clients.map((client) => client.answer()));
    expect(answers.map(order)).toEqual(paths.map((path) => `${path} close`));
    expect(new Set(await Promise.all(clients.map(({ closed }) => closed)))).toEqual(new Set(["ended"]));
    await expectDrained(server, 40);
  });

  test.concurrent("that had begun its answer sends the rest of it; its connection is closed 50 ms later", async () => {
    const { backend, server } = await serve();
    const client = await server.client(get("/stream"));
    const { response } = await backend.request("/stream");
    response.write("one ");
    await client.until(() => client.text.includes("one"));
    server.begin();
    await whenClosed(server);
    response.write("two ");
    await client.until(() => client.text.includes("two"));
    const endedAt = performance.now();
    response.end("three");
    expect(await client.answer()).toMatchObject({ body: "one two three", headers: KEEP });
    expect(await client.closed).toBe("ended");
    expect(client.endedAt - endedAt).toBeGreaterThan(48);
    expect(client.endedAt - endedAt).toBeLessThan(PROMPT);
    await expectDrained(server, 1);
  });

  test.concurrent("that is never answered is cut at `drainTimeout`", async () => {
    const { backend, server } = await serve({ drainTimeout: 60 });
    const client = await server.client(get("/hangs"));
    await backend.request("/hangs");
    server.begin();
    expect(await client.closed).toBe("ended");
    expect(client.text).toBe("");
    expect(client.endedAt - server.stoppedAt).toBeGreaterThan(58);
    await expectDrained(server, 1, 1);
  });

  test.concurrent("whose handler destroys its socket is over with that", async () => {
    const { backend, server } = await serve();
    const client = await server.client(get("/a"));
    const { response } = await backend.request("/a");
    server.begin();
    response.destroy();
    expect(await client.closed).toBe("ended");
    expect(client.text).toBe("");
    await expectDrained(server, 1);
    expect(server.took).toBeLessThan(PROMPT);
  });

  test.concurrent.each([
    ["before its answer", get("/a")],
    ["within its answer", get("/a")],
    ["within its body", post("/a", "half of it", 1_000)],
  ])("whose client goes away %s is over with that", async (when, request) => {
    const { backend, server } = await serve();
    const client = await server.client(request);
    const { response } = await backend.request("/a");
    server.begin();
    if (when === "within its answer") {
      response.write("half of it");
      await client.until(() => client.text.includes("half"));
    }
    client.leave();
    await expectDrained(server, 1);
    expect(server.took).toBeLessThan(PROMPT);
  });

  test.concurrent.each([0, 30])("whose handler fails is answered if that is captured (%i ms)", async (drainDelay) => {
    EventEmitter.captureRejections = true;
    const httpServer = createServer();
    EventEmitter.captureRejections = false;
    httpServer.on("request", async () => {
      await setImmediate();
      throw new Error("broken");
    });
    const server = await run(httpServer, { drainDelay });
    const client = await server.client();
    server.begin();
    client.get("/a");
    expect(await client.answer()).toMatchObject({ status: 500, body: "Internal Server Error", headers: CLOSE });
    await expectDrained(server, 1);
  });

  test.concurrent("ends a stream of events when its handler heard of the stop", async () => {
    const { backend, server } = await serve();
    const client = await server.client(get("/events"));
    const { response } = await backend.request("/events");
    response.writeHead(200, { "Content-Type": "text/event-stream", Connection: "keep-alive" });
    response.write("data: 1\n\n");
    server.manager.signal.addEventListener("abort", () => response.end("data: 2\n\n"));
    await client.until(() => client.text.includes("data: 1"));
    server.begin();
    expect((await client.answer()).body).toBe("data: 1\n\ndata: 2\n\n");
    expect(await client.closed).toBe("ended");
    await expectDrained(server, 1);
    expect(server.took).toBeLessThan(PROMPT);
  });

  test.concurrent("cuts a stream of events that goes on at `drainTimeout`", async () => {
    const { backend, server } = await serve({ drainTimeout: 60 });
    const client = await server.client(get("/events"));
    const { response } = await backend.request("/events");
    response.write("data: 1\n\n");
    await client.until(() => client.text.includes("data: 1"));
    server.begin();
    const timer = setInterval(() => response.write("data: 2\n\n"), 10);
    expect(await client.closed).toBe("ended");
    clearInterval(timer);
    expect(client.answers()[0]).toMatchObject({ isComplete: false, body: expect.stringContaining("data: 2") });
    await expectDrained(server, 1, 1);
  });
});

// One at a time: they keep this process busy for longer than an idle connection is left.
describe("A slow client", () => {
  test("that uploads is answered when the handler got all of it", async () => {
    const { backend, server } = await serve();
    const body = megabytes(1);
    const client = await server.client(post("/upload", "", body.length));
    const { request, answer } = await backend.request("/upload");
    const chunks: Buffer[] = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => answer(digest(Buffer.concat(chunks).toString("latin1"))));
    server.begin();
    await whenClosed(server);
    for (let at = 0; at < body.length; at += 200_000) {
      client.send(body.slice(at, at + 200_000));
      await setImmediate();
    }
    expect(await client.answer()).toMatchObject({ body: digest(body), headers: CLOSE });
    expect(await client.closed).toBe("ended");
    await expectDrained(server, 1);
  });

  test("that uploads for longer than `drainTimeout` is cut then", async () => {
    const { backend, server } = await serve({ drainTimeout: 60 });
    const client = await server.client(post("/upload", "some", 100));
    const { request } = await backend.request("/upload");
    request.resume();
    server.begin();
    const timer = setInterval(() => client.send("x"), 10);
    await client.closed;
    clearInterval(timer);
    expect(client.text).toBe("");
    await expectDrained(server, 1, 1);
  });

  test("that downloads gets all of an answer that was ended before the stop and is still being sent", async () => {
    const { backend, server } = await serve();
    const body = megabytes(24);
    const client = await server.client();
    client.socket.pause();
    client.get("/download");
    const { answer } = await backend.request("/download");
    answer(body);
    await setImmediate();
    server.begin();
    await whenClosed(server);
    await setImmediate();
    client.socket.resume();
    expect(await client.closed).toBe("ended");
    expectBody(client.answers()[0], body);
    await expectDrained(server, 1);
  });

  test("that downloads from a plain server is cut by its `close()`: that alone would be no drain", async () => {
    const { server } = new Backend(({ answer }) => answer("x".repeat(24 << 20)));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const client = await RawClient.open(server);
    client.socket.pause();
    client.get("/download");
    await once(server, "request");
    await setImmediate();
    server.close();
    client.socket.resume();
    await client.closed;
    expect(client.answers()[0]?.isComplete).toBe(false);
  });

  test("that is busy goes on at a plain server after its `close()`, which waits for one that never asks", async () => {
    const backend = new Backend();
    const { server } = backend;
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    // From Node 26 on, one that sends nothing at all is closed.
    const [silent, busy] = [await RawClient.open(server, "GET /"), await RawClient.open(server, get("/0"))];
    const first = await backend.request("/0");
    let isClosed = false;
    server.close(() => (isClosed = true));
    first.answer();
    for (let i = 1; i < 10; i++) {
      expect((await busy.answer(i)).headers["connection"]).toBe("keep-alive");
      busy.get(`/${i}`);
      (await backend.request(`/${i}`)).answer();
    }
    busy.leave();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect([silent.end, isClosed]).toEqual(["open", false]);
    silent.leave();
    await once(server, "close");
  });

  test("that downloads gets all of an answer that begins after the stop", async () => {
    const { backend, server } = await serve();
    const body = megabytes(24);
    const client = await server.client(get("/download"));
    const { answer } = await backend.request("/download");
    server.begin();
    await whenClosed(server);
    client.socket.pause();
    answer(body);
    await setImmediate();
    client.socket.resume();
    expect(await client.closed).toBe("ended");
    expectBody(client.answers()[0], body);
    expect(client.answers()[0]).toMatchObject({ headers: CLOSE });
    await expectDrained(server, 1);
  });

  test("that downloads for longer than `drainTimeout` is cut then", async () => {
    const { backend, server } = await serve({ drainTimeout: 60 });
    const client = await server.client();
    client.socket.pause();
    client.get("/download");
    (await backend.request("/download")).answer(megabytes(24));
    await server.stop();
    expect(server.took).toBeGreaterThan(58);
    await expectDrained(server, 1, 1);
    client.socket.resume();
    await client.closed;
    expect(client.answers()[0]?.isComplete).toBe(false);
  });

  test("that sends further requests meanwhile gets all of the answers to those that a handler got", async () => {
    const body = megabytes(20);
    const { backend, server } = await serve({}, ({ url, answer }) => answer(url === "/big" ? body : url));
    const client = await server.client();
    client.socket.pause();
    client.get("/big");
    await backend.request("/big");
    server.begin();
    for (let i = 0; i < 200; i++) client.get(`/${i}`);
    for (let turn = 0; turn < 10; turn++) await setImmediate();
    client.socket.resume();
    await client.closed;
    const [first, ...others] = client.answers();
    expectBody(first, body);
    expect(others.map(({ body }) => body)).toEqual(backend.urls.slice(1));
    await expectDrained(server, backend.urls.length);
  });

  test("gets all of an early answer, though it still sends the body that nobody reads", async () => {
    const { backend, server } = await serve();
    const client = await server.client(post("/upload", "", 1 << 23));
    const { response } = await backend.request("/upload");
    server.begin();
    client.socket.pause();
    client.send("x".repeat(1 << 23));
    const body = megabytes(1);
    response.writeHead(413).end(body);
    await once(response, "close");
    await setImmediate();
    client.socket.resume();
    await client.closed;
    expectBody(client.answers()[0], body);
    await expectDrained(server, 1);
  });

  test("gets all of an early answer, for how long it may send its body", async () => {
    const { backend, server } = await serve();
    const client = await server.client(post("/upload", "half", 8));
    const other = await server.client(get("/other"));
    const { response } = await backend.request("/upload");
    (await backend.request("/other")).response.flushHeaders();
    server.begin();
    await whenClosed(server);
    client.socket.pause();
    const body = megabytes(2);
    response.writeHead(413).end(body);
    await once(response, "close");
    (await backend.request("/other")).answer();
    // By then an idle connection of that time is closed.
    await other.closed;
    client.send("rest");
    await setImmediate();
    client.socket.resume();
    await client.closed;
    expectBody(client.answers()[0], body);
    await expectDrained(server, 2);
  });
});

function expectBody(answer: Answer | undefined, body: string): void {
  const { isComplete, body: received = "" } = answer ?? {};
  expect([isComplete, received.length, digest(received)]).toEqual([true, body.length, digest(body)]);
}

// By itself: it keeps this process busy.
test("A request within the 50 ms is answered, though it is read only later because the program was busy", async () => {
  const { server } = await serve();
  const idle = await server.client();
  const [used, half] = [await server.client(), await server.client("GET /now/2 HTTP/1.1\r\n")];
  await expectAnswer(used, "/now/1");
  server.begin();
  await whenClosed(server);
  idle.get("/now/1");
  used.get("/now/2");
  half.send("Host: x\r\n\r\n");
  const until = performance.now() + 70;
  while (performance.now() < until);
  expect(order(await idle.answer(1))).toBe("/now/1 close");
  expect(order(await used.answer(2))).toBe("/now/2 close");
  expect(order(await half.answer(1))).toBe("/now/2 close");
  await expectDrained(server, 3);
});

/** Frameworks' way of doing something as late as possible. */
function onHeaders(response: ServerResponse, listener: () => void): void {
  const { writeHead } = response;
  response.writeHead = function (this: ServerResponse, ...args: unknown[]) {
    listener();
    return writeHead.apply(this, args as Parameters<typeof writeHead>);
  };
}

/** How a handler or a framework answers, and what it does with the response as soon as it has it. */
interface Manner {
  readonly before?: (response: ServerResponse) => void;
  readonly act: (response: ServerResponse) => void;
}

const MANNERS: Record<string, Manner> = {
  "end()": { act: (response) => response.end() },
  "end(body)": { act: (response) => response.end("x") },
  "write(), end()": { act: (response) => (response.write("x"), response.end("y")) },
  "a status and headers, end()": {
    act: (response) => {
      response.statusCode = 404;
      response.statusMessage = "Nowhere";
      response.setHeader("X-A", ["1", "2"]).end("x");
    },
  },
  "writeHead(status)": { act: (response) => response.writeHead(201).end("x") },
  "writeHead(status, message)": { act: (response) => response.writeHead(201, "Made").end("x") },
  "writeHead(status, headers)": { act: (response) => response.writeHead(201, { "X-A": "1", "x-b": 2 }).end("x") },
  "writeHead(status, message, headers)": {
    act: (response) => response.writeHead(201, "Made", { "X-A": "1" }).end("x"),
  },
  "writeHead(status, undefined, headers)": {
    act: (response) => response.writeHead(201, undefined, { "X-A": "1" }).end("x"),
  },
  "writeHead(status, list)": {
    act: (response) => response.writeHead(201, ["X-A", "1", "Set-Cookie", "a=1", "Set-Cookie", "b=2"]).end("x"),
  },
  "setHeader(), writeHead(status, headers)": {
    act: (response) => response.setHeader("X-A", "1").writeHead(201, { "x-a": "2", "X-B": "1" }).end("x"),
  },
  "flushHeaders()": { act: (response) => (response.flushHeaders(), response.end("x")) },
  "a length": { act: (response) => response.setHeader("Content-Length", 2).end("xy") },
  "an empty 204": { act: (response) => response.writeHead(204).end() },
  "an empty 304": { act: (response) => response.writeHead(304).end() },
  trailers: {
    act: (response) => {
      if (response.req.method === "HEAD") return void response.end();
      response.writeHead(200, { Trailer: "X-Sum" });
      response.write("x");
      response.addTrailers({ "X-Sum": "1" });
      response.end();
    },
  },
  "early hints": {
    act: (response) => {
      response.writeEarlyHints({ link: "</style.css>; rel=preload" });
      response.end("x");
    },
  },
  "a stream": { act: (response) => void Readable.from(["x", "y"]).pipe(response) },
  "setHeader() of another Connection": {
    act: (response) => response.setHeader("connection", "keep-alive").end("x"),
  },
  "writeHead() twice, which is refused": {
    act: (response) => {
      response.writeHead(201);
      expect(() => response.writeHead(200)).toThrow("Cannot write headers after they are sent to the client");
      response.end("x");
    },
  },
  "a wrapped writeHead, from before": {
    before: (response) => onHeaders(response, () => response.setHeader("X-Late", "1")),
    act: (response) => response.writeHead(201, { "X-A": "1" }).end("x"),
  },
  "a wrapped writeHead, from then on": {
    act: (response) => {
      onHeaders(response, () => response.setHeader("X-Late", "1"));
      onHeaders(response, () => response.setHeader("X-Later", "1"));
      response.end("x");
    },
  },
  "a header that was removed": { act: (response) => (response.removeHeader("Connection"), response.end("x")) },
  "writeHead() that throws, and then an answer without headers": {
    act: (response) => {
      expect(() => response.writeHead(200, { "no name": "1" })).toThrow(TypeError);
      for (const name of response.getHeaderNames()) response.removeHeader(name);
      response.statusCode = 500;
      response.end("x");
    },
  },
};

describe("An answer by", () => {
  test.concurrent.each(Object.entries(MANNERS))("%s is as ever, but for its `Connection: close`", async (_, manner) => {
    const answer = async (method: string, when: "never" | "before" | "after"): Promise<[string[], unknown]> => {
      const act = (response: ServerResponse): void => (manner.before?.(response), manner.act(response));
      const handle = when === "before" ? undefined : act;
      const { backend, server } = await serve({}, (exchange) => {
        manner.before?.(exchange.response);
        if (handle) manner.act(exchange.response);
      });
      const client = await server.client();
      if (when === "after") server.begin();
      client.send(get("/a").replace("GET", method));
      if (when === "before") {
        const { response } = await backend.request("/a");
        server.begin();
        manner.act(response);
      }
      const isOver = ({ status, isComplete }: Answer): boolean => status >= 200 && isComplete;
      const last = await client.until(() => client.answers(method).find(isOver));
      if (when === "never") client.leave();
      else expect(await client.closed).toBe("ended");
      await server.stop();
      const lines = client.text.split("\r\n").filter((line) => !/^(connection|keep-alive|date): /i.test(line));
      return [lines, last.headers["connection"]];
    };
    for (const method of ["GET", "HEAD"]) {
      const [lines] = await answer(method, "never");
      expect(await answer(method, "before")).toEqual([lines, "close"]);
      expect(await answer(method, "after")).toEqual([lines, "close"]);
    }
  });

  test.concurrent.each(["keep-alive", "close"])("a handler that gives writeHead a list with `%s` says so", async (value) => {
    const { backend, server } = await serve();
    const client = await server.client(get("/a"));
    const { response } = await backend.request("/a");
    server.begin();
    response.writeHead(200, ["Connection", value]).end("x");
    expect(await client.answer()).toMatchObject({ body: "x", headers: { connection: value } });
    expect(await client.closed).toBe("ended");
    await expectDrained(server, 1);
    if (value === "keep-alive") expect(client.endedAt - server.stoppedAt).toBeGreaterThan(48);
  });

  test.concurrent("says `close` also by a handler that passes on the headers of a backend, as proxies do", async () => {
    const { backend, server } = await serve({ drainDelay: 30 });
    const clients = await Promise.all([server.client(get("/a")), server.client(get("/b"))]);
    const [a, b] = [await backend.request("/a"), await backend.request("/b")];
    server.begin();
    const headers = Object.assign(Object.create(null), { connection: "keep-alive", "keep-alive": "timeout=5", x: "1" });
    a.response.writeHead(200, headers).end("x");
    b.response.writeHead(200, "Fine", { CONNECTION: "Keep-Alive", X: "1" }).end("x");
    for (const client of clients) {
      expect(await client.answer()).toMatchObject({ body: "x", headers: { connection: "close", x: "1" } });
      expect(await client.closed).toBe("ended");
    }
    expect(headers.connection).toBe("keep-alive");
    await expectDrained(server, 2);
  });

  test.concurrent.each([0, 60])("a handler that does so is followed by others (%i ms)", async (drainDelay) => {
    const { server } = await serve({ drainDelay }, ({ url, response }) => {
      response.writeHead(200, ["Connection", "keep-alive", "Content-Length", String(url.length)]).end(url);
    });
    const client = await server.client(get("/0"));
    await client.answer();
    server.begin();
    let sentAt = Number.NaN;
    for (let i = 1; i < 4; i++) {
      sentAt = performance.now();
      client.get(`/${i}`);
      expect(order(await client.answer(i + 1))).toBe(`/${i} keep-alive`);
      // As long as the connection may be idle.
      if (i < 3) await setImmediate();
    }
    expect(await client.closed).toBe("ended");
    expect(client.endedAt - sentAt).toBeGreaterThan(48);
    expect(client.endedAt - server.stoppedAt).toBeGreaterThan(drainDelay + 48);
    await expectDrained(server, 3);
  });
});

describe("A request that comes after the stop", () => {
  test.concurrent("behind an answer that says `keep-alive` by itself is answered, too", async () => {
    const { backend, server } = await serve();
    const client = await server.client();
    server.begin();
    await whenClosed(server);
    client.get("/stream");
    const { response } = await backend.request("/stream");
    response.writeHead(200, ["Connection", "keep-alive", "Transfer-Encoding", "chunked"]).write("half, ");
    client.get("/now");
    await backend.request("/now");
    response.end("whole");
    expect(await client.closed).toBe("ended");
    expect(client.answers().map(order)).toEqual(["half, whole keep-alive", "/now close"]);
    await expectDrained(server, 2);
  });

  test.concurrent("is not handed to a handler when its connection has gone", async () => {
    const { backend, server } = await serve({ drainDelay: 30 }, ({ response }) => response.socket?.destroy());
    const client = await server.client();
    server.begin();
    await setImmediate();
    client.send(get("/a") + get("/b"));
    await server.end();
    expect([backend.urls, server.drained?.destroyed]).toEqual([["/a"], 0]);
  });

  test.concurrent("on a connection that was idle is answered within 50 ms of the end of the listener", async () => {
    const { server } = await serve();
    const client = await server.client();
    await expectAnswer(client, "/now/1");
    server.begin();
    await whenClosed(server);
    client.get("/now/2");
    expect(order(await client.answer(2))).toBe("/now/2 close");
    expect(await client.closed).toBe("ended");
    await expectDrained(server, 1);
  });

  test.concurrent.each(["HTTP/1.0", "HTTP/1.0\r\nConnection: keep-alive"])("may be one of %j", async (version) => {
    const { server } = await serve({ drainDelay: 30 });
    const client = await server.client();
    server.begin();
    client.send(`GET /now ${version}\r\n\r\n`);
    expect(await client.closed).toBe("ended");
    expect(client.answers().map(order)).toEqual(["/now close"]);
    await expectDrained(server, 1);
  });

  test.concurrent("to `HEAD` is answered without a body, and pipelined ones after it are not lost", async () => {
    const { server } = await serve({}, ({ url, response }) => response.writeHead(url === "/204" ? 204 : 200).end());
    const client = await server.client();
    server.begin();
    client.send(["/a", "/204", "/b"].map((path) => get(path).replace("GET", "HEAD")).join(""));
    expect(await client.closed).toBe("ended");
    expect(client.answers("HEAD").map(({ status, headers }) => `${status} ${headers["connection"]}`)).toEqual([
      "200 keep-alive",
      "204 keep-alive",
      "200 close",
    ]);
    await expectDrained(server, 3);
  });

  test.concurrent("from a client that closes its side with it is answered", async () => {
    const { server } = await serve({ drainDelay: 30 });
    const client = await server.client();
    server.begin();
    client.socket.end(get("/now"));
    expect(await client.closed).toBe("ended");
    expect(client.answers().map(order)).toEqual(["/now close"]);
    await expectDrained(server, 1);
  });

  test.concurrent("that is malformed is refused by the server, as ever", async () => {
    const { server } = await serve({ drainDelay: 30, drainTimeout: 1_000 });
    const client = await server.client();
    server.begin();
    client.send("nonsense\r\n\r\n");
    expect(await client.closed).toBe("ended");
    expect(client.answers()).toMatchObject([{ status: 400, headers: CLOSE }]);
    await expectDrained(server, 0);
  });

  test.concurrent("that is malformed goes to the listener for `clientError`, which may answer", async () => {
    const { backend, server } = await serve({ drainDelay: 30 });
    backend.server.once("clientError", (_, socket) => socket.end("HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n"));
    const client = await server.client();
    server.begin();
    client.send("nonsense\r\n\r\n");
    expect(await client.answer()).toMatchObject({ status: 418 });
    await expectDrained(server, 0);
  });

  test.concurrent("is not handed to a handler, once the client was told that no further one is answered", async () => {
    const { backend, server } = await serve();
    const client = await server.client(get("/a"));
    const { response } = await backend.request("/a");
    server.begin();
    response.write("half, ");
    await client.until(() => client.text.includes("half"));
    client.get("/late");
    for (let turn = 0; turn < 5; turn++) await setImmediate();
    response.end("whole");
    expect(await client.closed).toBe("ended");
    expect(client.answers()).toMatchObject([{ body: "half, whole", headers: CLOSE }]);
    expect(backend.urls).toEqual(["/a"]);
    await expectDrained(server, 1);
  });
});

test("A request behind one that no handler got is handed to none, as its answer would wait for ever", async () => {
  const { backend, server } = await serve({ drainTimeout: 1_000 }, ({ url, answer }) => url === "/0" || answer());
  const client = await server.client();
  server.begin();
  await whenClosed(server);
  client.get("/0");
  const { response } = await backend.request("/0");
  client.get("/1");
  for (let turn = 0; turn < 5; turn++) await setImmediate();
  response.writeHead(200, { Connection: "keep-alive" }).end("answer to /0");
  await client.answer();
  client.get("/2");
  expect(await client.closed).toBe("ended");
  expect(client.answers().map(({ body }) => body)).toEqual(backend.urls.map((url) => `answer to ${url}`));
  await expectDrained(server, backend.urls.length);
});

async function expectAnswer(client: RawClient, path: string): Promise<void> {
  client.get(path);
  expect(order(await client.answer())).toBe(`${path} keep-alive`);
}

describe("A request that expects to be told to continue", () => {
  const EXPECTING = post("/upload", "", 4, "Expect: 100-continue");

  async function serveExpecting(listen?: (server: Server) => void): ReturnType<typeof serve> {
    const served = await serve({ drainDelay: 40 }, ({ request, answer }) => {
      request.resume();
      request.on("end", () => answer());
    });
    listen?.(served.backend.server);
    return served;
  }

  /** Goes through such a request after the stop. */
  async function expectContinued(server: ServerRun): Promise<void> {
    const client = await server.client();
    server.begin();
    client.send(EXPECTING);
    await client.until(() => client.text.includes("\r\n\r\n"));
    expect(client.answers()).toMatchObject([{ status: 100 }]);
    client.send("body");
    expect(await client.answer(2)).toMatchObject({ status: 200, body: "answer to /upload", headers: CLOSE });
    expect(await client.closed).toBe("ended");
    expect(client.answers().length).toBe(2);
  }

  test.concurrent("is told so by the server, to which no listener was added", async () => {
    const { server } = await serveExpecting();
    await expectContinued(server);
    await expectDrained(server, 1);
  });

  test.concurrent("is told so by the listener for `checkContinue`, and counted once if that hands it on", async () => {
    const { server } = await serveExpecting((httpServer) => {
      httpServer.once("checkContinue", (request, response) => {
        response.writeContinue();
        httpServer.emit("request", request, response);
      });
    });
    await expectContinued(server);
    await expectDrained(server, 1);
  });

  test.concurrent("may be answered by the listener for `checkContinue` itself", async () => {
    const { backend, server } = await serve({ drainDelay: 30 });
    backend.server.once("checkContinue", (_, response) => response.writeHead(413).end("too much"));
    const client = await server.client();
    server.begin();
    client.send(EXPECTING);
    expect(await client.answer()).toMatchObject({ status: 413, body: "too much", headers: CLOSE });
    expect(await client.closed).toBe("ended");
    await expectDrained(server, 1);
    expect(backend.urls).toEqual([]);
  });

  test.concurrent("and was handed on by a listener leaves its connection to those after it", async () => {
    const { backend, server } = await serve();
    backend.server.once("checkContinue", (request, response) => {
      response.writeContinue();
      backend.server.emit("request", request, response);
    });
    const client = await server.client(get("/stream", "Expect: 100-continue"));
    const other = await server.client(get("/other"));
    const { response } = await backend.request("/stream");
    (await backend.request("/other")).response.flushHeaders();
    response.write("half, ");
    await client.until(() => client.text.includes("half"));
    server.begin();
    await whenClosed(server);
    response.end("whole");
    await client.answer(2);
    client.get("/slow");
    const slow = await backend.request("/slow");
    (await backend.request("/other")).answer();
    // By then an idle connection of that time is closed.
    await other.closed;
    slow.answer();
    expect(order(await client.answer(3))).toBe("/slow close");
    await expectDrained(server, 3);
  });

  test.concurrent.each([false, true])("may be refused instead (by `checkExpectation`: %s)", async (isListened) => {
    const { backend, server } = await serve({ drainDelay: 30 });
    if (isListened) backend.server.once("checkExpectation", (_, response) => response.writeHead(417).end("no"));
    const client = await server.client();
    server.begin();
    client.send(get("/a", "Expect: a lot"));
    expect(await client.answer()).toMatchObject({ status: 417, body: isListened ? "no" : "" });
    expect(await client.closed).toBe("ended");
    await expectDrained(server, isListened ? 1 : 0);
    expect(backend.urls).toEqual([]);
  });
});

describe("Of pipelined requests", () => {
  const GETS = ["/now/1", "/now/2", "/now/3"].map((path) => get(path));
  const POSTS = ["/now/1", "/now/2", "/now/3"].map((path) => post(path, "x".repeat(1_000)));
  const ANSWERS = ["/now/1 keep-alive", "/now/2 keep-alive", "/now/3 close"];

  /** When the client sends them. */
  const moments: Record<string, (server: ServerRun, send: () => void) => Promise<void>> = {
    "in the turn before the stop": async (server, send) => (send(), server.begin()),
    "in the turn after the stop": async (server, send) => (server.begin(), send()),
    "during the drainDelay": async (server, send) => {
      server.begin();
      await setImmediate();
      send();
    },
    "after the drainDelay": async (server, send) => {
      server.begin();
      await whenClosed(server);
      send();
    },
  };
  const cases = Object.entries(moments).flatMap(([moment, act]) =>
    [0, 20].flatMap((drainDelay) =>
      [GETS, POSTS].map((requests) => [moment, drainDelay, requests === GETS ? "GET" : "POST", act, requests] as const),
    ),
  );

  test.concurrent.each(cases)(
    "that come in one write %s (%i ms), only the last answer says `Connection: close` (%s)",
    async (_, drainDelay, __, act, requests) => {
      const { server } = await serve({ drainDelay });
      const client = await server.client();
      await act(server, () => client.send(requests.join("")));
      expect(await client.closed).toBe("ended");
      expect(client.answers().map(order)).toEqual(ANSWERS);
      await expectDrained(server, 3);
    },
  );

  test.concurrent.each([
    ["in order", [0, 1, 2], ["/0 keep-alive", "/1 keep-alive", "/2 close"]],
    ["in the reverse order", [2, 1, 0], ["/0 keep-alive", "/1 keep-alive", "/2 close"]],
    ["in any order", [1, 2, 0], ["/0 keep-alive", "/1 keep-alive", "/2 close"]],
  ])("in flight, answered %s, only the last says `Connection: close`", async (_, turns, answers) => {
    for (const begin of ["before", "after"]) {
      const { backend, server } = await serve({ drainDelay: 10_000 });
      const client = await server.client();
      if (begin === "after") server.begin();
      for (const path of ["/0", "/1", "/2"]) {
        client.get(path);
        await backend.request(path);
      }
      if (begin === "before") server.begin();
      for (const turn of turns) {
        backend.exchanges[turn]?.answer();
        await setImmediate();
      }
      expect(await client.closed).toBe("ended");
      // Which spares us the rest of the `drainDelay`.
      server.server.close();
      expect(client.answers().map(order)).toEqual(answers);
      await expectDrained(server, 3);
    }
  });

  test.concurrent("that had answers which said keep-alive, those after them are answered", async () => {
    const { backend, server } = await serve();
    const client = await server.client(get("/0") + get("/1"));
    const first = await backend.request("/0");
    const second = await backend.request("/1");
    second.answer();
    server.begin();
    await whenClosed(server);
    first.answer();
    await client.answer(2);
    client.get("/now/2", "/now/3");
    expect(await client.closed).toBe("ended");
    const orders = ["/0 keep-alive", "/1 keep-alive", "/now/2 keep-alive", "/now/3 close"];
    expect(client.answers().map(order)).toEqual(orders);
    await expectDrained(server, 4);
  });
});

describe("A client that keeps its connection busy cannot hold it open for ever:", () => {
  const options: HttpServerOptions = { drainTimeout: 2_000 };

  test.concurrent("one that asks again as soon as it has an answer", async () => {
    const { server } = await serve(options);
    const client = await server.client(get("/now/0"));
    const asking = (async () => {
      for (let i = 1; ; i++) {
        await client.answer(i);
        if (client.end === "open") client.get(`/now/${i}`);
      }
    })();
    await client.answer(3);
    server.begin();
    await expect(asking).rejects.toThrow("It was ended");
    const answers = client.answers();
    expect(answers.map(({ headers }) => headers["connection"]).lastIndexOf("keep-alive")).toBe(answers.length - 2);
    await server.end();
    expect(server.took).toBeLessThan(PROMPT);
  });

  test.concurrent("one that asks again as soon as a stream ends that had said keep-alive", async () => {
    const { backend, server } = await serve(options);
    const client = await server.client(get("/stream"));
    const { response } = await backend.request("/stream");
    response.write("half, ");
    server.begin();
    await whenClosed(server);
    response.end("whole");
    await client.answer();
    client.get("/now/1");
    expect(order(await client.answer(2))).toBe("/now/1 close");
    expect(await client.closed).toBe("ended");
    await expectDrained(server, 2);
    expect(server.took).toBeLessThan(PROMPT);
  });

  test.concurrent("one that always has the next request pipelined behind the one that is being answered", async () => {
    const { backend, server } = await serve(options);
    const client = await server.client(get("/0") + get("/1"));
    await backend.request("/1");
    server.begin();
    await whenClosed(server);
    // The next one is there before the next answer is.
    for (let i = 0; client.end === "open"; i++) {
      client.get(`/${i + 2}`);
      for (let turn = 0; turn < 4; turn++) await setImmediate();
      backend.exchanges[i]?.answer();
      await setImmediate();
    }
    await client.closed;
    expect(client.answers().map(({ body }) => body)).toEqual(backend.urls.map((url) => `answer to ${url}`));
    await expectDrained(server, backend.urls.length);
    expect(server.took).toBeLessThan(PROMPT);
  });
});
