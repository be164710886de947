import { EventEmitter, getEventListeners, once } from "node:events";
import { lookup } from "node:dns";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Server as TcpServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { Manager, TaskAlreadyStartedError } from "allstop";
import { type HttpListenOptions, type HttpServerOptions, HttpServerTask } from "allstop/http";
import { ServiceGroup } from "allstop/services";
import { EventLog } from "allstop/testing";
import { afterAll, describe, expect, test, vi } from "vitest";
import { type Run, start, useRunsByHand } from "./support/by-hand.ts";
import { Backend, connecting, drained, get, PROMPT, RawClient, REASON } from "./support/http.ts";
import { closing, getFrame, http2Server, httpsServer, preface, watch, whenClosing } from "./support/http2.ts";
import { useNoUnhandledRejections, useNoWarnings } from "./support/process-events.ts";
import { thrownBy } from "./support/thrown-by.ts";
import { told } from "./support/told.ts";
import { hangs, nothing, rejecting, throwing } from "./support/ways.ts";
import { unusedPort } from "./support/unused-port.ts";

const ERROR = new Error("no place to listen");
const LOCAL = "127.0.0.1";
const directory = mkdtempSync(join(tmpdir(), "allstop-http-"));
const hasIpv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === "::1"));

// What holds a drain does so until `drainTimeout`, which by default is longer than a test may take.
useRunsByHand();
useNoUnhandledRejections();
useNoWarnings();
afterAll(() => rmSync(directory, { recursive: true }));

/** A task of a server of its own, run by hand. */
class Subject {
  readonly server: Server;
  readonly log: EventLog = new EventLog();
  readonly task: HttpServerTask;
  readonly closes: string[] = [];
  readonly #before: readonly unknown[];
  run!: Run;

  constructor(options: HttpServerOptions = {}, server: Server = createServer()) {
    this.server = server;
    this.#before = traces(server);
    this.task = new HttpServerTask(server, { onEvent: this.log.observe, ...options });
  }

  start(controller?: AbortController): this {
    this.run = start(this.task, controller);
    return this;
  }

  /** Resolves with how it has ended. */
  async end(): Promise<unknown> {
    while (this.run.end === "running") await setImmediate();
    expect(traces(this.server)).toEqual(this.#before);
    return this.run.end;
  }

  stop(): Promise<unknown> {
    this.run.controller.abort(REASON);
    return this.end();
  }
}

/** What listens to a server, and which functions it has of its own. */
function traces(server: Server): unknown[] {
  const own = Object.entries(server).filter(([, value]) => typeof value === "function");
  return [server.eventNames().map((name) => [name, server.listenerCount(name)]), own];
}

/** How many a promise is settled with by now: what it resolved or rejected with, or `"pending"`. */
async function settled(promise: Promise<unknown>): Promise<unknown> {
  return Promise.race([promise.catch((error: unknown) => error), setImmediate("pending")]);
}

/** A server of TCP that has a port for itself. */
async function takenPort(): Promise<{ port: number; free(): Promise<unknown> }> {
  const server = createTcpServer().listen(0, LOCAL);
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, free: () => once(server.close(), "close") };
}

describe("Options", () => {
  const express = Object.assign(function app() {}, { listen: nothing });
  test.each<readonly [what: string, server: unknown, shown: string]>([
    ["undefined", undefined, "undefined"],
    ["null", null, "null"],
    ["an object", {}, "[object Object]"],
    ["an app of Express", express, String(express)],
    ["one of Fastify", { server: createServer(), listen: nothing, addresses: nothing }, "[object Object]"],
    ["one of Koa", { listen: nothing, callback: nothing }, "[object Object]"],
    ["a port", 8080, "8080"],
    ["an address", "localhost", '"localhost"'],
  ])("%s is no server: that is a TypeError", (_, server, shown) => {
    const error = thrownBy(() => new HttpServerTask(server as never));
    expect(error).toBeInstanceOf(TypeError);
    const message = `Cannot create an HttpServerTask: server must be of http, https or http2, got ${shown}`;
    expect(error).toHaveProperty("message", message);
  });

  test.each([
    ["node:http", createServer],
    ["node:https", httpsServer],
    ["node:http2", () => http2Server("cleartext")],
    ["node:http2 over TLS", () => http2Server("secure")],
  ])("a server of %s is one", async (_, create) => {
    const { task, run, ...subject } = new Subject({ host: LOCAL }, create() as Server).start();
    await task.ready();
    expect(subject.server.listening).toBe(true);
    run.controller.abort();
    while (run.end === "running") await setImmediate();
    expect([run.end, subject.server.listening]).toEqual(["returned", false]);
  });

  const whole = "port must be a whole number from 0 to 65535, got";
  test.each<readonly [option: keyof HttpServerOptions, value: unknown, Refusal: ErrorConstructor, message: string]>([
    ["port", "8080", TypeError, 'port must be of type number, got "8080"'],
    ["port", null, TypeError, "port must be of type number, got null"],
    ["port", 8080n, TypeError, "port must be of type number, got 8080"],
    ["port", -1, RangeError, `${whole} -1`],
    ["port", 1.5, RangeError, `${whole} 1.5`],
    ["port", 65_536, RangeError, `${whole} 65536`],
    ["port", Number.NaN, RangeError, `${whole} NaN`],
    ["port", Infinity, RangeError, `${whole} Infinity`],
    ["host", 127, TypeError, "host must be of type string, got 127"],
    ["host", null, TypeError, "host must be of type string, got null"],
    ["path", 1, TypeError, "path must be of type string, got 1"],
    ["path", null, TypeError, "path must be of type string, got null"],
    ["name", 1, TypeError, "name must be of type string, got 1"],
    ["name", null, TypeError, "name must be of type string, got null"],
    ["listen", {}, TypeError, "listen must be of type function, got [object Object]"],
    ["listen", null, TypeError, "listen must be of type function, got null"],
    ["onEvent", {}, TypeError, "onEvent must be of type function, got [object Object]"],
    ["onEvent", null, TypeError, "onEvent must be of type function, got null"],
    ...(["drainDelay", "drainTimeout"] as const).flatMap((option) => [
      [option, "1", TypeError, `${option} must be of type number, got "1"`] as const,
      [option, null, TypeError, `${option} must be of type number, got null`] as const,
      [option, -1, RangeError, `${option} must be 0 or more milliseconds, got -1`] as const,
      [option, Number.NaN, RangeError, `${option} must be 0 or more milliseconds, got NaN`] as const,
    ]),
  ])("%s: %s is refused, and the server left as it was", (option, value, Refusal, message) => {
    const server = createServer();
    const before = traces(server);
    const error = thrownBy(() => new HttpServerTask(server, { [option]: value }));
    expect(error).toBeInstanceOf(Refusal);
    expect(error).toHaveProperty("message", `Cannot create an HttpServerTask: ${message}`);
    expect([traces(server), Object.hasOwn(server, "emit")]).toEqual([before, false]);
  });

  test.each([null, "options", 8080, true])("%s as options is a TypeError", (options) => {
    const server = createServer();
    expect(() => new HttpServerTask(server, options as never)).toThrow(TypeError);
    expect(Object.hasOwn(server, "emit")).toBe(false);
  });

  test("each that is undefined takes its default", async () => {
    const options = { name: undefined, port: undefined, host: undefined, path: undefined, listen: undefined };
    const timeouts = { drainDelay: undefined, drainTimeout: undefined, onEvent: undefined };
    for (const all of [undefined, { ...options, ...timeouts }]) {
      const server = createServer();
      const task = new HttpServerTask(server, all);
      expect(task.name).toBe("http");
      const run = start(task);
      await task.ready();
      expect(["::", "0.0.0.0"]).toContain((task.address as AddressInfo).address);
      expect((task.address as AddressInfo).port).toBeGreaterThan(0);
      run.controller.abort();
      while (run.end === "running") await setImmediate();
      expect(run.end).toBe("returned");
    }
  });

  test("`drainDelay` and `drainTimeout` of `Infinity`, or more than 2^31-1, never pass", async () => {
    for (const forever of [Infinity, 2 ** 31, Number.MAX_VALUE]) {
      const delayed = new Subject({ drainDelay: forever, host: LOCAL }).start();
      const backend = new Backend();
      const draining = new Subject({ drainTimeout: forever, host: LOCAL }, backend.server).start();
      await Promise.all([delayed.task.ready(), draining.task.ready()]);
      const client = await RawClient.open(backend.server, get("/slow"));
      const slow = await backend.request("/slow");
      for (const { run } of [delayed, draining]) run.controller.abort(REASON);
      // Longer than the 1 ms that a longer one would take.
      await (await RawClient.open(delayed.server, get("/", "Connection: close"))).leave();
      await closing(draining.server);
      await new Promise((resolve) => setTimeout(resolve, 5));
      expect([delayed.run.end, delayed.server.listening, draining.run.end, client.end]).toEqual([
        "running",
        true,
        "running",
        "open",
      ]);
      slow.answer();
      expect((await client.answer()).body).toBe("answer to /slow");
      delayed.server.close();
      delayed.server.closeAllConnections();
      expect([await delayed.end(), await draining.end()]).toEqual(["returned", "returned"]);
    }
  });
});

describe("Where it listens", () => {
  test("`address` is live: null before and after, and in between what the server says", async () => {
    const port = await unusedPort();
    const subject = new Subject({ port, host: LOCAL });
    expect(subject.task.address).toBe(null);
    subject.start();
    await subject.task.ready();
    expect(subject.task.address).toEqual({ address: LOCAL, family: "IPv4", port });
    expect(await connecting(port)).toBe("connected");
    expect(await subject.stop()).toBe("returned");
    expect(subject.task.address).toBe(null);
    expect(await connecting(port)).toBe("ECONNREFUSED");
  });

  test("`path` is a unix socket, whose file is gone afterwards, and goes before `port` and `host`", async () => {
    const { port, free } = await takenPort();
    const backend = new Backend();
    const path = join(directory, "http.sock");
    const subject = new Subject({ path, port, host: "no such host" }, backend.server).start();
    await subject.task.ready();
    expect([subject.task.address, existsSync(path)]).toEqual([path, true]);
    const client = await RawClient.open({ path }, get("/slow"));
    const idle = await RawClient.open({ path });
    const slow = await backend.request("/slow");
    subject.run.controller.abort(REASON);
    await closing(backend.server);
    expect(existsSync(path)).toBe(false);
    slow.answer();
    expect(await client.answer()).toMatchObject({ body: "answer to /slow", headers: { connection: "close" } });
    expect(await idle.closed).toBe("ended");
    expect(await subject.end()).toBe("returned");
    expect(told(subject.log)).toEqual([drained(1)]);
    await free();
  });

  test.skipIf(!hasIpv6)("`host` may be an address of IPv6 (skipped where there is no ::1)", async () => {
    const subject = new Subject({ host: "::1" }, new Backend().server).start();
    await subject.task.ready();
    expect(subject.task.address).toMatchObject({ address: "::1", family: "IPv6" });
    const { port } = subject.task.address as AddressInfo;
    const client = await RawClient.open({ host: "::1", port }, get("/now"));
    expect((await client.answer()).status).toBe(200);
    expect(await subject.stop()).toBe("returned");
  });

  test("`host` may be a name", async () => {
    const subject = new Subject({ host: "localhost" }).start();
    await subject.task.ready();
    expect(["127.0.0.1", "::1"]).toContain((subject.task.address as AddressInfo).address);
    expect(await subject.stop()).toBe("returned");
  });
});

describe("Failing to listen", () => {
  test.each<readonly [what: string, code: RegExp, options: (port: number) => HttpServerOptions]>([
    ["a port that is taken", /^EADDRINUSE$/, (port) => ({ port, host: LOCAL })],
    ["a path in no directory", /^(ENOENT|EACCES)$/, () => ({ path: join(directory, "none", "x.sock") })],
    ["an address of others", /^EADDRNOTAVAIL$/, () => ({ host: "192.0.2.1" })],
    ["a host that is not there", /^(ENOTFOUND|EAI_AGAIN)$/, () => ({ host: "no such host" })],
  ])("is its failure, and that of `ready()`: %s; the server can be used again", async (_, code, optionsFor) => {
    const { port, free } = await takenPort();
    const subject = new Subject(optionsFor(port));
    const early = subject.task.ready();
    subject.start();
    const error = await subject.end();
    expect(error).toBeInstanceOf(Error);
    expect((error as NodeJS.ErrnoException).code).toMatch(code);
    expect([await settled(early), await settled(subject.task.ready())]).toEqual([error, error]);
    expect(await settled(early)).toBe(error);
    expect([subject.server.listening, subject.task.stopping, subject.log.events]).toEqual([false, false, []]);
    await free();
    const next = new Subject({ host: LOCAL }, subject.server).start();
    await next.task.ready();
    expect(await next.stop()).toBe("returned");
  });

  test("ends a manager with the error itself, when nobody asks for `ready()`", async () => {
    const { port, free } = await takenPort();
    const manager = new Manager();
    manager.run(new HttpServerTask(createServer(), { port, host: LOCAL }));
    await expect(manager.wait()).rejects.toMatchObject({ code: "EADDRINUSE", port });
    expect(manager.failures.map(({ source }) => source)).toEqual(["http"]);
    await free();
  });
});

describe("`listen`", () => {
  /** Listens at any port, as `server.listen`. */
  async function listen(server: TcpServer): Promise<void> {
    server.listen(0, LOCAL);
    await once(server, "listening");
  }

  test.each<readonly [options: HttpServerOptions, given: HttpListenOptions]>([
    [{}, { port: 0 }],
    [{ port: 8080 }, { port: 8080 }],
    [{ port: 8080, host: LOCAL }, { port: 8080, host: LOCAL }],
    [{ port: 8080, host: LOCAL, path: "/x" }, { path: "/x" }],
    [{ path: "" }, { path: "" }],
  ])("of %j gets the server and %j, once, and replaces `server.listen`", async (options, given) => {
    const calls: unknown[][] = [];
    const subject = new Subject({
      ...options,
      listen: (...args) => {
        calls.push(args);
        return listen(args[0]);
      },
    }).start();
    await subject.task.ready();
    expect(calls).toEqual([[subject.server, given]]);
    expect(calls[0]![0]).toBe(subject.server);
    expect(await subject.stop()).toBe("returned");
    expect([calls.length, told(subject.log)]).toEqual([1, [drained(0)]]);
  });

  test("makes the task ready when it resolves, not when the server listens", async () => {
    const done = deferred();
    const subject = new Subject({
      listen: async (server) => {
        await listen(server);
        await done.promise;
      },
    }).start();
    await once(subject.server, "listening");
    const ready = subject.task.ready();
    expect(await settled(ready)).toBe("pending");
    done.resolve();
    await ready;
    expect(await subject.stop()).toBe("returned");
  });

  test("may resolve with anything, and without a server that listens: then the stop, or a close, ends it", async () => {
    for (const end of ["stop", "close"] as const) {
      const subject = new Subject({ listen: async () => "somewhere else" }).start();
      await subject.task.ready();
      expect(subject.task.address).toBe(null);
      if (end === "close") subject.server.close();
      expect(await (end === "close" ? subject.end() : subject.stop())).toBe("returned");
    }
  });

  test.each([
    ["throws", throwing(ERROR)],
    ["rejects", rejecting(ERROR)],
    [
      "listens and then fails",
      async (server: TcpServer) => {
        await listen(server);
        throw ERROR;
      },
    ],
    [
      "has begun to listen when it fails",
      (server: TcpServer) => {
        server.listen(0);
        throw ERROR;
      },
    ],
    [
      "is about to listen when it fails",
      (server: TcpServer) => {
        server.listen(0, "localhost");
        throw ERROR;
      },
    ],
  ])("that %s is its failure, and that of `ready()`; nothing listens then", async (_, failing) => {
    const subject = new Subject({ listen: failing });
    const ready = subject.task.ready();
    subject.start();
    expect(await subject.end()).toBe(ERROR);
    expect(await settled(ready)).toBe(ERROR);
    // For longer than it takes to look up a name.
    await new Promise((resolve) => lookup("localhost", resolve));
    await setImmediate();
    const { listening } = subject.server;
    subject.server.close();
    expect([listening, subject.log.events]).toEqual([false, []]);
  });

  test("that fails with anything, or returns no promise, is taken as it is", async () => {
    const failing = new Subject({ listen: rejecting(undefined) }).start();
    expect(await failing.end()).toBe(undefined);
    const returning = new Subject({ listen: (server) => void server.listen(0, LOCAL) as never }).start();
    await returning.task.ready();
    expect(await returning.stop()).toBe("returned");
  });

  test("that hangs is left at the stop: `ready()` rejects with its reason", async () => {
    const subject = new Subject({ listen: hangs }).start();
    await setImmediate();
    expect(subject.run.end).toBe("running");
    const ready = subject.task.ready();
    expect(await subject.stop()).toBe("returned");
    expect(await settled(ready)).toBe(REASON);
    expect(subject.log.events).toEqual([]);
  });

  test("that resolves after the stop has its server closed then; that rejects after the stop is ignored", async () => {
    const done = deferred();
    const late = new Subject({ listen: async (server) => done.promise.then(() => listen(server)) }).start();
    const failing = new Subject({ listen: async () => done.promise.then(throwing(ERROR)) }).start();
    await setImmediate();
    expect([await late.stop(), await failing.stop()]).toEqual(["returned", "returned"]);
    done.resolve();
    await once(late.server, "listening");
    await once(late.server, "close");
    expect([late.server.listening, late.log.events, failing.log.events]).toEqual([false, [], []]);
    expect([await settled(late.task.ready()), await settled(failing.task.ready())]).toEqual([REASON, REASON]);
  });
});

describe("`ready()`", () => {
  test("may be called before `run`, twice, late and never: it resolves when it listens", async () => {
    const subject = new Subject({ host: LOCAL });
    const promises = [subject.task.ready(), subject.task.ready()];
    expect(await Promise.all(promises.map(settled))).toEqual(["pending", "pending"]);
    subject.start();
    promises.push(subject.task.ready());
    expect(subject.server.listening).toBe(false);
    expect(await Promise.all(promises)).toEqual([undefined, undefined, undefined]);
    expect(subject.server.listening).toBe(true);
    expect(await subject.stop()).toBe("returned");
    expect(await subject.task.ready()).toBe(undefined); // it did listen
  });

  test.each([
    ["before it runs", new Error("before"), true],
    ["while it begins to listen", new Error("during"), false],
  ])("rejects with the reason of a stop that comes %s; nothing listens then", async (_, reason, isBefore) => {
    const controller = new AbortController();
    const subject = new Subject({ host: "localhost" });
    const early = subject.task.ready();
    if (isBefore) controller.abort(reason);
    subject.start(controller);
    controller.abort(reason);
    expect(subject.task.stopping).toBe(true);
    while (subject.run.end === "running") await Promise.resolve();
    expect(subject.run.end).toBe("returned");
    expect(await settled(early)).toBe(reason);
    expect(await settled(subject.task.ready())).toBe(reason);
    if (!isBefore) await once(subject.server, "close");
    expect([subject.server.listening, await subject.end(), subject.log.events]).toEqual([false, "returned", []]);
  });

  test("an aborted signal has nothing called", async () => {
    let calls = 0;
    const subject = new Subject({ listen: async () => void calls++ }).start(aborted());
    expect([await subject.end(), calls, subject.task.stopping]).toEqual(["returned", 0, true]);
    const adopted = createServer().listen(0, LOCAL);
    await once(adopted, "listening");
    const other = new Subject({}, adopted).start(aborted());
    expect([await other.end(), adopted.listening]).toEqual(["returned", false]);
  });

  test("a stop in the very turn in which it begins to listen drains it", async () => {
    const subject = new Subject().start();
    expect(await subject.stop()).toBe("returned");
    expect([subject.server.listening, told(subject.log)]).toEqual([false, [drained(0)]]);
    await settled(subject.task.ready());
  });
});

describe("As a service", () => {
  test("its `ready()` holds the next stage, and its drain the finalizers", async () => {
    const steps: string[] = [];
    const backend = new Backend();
    const listening = deferred();
    const task = new HttpServerTask(backend.server, {
      listen: async (server) => {
        await listening.promise;
        await once(server.listen(0, LOCAL), "listening");
      },
    });
    const log = new EventLog();
    const group = new ServiceGroup([
      { name: "db", init: () => void steps.push("db up"), finalize: () => void steps.push("db down") },
      task,
      { name: "client", init: () => void steps.push(`client up, at ${typeof task.address}`) },
    ]);
    const manager = new Manager({ name: "shop", onEvent: log.observe });
    manager.run(group);
    await setImmediate();
    expect([steps, group.states["http"]]).toEqual([["db up"], "starting"]);
    listening.resolve();
    await group.ready();
    expect([...steps, group.states["http"]]).toEqual(["db up", "client up, at object", "running"]);
    const client = await RawClient.open(backend.server, get("/slow"));
    const slow = await backend.request("/slow");
    const stopped = manager.stop();
    await closing(backend.server);
    expect([task.stopping, steps.includes("db down")]).toEqual([true, false]);
    slow.answer();
    expect((await client.answer()).body).toBe("answer to /slow");
    await stopped;
    expect(steps.at(-1)).toBe("db down");
    expect(told(log)).toContainEqual(drained(1, 0, "shop/services/http"));
  });

  test("that fails to listen fails the start of its group", async () => {
    const group = new ServiceGroup([new HttpServerTask(createServer(), { listen: rejecting(ERROR) })]);
    const run = start(group);
    expect(await settled(group.ready())).toBe(ERROR);
    while (run.end === "running") await setImmediate();
    expect([run.end, group.states]).toEqual([ERROR, { http: "failed" }]);
  });
});

describe("A server that listens already", () => {
  /** A server that listens, with connections from before the task: one idle, one silent, one with a request. */
  async function adoptable() {
    const backend = new Backend();
    // Else Node itself closes what is idle after 5 s.
    backend.server.keepAliveTimeout = 60_000;
    backend.server.listen(0, LOCAL);
    await once(backend.server, "listening");
    const open = async (first = ""): Promise<RawClient> => {
      const accepted = once(backend.server, "connection");
      const client = await RawClient.open(backend.server, first);
      await accepted;
      return client;
    };
    /** One that is idle for the server, too: it has been answered. */
    const idle = async (): Promise<RawClient> => {
      const client = await open(get("/now/1"));
      await client.answer();
      const { response } = await backend.request("/now/1");
      if (!response.closed) await once(response, "close");
      return client;
    };
    return { backend, open, idle, port: (backend.server.address() as AddressInfo).port };
  }

  /** How long the drain took, in milliseconds. */
  function elapsedOf({ log }: Subject): number | undefined {
    return log.events.find((event) => event.type === "http-drained")?.elapsed;
  }

  test("is adopted: `listen`, `port` and `path` count for nothing, it is ready at once, and drained", async () => {
    const { backend, open, port } = await adoptable();
    let calls = 0;
    const listen = async (): Promise<void> => void calls++;
    const subject = new Subject({ port: 1, path: join(directory, "none", "x"), listen }, backend.server);
    expect(subject.task.address).toMatchObject({ port });
    subject.start();
    await subject.task.ready();
    const client = await open(get("/slow"));
    const slow = await backend.request("/slow");
    subject.run.controller.abort(REASON);
    await closing(backend.server);
    slow.answer();
    expect(await client.answer()).toMatchObject({ body: "answer to /slow", headers: { connection: "close" } });
    expect([await subject.end(), calls]).toEqual(["returned", 0]);
    expect(told(subject.log)).toEqual([drained(1)]);
  });

  test.each([false, true])("has its idle connections from before closed, others there or not (%s)", async (others) => {
    const { backend, open, idle } = await adoptable();
    const client = await idle();
    const subject = new Subject({}, backend.server).start();
    await subject.task.ready();
    const other = others ? await open() : undefined;
    expect(await subject.stop()).toBe("returned");
    expect([await client.closed, await other?.closed]).toEqual(["ended", others ? "ended" : undefined]);
    expect(told(subject.log)).toEqual([drained(0)]);
    expect(elapsedOf(subject)).toBeLessThan(PROMPT);
  });

  test("answers what comes over them as the listener is closed", async () => {
    const { backend, idle } = await adoptable();
    const client = await idle();
    const subject = new Subject({}, backend.server).start();
    await subject.task.ready();
    whenClosing(backend.server, () => client.get("/now/2"));
    subject.run.controller.abort(REASON);
    expect(await client.answer(2)).toMatchObject({ body: "answer to /now/2", headers: { connection: "close" } });
    expect(await subject.end()).toBe("returned");
    expect(told(subject.log)).toEqual([drained(1)]);
  });

  test("knows its connections from before as soon as they are used again", async () => {
    const { backend, open } = await adoptable();
    const [first, second] = [await open(get("/now/1")), await open()];
    await first.answer();
    const subject = new Subject({}, backend.server).start();
    await subject.task.ready();
    first.get("/slow");
    second.get("/slower");
    const [slow, slower] = await Promise.all(["/slow", "/slower"].map((url) => backend.request(url)));
    subject.run.controller.abort(REASON);
    await closing(backend.server);
    slow!.answer();
    slower!.answer();
    expect((await first.answer(2)).headers["connection"]).toBe("close");
    expect((await second.answer()).headers["connection"]).toBe("close");
    expect(await subject.end()).toBe("returned");
    expect(told(subject.log)).toEqual([drained(2)]);
  });

  test("has a request in flight from before answered in full", async () => {
    const { backend, open } = await adoptable();
    const client = await open(get("/slow", "Connection: close"));
    const slow = await backend.request("/slow");
    const subject = new Subject({}, backend.server).start();
    await subject.task.ready();
    subject.run.controller.abort(REASON);
    await closing(backend.server);
    expect(subject.run.end).toBe("running");
    slow.answer();
    expect((await client.answer()).body).toBe("answer to /slow");
    expect(await subject.end()).toBe("returned");
  });

  test("ends keep-alive connections with requests from before soon after those", async () => {
    const { backend, open } = await adoptable();
    const client = await open(get("/slow"));
    const slow = await backend.request("/slow");
    const subject = new Subject({}, backend.server).start();
    await subject.task.ready();
    subject.run.controller.abort(REASON);
    await closing(backend.server);
    slow.answer();
    expect((await client.answer()).body).toBe("answer to /slow");
    expect(await subject.end()).toBe("returned");
    expect(elapsedOf(subject)).toBeLessThan(PROMPT);
  });

  test("ends soon after `drainTimeout`, whatever is left of before", async () => {
    const { backend, open } = await adoptable();
    const [silent, stuck, upgraded] = [await open(), await open(get("/stuck")), await open()];
    const sockets: { destroy(): void }[] = [];
    backend.server.on("upgrade", (_, socket) => void sockets.push(socket));
    upgraded.send(get("/", "Connection: Upgrade", "Upgrade: echo"));
    await Promise.all([backend.request("/stuck"), once(backend.server, "upgrade")]);
    const subject = new Subject({ drainTimeout: 20 }, backend.server).start();
    await subject.task.ready();
    expect(await subject.stop()).toBe("returned");
    await Promise.all([silent.closed, stuck.closed]);
    expect(backend.server.listening).toBe(false);
    for (const socket of sockets) socket.destroy();
  });

  test("that was closed and is drained by others before the run is listened with anew", async () => {
    const server = createServer().listen(0, LOCAL);
    await once(server, "listening");
    await once(server.close(), "close");
    const subject = new Subject({ host: LOCAL }, server).start();
    await subject.task.ready();
    expect(await subject.stop()).toBe("returned");
  });
});

describe("A server that others close", () => {
  /** Counts how often a server tells that it is closed, until it is asked. */
  function closes(server: Server): () => number {
    let count = 0;
    const note = (): void => void count++;
    server.on("close", note);
    return () => {
      server.off("close", note);
      return count;
    };
  }

  test("ends the task, which returns; `close` comes once", async () => {
    const server = createServer();
    const count = closes(server);
    const subject = new Subject({ host: LOCAL }, server).start();
    await subject.task.ready();
    server.close();
    expect(await subject.end()).toBe("returned");
    expect([count(), subject.task.stopping, subject.log.events]).toEqual([1, false, []]);
  });

  test("ends the task when requests in flight are answered", async () => {
    const backend = new Backend();
    const count = closes(backend.server);
    const subject = new Subject({ host: LOCAL }, backend.server).start();
    await subject.task.ready();
    const client = await RawClient.open(backend.server, get("/slow", "Connection: close"));
    const slow = await backend.request("/slow");
    backend.server.close();
    await setImmediate();
    expect(subject.run.end).toBe("running");
    slow.answer();
    await client.answer();
    expect(await subject.end()).toBe("returned");
    expect([count(), subject.log.events]).toEqual([1, []]);
  });

  test("while it is about to listen ends the task, and leaves no listener", async () => {
    const subject = new Subject({ host: "localhost" }).start();
    const ready = subject.task.ready();
    subject.server.close();
    expect(await subject.end()).toBe("returned");
    await expect(ready).rejects.toBeInstanceOf(Error);
  });

  test("before it listens ends the task, and `ready()` rejects", async () => {
    const server = createServer();
    const subject = new Subject({ listen: hangs }, server).start();
    const ready = subject.task.ready();
    await setImmediate();
    server.close();
    expect(await subject.end()).toBe("returned");
    await expect(ready).rejects.toBeInstanceOf(Error);
    expect(subject.log.events).toEqual([]);
  });

  test("during `drainDelay`, idle or not, ends that", async () => {
    for (const isBusy of [false, true]) {
      const backend = new Backend();
      const count = closes(backend.server);
      const subject = new Subject({ host: LOCAL, drainDelay: Infinity }, backend.server).start();
      await subject.task.ready();
      const client = isBusy ? await RawClient.open(backend.server, get("/slow")) : undefined;
      const slow = isBusy ? await backend.request("/slow") : undefined;
      subject.run.controller.abort(REASON);
      await setImmediate();
      backend.server.close();
      slow?.answer();
      if (client) expect((await client.answer()).headers["connection"]).toBe("close");
      expect(await subject.end()).toBe("returned");
      expect(count()).toBe(1);
    }
  });

  test("while it drains changes nothing", async () => {
    const backend = new Backend();
    const count = closes(backend.server);
    const subject = new Subject({ host: LOCAL }, backend.server).start();
    await subject.task.ready();
    const client = await RawClient.open(backend.server, get("/slow"));
    const slow = await backend.request("/slow");
    subject.run.controller.abort(REASON);
    await closing(backend.server);
    const refused = new Promise((resolve) => backend.server.close(resolve));
    slow.answer();
    expect((await client.answer()).body).toBe("answer to /slow");
    expect(await subject.end()).toBe("returned");
    expect([count(), told(subject.log)]).toEqual([1, [drained(1)]]);
    expect(await refused).toMatchObject({ code: "ERR_SERVER_NOT_RUNNING" });
  });
});

test("what a client sends while the listener is closed is answered, also when the event loop is held up", async () => {
  // Since Node 24 a server of HTTP/2 closes its idle sessions with its listener.
  const isGraceful = Number(process.versions.node.split(".")[0]) < 24;
  for (const create of [createServer, ...(isGraceful ? [() => http2Server("cleartext") as never] : [])]) {
    const backend = new Backend(undefined, create());
    const subject = new Subject({ host: LOCAL }, backend.server).start();
    await subject.task.ready();
    const isOfHttp2 = create !== createServer;
    const client = await RawClient.open(backend.server, isOfHttp2 ? preface() : get("/now/1"));
    await client.until(() => client.received > 0);
    whenClosing(backend.server, () => {
      client.send(isOfHttp2 ? getFrame(1, "/now/2") : get("/now/2"));
      // As by a handler that computes.
      queueMicrotask(() => {
        for (const until = performance.now() + 60; performance.now() < until; );
      });
    });
    subject.run.controller.abort(REASON);
    await client.closed;
    expect(backend.urls).toContain("/now/2");
    expect(client.text).toContain("answer to /now/2");
    expect(await subject.end()).toBe("returned");
  }
});

describe("A second `run`", () => {
  test("rejects with TaskAlreadyStartedError: while the first goes on, which it leaves alone, and after", async () => {
    const subject = new Subject({ name: "api", host: LOCAL }).start();
    const second = new AbortController();
    const refusal = { name: "TaskAlreadyStartedError", task: "api", message: "Cannot run api: it has already started" };
    const run = subject.task.run(second.signal);
    await expect(run).rejects.toMatchObject(refusal);
    await expect(run).rejects.toBeInstanceOf(TaskAlreadyStartedError);
    second.abort();
    await subject.task.ready();
    expect([subject.run.end, subject.task.stopping, subject.server.listening]).toEqual(["running", false, true]);
    expect(getEventListeners(second.signal, "abort")).toEqual([]);
    expect(await subject.stop()).toBe("returned");
    await expect(subject.task.run(new AbortController().signal)).rejects.toMatchObject(refusal);
    await expect(subject.task.run(aborted().signal)).rejects.toMatchObject(refusal);
    expect(told(subject.log)).toEqual([drained(0, 0, "api")]);
  });
});

describe("`server.emit`", () => {
  test("is the server's own again at the end", async () => {
    const subject = new Subject({ host: LOCAL }).start();
    await subject.task.ready();
    expect(await subject.stop()).toBe("returned");
    expect(subject.server.emit).toBe(EventEmitter.prototype.emit);
  });

  test("that others put there before goes on, and is there again at the end", async () => {
    const server = createServer((_, response) => response.end());
    const events: string[] = [];
    const unwatch = watch(server, (event) => void events.push(event));
    const own = server.emit;
    const subject = new Subject({ host: LOCAL }, server).start();
    await subject.task.ready();
    const client = await RawClient.open(server, get("/"));
    await client.answer();
    expect(await subject.stop()).toBe("returned");
    expect(server.emit).toBe(own);
    expect(events).toEqual(expect.arrayContaining(["listening", "connection", "request", "close"]));
    unwatch();
  });

  test("that others put there after stays, hears all, and leaves nothing of the task behind it", async () => {
    const server = createServer((_, response) => response.end());
    const task = new HttpServerTask(server, { host: LOCAL });
    const events: string[] = [];
    const unwatch = watch(server, (event) => void events.push(event));
    const own = server.emit;
    const run = start(task);
    await task.ready();
    const client = await RawClient.open(server, get("/"));
    await client.answer();
    run.controller.abort(REASON);
    while (run.end === "running") await setImmediate();
    expect(server.emit).toBe(own);
    expect(events).toEqual(expect.arrayContaining(["listening", "connection", "request", "close"]));
    events.length = 0;
    // Used again, it behaves as without the task.
    await once(server.listen(0, LOCAL), "listening");
    const [again, silent] = [await RawClient.open(server, get("/")), await RawClient.open(server)];
    expect((await again.answer()).headers["connection"]).toBe("keep-alive");
    expect(events).toEqual(expect.arrayContaining(["listening", "connection", "request"]));
    server.close();
    server.closeAllConnections();
    await Promise.all([again.closed, silent.closed]);
    unwatch();
  });

  test("hands requests to their handlers at once while it serves", async () => {
    const steps: string[] = [];
    const server = createServer((_, response) => {
      steps.push("handled");
      response.end();
    });
    const subject = new Subject({ host: LOCAL }, server);
    const { emit } = server;
    server.emit = (event: string, ...args: unknown[]) => {
      const result = emit.apply(server, [event, ...args] as never);
      if (event === "request") steps.push("emitted");
      return result;
    };
    subject.start();
    await subject.task.ready();
    await (await RawClient.open(server, get("/"))).answer();
    expect(steps).toEqual(["handled", "emitted"]);
    server.emit = emit;
    expect(await subject.stop()).toBe("returned");
  });

  test("returns what it would return", async () => {
    const server = createServer();
    const task = new HttpServerTask(server, { host: LOCAL });
    expect(server.emit("something")).toBe(false);
    server.once("something", nothing);
    expect(server.emit("something", 1)).toBe(true);
    const run = start(task, aborted());
    while (run.end === "running") await setImmediate();
  });
});

test("events go to its own `onEvent`, or else to its manager's, with its full name", async () => {
  const [own, managers] = [new EventLog(), new EventLog()];
  const manager = new Manager({ name: "shop", onEvent: managers.observe });
  const tasks = [
    new HttpServerTask(createServer(), { name: "api", host: LOCAL, onEvent: own.observe }),
    new HttpServerTask(createServer(), { name: "admin", host: LOCAL }),
  ];
  manager.run(...tasks);
  await Promise.all(tasks.map((task) => task.ready()));
  await manager.stop();
  expect(told(own)).toEqual([drained(0, 0, "shop/api")]);
  expect(told(managers).filter(({ type }) => type === "http-drained")).toEqual([drained(0, 0, "shop/admin")]);
});

test("a drain says how long it took since the stop, and leaves no timer", async () => {
  const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  const before = timers();
  const subject = new Subject({ host: LOCAL, drainDelay: 20 }).start();
  await subject.task.ready();
  const stoppedAt = performance.now();
  await subject.stop();
  const took = performance.now() - stoppedAt;
  const [event] = subject.log.events;
  expect(event?.type === "http-drained" && event.elapsed).toBeGreaterThan(18);
  expect(event?.type === "http-drained" && event.elapsed).toBeLessThanOrEqual(took);
  expect(timers()).toBeLessThanOrEqual(before);
});

test("a connection that its client closes during the drain leaves no timer", async () => {
  const subject = new Subject({ host: LOCAL }).start();
  await subject.task.ready();
  const client = await RawClient.open(subject.server);
  const start = globalThis.setTimeout;
  // What waits 50 ms waits as long as it has to, to be cleared.
  const started = vi.spyOn(globalThis, "setTimeout").mockImplementation(((callback: () => void, delay: number) =>
    start(callback, delay === 50 ? 60_000 : delay)) as never);
  const cleared = vi.spyOn(globalThis, "clearTimeout");
  const closing = new Promise<void>((resolve) => whenClosing(subject.server, resolve));
  subject.run.controller.abort(REASON);
  await closing;
  await setImmediate();
  client.leave();
  await subject.end();
  await setImmediate();
  const idle = started.mock.results.filter((_, call) => started.mock.calls[call]?.[1] === 50).map(({ value }) => value);
  const all = cleared.mock.calls.map(([timer]) => timer);
  started.mockRestore();
  cleared.mockRestore();
  expect(idle.length).toBe(2); // that of the connection, and that of the drain itself
  expect(all).toEqual(expect.arrayContaining(idle));
});

test("a request that nobody has sent, as in tests of handlers, is none of its business", async () => {
  const server = createServer();
  const subject = new Subject({ host: LOCAL }, server).start();
  await subject.task.ready();
  let handled = 0;
  server.on("request", () => handled++);
  const request = { url: "/", httpVersionMajor: 1 };
  expect(server.emit("request", request as never, {} as never)).toBe(true);
  server.removeAllListeners("request");
  expect(handled).toBe(1);
  expect(await subject.stop()).toBe("returned");
});

test("`stopping` is true from the first instant of the stop", async () => {
  const subject = new Subject({ host: LOCAL });
  expect(subject.task.stopping).toBe(false);
  subject.start();
  await subject.task.ready();
  expect(subject.task.stopping).toBe(false);
  subject.run.controller.abort(REASON);
  expect([subject.task.stopping, subject.server.listening]).toEqual([true, true]);
  await subject.end();
  expect(subject.task.stopping).toBe(true);
});

function aborted(): AbortController {
  const controller = new AbortController();
  controller.abort(REASON);
  return controller;
}

/** A promise, and what resolves it. */
function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((resolved) => (resolve = resolved));
  return { promise, resolve };
}
