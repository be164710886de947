import { getEventListeners, once } from "node:events";
import { createServer, type Server } from "node:http";
import type { Socket } from "node:net";
import { setImmediate } from "node:timers/promises";
import { type LifecycleEvent, Manager, StopReason, TaskAlreadyStartedError } from "allstop";
import { GroupTask } from "allstop/group";
import { HttpServerTask } from "allstop/http";
import { ServiceGroup } from "allstop/services";
import { EventLog } from "allstop/testing";
import { describe, expect, test } from "vitest";
import {
  Backend,
  connecting,
  drained,
  get,
  post,
  PROMPT,
  RawClient,
  REASON,
  run,
  serve,
  type ServerRun,
  useHttp,
  whenClosed,
} from "./support/http.ts";
import { Program } from "./support/program.ts";
import { ended, started, stopped, stopping, told } from "./support/told.ts";
import { throwing } from "./support/ways.ts";

useHttp();

/** Checks what was told of the drain, and nothing else but the lifecycle of the task. */
async function expectDrained(server: ServerRun, requests: number, destroyed = 0): Promise<void> {
  await server.end();
  expect(told(server.log)).toEqual([
    started("http"),
    stopping("", REASON, "http"),
    drained(requests, destroyed),
    ended("http"),
    stopped(""),
  ]);
}

function connectionsOf(server: Server): Promise<number> {
  return new Promise((resolve) => server.getConnections((_, count) => resolve(count)));
}

/** The first time that is below the limit, or else that of the last attempt: others may hold up this process. */
async function timeBelow(limit: number, attempt: () => Promise<number>): Promise<number> {
  let time = await attempt();
  for (let i = 0; i < 10 && time >= limit; i++) time = await attempt();
  return time;
}

/** What can be idle. */
const IDLE: Record<string, string> = {
  "has sent nothing": "",
  "has sent half a request line": "GET /no",
  "has sent half a header": "GET /now HTTP/1.1\r\nHost: x\r\n",
  "has sent an empty line": "\r\n",
  "got its answer": get("/now"),
  "got all of its answers": get("/now") + get("/now/2"),
  "got its answer, and has sent half a header since": `${get("/now")}GET /now HTTP/1.1\r\nHost`,
};

/** Such a connection to a server, which has read all of it. */
async function idle(server: ServerRun, sent: string): Promise<RawClient> {
  const client = await server.client(sent);
  const count = sent.split("\r\n\r\n").length - 1;
  if (count > 0) await client.answer(count);
  await setImmediate();
  await setImmediate();
  return client;
}

describe("From the first instant of the stop", () => {
  test.concurrent("`stopping` is true, and readiness with it, while all is still served", async () => {
    const { server } = await serve({ drainDelay: 10_000 }, ({ response }) => {
      response.writeHead(server.task.stopping ? 503 : 200).end();
    });
    const probe = async (client: RawClient, count: number): Promise<unknown> => {
      client.get("/ready");
      const { status, headers } = await client.answer(count);
      return `${status} ${headers["connection"]}`;
    };
    const [used, fresh] = [await server.client(), await server.client()];
    expect([server.task.stopping, await probe(used, 1)]).toEqual([false, "200 keep-alive"]);
    server.begin();
    expect(server.task.stopping).toBe(true);
    const answers = [probe(used, 2), probe(fresh, 1), server.client().then((client) => probe(client, 1))];
    expect(await Promise.all(answers)).toEqual(["503 close", "503 close", "503 close"]);
    expect(server.server.listening).toBe(true);
    server.server.close();
    await expectDrained(server, 3);
    expect(server.task.stopping).toBe(true);
  });

  test.concurrent("old and new connections are served for `drainDelay`, and told `Connection: close`", async () => {
    const { server } = await serve({ drainDelay: 10_000 });
    const clients = await Promise.all(Array.from({ length: 5 }, () => server.client()));
    server.begin();
    for (let i = 0; i < 10; i++) {
      const client = clients.pop() ?? (await server.client());
      client.get("/now");
      expect((await client.answer()).headers["connection"]).toBe("close");
      expect(await client.closed).toBe("ended");
    }
    // Which spares us the rest of it.
    server.server.close();
    await expectDrained(server, 10);
  });

  test.concurrent("and `drainDelay` later it refuses new connections, while requests are still in flight", async () => {
    const { backend, server } = await serve({ drainDelay: 50 });
    const client = await server.client(get("/a"));
    const { answer } = await backend.request("/a");
    server.begin();
    await setImmediate();
    expect(await connecting(server.port)).toBe("connected");
    await whenClosed(server);
    expect(performance.now() - server.stoppedAt).toBeGreaterThan(48);
    expect([await connecting(server.port), server.task.address]).toEqual(["ECONNREFUSED", null]);
    answer();
    await client.answer();
    await expectDrained(server, 1);
  });
});

describe("A connection whose request had reached the machine by then", () => {
  test.concurrent.each([0, 30])("is accepted, however many there are (drainDelay: %i)", async (drainDelay) => {
    const { backend, server } = await serve({ drainDelay });
    const clients: RawClient[] = [];
    // Node accepts one of them in each turn of the event loop.
    const burst = async (): Promise<void> => {
      const opening = Array.from({ length: 50 }, (_, i) => RawClient.open(server.server, get(`/now/${i}`)));
      clients.push(...(await Promise.all(opening)));
    };
    if (drainDelay > 0) {
      const timer = new Promise<void>((resolve) => setTimeout(resolve, drainDelay - 1));
      server.begin();
      await timer;
    }
    await burst();
    server.begin();
    expect(backend.urls.length).toBeLessThan(40);
    expect(new Set(await Promise.all(clients.map(({ closed }) => closed)))).toEqual(new Set(["ended"]));
    expect(clients.flatMap((client) => client.answers().map(({ status }) => status))).toEqual(clients.map(() => 200));
    await server.end();
  });
});

test("a drain ends in time also when there is always another client, with a connection of its own", async () => {
  const { server } = await serve({ drainTimeout: 20_000 }, ({ response }) => {
    const until = performance.now() + 5;
    while (performance.now() < until); // so that it takes a turn of the event loop to answer one
    response.end();
  });
  let isOver = false;
  const clients = Array.from({ length: 16 }, async () => {
    while (!isOver) {
      const client = await server.client(get("/")).catch(() => undefined);
      await client?.closed;
      if (client === undefined) return;
    }
  });
  await once(server.server, "connection");
  const stoppedAt = performance.now();
  await server.stop();
  const took = performance.now() - stoppedAt;
  isOver = true;
  // To answer each of them before the next is let in would take seconds.
  expect(took).toBeLessThan(PROMPT);
  await Promise.all(clients);
});

describe("An idle connection", () => {
  test.concurrent.each(Object.entries(IDLE))("that %s is closed 50 ms after the listener", async (_, sent) => {
    for (const drainDelay of [0, 30]) {
      const { server } = await serve({ drainDelay });
      const client = await idle(server, sent);
      server.begin();
      await whenClosed(server);
      expect(client.end).toBe("open");
      expect(await client.closed).toBe("ended");
      expect(client.endedAt - server.stoppedAt).toBeGreaterThan(drainDelay + 48);
      expect(client.endedAt - server.stoppedAt).toBeLessThan(PROMPT);
      await expectDrained(server, 0);
    }
  });

  test.concurrent("that sends its request, or the rest of one, within those 50 ms is answered", async () => {
    for (const sent of Object.values(IDLE)) {
      const { server } = await serve();
      const client = await idle(server, sent);
      const count = client.answers().length;
      server.begin();
      await whenClosed(server);
      // The rest of what it began.
      const begun = sent.slice(count && sent.lastIndexOf("\r\n\r\n") + 4).trimStart();
      const whole = "GET /now HTTP/1.1\r\nHost: x\r\n\r\n";
      client.send(begun === "GET /no" || whole.startsWith(begun) ? whole.slice(begun.length) : "");
      const { status, headers } = await client.answer(count + 1);
      expect([status, headers["connection"]]).toEqual([200, "close"]);
      await expectDrained(server, 1);
    }
  });

  test.concurrent("of many does not wait for another: all are closed together", async () => {
    const { server } = await serve();
    const clients = await Promise.all(Array.from({ length: 200 }, () => server.client()));
    await setImmediate();
    server.begin();
    expect(new Set(await Promise.all(clients.map(({ closed }) => closed)))).toEqual(new Set(["ended"]));
    await expectDrained(server, 0);
    expect(server.took).toBeLessThan(PROMPT);
  });

  test.concurrent("is what `server.close()` alone waits for, and does not get", async () => {
    const { server } = new Backend();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const nothing = await RawClient.open(server);
    if ((await connectionsOf(server)) < 1) await once(server, "connection");
    const accepted = once(server, "connection") as Promise<[Socket]>;
    const half = await RawClient.open(server, "GET / HTTP/1.1\r\n");
    const [connection] = await accepted;
    // From Node 26 on, `server.close()` closes a connection that nothing has come from.
    while (connection.bytesRead === 0) await setImmediate();
    const closed = once(server, "close").then(() => "closed");
    server.close();
    server.closeIdleConnections();
    const later = new Promise((resolve) => setTimeout(resolve, 50, "still open"));
    expect(await Promise.race([closed, later])).toBe("still open");
    nothing.leave();
    half.leave();
    expect(await closed).toBe("closed");
  });
});

describe("A drain", () => {
  test.concurrent("of a server without connections is over at once", async () => {
    const time = timeBelow(40, async () => {
      const { server } = await serve();
      await (await server.client(get("/now", "Connection: close"))).closed;
      await server.stop();
      await expectDrained(server, 0);
      return server.took;
    });
    expect(await time).toBeLessThan(40);
  });

  test.concurrent("whose longest request takes T ends within T + 100 ms, idle sockets or not", async () => {
    const time = timeBelow(100, async () => {
      const { backend, server } = await serve();
      const client = await server.client(get("/a"));
      for (const sent of Object.values(IDLE)) await idle(server, sent);
      const { answer } = await backend.request("/a");
      server.begin();
      await new Promise((resolve) => setTimeout(resolve, 20));
      const answeredAt = performance.now();
      answer();
      await client.closed;
      await expectDrained(server, 1);
      return server.endedAt - answeredAt;
    });
    expect(await time).toBeLessThan(100);
  });

  test.concurrent("destroys what is left at `drainTimeout`, which counts from the end of `drainDelay`", async () => {
    const { backend, server } = await serve({ drainDelay: 60, drainTimeout: 60 });
    const clients = [await server.client(get("/a")), await server.client(get("/b") + get("/c"))];
    await backend.request("/c");
    server.begin();
    await Promise.all(clients.map(({ closed }) => closed));
    for (const { endedAt } of clients) expect(endedAt - server.stoppedAt).toBeGreaterThan(118);
    await expectDrained(server, 3, 2);
    expect(server.took).toBeLessThan(PROMPT);
    expect(server.drained?.elapsed).toBeGreaterThan(118);
    expect(server.drained?.elapsed).toBeLessThanOrEqual(server.took);
  });

  test.concurrent.each([0, 20])("destroys at a `drainTimeout` of %i ms idle ones, too, uncounted", async (limit) => {
    const time = timeBelow(45, async () => {
      const { backend, server } = await serve({ drainTimeout: limit });
      const clients = await Promise.all(Object.values(IDLE).map((sent) => idle(server, sent)));
      clients.push(await server.client(get("/hangs")), await server.client(post("/upload", "half", 8)));
      await Promise.all([backend.request("/hangs"), backend.request("/upload")]);
      server.begin();
      await Promise.all(clients.map(({ closed }) => closed));
      await expectDrained(server, 2, 2);
      const times = clients.map(({ endedAt }) => endedAt - server.stoppedAt);
      expect(Math.min(...times)).toBeGreaterThan(limit - 2);
      return Math.max(...times);
    });
    expect(await time).toBeLessThan(45);
  });

  test.concurrent("counts the requests in flight at the stop and those begun later, no earlier ones", async () => {
    const { backend, server } = await serve({ drainDelay: 30 });
    const used = await server.client();
    for (let i = 1; i <= 3; i++) {
      used.get("/now");
      await used.answer(i);
    }
    const [busy, unused] = [await server.client(get("/a")), await server.client()];
    const { answer } = await backend.request("/a");
    server.begin();
    const sent = whenClosed(server).then(() => unused.get("/late"));
    used.get("/now");
    await used.closed;
    answer();
    await Promise.all([busy.closed, sent]);
    (await backend.request("/late")).answer();
    await expectDrained(server, 3);
  });

  test.concurrent("of a server that is closed by others meanwhile ends with that", async () => {
    const { server } = await serve({ drainDelay: 10_000 });
    await server.client(get("/now"));
    server.begin();
    server.server.close();
    await server.end();
    expect(server.took).toBeLessThan(PROMPT);
  });

  test.concurrent("is told of when all is over, before the end of its task", async () => {
    const httpServer = new Backend().server;
    const seen: unknown[] = [];
    // Which comes after the end of the last connection.
    httpServer.on("close", () => seen.push("closed"));
    const onEvent = ({ type }: LifecycleEvent): void => void seen.push(type);
    const server = await run(httpServer, { onEvent, drainTimeout: 20 });
    const client = await server.client(get("/hangs"));
    await once(httpServer, "request");
    await server.stop();
    await client.closed;
    expect(seen).toEqual(["closed", "http-drained"]);
    expect(told(server.log)).toEqual([started("http"), stopping("", REASON, "http"), ended("http"), stopped("")]);
  });

  test.concurrent("changes nothing for an observer that throws", async () => {
    const { server } = await serve({ onEvent: throwing(new Error("observer")) });
    await server.client();
    await server.stop();
    expect(server.manager.failures).toEqual([]);
  });

  test.concurrent("with 10 busy connections and 5 idle ones answers in full all that a handler got", async () => {
    await Promise.all([1, 2].map(drainUnderLoad));
  });

  async function drainUnderLoad(): Promise<void> {
    const body = "x".repeat(1_000);
    const { backend, server } = await serve({}, async ({ url, answer }) => {
      await setImmediate();
      answer(url + body);
    });
    const idleOnes = await Promise.all(Array.from({ length: 5 }, () => server.client()));
    const busy = await Promise.all(Array.from({ length: 10 }, () => server.client()));
    const asking = busy.map(async (client, n) => {
      let sent = 0;
      do {
        client.get(`/${n}/${sent++}`);
        await client.answer(sent);
      } while (client.answers()[sent - 1]?.headers["connection"] === "keep-alive");
      return sent;
    });
    await Promise.all(busy.map((client) => client.answer(3)));
    server.begin();
    const answered = await Promise.all(asking);
    await Promise.all([...busy, ...idleOnes].map(({ closed }) => closed));
    await server.end();
    expect(busy.flatMap((client) => client.answers().map((each) => each.body)).sort()).toEqual(
      backend.urls.map((url) => url + body).sort(),
    );
    expect(answered.reduce((sum, count) => sum + count)).toBe(backend.urls.length);
    expect(server.drained).toMatchObject({ destroyed: 0 });
    expect(server.took).toBeLessThan(PROMPT);
  }
});

describe("`http-drained` is told", () => {
  /** Runs a task in a place and stops it, with a request in flight that is answered, and one that is not. */
  async function drainIn(
    place: (task: HttpServerTask, log: EventLog) => { stop(reason?: unknown): Promise<unknown> },
    name?: string,
    onEvent?: (event: LifecycleEvent) => void,
  ): Promise<LifecycleEvent[]> {
    const log = new EventLog();
    const backend = new Backend();
    const task = new HttpServerTask(backend.server, { host: "127.0.0.1", name, onEvent, drainTimeout: 20 });
    const { stop } = place(task, log);
    await task.ready();
    const clients = [await RawClient.open(backend.server, get("/a")), await RawClient.open(backend.server, get("/b"))];
    const [{ answer }] = await Promise.all([backend.request("/a"), backend.request("/b")]);
    const end = stop(REASON);
    answer();
    await Promise.all([end, ...clients.map(({ closed }) => closed)]);
    return told(log).filter(({ type }) => type === "http-drained");
  }

  function managed(name?: string, wrap: (task: HttpServerTask) => HttpServerTask | GroupTask | ServiceGroup = same) {
    return (task: HttpServerTask, { observe }: EventLog): Manager => {
      const manager = new Manager({ name, onEvent: observe });
      manager.run(wrap(task));
      return Object.assign(manager, { stop: manager.stop.bind(manager) });
    };
  }

  function same(task: HttpServerTask): HttpServerTask {
    return task;
  }

  test.concurrent("to the `onEvent` of the manager that runs it, with its full name", async () => {
    expect(await drainIn(managed("api"))).toEqual([drained(2, 1, "api/http")]);
    expect(await drainIn(managed(), "web")).toEqual([drained(2, 1, "web")]);
  });

  test.concurrent("from within a GroupTask with the name of that, too", async () => {
    const inGroup = (task: HttpServerTask): GroupTask => new GroupTask("group", (manager) => manager.run(task));
    expect(await drainIn(managed("api", inGroup))).toEqual([drained(2, 1, "api/group/http")]);
  });

  test.concurrent("from within a ServiceGroup, of which it is a service, with the name of that, too", async () => {
    const inServices = (task: HttpServerTask): ServiceGroup => new ServiceGroup([[task]]);
    expect(await drainIn(managed("api", inServices))).toEqual([drained(2, 1, "api/services/http")]);
  });

  test.concurrent("to its own `onEvent` instead, if it has one", async () => {
    const own = new EventLog();
    expect(await drainIn(managed("api"), undefined, own.observe)).toEqual([]);
    expect(told(own)).toEqual([drained(2, 1, "api/http")]);
  });

  test.concurrent("by its own name when it is run by hand", async () => {
    const own = new EventLog();
    const controller = new AbortController();
    await drainIn(
      (task) => {
        const end = task.run(controller.signal);
        return { stop: (reason) => (controller.abort(reason), end) };
      },
      "web",
      own.observe,
    );
    expect(told(own)).toEqual([drained(2, 1, "web")]);
    expect(getEventListeners(controller.signal, "abort")).toEqual([]);
  });

  test.concurrent("with the time since the stop as `elapsed`", async () => {
    const { server } = await serve({ drainDelay: 40 });
    await new Promise((resolve) => setTimeout(resolve, 30));
    await server.stop();
    expect(Object.keys(server.drained ?? {}).sort()).toEqual(["destroyed", "elapsed", "requests", "task", "type"]);
    expect(server.drained?.elapsed).toBeGreaterThan(38);
    expect(server.drained?.elapsed).toBeLessThanOrEqual(server.took);
  });

  test.concurrent("only of a stop: a server that others close ends the task, which returns", async () => {
    const { server } = await serve();
    server.server.close();
    await server.end();
    expect(told(server.log)).toEqual([
      started("http"),
      ended("http"),
      stopping("", expect.any(StopReason)),
      stopped(""),
    ]);
    expect(server.task.stopping).toBe(false);
  });
});

describe("A task", () => {
  test.concurrent("runs once, also after its end", async () => {
    const { server } = await serve();
    const again = async (): Promise<void> => {
      await expect(server.task.run(new AbortController().signal)).rejects.toThrow(TaskAlreadyStartedError);
    };
    await again();
    const client = await server.client(get("/now"));
    expect((await client.answer()).body).toBe("answer to /now");
    await server.stop();
    await again();
    await expectDrained(server, 0);
  });

  test.concurrent("adds no listener to its server, and is in nobody's way there at the end", async () => {
    const httpServer = createServer((_, response) => response.end());
    const counts = (): unknown => httpServer.eventNames().map((name) => [name, httpServer.listenerCount(name)]);
    const { emit, closeIdleConnections } = httpServer;
    const before = counts();
    const server = await run(httpServer);
    expect(counts()).toEqual(before);
    const client = await server.client(get("/"));
    await client.answer();
    expect(counts()).toEqual(before);
    await server.stop();
    expect(counts()).toEqual(before);
    expect(httpServer.emit).toBe(emit);
    expect(httpServer.closeIdleConnections).toBe(closeIdleConnections);
    // It may be used again.
    httpServer.listen(0, "127.0.0.1");
    await once(httpServer, "listening");
    const next = await RawClient.open(httpServer, get("/") + get("/"));
    expect((await next.answer(2)).headers["connection"]).toBe("keep-alive");
    httpServer.close();
    await next.closed;
  });

  test.concurrent("gives a server back what it had of its own", async () => {
    const httpServer = new Backend().server;
    const { emit } = httpServer;
    const own = (...args: Parameters<typeof emit>): boolean => emit.apply(httpServer, args);
    httpServer.emit = own as typeof emit;
    const server = await run(httpServer);
    expect((await (await server.client(get("/now", "Connection: close"))).answer()).status).toBe(200);
    await server.stop();
    expect(httpServer.emit).toBe(own);
  });

  test.concurrent("leaves what others put on the server while it ran", async () => {
    const { backend, server } = await serve();
    const { server: httpServer } = backend;
    const { emit } = httpServer;
    const seen: unknown[] = [];
    const traced = (...args: Parameters<typeof emit>): boolean => {
      seen.push(args[0]);
      return emit.apply(httpServer, args);
    };
    httpServer.emit = traced as typeof emit;
    await (await server.client(get("/now"))).answer();
    await server.stop();
    expect(httpServer.emit).toBe(traced);
    expect(seen).toEqual(["connection", "request", "close"]);
    seen.length = 0;
    expect(httpServer.emit("custom")).toBe(false);
    expect(httpServer.once("custom", () => {}).emit("custom")).toBe(true);
    expect(seen).toEqual(["custom", "custom"]);
    httpServer.emit = emit;
    httpServer.emit = Object.getPrototypeOf(httpServer).emit;
  });

  test.concurrent("keeps nothing on a connection for each of its requests", async () => {
    const { backend, server } = await serve();
    const connected = once(backend.server, "connection");
    const client = await server.client();
    const [socket] = await connected;
    const counts = (): unknown[] => socket.eventNames().map((name: string) => [name, socket.listenerCount(name)]);
    client.get("/now/1");
    await client.answer();
    await setImmediate();
    const before = counts();
    for (let i = 2; i <= 20; i++) {
      client.get(`/now/${i}`);
      await client.answer(i);
    }
    await setImmediate();
    expect(counts()).toEqual(before);
    await server.stop();
    // Node's own are what a plain server has, too.
    expect(socket.listenerCount("close")).toBeLessThanOrEqual(2);
  });

  test.concurrent("may be followed by another for the same server", async () => {
    const backend = new Backend();
    for (let i = 0; i < 3; i++) {
      const server = await run(backend.server);
      const client = await server.client(get("/now"));
      expect((await client.answer()).headers["connection"]).toBe("keep-alive");
      await server.stop();
      await client.closed;
      await expectDrained(server, 0);
    }
  });
});

// One after the other: each of them ends its program.
describe("A program", () => {
  test("stopped under load fails no request if `drainDelay` is above the pauses, and ends by itself", async () => {
    const program = new Program("fixtures/http-drain.ts");
    const { port } = JSON.parse((await program.line("ready")).slice("ready ".length)) as { port: number };
    const to = { host: "127.0.0.1", port };
    let requests = 0;
    /** Asks, with pauses, until it is told that this is the last answer. */
    const ask = async (isKeptAlive: boolean): Promise<string> => {
      for (let client = await RawClient.open(to), count = 1; ; count++) {
        client.get("/");
        const { body, headers } = await client.answer(count);
        expect(body).toBe("ok");
        if (++requests === 60) program.send("SIGTERM");
        if (headers["connection"] === "close") return client.closed;
        await new Promise((resolve) => setTimeout(resolve, 15));
        if (isKeptAlive) continue;
        client.leave();
        client = await RawClient.open(to);
        count = 0;
      }
    };
    const clients = Array.from({ length: 10 }, (_, i) => ask(i % 2 === 0));
    expect(new Set(await Promise.all(clients))).toEqual(new Set(["ended"]));
    expect(await program.end()).toBe(0);
    expect(JSON.parse((await program.line("drained")).slice("drained ".length))).toEqual({
      task: "http",
      requests: expect.toSatisfy((count: number) => count >= 10 && count < requests),
      destroyed: 0,
      elapsed: expect.toSatisfy((elapsed: number) => elapsed > 998 && elapsed < PROMPT),
    });
    expect(program.lines.at(-1)).toBe("left []");
    expect(program.stderr).toBe("");
  });

  test("whose handler throws hears of that, and ends all the same", async () => {
    const program = new Program("fixtures/http-throws.ts");
    expect(await program.end()).toBe(0);
    expect([...program.lines].sort()).toEqual([
      "/1: socket hang up",
      "/2: socket hang up",
      "/3: socket hang up",
      "drained 3, destroyed 3",
      "uncaught: /1 is broken",
      "uncaught: /2 is broken",
      "uncaught: /3 is broken",
    ]);
    expect(program.stderr).toBe("");
  });
});
