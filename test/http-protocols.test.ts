import { once } from "node:events";
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { AddressInfo, Server } from "node:net";
import { text } from "node:stream/consumers";
import { setImmediate } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { type Answer, Backend, drained, get, post, PROMPT, RawClient, run, useHttp } from "./support/http.ts";
import {
  answerOn,
  closing,
  frame,
  framesOf,
  getFrame,
  HesitantClient,
  Http2Backend,
  Http2Client,
  http2Server,
  httpsServer,
  preface,
  secureClient,
  useHttp2,
  whenClosing,
  WAYS,
  windowUpdate,
} from "./support/http2.ts";
import { told } from "./support/told.ts";

/** More than the buffers of a connection hold. */
const BIG = "0123456789abcdef".repeat(2 ** 20);

// What holds a drain does so until `drainTimeout`, which by default is longer than a test may take.
useHttp();
useHttp2();

/** The index of the frame with which a stream ends, once it has come. */
function endOf(client: RawClient, stream: number): number | undefined {
  const index = framesOf(client).findIndex((frame) => frame.stream === stream && frame.type < 2 && frame.flags & 1);
  return index < 0 ? undefined : index;
}

/** The index of the frame that tells the end of a session. */
function goawayOf(client: RawClient): number {
  const index = framesOf(client).findIndex(({ type }) => type === 7);
  return index < 0 ? Infinity : index;
}

/** Has a request answered that leaves its connection idle, for the server as well. */
async function answered(backend: Backend, client: RawClient): Promise<Answer> {
  const path = `/now/${client.socket.localPort}`;
  client.get(path);
  const answer = await client.answer();
  const { response } = await backend.request(path);
  if (!response.closed) await once(response, "close");
  return answer;
}

describe.concurrent("HTTPS", () => {
  test("requests in flight are answered in full and say `Connection: close`; idle connections are closed", async () => {
    const backend = new Backend(undefined, httpsServer());
    const served = await run(backend.server);
    const [busy, idle, silent] = await Promise.all([1, 2, 3].map(() => secureClient(backend.server)));
    busy!.get("/slow");
    expect((await answered(backend, idle!)).headers["connection"]).toBe("keep-alive");
    const slow = await backend.request("/slow");
    served.begin();
    expect(await Promise.all([idle!.closed, silent!.closed])).toEqual(["ended", "ended"]);
    slow.answer();
    expect(await busy!.answer()).toMatchObject({ body: "answer to /slow", headers: { connection: "close" } });
    expect(await busy!.closed).toBe("ended");
    await served.end();
    expect(told(served.log)).toContainEqual(drained(1));
  });

  test("of pipelined answers only the last says `Connection: close`", async () => {
    const backend = new Backend(undefined, httpsServer());
    const served = await run(backend.server);
    const client = await secureClient(backend.server);
    client.get("/1", "/2", "/3");
    const requests = await Promise.all(["/1", "/2", "/3"].map((url) => backend.request(url)));
    served.begin();
    await closing(backend.server);
    for (const { answer } of requests) answer();
    await client.answer(3);
    expect(client.answers().map(({ headers, body }) => [headers["connection"], body])).toEqual([
      ["keep-alive", "answer to /1"],
      ["keep-alive", "answer to /2"],
      ["close", "answer to /3"],
    ]);
    await served.end();
    expect(told(served.log)).toContainEqual(drained(3));
  });

  test("of pipelined requests that come after the stop, too, though each is answered at once", async () => {
    const backend = new Backend(undefined, httpsServer());
    const served = await run(backend.server, { drainDelay: Infinity });
    const client = await secureClient(backend.server);
    served.begin();
    client.get("/now/1", "/now/2", "/now/3");
    await client.answer(3);
    const says = client.answers().map(({ headers }) => headers["connection"]);
    expect(says).toEqual(["keep-alive", "keep-alive", "close"]);
    expect(await client.closed).toBe("ended");
    backend.server.close();
    await served.end();
  });

  test("the tail of an answer that is ended but still being sent reaches a client that reads slowly", async () => {
    const backend = new Backend(undefined, httpsServer());
    const served = await run(backend.server);
    const [client, idle] = await Promise.all([secureClient(backend.server), secureClient(backend.server)]);
    client.socket.pause();
    client.get("/big");
    const big = await backend.request("/big");
    big.answer(BIG);
    served.begin();
    await idle.closed;
    client.socket.resume();
    await client.closed;
    expect(client.answers()).toMatchObject([{ body: BIG, isComplete: true }]);
    await served.end();
    expect(told(served.log)).toContainEqual(drained(1));
  });

  describe.each([
    ["nothing", 0],
    ["half a ClientHello", 100],
    ["a ClientHello and no more", 10_000],
  ])("a connection that has sent %s", (_, bytes) => {
    test("is closed, and does not hold the drain", async () => {
      const backend = new Backend(undefined, httpsServer());
      const served = await run(backend.server);
      const clients = await Promise.all([1, 2].map(() => HesitantClient.open(backend.server, bytes)));
      await served.stop();
      expect(await Promise.all(clients.map(({ tcp }) => tcp.closed))).toEqual(["ended", "ended"]);
        expect(told(served.log)).toContainEqual(drained(0));
    });

    test("does not cut others that are in flight, and is closed after them", async () => {
      const backend = new Backend(undefined, httpsServer());
      const served = await run(backend.server);
      const [client, idle] = await Promise.all([secureClient(backend.server), secureClient(backend.server)]);
      const hesitant = await HesitantClient.open(backend.server, bytes);
      client.get("/slow");
      const slow = await backend.request("/slow");
      served.begin();
      await idle.closed;
      expect([client.end, backend.server.listening]).toEqual(["open", false]);
      slow.answer();
      expect((await client.answer()).body).toBe("answer to /slow");
      expect(await hesitant.tcp.closed).toBe("ended");
      await served.end();
      expect(told(served.log)).toContainEqual(drained(1));
    });

    test("is not counted as destroyed", async () => {
      const backend = new Backend(undefined, httpsServer());
      const served = await run(backend.server, { drainTimeout: 20 });
      const hesitant = await HesitantClient.open(backend.server, bytes);
      const client = await secureClient(backend.server, {});
      client.get("/slow");
      await backend.request("/slow");
      await served.stop();
      await Promise.all([client.closed, hesitant.tcp.closed]);
      expect(told(served.log)).toContainEqual(drained(1, 1));
    });
  });
  test.each([
    ["its handshake", false],
    ["a request in flight", true],
  ])("a client whose TCP breaks during %s does not hold the drain", async (_, isBusy) => {
    const backend = new Backend(undefined, httpsServer());
    const served = await run(backend.server);
    const broken = await HesitantClient.open(backend.server, isBusy ? Infinity : 100);
    const other = await secureClient(backend.server);
    if (isBusy) broken.tls.get("/broken");
    other.get("/slow");
    const slow = await backend.request("/slow");
    if (isBusy) await backend.request("/broken");
    served.begin();
    await closing(backend.server);
    broken.tcp.socket.resetAndDestroy();
    slow.answer();
    expect((await other.answer()).body).toBe("answer to /slow");
    await served.end();
    expect(told(served.log)).toContainEqual(drained(isBusy ? 2 : 1));
  });

  test("a handshake that has begun may be finished, and a request over it is answered", async () => {
    const backend = new Backend(undefined, httpsServer());
    const served = await run(backend.server);
    const client = await HesitantClient.open(backend.server, 100);
    // How long it takes is up to the machine, so there is one that holds the drain.
    const busy = await secureClient(backend.server);
    busy.get("/slow");
    const slow = await backend.request("/slow");
    client.tls.socket.once("secureConnect", () => client.tls.get("/now"));
    whenClosing(backend.server, () => client.release());
    served.begin();
    expect(await client.tls.answer()).toMatchObject({ body: "answer to /now", headers: { connection: "close" } });
    slow.answer();
    await served.end();
    expect(told(served.log)).toContainEqual(drained(2));
  });

  test("at `drainTimeout` connections with requests in flight are destroyed, and each is counted once", async () => {
    const backend = new Backend(undefined, httpsServer());
    const served = await run(backend.server, { drainTimeout: 20 });
    const clients = await Promise.all([1, 2, 3].map(() => secureClient(backend.server)));
    clients[0]!.get("/1", "/2");
    clients[1]!.send(post("/3", "half", 8));
    await Promise.all(["/1", "/2", "/3"].map((url) => backend.request(url)));
    await served.stop();
    await Promise.all(clients.map(({ closed }) => closed));
    expect(clients.map(({ text }) => text)).toEqual(["", "", ""]);
    expect(told(served.log)).toContainEqual(drained(3, 2));
  });
});

describe.concurrent.each(WAYS)("HTTP/2 (%s, with listeners for %s)", (transport, listens) => {
  test("streams in flight are answered in full, then their session is closed; idle sessions are closed", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server);
    const [busy, idle, used] = await Promise.all([1, 2, 3].map(() => Http2Client.open(backend.server)));
    const usedUp = used!.get("/used");
    const { stream, answer } = await backend.request("/used");
    answer();
    await Promise.all([usedUp, stream.closed || once(stream, "close")]);
    const answers = ["/1", "/2"].map((path) => busy!.get(path));
    const streams = await Promise.all(["/1", "/2"].map((url) => backend.request(url)));
    served.begin();
    expect(await Promise.all([idle!.closed, used!.closed])).toEqual(["closed", "closed"]);
    expect(busy!.end).toBe("open");
    streams[1]!.answer();
    expect(await answers[1]).toMatchObject({ status: 200, body: "answer to /2", end: "ended" });
    streams[0]!.answer();
    expect(await answers[0]).toMatchObject({ status: 200, body: "answer to /1", end: "ended" });
    expect(await busy!.closed).toBe("closed");
    expect(new Set(busy!.goaways)).toEqual(new Set([0]));
    await served.end();
    expect(told(served.log)).toContainEqual(drained(2));
  });

  test("a large answer to a slow reader arrives in full, also when it was ended before the stop", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server);
    const [slow, idle] = await Promise.all([Http2Client.open(backend.server), Http2Client.open(backend.server)]);
    const reading = slow.stream({ ":path": "/big" });
    const answer = answerOn(reading);
    reading.pause();
    // Far above the 64 KiB that it lets be sent unread.
    const body = BIG.slice(0, 2 ** 20);
    (await backend.request("/big")).answer(body);
    served.begin();
    await idle.closed;
    reading.resume();
    expect(await answer).toMatchObject({ body, end: "ended" });
    await served.end();
    expect(told(served.log)).toContainEqual(drained(1));
  });

  test("the tail of an answer that is still being sent reaches a client that reads slowly", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server);
    const [client, idle] = await Promise.all([rawClient(backend.server), Http2Client.open(backend.server)]);
    // It lets all of it be sent at once, and then reads none of it.
    client.send(preface([4, 2 ** 31 - 1]) + windowUpdate(0, 2 ** 30));
    await client.until(() => client.received > 0);
    client.socket.pause();
    client.send(getFrame(1, "/big"));
    (await backend.request("/big")).answer(BIG);
    served.begin();
    await idle.closed;
    client.socket.resume();
    await client.closed;
    const data = framesOf(client).filter(({ type }) => type === 0);
    expect(data.map(({ payload }) => payload).join("") === BIG).toBe(true);
    expect(data.at(-1)?.flags).toBe(1);
    await served.end();
    expect(told(served.log)).toContainEqual(drained(1));
  });

  test("during `drainDelay` idle sessions and new ones are served, and closed after their next stream", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server, { drainDelay: Infinity });
    const [idle, late] = await Promise.all([Http2Client.open(backend.server), Http2Client.open(backend.server)]);
    served.begin();
    const answers = [idle.get("/idle")];
    (await backend.request("/idle")).answer();
    const fresh = await Http2Client.open(backend.server);
    answers.push(fresh.get("/fresh"));
    (await backend.request("/fresh")).answer();
    expect(await Promise.all(answers)).toMatchObject([{ body: "answer to /idle" }, { body: "answer to /fresh" }]);
    expect(await Promise.all([idle.closed, fresh.closed])).toEqual(["closed", "closed"]);
    expect([backend.server.listening, late.end, served.drained]).toEqual([true, "open", undefined]);
    late.session.close();
    backend.server.close();
    await served.end();
  });

  test("during `drainDelay` streams that come together are all served", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server, { drainDelay: Infinity });
    const client = await Http2Client.open(backend.server);
    served.begin();
    const answers = ["/1", "/2", "/3"].map((path) => client.get(path));
    for (const path of ["/3", "/1", "/2"]) (await backend.request(path)).answer();
    for (const answer of await Promise.all(answers)) expect(answer).toMatchObject({ status: 200, end: "ended" });
    expect(await client.closed).toBe("closed");
    backend.server.close();
    await served.end();
  });

  const bodies = ["now", undefined];
  test.each(bodies)("during `drainDelay` a client is told before the end of its answer, which is %j", async (body) => {
    const server = http2Server(transport);
    if (listens === "request") server.on("request", (_, response) => (body ? response.end(body) : response.end()));
    else {
      server.on("stream", (stream) => {
        stream.respond({}, { endStream: !body });
        if (body) stream.end(body);
      });
    }
    const served = await run(server, { drainDelay: Infinity });
    const client = await rawClient(server);
    client.send(preface() + getFrame(1, "/before"));
    const before = await client.until(() => endOf(client, 1));
    served.begin();
    client.send(getFrame(3, "/after"));
    const after = await client.until(() => endOf(client, 3));
    expect(goawayOf(client)).toBeGreaterThan(before);
    expect(goawayOf(client)).toBeLessThan(after);
    expect(await client.closed).toBe("ended");
    client.leave();
    server.close();
    await served.end();
  });

  test.each([0, 1, 2, 3, 4])("answered %d turns after the stop, a client is not cut off", async (turns) => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server, { drainDelay: Infinity });
    const client = await rawClient(backend.server);
    client.send(preface() + getFrame(1, "/first"));
    const first = await backend.request("/first");
    served.begin();
    for (let turn = 0; turn < turns; turn++) await setImmediate();
    first.answer();
    const end = await client.until(() => endOf(client, 1));
    for (let turn = 0; turn < 10; turn++) await setImmediate();
    // It was told before, or else may ask again.
    if (goawayOf(client) < Infinity) expect(goawayOf(client)).toBeLessThan(end);
    else {
      client.send(getFrame(3, "/next"));
      (await backend.request("/next")).answer();
      expect(await client.until(() => endOf(client, 3))).toBeGreaterThan(goawayOf(client));
    }
    expect(await client.closed).toBe("ended");
    client.leave();
    backend.server.close();
    await served.end();
  });

  test("a request to `HEAD` in flight at the stop has its session closed", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server, { drainDelay: Infinity });
    const client = await Http2Client.open(backend.server);
    const answer = answerOn(client.stream({ ":path": "/", ":method": "HEAD" }));
    const { stream } = await backend.request("/");
    served.begin();
    await once(client.session, "goaway");
    stream.respond({ ":status": 200 });
    expect(await answer).toMatchObject({ status: 200, end: "ended" });
    expect(await client.closed).toBe("closed");
    backend.server.close();
    await served.end();
  });

  test("during `drainDelay` a body and trailers are received, though they came with the stream", async () => {
    const server = http2Server(transport);
    if (listens === "request") {
      server.on("request", async (request, response) => {
        const body = await text(request);
        response.end(`${body} ${request.trailers["a"]}`);
      });
    } else {
      server.on("stream", async (stream) => {
        let trailers: IncomingHttpHeaders = {};
        stream.on("trailers", (told: IncomingHttpHeaders) => (trailers = told));
        const body = await text(stream);
        stream.end(`${body} ${trailers["a"]}`);
      });
    }
    const served = await run(server, { drainDelay: Infinity });
    const client = await rawClient(server);
    client.send(preface());
    await client.until(() => framesOf(client).length > 0);
    served.begin();
    const head = getFrame(1, "/").slice(9);
    client.send(frame(1, 0x4, 1, head) + frame(0, 0, 1, "body") + frame(1, 0x5, 1, "\0\x01a\x07trailer"));
    await client.closed;
    client.leave();
    const data = framesOf(client).filter(({ type }) => type === 0);
    expect(data.map(({ payload }) => payload).join("")).toBe("body trailer");
    server.close();
    await served.end();
  });

  test.each([2, 8])("during `drainDelay` a stream that comes with its reset (%d) is handed to nobody", async (code) => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server, { drainDelay: Infinity });
    const client = await rawClient(backend.server);
    client.send(preface());
    await client.until(() => framesOf(client).length > 0);
    served.begin();
    client.send(getFrame(1, "/reset") + frame(3, 0, 1, `\0\0\0${String.fromCharCode(code)}`) + getFrame(3, "/kept"));
    (await backend.request("/kept")).answer();
    expect(await client.closed).toBe("ended");
    client.leave();
    expect(backend.urls).toEqual(["/kept"]);
    backend.server.close();
    await served.end();
    expect(told(served.log)).toContainEqual({ ...drained(2), requests: expect.any(Number) });
  });

  test("a stream is handed on as it is without the task, before the stop and after it", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const listeners: number[][] = [];
    backend.server.on("stream", (stream) => {
      listeners.push(["aborted", "error", "end"].map((event) => stream.listenerCount(event)));
    });
    const served = await run(backend.server, { drainDelay: Infinity });
    const client = await Http2Client.open(backend.server);
    for (const path of ["/before", "/after"]) {
      if (path === "/after") served.begin();
      const answer = client.get(path);
      (await backend.request(path)).answer();
      expect(await answer).toMatchObject({ body: `answer to ${path}`, end: "ended" });
    }
    expect(listeners[1]).toEqual(listeners[0]);
    expect(listeners.length).toBe(2);
    expect(await client.closed).toBe("closed");
    backend.server.close();
    await served.end();
  });

  test("a stream that has reached the machine before the stop is answered, also on a busy session", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server);
    const client = await rawClient(backend.server);
    client.send(preface() + getFrame(1, "/1"));
    const first = await backend.request("/1");
    client.send(getFrame(3, "/3"));
    served.begin();
    const second = await backend.request("/3");
    second.answer();
    first.answer();
    await client.closed;
    const data = framesOf(client).filter(({ type, payload }) => type === 0 && payload > "");
    expect(data.map(({ payload }) => payload).sort()).toEqual(["answer to /1", "answer to /3"]);
    await served.end();
    expect(told(served.log)).toContainEqual(drained(2));
  });

  test("after `drainDelay` a session that is idle ever since is closed", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server, { drainDelay: 20 });
    const idle = await Http2Client.open(backend.server);
    await served.stop();
    expect(await idle.closed).toBe("closed");
    // Since Node 24 the server closes it with its listener.
    const isGraceful = Number(process.versions.node.split(".")[0]) < 24;
    expect(served.took).toBeGreaterThan(isGraceful ? 60 : 18);
    expect(told(served.log)).toContainEqual(drained(0));
  });

  test("at `drainTimeout` sessions are destroyed with their streams, and each is counted once", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server, { drainTimeout: 20 });
    const clients = await Promise.all([1, 2, 3].map(() => Http2Client.open(backend.server)));
    const answers = [clients[0]!.get("/1"), clients[0]!.get("/2"), clients[1]!.get("/3")];
    const streams = await Promise.all(["/1", "/2", "/3"].map((url) => backend.request(url)));
    served.begin();
    await Promise.all([...streams.map(({ stream }) => once(stream, "close")), ...clients.map(({ closed }) => closed)]);
    for (const answer of await Promise.all(answers)) expect(answer).toMatchObject({ status: undefined, body: "" });
    await served.end();
    expect(told(served.log)).toContainEqual(drained(3, 2));
  });

  test("a session of a client that never closes its side, or does not read, is closed all the same", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server);
    const clients = await Promise.all([1, 2, 3, 4].map(() => rawClient(backend.server)));
    for (const client of clients) client.send(preface());
    await Promise.all(clients.map((client) => client.until(() => client.received > 0)));
    clients[1]!.socket.pause();
    clients[2]!.send(getFrame(1, "/used"));
    clients[3]!.send(getFrame(1, "/slow"));
    const [used, slow] = await Promise.all([backend.request("/used"), backend.request("/slow")]);
    used.answer();
    await clients[2]!.until(() => framesOf(clients[2]!).some(({ type, flags }) => type === 0 && flags === 1));
    served.begin();
    await clients[0]!.closed;
    clients[3]!.socket.pause();
    slow.answer();
    await served.end();
    expect(told(served.log)).toContainEqual({ ...drained(1), requests: expect.any(Number) });
  });

  test.each([
    ["nothing", ""],
    ["half a preface", preface().slice(0, 10)],
    ["a preface without settings", preface().slice(0, 24)],
    ["half a request", preface() + getFrame(1, "/").slice(0, 12)],
  ])("a connection that has sent %s is closed, and does not hold the drain", async (_, text) => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server);
    const client = await rawClient(backend.server);
    if (text !== "") client.send(text);
    await served.stop();
    expect(await client.closed).toBe("ended");
    expect(told(served.log)).toContainEqual(drained(0));
  });

  test("a client that was told cannot hold its session open with more streams", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server);
    const client = await rawClient(backend.server);
    client.send(preface() + getFrame(1, "/1"));
    const first = await backend.request("/1");
    served.begin();
    await client.until(() => framesOf(client).find(({ type }) => type === 7));
    client.send(getFrame(3, "/3") + getFrame(5, "/5"));
    first.answer();
    await client.closed;
    const data = framesOf(client).filter(({ type }) => type === 0);
    expect(data.map(({ payload }) => payload).join("")).toBe("answer to /1");
    await served.end();
    expect(told(served.log)).toContainEqual(drained(1));
    expect(backend.urls).toEqual(["/1"]);
  });

  test("an upload in flight is received to its end, and answered with trailers", async () => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server);
    const client = await Http2Client.open(backend.server);
    const sending = client.stream({ ":path": "/upload", ":method": "POST" });
    const answer = answerOn(sending);
    sending.write("the first half, ");
    const { stream, answer: finish } = await backend.request("/upload");
    let body = "";
    stream.setEncoding("latin1").on("data", (chunk: string) => (body += chunk));
    served.begin();
    await closing(backend.server);
    sending.end("the second half");
    await once(stream, "end");
    finish(body, { length: String(body.length) });
    expect(await answer).toMatchObject({
      status: 200,
      body: "the first half, the second half",
      trailers: { length: "31" },
      end: "ended",
    });
    await served.end();
    expect(told(served.log)).toContainEqual(drained(1));
  });

  test.each([
    ["it is ended", true],
    ["`drainTimeout`", false],
  ])("a tunnel of `CONNECT` lives until %s", async (_, isEnded) => {
    const server = http2Server(transport);
    const opened = new Promise<ServerHttp2Stream>((resolve) => {
      if (listens === "stream") server.on("stream", resolve);
      else server.on("request", () => {}).on("connect", (request) => resolve(request.stream));
    });
    const served = await run(server, isEnded ? {} : { drainTimeout: 20 });
    const [client, idle] = await Promise.all([Http2Client.open(server), Http2Client.open(server)]);
    const tunnel = client.stream({ ":method": "CONNECT", ":authority": "x:1" }, { endStream: false });
    const answer = answerOn(tunnel);
    const end = await opened;
    end.respond({ ":status": 200 });
    end.pipe(end);
    served.begin();
    await idle.closed;
    if (isEnded) {
      tunnel.write("still there");
      await once(tunnel, "data");
      tunnel.end();
      expect(await answer).toMatchObject({ body: "still there", end: "ended" });
    }
    await served.end();
    if (!end.closed) await once(end, "close");
    expect(told(served.log)).toContainEqual(drained(1, isEnded ? 0 : 1));
  });

  const parts = ["stream", "session", "connection"];
  test.each(parts)("a client that breaks its %s does not hold the drain", async (what) => {
    const backend = new Http2Backend(listens, http2Server(transport));
    const served = await run(backend.server);
    const client = await rawClient(backend.server);
    client.send(preface() + getFrame(1, "/broken"));
    const { stream } = await backend.request("/broken");
    stream.on("error", () => {});
    served.begin();
    await closing(backend.server);
    if (what === "stream") client.send(frame(3, 0, 1, "\0\0\0\x08"));
    else if (what === "session") client.send(frame(7, 0, 0, "\0\0\0\0\0\0\0\x02"));
    else client.leave();
    await served.end();
    expect(told(served.log)).toContainEqual(drained(1));
  });
});

test("a drain ends in time also when there is always another client, with a session of its own", async () => {
  const server = http2Server("cleartext").on("request", (_, response) => {
    const until = performance.now() + 5;
    while (performance.now() < until); // so that it takes a turn of the event loop to answer one
    response.end();
  });
  const served = await run(server, { drainTimeout: 20_000 });
  let isOver = false;
  const clients = Array.from({ length: 16 }, async () => {
    while (!isOver && server.listening) {
      const client = await rawClient(server).catch(() => undefined);
      client?.send(preface() + getFrame(1, "/"));
      await client?.until(() => client.end !== "open" || endOf(client, 1));
      client?.leave();
    }
  });
  await once(server, "session");
  await served.stop();
  isOver = true;
  // To answer each of them before the next is let in would take seconds.
  expect(served.took).toBeLessThan(PROMPT);
  await Promise.all(clients);
});

describe.concurrent("HTTP/2 with `allowHTTP1`", () => {
  test("clients of both are answered in full, and closed, each in its own way", async () => {
    const backend = new Backend(undefined, http2Server("secure", true) as never);
    const served = await run(backend.server);
    const [http1, idle1] = await Promise.all([secureClient(backend.server), secureClient(backend.server)]);
    const [http2, idle2] = await Promise.all([Http2Client.open(backend.server), Http2Client.open(backend.server)]);
    await answered(backend, idle1);
    http1.get("/1", "/2");
    const answer3 = http2.get("/3");
    const [first, second, third] = await Promise.all(["/1", "/2", "/3"].map((url) => backend.request(url)));
    served.begin();
    expect(await Promise.all([idle1.closed, idle2.closed])).toEqual(["ended", "closed"]);
    for (const { answer } of [first!, second!, third!]) answer();
    expect(await answer3).toMatchObject({ body: "answer to /3", end: "ended" });
    await http1.answer(2);
    expect(http1.answers().map(({ headers }) => headers["connection"])).toEqual(["keep-alive", "close"]);
    expect(await Promise.all([http1.closed, http2.closed])).toEqual(["ended", "closed"]);
    await served.end();
    expect(told(served.log)).toContainEqual(drained(3));
  });

  test("during `drainDelay` a client of HTTP/1 is told with its next answer", async () => {
    const backend = new Backend(undefined, http2Server("secure", true) as never);
    const served = await run(backend.server, { drainDelay: Infinity });
    const client = await secureClient(backend.server);
    served.begin();
    client.get("/now");
    expect((await client.answer()).headers["connection"]).toBe("close");
    expect(await client.closed).toBe("ended");
    expect(backend.server.listening).toBe(true);
    backend.server.close();
    await served.end();
  });

  test("at `drainTimeout` connections of both are destroyed, and each is counted once", async () => {
    const backend = new Backend(undefined, http2Server("secure", true) as never);
    const served = await run(backend.server, { drainTimeout: 20 });
    const http1 = await secureClient(backend.server);
    const http2 = await Http2Client.open(backend.server);
    const upgraded = await secureClient(backend.server);
    backend.server.on("upgrade", (_, socket) => void socket.write("HTTP/1.1 101 Switching Protocols\r\n\r\n"));
    upgraded.send(get("/socket", "Connection: Upgrade", "Upgrade: echo"));
    http1.get("/1");
    const answers = ["/2", "/3"].map((path) => http2.get(path));
    await Promise.all([...["/1", "/2", "/3"].map((url) => backend.request(url)), upgraded.answer()]);
    await served.stop();
    await Promise.all([http1.closed, http2.closed, upgraded.closed, ...answers]);
    expect(told(served.log)).toContainEqual(drained(3, 3));
    backend.server.removeAllListeners("upgrade");
  });

  test("a client that speaks neither is answered by the server itself, and does not hold the drain", async () => {
    const server = http2Server("secure");
    const served = await run(server);
    const client = await secureClient(server);
    await client.until(() => client.text.includes("403 Forbidden"));
    const silent = await HesitantClient.open(server);
    await once(silent.tls.socket, "secureConnect");
    await served.stop();
    expect(told(served.log)).toContainEqual(drained(0));
  });
});

/** A client of HTTP/2 by hand, which keeps its side of the connection open. */
function rawClient(server: Server): Promise<RawClient> {
  if ("setSecureContext" in server) return secureClient(server, { ALPNProtocols: ["h2"], ...{ allowHalfOpen: true } });
  const { port } = server.address() as AddressInfo;
  return RawClient.open({ host: "127.0.0.1", port, allowHalfOpen: true });
}
