/*
 * A service in three stages: a database, a consumer of its queue, a server. It prints each event as a line of JSON, and
 * what happens to the jobs. Where the database is, the usual variables say: PGHOST, PGPORT, PGUSER, PGDATABASE.
 */
import { once } from "node:events";
import { createServer } from "node:http";
import { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { Health } from "../../dist/health.js";
import { Manager, OsSignalTask } from "../../dist/index.js";
import { RestartTask } from "../../dist/restart.js";
import { ServiceGroup } from "../../dist/services.js";

function tell(event) {
  const show = (_, value) => (value instanceof Error ? `${value.name}: ${value.message}` : value);
  console.log(JSON.stringify(event, show));
}

const schema = `
  CREATE TABLE IF NOT EXISTS jobs (id integer PRIMARY KEY, account integer NOT NULL, done boolean DEFAULT false);
  CREATE TABLE IF NOT EXISTS deliveries (job integer NOT NULL)`;

// Its connections keep the program alive until they are closed.
const pool = new pg.Pool({ idleTimeoutMillis: 0 });
// A client that is lost while nobody waits for an answer of it would end the program.
pool.on("connect", (client) => client.on("error", () => {}));
pool.on("error", () => {});

const health = new Health();
health.component("database", { check: () => pool.query("SELECT 1"), interval: 25 });
const consumerHealth = health.component("consumer", { dependsOn: ["database"] });
const healthy = (component) => (signal) => health.waitUntil("healthy", { signal, names: [component] });

const database = {
  name: "database",
  async init(signal) {
    // It has a connection of its own, which a stop cuts.
    const client = new pg.Client({ stream: () => new Socket({ signal }) });
    await client.connect();
    await client.query(schema);
    await client.end();
    tell({ type: "connected" });
  },
  run: (signal) => health.run(signal),
  ready: healthy("database"),
  async finalize() {
    await pool.end();
    tell({ type: "disconnected" });
  },
};

async function consume(signal) {
  while (!signal.aborted) {
    try {
      const job = await consumeNext();
      consumerHealth.report("healthy");
      if (job) tell({ type: "consumed", job });
      else await sleep(5, undefined, { signal });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}

/** Consumes a job in a transaction: all of it or nothing, whatever ends this program or the database. */
async function consumeNext() {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    const { rows } = await client.query(
      "SELECT id, account FROM jobs WHERE NOT done ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
    );
    for (const { id, account } of rows) {
      await client.query("INSERT INTO deliveries (job) VALUES ($1)", [id]);
      await client.query("UPDATE jobs SET done = true WHERE id = $1", [id]);
      tell({ type: "consuming", job: id });
      // An account's turn: who else works for it has to end first.
      await client.query("SELECT pg_advisory_xact_lock($1)", [account]);
    }
    await client.query("COMMIT");
    client.release();
    return rows[0]?.id;
  } catch (error) {
    client.release(error);
    throw error;
  }
}

const restarting = new RestartTask(consume, { maxRestarts: Infinity, delay: 25 });
const consumer = {
  name: "consumer",
  run: (signal) => restarting.run(signal),
  ready: healthy("consumer"),
};

const routes = {
  async "/"() {
    const { rows } = await pool.query("SELECT count(*)::integer AS delivered FROM deliveries");
    return [200, rows[0]];
  },
  "/health"() {
    const snapshot = health.snapshot();
    return [snapshot.status === "healthy" ? 200 : 503, snapshot];
  },
};

const http = createServer(async (request, response) => {
  const [status, body] = await Promise.resolve()
    .then(() => routes[request.url]?.() ?? [404, { error: "not found" }])
    .catch(() => [503, { error: "no database" }]);
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
});

const server = {
  name: "server",
  async run(signal) {
    await once(http.listen({ host: "127.0.0.1", port: 0, signal }), "close");
  },
  async ready(signal) {
    await once(http, "listening", { signal });
    tell({ type: "listening", port: http.address().port });
  },
};

const manager = new Manager({ name: "shop", onEvent: tell });
manager.run(new OsSignalTask(), new ServiceGroup([database, consumer, server]));
manager.wait().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
