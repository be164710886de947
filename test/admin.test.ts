import { getEventListeners, once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { Manager, TaskAlreadyStartedError } from "allstop";
import { type AdminManager, type AdminServerOptions, AdminServerTask } from "allstop/admin";
import { Health, type HealthStatus } from "allstop/health";
import { HttpServerTask } from "allstop/http";
import { Metrics } from "allstop/metrics";
import { EventLog } from "allstop/testing";
import { Timeline } from "allstop/timeline";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { AdminRun, clientOf, listening, question, seenFrom, serveAdmin, useAdmin } from "./support/admin.ts";
import type { Answer } from "./support/http.ts";
import { whenClosing } from "./support/http2.ts";
import { thrownBy } from "./support/thrown-by.ts";
import { rejecting, throwing } from "./support/ways.ts";

useAdmin();

const folder = mkdtempSync(join(tmpdir(), "allstop-admin-"));
afterAll(() => rmSync(folder, { recursive: true }));

const PLAIN = "text/plain; charset=utf-8";
const JSON_TYPE = "application/json";
const ROUTES = ["/", "/health", "/ready", "/metrics", "/debug/profile?seconds=0.01", "/debug/resources"];
const METHODS = ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"];
const SECRET = "postgres://admin:hunter2@db/srv/app/secret.pem";

/** What is asked of it in a health check. */
function healthOf(status: HealthStatus): Health {
  const health = new Health();
  health.component("db").report(status, "as told");
  return health;
}

/** What no answer lacks. */
function expectSafe({ headers }: Answer): void {
  expect(headers).toMatchObject({ "cache-control": "no-store", "x-content-type-options": "nosniff" });
}

/** Its headers, but for those that differ from one answer to the next. */
function lasting({
  date,
  "content-disposition": name,
  "content-security-policy": policy,
  ...rest
}: Answer["headers"]): object {
  return { ...rest, ...(name && { name: name.replace(/\d+/, "n") }), ...(policy && { policy: policy.length }) };
}

/** A source with a getter for this, which throws. */
function throwingGetter<Source extends object>(member: string, source: object): Source {
  return Object.defineProperty(source, member, { get: throwing(new Error(SECRET)), enumerable: true }) as Source;
}

describe.concurrent("Its routes", () => {
  let run: AdminRun;
  beforeAll(async () => {
    // The page says for how long it is up, which would be a digit longer at once.
    vi.spyOn(process, "uptime").mockReturnValue(42);
    run = await serveAdmin({ metrics: new Metrics(), profiling: true });
  });
  afterAll(() => vi.mocked(process.uptime).mockRestore());

  test.each<[path: string, type: string, body: RegExp]>([
    ["/", "text/html; charset=utf-8", /^<!doctype html>/],
    ["/health", JSON_TYPE, /^\{"status":"healthy"\}$/],
    ["/ready", PLAIN, /^Ready\n$/],
    ["/metrics", "text/plain; version=0.0.4; charset=utf-8", /^# HELP allstop_tasks_running /],
    ["/debug/profile?seconds=0.01", JSON_TYPE, /^\{"nodes":\[/],
    ["/debug/resources", JSON_TYPE, /^\["/],
  ])("answer GET %s with 200, its type and its length", async (path, type, body) => {
    const answer = await run.ask(path);
    expect(answer.status).toBe(200);
    expect(answer.body).toMatch(body);
    expect(answer.headers).toMatchObject({
      "content-type": type,
      "content-length": String(Buffer.byteLength(answer.body)),
    });
    expectSafe(answer);
  });

  test.each(["/", "/health", "/ready", "/metrics", "/nowhere"])(
    "answer HEAD %s with the headers of GET, and no body",
    async (path) => {
      const [head, get] = [await run.ask(path, { method: "HEAD" }), await run.ask(path)];
      expect(lasting(head.headers)).toEqual(lasting(get.headers));
      expect({ ...head, headers: {} }).toEqual({ status: get.status, headers: {}, body: "", isComplete: true });
    },
  );

  test.each(["/debug/profile?seconds=60", "/debug/heap"])(
    "answer HEAD %s at once, and make nothing of that kind",
    async (path) => {
      // One of its own: while another test has a profile made, the answer is 409.
      const own = await serveAdmin({ profiling: true });
      const head = await own.ask(path, { method: "HEAD" });
      expect([head.status, head.body, head.headers["content-type"]]).toEqual([200, "", JSON_TYPE]);
      expect(head.headers["content-disposition"]).toMatch(/^attachment; filename="\d+\.(cpuprofile|heapsnapshot)"$/);
      expectSafe(head);
    },
  );

  test.each([...ROUTES, "/debug/heap", "/nowhere", "*"])(
    "refuse any other method for %s: 405 with `Allow`",
    async (path) => {
      const answers = await Promise.all(METHODS.map((method) => run.ask(path, { method })));
      for (const answer of answers) {
        expect([answer.status, answer.headers["allow"], answer.body]).toEqual([
          405,
          "GET, HEAD",
          "Only GET and HEAD\n",
        ]);
        expect(answer.headers["content-type"]).toBe(PLAIN);
        expectSafe(answer);
      }
    },
  );

  test("close a CONNECT, which Node hands on to nobody, without a word, and do not hear of an upgrade", async () => {
    const client = await run.client(question("localhost:80", { method: "CONNECT" }));
    expect([await client.closed, client.text]).toEqual(["ended", ""]);
    const header = ["Upgrade: websocket"];
    expect((await run.ask("/ready", { header })).status).toBe(200);
  });

  test("refuse a request with a body before that has come", async () => {
    const header = ["Content-Length: 1000000"];
    const client = await run.client(`${question("/ready", { method: "POST", header })}begun`);
    expect((await client.answer()).status).toBe(405);
    client.leave();
  });

  test.each([
    "/nowhere",
    "/health/",
    "/Health",
    "//",
    "//health",
    "/%68ealth",
    "/./health",
    "/index.html",
    "/debug",
    "/debug/",
    "/debug/profiles",
    "/debug/heap/../../etc/passwd",
    "/__proto__",
    "/constructor",
    "http://localhost/",
  ])("answer 404 for %s, which is none", async (path) => {
    const answer = await run.ask(path);
    expect([answer.status, answer.body, answer.headers["content-type"]]).toEqual([404, "Not found\n", PLAIN]);
    expectSafe(answer);
  });

  test.each(["/health?", "/health?verbose", "/health?a=b&c=/debug#d"])("take %s for their own", async (path) => {
    expect((await run.ask(path)).body).toBe('{"status":"healthy"}');
  });

  test.each(["/debug/profile?seconds=0.01", "/debug/heap", "/debug/resources"])(
    "answer 404 for %s as long as profiling is off, which it is by default",
    async (path) => {
      for (const profiling of [undefined, false]) {
        const answer = await (await serveAdmin({ profiling })).ask(path);
        expect([answer.status, answer.body]).toEqual([404, "Not found\n"]);
      }
    },
  );
});

describe.concurrent("/health", () => {
  test.each<[HealthStatus, number]>([
    ["healthy", 200],
    ["degraded", 200],
    ["starting", 200],
    ["unhealthy", 503],
  ])("of a program that is %s answers %d with the whole snapshot", async (status, code) => {
    const health = healthOf(status);
    const run = await serveAdmin({ health });
    for (const method of ["GET", "HEAD"]) expect((await run.ask("/health", { method })).status).toBe(code);
    const { body } = await run.ask("/health");
    expect(JSON.parse(body)).toStrictEqual(health.snapshot());
    expect(body).toContain('"detail":"as told"');
  });

  test("answers with what holds now", async () => {
    const health = healthOf("healthy");
    const run = await serveAdmin({ health });
    expect((await run.ask("/health")).status).toBe(200);
    const queue = health.component("queue");
    queue.report("unhealthy");
    expect((await run.ask("/health")).status).toBe(503);
    queue.report("healthy");
    expect((await run.ask("/health")).status).toBe(200);
  });
});

describe.concurrent("/metrics", () => {
  test("answers with those of a `Metrics`, as they are now", async () => {
    const metrics = new Metrics({ prefix: "shop" });
    const run = await serveAdmin({ metrics });
    metrics.observe({ type: "task-started", manager: "", task: "Zürich ☃", kind: "main" });
    const { body, headers } = await run.ask("/metrics");
    expect(body).toBe(metrics.render());
    expect(body).toContain('shop_task_status{task="Zürich ☃"} 1\n');
    expect(headers["content-length"]).toBe(String(Buffer.byteLength(body)));
  });

  test("answers with those of an object with `metrics()` and `contentType`, as prom-client's registry", async () => {
    class Registry {
      get contentType(): string {
        return "application/openmetrics-text; version=1.0.0; charset=utf-8";
      }
      readonly #text = "up 1\n# EOF\n";
      async metrics(): Promise<string> {
        return this.#text;
      }
    }
    const answer = await (await serveAdmin({ metrics: new Registry() })).ask("/metrics");
    expect([answer.status, answer.body]).toEqual([200, "up 1\n# EOF\n"]);
    expect(answer.headers["content-type"]).toBe("application/openmetrics-text; version=1.0.0; charset=utf-8");
    expectSafe(answer);
  });

  test("has the type of Prometheus' text if the source names none", async () => {
    const { headers } = await (await serveAdmin({ metrics: { render: () => "" } })).ask("/metrics");
    expect(headers).toMatchObject({
      "content-type": "text/plain; version=0.0.4; charset=utf-8",
      "content-length": "0",
    });
  });

  test("answers 404 without any", async () => {
    expect((await (await serveAdmin()).ask("/metrics")).status).toBe(404);
  });
});

describe.concurrent("/ready", () => {
  test.each<[string, AdminServerOptions["ready"], 200 | 503]>([
    ["none is given", undefined, 200],
    ["it gives true", () => true, 200],
    ["it gives undefined", () => undefined, 200],
    ["it gives 0", () => 0, 200],
    ["it gives null", () => null, 200],
    ["it gives false", () => false, 503],
    ["it resolves", async () => {}, 200],
    ["it resolves to true after a while", () => setImmediate(true), 200],
    ["it resolves to false", async () => false, 503],
    [
      "what it gives is a thenable of false",
      () => ({ then: (resolve: (value: boolean) => void) => resolve(false) }),
      503,
    ],
    ["it throws", throwing(new Error(SECRET)), 503],
    ["it throws undefined", throwing(undefined), 503],
    ["it rejects", rejecting(new Error(SECRET)), 503],
  ])("when %s", async (_, ready, status) => {
    const run = await serveAdmin({ ready });
    const answer = await run.ask("/ready");
    const text = status === 200 ? "Ready\n" : "Not ready\n";
    expect([answer.status, answer.body, answer.headers["content-type"]]).toEqual([status, text, PLAIN]);
    expectSafe(answer);
    expect((await run.ask("/ready", { method: "HEAD" })).status).toBe(status);
  });

  test("asks `ready` each time", async () => {
    let isReady = false;
    const run = await serveAdmin({ ready: () => isReady });
    expect((await run.ask("/ready")).status).toBe(503);
    isReady = true;
    expect((await run.ask("/ready")).status).toBe(200);
  });

  test("is 503 after a second without an answer, which counts for nothing when it comes late", async () => {
    let settle: ((isReady: unknown) => void)[] = [];
    const ready = vi.fn(() => new Promise((resolve, reject) => (settle = [resolve, reject])));
    const run = await serveAdmin({ ready });
    const askedAt = performance.now();
    const { status } = await run.ask("/ready");
    const took = performance.now() - askedAt;
    settle[1]?.(new Error("late"));
    expect([status, ready.mock.calls.length]).toEqual([503, 1]);
    expect(took).toBeGreaterThan(990);
    expect(took).toBeLessThan(8_000);
  });

  test("is 503 from the first instant of the stop of its manager, and does not call `ready` any more", async () => {
    const ready = vi.fn();
    const held: (() => void)[] = [];
    // Holds back what was asked for until the test hands it on.
    const hold = (server: Server): void => {
      const emit: (event: string, ...args: unknown[]) => boolean = server.emit;
      server.emit = (event: string, ...args: unknown[]): boolean => {
        const pass = (): boolean => emit.call(server, event, ...args);
        return event === "request" ? held.push(pass) > 0 : pass();
      };
    };
    const told: unknown[] = [];
    const manager = new Manager({
      onEvent: ({ type }) => {
        if (type !== "stopping") return;
        told.push(admin.stopping, ready.mock.calls.length);
        held.shift()?.();
        told.push(ready.mock.calls.length);
      },
    });
    const admin = new AdminServerTask({ port: 0, manager, ready, listen: listening(hold) });
    manager.run(admin);
    await admin.ready();
    const client = await clientOf(admin, question("/ready"));
    while (!held.length) await setImmediate();
    manager.stop();
    expect(told).toEqual([false, 0, 0]);
    expect((await client.answer()).status).toBe(503);
    await manager.wait();
  });

  test("is 503 when the stop comes while `ready` is waited for", async () => {
    for (const isGiven of [true, false]) {
      let resolve: ((isReady: boolean) => void) | undefined;
      const ready = (): Promise<boolean> => new Promise((settle) => (resolve = settle));
      const run = await serveAdmin((manager) => ({ ready, ...(isGiven && { manager }) }));
      const client = await run.client(question("/ready"));
      while (!resolve) await setImmediate();
      run.manager.stop();
      resolve(true);
      expect((await client.answer()).status).toBe(503);
    }
  });

  test("is 503 from the first instant of its own stop, also without a manager, and during `drainDelay`", async () => {
    const ready = vi.fn();
    let server: Server | undefined;
    const run = await serveAdmin({ ready, drainDelay: 60_000, listen: listening((listener) => (server = listener)) });
    expect((await run.ask("/ready")).status).toBe(200);
    run.manager.stop();
    expect((await run.ask("/ready")).status).toBe(503);
    expect((await run.ask("/health")).status).toBe(200);
    server?.close();
    expect(ready).toHaveBeenCalledTimes(1);
  });

  test("is 503 once the manager that it was given stops, whoever runs it", async () => {
    const manager = new Manager();
    const run = await serveAdmin({ manager });
    expect((await run.ask("/ready")).status).toBe(200);
    await manager.stop();
    expect((await run.ask("/ready")).status).toBe(503);
    expect(run.task.stopping).toBe(false);
  });
});

describe.concurrent("What a source throws", () => {
  const fails = throwing(new Error(SECRET));
  const timeline = { toText: () => "text" };
  test.each<[string, paths: string[], AdminServerOptions]>([
    ["health.snapshot()", ["/health", "/"], { health: { snapshot: fails } }],
    [
      "health.snapshot().components",
      ["/health", "/"],
      { health: { snapshot: () => throwingGetter("components", {}) } },
    ],
    ["services.states", ["/"], { services: throwingGetter("states", {}) }],
    ["metrics.render()", ["/metrics", "/"], { metrics: { render: fails } }],
    ["metrics.contentType", ["/metrics"], { metrics: throwingGetter("contentType", { render: () => "" }) }],
    ["metrics.render", ["/metrics", "/"], { metrics: throwingGetter("render", {}) }],
    ["metrics.metrics()", ["/metrics"], { metrics: { metrics: fails, contentType: "a/b" } }],
    [
      "what metrics.metrics() rejects with",
      ["/metrics"],
      { metrics: { metrics: rejecting(new Error(SECRET)), contentType: "a/b" } },
    ],
    ["timeline.toText()", ["/"], { timeline: { toText: fails } }],
    ["timeline.toTrace()", ["/"], { timeline: { ...timeline, toTrace: fails } }],
    ["what reads timeline.toTrace(), which is no JSON", ["/"], { timeline: { ...timeline, toTrace: () => SECRET } }],
    [
      "manager.failures",
      ["/"],
      { manager: throwingGetter("failures", { signal: new AbortController().signal, pending: [] }) },
    ],
  ])("is 500 without its message: %s", async (_, paths, options) => {
    const run = await serveAdmin(options);
    for (const path of paths) {
      for (const method of ["GET", "HEAD"]) {
        const answer = await run.ask(path, { method });
        expect(answer.status).toBe(500);
        expect(answer.headers["content-type"]).toBe(PLAIN);
        expect(answer.body).toBe(method === "GET" ? "A source failed\n" : "");
        expectSafe(answer);
      }
    }
    expect((await run.ask("/ready")).status).toBe(200);
  });

  test.each<[string, AdminServerOptions["metrics"]]>([
    ["a number instead of a text", { render: () => 5 as never }],
    ["an object instead of a text", { metrics: () => ({}) as never, contentType: "a/b" }],
    ["a type that is no header", { render: () => "", contentType: "a\nb" }],
  ])("is 500, and so is what cannot be answered with: %s", async (_, metrics) => {
    const run = await serveAdmin({ metrics });
    expect(await run.ask("/metrics")).toMatchObject({ status: 500, body: "A source failed\n" });
    expect((await run.ask("/ready")).status).toBe(200);
  });
});

describe.concurrent("Who may see what", () => {
  const options: AdminServerOptions = { health: healthOf("degraded"), metrics: new Metrics(), profiling: true };
  const other = { host: "shop.example:9464" };

  test.each([
    "10.0.0.7",
    "::ffff:10.0.0.7",
    "128.0.0.1",
    "::",
    "fe80::1",
    "::ffff:128.0.0.1",
    "1127.0.0.1",
    "::11",
    "12:127.0.0.1",
    "127f::1",
    undefined,
  ])(
    "clients of another address (%s) get no page, no profiles, and of the health the status only",
    async (remoteAddress) => {
      const run = await serveAdmin({ ...options, ...seenFrom(remoteAddress) });
      const paths = ["/", "/?a", "/debug/profile?seconds=0.01", "/debug/heap", "/debug/resources"];
      for (const answer of await Promise.all(paths.map((path) => run.ask(path, other)))) {
        expect([answer.status, answer.body]).toEqual([403, "Only for clients of this machine\n"]);
        expectSafe(answer);
      }
      expect(await run.ask("/health", other)).toMatchObject({ status: 200, body: '{"status":"degraded"}' });
      expect(await run.ask("/ready", other)).toMatchObject({ status: 200 });
      expect(await run.ask("/metrics", other)).toMatchObject({ status: 200, body: new Metrics().render() });
      expect(await run.ask("/nowhere", other)).toMatchObject({ status: 404 });
      expect(await run.ask("/", { ...other, method: "POST" })).toMatchObject({ status: 405 });
    },
  );

  test("clients of another address get 503 for what is unhealthy, too", async () => {
    const run = await serveAdmin({ health: healthOf("unhealthy"), ...seenFrom("10.0.0.7") });
    expect(await run.ask("/health", other)).toMatchObject({ status: 503, body: '{"status":"unhealthy"}' });
  });

  test("without profiling, clients of another address get 404 for it as all do", async () => {
    const run = await serveAdmin(seenFrom("10.0.0.7"));
    expect((await run.ask("/debug/heap", other)).status).toBe(404);
  });

  test.each(["127.9.9.9", "127.0.0.1", "::ffff:127.0.0.1", "::ffff:127.1.2.3", "::1"])(
    "clients of loopback (%s) get everything, but only by a name of loopback",
    async (remoteAddress) => {
      const run = await serveAdmin({ ...options, ...seenFrom(remoteAddress) });
      expect((await run.ask("/")).status).toBe(200);
      expect((await run.ask("/debug/resources")).status).toBe(200);
      expect((await run.ask("/health")).body).toContain("as told");
      expect((await run.ask("/", other)).status).toBe(403);
    },
  );

  test("all of 127.0.0.0/8 is loopback", async () => {
    const run = await serveAdmin();
    expect((await run.ask("/", { localAddress: "127.9.9.9" })).status).toBe(200);
  });

  test.each<[host: string | null, status: number, version?: "1.0"]>([
    ["localhost", 200],
    ["LOCALHOST:1", 200],
    ["LocalHost:65535", 200],
    ["127.0.0.1", 200],
    ["127.0.0.1:", 200],
    ["[::1]", 200],
    ["[::1]:9464", 200],
    ["admin.internal", 200],
    ["ADMIN.Internal:80", 200],
    [null, 200, "1.0"],
    ["localhost", 200, "1.0"],
    ["evil.com", 403],
    ["evil.com:9464", 403],
    ["evil.com", 403, "1.0"],
    ["localhost.evil.com", 403],
    ["127.0.0.1.evil.com", 403],
    ["evil.com:localhost", 403],
    ["localhost:80:90", 403],
    ["localhost:evil", 403],
    ["127.0.0.2", 403],
    ["::1", 403],
    ["", 403],
    [":9464", 403],
    ["user@localhost", 403],
    ["localhost@evil.com", 403],
    ["user:localhost@evil.com:80", 403],
    ["localhost/evil", 403],
    ["xlocalhost", 403],
    ["localhost.", 403],
    ["127x0x0x1", 403],
    ["undefined", 403],
  ])("`Host: %s` on loopback is answered with %d", async (host, status, version) => {
    const run = await serveAdmin({ ...options, host: "Admin.Internal", listen: toLoopback });
    for (const path of ["/", "/health", "/ready", "/metrics", "/debug/resources"]) {
      const answer = await run.ask(path, { host, ...(version && { version }) });
      expect(answer.status).toBe(status);
      expectSafe(answer);
      if (status === 403) expect(answer.body).toBe("Forbidden host\n");
    }
  });

  test("a foreign `Host` is told nothing else: not which routes and methods there are", async () => {
    const run = await serveAdmin();
    for (const [path, method] of [
      ["/nowhere", "GET"],
      ["/", "POST"],
      ["/debug/heap", "HEAD"],
    ] as const) {
      expect((await run.ask(path, { host: "evil.com", method })).status).toBe(403);
    }
  });

  test.each(["::1", "FE80::1"])(
    "the option host may be an address of IPv6, %s, with brackets in `Host`",
    async (host) => {
      const run = await serveAdmin({ host, listen: toLoopback });
      expect((await run.ask("/", { host: `[${host}]:9464` })).status).toBe(200);
      expect((await run.ask("/", { host: `[${host}1]:9464` })).status).toBe(403);
    },
  );

  test("over a unix socket everybody is of this machine, whatever the `Host`, to the end of the drain", async () => {
    let server: Server | undefined;
    const path = join(folder, "admin.sock");
    const run = await serveAdmin({ ...options, path, listen: listening((listener) => (server = listener)) });
    expect(run.task.address).toBe(path);
    expect((await run.ask("/", other)).status).toBe(200);
    expect((await run.ask("/health", other)).body).toContain("as told");
    expect((await run.ask("/debug/resources", { host: null, version: "1.0" })).status).toBe(200);
    const client = await run.client();
    whenClosing(server as Server, () => client.send(question("/", other)));
    run.manager.stop();
    expect((await client.answer()).status).toBe(200);
    await run.manager.wait();
  });
});

/** Listens on loopback, whatever host was asked for. */
async function toLoopback(server: Server): Promise<void> {
  server.listen({ host: "127.0.0.1", port: 0 });
  await once(server, "listening");
}

describe.concurrent("It", () => {
  test("listens on port 9464 of 127.0.0.1 by default, under the name admin", async () => {
    const listen = vi.fn<NonNullable<AdminServerOptions["listen"]>>(toLoopback);
    const run = await serveAdmin({ port: undefined, host: undefined, name: undefined, listen });
    expect(listen.mock.calls.map(([, where]) => where)).toStrictEqual([{ port: 9464, host: "127.0.0.1" }]);
    expect([run.task.name, run.manager.pending]).toEqual(["admin", ["admin"]]);
    const own = await serveAdmin();
    expect(own.task.address).toMatchObject({ address: "127.0.0.1", family: "IPv4" });
  });

  test("is an HttpServerTask, with the options of one", async () => {
    const listen = vi.fn<NonNullable<AdminServerOptions["listen"]>>(toLoopback);
    const onEvent = vi.fn();
    const run = await serveAdmin({
      name: "inner",
      port: 1,
      host: "::1",
      listen,
      onEvent,
      drainDelay: 60_000,
      drainTimeout: 0,
    });
    expect(run.task).toBeInstanceOf(HttpServerTask);
    expect(listen.mock.calls.map(([, where]) => where)).toStrictEqual([{ port: 1, host: "::1" }]);
    expect([run.task.name, run.task.stopping]).toEqual(["inner", false]);
    expect((await run.ask("/")).body).toContain("<title>inner: running</title>");
    const took = run.stopping();
    expect([run.task.stopping, (await run.ask("/health")).status]).toEqual([true, 200]);
    listen.mock.calls[0]?.[0].close();
    await took;
    const told = { type: "http-drained", task: "inner", requests: 1, destroyed: 0, elapsed: expect.any(Number) };
    expect(onEvent.mock.calls).toEqual([[told]]);
    expect(run.log.events.some(({ type }) => type === "http-drained")).toBe(false);
    expect(run.task.address).toBeNull();
  });

  test("tells the manager that runs it of its drain, under its full name", async () => {
    const log = new EventLog();
    const manager = new Manager({ name: "shop", onEvent: log.observe });
    const task = new AdminServerTask({ port: 0, manager });
    manager.run(task);
    await task.ready();
    await manager.stop();
    expect(log.events).toContainEqual(expect.objectContaining({ type: "http-drained", task: "shop/admin" }));
  });

  test("fails as one if it cannot listen, and `ready()` rejects with that", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const run = new AdminRun({ port: (taken.address() as { port: number }).port });
    const failure = expect.objectContaining({ code: "EADDRINUSE" });
    await expect(run.task.ready()).rejects.toEqual(failure);
    await expect(run.manager.wait()).rejects.toEqual(failure);
    taken.close();
  });

  test("runs once; the second run leaves the first one, and no listener", async () => {
    const run = await serveAdmin();
    const { signal } = new AbortController();
    await expect(run.task.run(signal)).rejects.toThrow(TaskAlreadyStartedError);
    expect((await run.ask("/ready")).status).toBe(200);
    await run.manager.stop();
    await expect(run.task.run(signal)).rejects.toThrow("Cannot run admin: it has already started");
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });

  test("that was told to stop before it ran never listens", async () => {
    const listen = vi.fn<NonNullable<AdminServerOptions["listen"]>>(toLoopback);
    const task = new AdminServerTask({ listen });
    await task.run(AbortSignal.abort());
    await expect(task.ready()).rejects.toThrow("aborted");
    expect(listen).not.toHaveBeenCalled();
  });

  const what = "Cannot create an AdminServerTask:";
  const base = "Cannot create an HttpServerTask:";
  test.each<[options: unknown, Refusal: ErrorConstructor, message: string]>([
    [5, TypeError, `${what} options must be of type object, got 5`],
    [null, TypeError, `${what} options must be of type object, got undefined`],
    [{ health: {} }, TypeError, `${what} health must have snapshot, got [object Object]`],
    [{ health: null }, TypeError, `${what} health must have snapshot, got null`],
    [{ health: "up" }, TypeError, `${what} health must have snapshot, got "up"`],
    [{ ready: true }, TypeError, `${what} ready must be of type function, got true`],
    [{ ready: null }, TypeError, `${what} ready must be of type function, got null`],
    [{ services: {} }, TypeError, `${what} services must have states, got [object Object]`],
    [{ metrics: 0 }, TypeError, `${what} metrics must have render, got 0`],
    [{ metrics: null }, TypeError, `${what} metrics must have render, got null`],
    [{ metrics: { contentType: "a/b" } }, TypeError, `${what} metrics must have render, got [object Object]`],
    [{ timeline: new Metrics() }, TypeError, `${what} timeline must have toText, got [object Object]`],
    [{ manager: {} }, TypeError, `${what} manager must have signal and pending, got [object Object]`],
    [{ manager: { pending: [] } }, TypeError, `${what} manager must have signal and pending, got [object Object]`],
    [{ manager: { signal: 1 } }, TypeError, `${what} manager must have signal and pending, got [object Object]`],
    [{ profiling: 1 }, TypeError, `${what} profiling must be of type boolean, got 1`],
    [{ profiling: null }, TypeError, `${what} profiling must be of type boolean, got null`],
    [{ name: 1 }, TypeError, `${base} name must be of type string, got 1`],
    [{ host: 1 }, TypeError, `${base} host must be of type string, got 1`],
    [{ port: -1 }, RangeError, `${base} port must be a whole number from 0 to 65535, got -1`],
    [{ port: "80" }, TypeError, `${base} port must be of type number, got "80"`],
    [{ drainTimeout: -1 }, RangeError, `${base} drainTimeout must be 0 or more milliseconds, got -1`],
    [{ onEvent: 1 }, TypeError, `${base} onEvent must be of type function, got 1`],
  ])("refuses %j", (options, Refusal, message) => {
    expect(thrownBy(() => new AdminServerTask(options as never))).toStrictEqual(new Refusal(message));
  });

  test("takes its sources by shape, and reads none of them before it is asked", () => {
    const getters = throwingGetter<AdminManager>("signal", throwingGetter("pending", {}));
    const health = throwingGetter<NonNullable<AdminServerOptions["health"]>>("snapshot", {});
    const services = throwingGetter<NonNullable<AdminServerOptions["services"]>>("states", {});
    expect(() => new AdminServerTask({ manager: getters, health, services, timeline: new Timeline() })).not.toThrow();
  });
});

test("Nothing of /debug is for a page of another site, whose browser says so", async () => {
  const run = await serveAdmin({ profiling: true });
  for (const [path, site, status] of [
    ["/debug/resources", "cross-site", 403],
    ["/debug/profile?seconds=0.01", "cross-site", 403],
    ["/debug/heap", "cross-site", 403],
    ["/debug/resources", "same-origin", 200],
    ["/debug/resources", "none", 200],
    ["/ready", "cross-site", 200],
    ["/", "cross-site", 200],
  ] as const) {
    const answer = await run.ask(path, { header: [`Sec-Fetch-Site: ${site}`] });
    expect([path, site, answer.status]).toEqual([path, site, status]);
  }
});
