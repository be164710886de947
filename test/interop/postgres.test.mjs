/*
 * A service with a real database, which is killed and comes back, is away, is not there at the start, or never answers.
 * What the service tells is compared in full, and so is what became of its jobs.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { createDatabase } from "./postgres.mjs";
import { node, start, temporaryFolder } from "./support.mjs";

/** The account that a client locks: the service waits for it in the middle of a job. */
const LOCKED = 2;

const beginning = [
  taskStarted("shop/os-signal"),
  taskStarted("shop/services"),
  ...states("database", "pending", "initializing"),
];

const up = [
  ...beginning,
  { type: "connected" },
  ...states("database", "initializing", "initialized", "starting"),
  health("database", "starting", "healthy"),
  ...states("database", "starting", "running"),
  ...states("consumer", "pending", "initialized", "starting"),
  health("consumer", "starting", "healthy"),
  ...states("consumer", "starting", "running"),
  ...states("server", "pending", "initialized", "starting"),
  { type: "listening" },
  ...states("server", "starting", "running"),
];

const down = [
  taskEnded("shop/os-signal", "returned"),
  stopping("shop/os-signal", ["shop/services"]),
  ...states("server", "running", "stopping", "stopped"),
  ...states("consumer", "running", "stopping", "stopped"),
  ...states("database", "running", "stopping", "stopped"),
  { type: "disconnected" },
  taskEnded("shop/services", "returned"),
  { type: "stopped", manager: "shop", failures: [] },
];

test("a service and its database", async (t) => {
  const database = await createDatabase(t);

  await t.test("which is not there at the start", async (t) => {
    const folder = await temporaryFolder(t);
    const message = `connect ENOENT ${folder}/.s.PGSQL.5432`;
    const error = `Error: ${message}`;
    const service = startService(t, { ...database.env, PGHOST: folder });
    const { story } = await ending(service, { code: 1, stderr: `${message}\n` });
    assert.deepEqual(story, [
      ...beginning,
      ...states("database", "initializing", "failed"),
      { type: "service-failed", task: "shop/services", service: "database", phase: "init", error },
      { ...taskEnded("shop/services", "failed"), error },
      stopping("shop/services", ["shop/os-signal"]),
      taskEnded("shop/os-signal", "returned"),
      { type: "stopped", manager: "shop", failures: [{ source: "shop/services", error }] },
    ]);
  });

  await t.test("which never answers, when the service is told to stop in the middle of its start", async (t) => {
    const silent = createServer().listen(0, "127.0.0.1");
    t.after(() => silent.close());
    await once(silent, "listening");
    const connected = once(silent, "connection");
    const service = startService(t, { ...database.env, PGHOST: "127.0.0.1", PGPORT: String(silent.address().port) });
    const early = service.ended.then(({ stderr }) => assert.fail(`It ended without a connection:\n${stderr}`));
    const [connection] = await Promise.race([connected, early]);
    const closed = once(connection.resume(), "close");
    service.kill("SIGTERM");
    // Its timeouts, which would end it as well, are of 15 s and more.
    const { story } = await ending(service, { code: 0, stderr: "" }, 10_000);
    assert.deepEqual(story, [
      ...beginning,
      taskEnded("shop/os-signal", "returned"),
      stopping("shop/os-signal", ["shop/services"]),
      ...states("database", "initializing", "stopped"),
      taskEnded("shop/services", "returned"),
      { type: "stopped", manager: "shop", failures: [] },
    ]);
    await closed;
  });

  await t.test("which is away when the service is told to stop", async (t) => {
    await database.start();
    const service = startService(t, database.env);
    await client(service);
    await database.kill();
    await service.printed(line(health("consumer", "healthy", "degraded")));
    service.kill("SIGTERM");
    const { story } = await ending(service, { code: 0, stderr: "" });
    assert.deepEqual(story, [
      ...up,
      health("database", "healthy", "unhealthy"),
      health("consumer", "healthy", "degraded"),
      ...down,
    ]);
  });

  await t.test("which is killed and comes back: no job is lost, or done twice", async (t) => {
    await database.start();
    const service = startService(t, database.env);
    const get = await client(service);
    assert.deepEqual(await get("/"), [200, { delivered: 0 }]);
    assert.deepEqual(await get("/health"), [200, snapshot("healthy", "healthy", "healthy")]);

    const before = await database.connect();
    await order(before, { from: 1, to: 20 });
    await service.printed(line({ type: "consumed", job: 20 }));
    await before.query("SELECT pg_advisory_lock($1)", [LOCKED]);
    await order(before, { from: 21, to: 21, account: LOCKED });
    await service.printed(line({ type: "consuming", job: 21 }));
    await order(before, { from: 22, to: 30 });

    await database.kill();
    await service.printed(line(health("consumer", "healthy", "degraded")));
    assert.deepEqual(await get("/health"), [503, snapshot("unhealthy", "unhealthy", "degraded")]);
    assert.deepEqual(await get("/"), [503, { error: "no database" }]);
    await database.start();
    await service.printed(line(health("consumer", "degraded", "healthy")));
    assert.deepEqual(await get("/health"), [200, snapshot("healthy", "healthy", "healthy")]);
    await service.printed(line({ type: "consumed", job: 30 }));
    assert.deepEqual(await get("/"), [200, { delivered: 30 }]);

    const after = await database.connect();
    await after.query("SELECT pg_advisory_lock($1)", [LOCKED]);
    await order(after, { from: 31, to: 31, account: LOCKED });
    await service.printed(line({ type: "consuming", job: 31 }));
    service.kill("SIGTERM");
    await service.printed(line(...states("consumer", "running", "stopping")));
    await assert.rejects(get("/health"), "the server comes down first");
    await after.query("SELECT pg_advisory_unlock($1)", [LOCKED]);
    const { story, restarts, jobs } = await ending(service, { code: 0, stderr: "" });

    assert.deepEqual(story, [
      ...up,
      health("database", "healthy", "unhealthy"),
      health("consumer", "healthy", "degraded"),
      health("database", "unhealthy", "healthy"),
      health("consumer", "degraded", "healthy"),
      ...down,
    ]);
    const attempts = Array.from({ length: restarts.length / 2 }, (_, index) => index + 1);
    assert.ok(attempts.length > 0);
    assert.deepEqual(
      restarts,
      attempts.flatMap((attempt) => [
        { type: "task-restarting", task: "shop/services/consumer", attempt, delay: 25 },
        { type: "task-restarted", task: "shop/services/consumer", attempt },
      ]),
    );
    const numbers = Array.from({ length: 31 }, (_, index) => index + 1);
    const interrupted = { type: "consuming", job: 21 };
    assert.deepEqual(
      jobs,
      numbers.flatMap((job) => [
        ...(job === 21 ? [interrupted] : []),
        { type: "consuming", job },
        { type: "consumed", job },
      ]),
    );
    const { rows: deliveries } = await after.query("SELECT job FROM deliveries ORDER BY job");
    assert.deepEqual(
      deliveries.map(({ job }) => job),
      numbers,
    );
    const { rows: undone } = await after.query("SELECT id FROM jobs WHERE NOT done");
    assert.deepEqual(undone, []);

    await after.end();
    await database.stop();
  });
});

// The service

function startService(t, env) {
  const program = fileURLToPath(new URL("postgres-service.mjs", import.meta.url));
  return start(t, node.command, [program], { env, timeout: 60_000 });
}

/** Waits until it is up; returns what asks it over HTTP. */
async function client(service) {
  const printed = await service.printed(line(...states("server", "starting", "running")));
  const [, port] = /"listening","port":(\d+)/.exec(printed);
  return async (path) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return [response.status, parse(await response.text())];
  };
}

/** Waits for its end, which has to be this one; returns what it told: of itself, of restarts and of jobs. */
async function ending(service, expected, milliseconds = 20_000) {
  const { code, stdout, stderr } = await service.endsWithin(milliseconds);
  assert.deepEqual({ code, stderr }, expected, stdout);
  const told = stdout.trim().split("\n").map(parse);
  const ofRestarts = ({ type }) => type.startsWith("task-restart");
  const ofJobs = ({ type }) => type.startsWith("consum");
  return {
    story: told.filter((event) => !ofRestarts(event) && !ofJobs(event)),
    // Their number depends on how long the database was away, and their errors on where it was in its end and start.
    restarts: told.filter(ofRestarts).map(({ error, ...event }) => event),
    jobs: told.filter(ofJobs),
  };
}

/** Parses without what is another in each run: times, ports, and how exactly a connection was lost. */
function parse(text) {
  return JSON.parse(text, (key, value) => (["elapsed", "since", "port", "detail"].includes(key) ? undefined : value));
}

// Its jobs

async function order(client, { from, to, account = 1 }) {
  const jobs = "INSERT INTO jobs (id, account) SELECT id, $3 FROM generate_series($1::integer, $2::integer) AS id";
  await client.query(jobs, [from, to, account]);
}

// What it tells

/** An event as the service prints it. */
function line(event) {
  return JSON.stringify(event);
}

function states(service, ...states) {
  return states
    .slice(1)
    .map((to, index) => ({ type: "service-state", task: "shop/services", service, from: states[index], to }));
}

function health(component, from, to) {
  return { type: "health-changed", component, from, to };
}

function taskStarted(task) {
  return { type: "task-started", manager: "shop", task, kind: "main" };
}

function taskEnded(task, outcome) {
  return { type: "task-ended", manager: "shop", task, kind: "main", outcome };
}

function stopping(cause, pending) {
  return { type: "stopping", manager: "shop", reason: `AbortError: Stopped by ${cause}`, pending };
}

function snapshot(status, database, consumer) {
  return { status, components: { database: { status: database }, consumer: { status: consumer } } };
}
