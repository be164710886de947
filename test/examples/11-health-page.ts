// A health page: what is wrong, and since when, for people; 200 or 503, for whatever routes the traffic.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Manager } from "allstop";
import { Health } from "allstop/health";

const health = new Health({ interval: 10_000 });
const page = createServer((_, response) => {
  const { status, components } = health.snapshot();
  response.writeHead(status === "unhealthy" ? 503 : 200, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ status, components }, undefined, 2));
});

// The active way: the pool reports. The passive way: the mail server is asked every ten seconds.
const pool = health.component("pool");
health.component("mail", {
  critical: false,
  check: async () => {
    throw new Error("connection refused");
  },
});

// What follows looks at it as an operator would.
page.listen(0, "127.0.0.1");
await once(page, "listening");
const url = `http://127.0.0.1:${(page.address() as AddressInfo).port}`;
async function look(): Promise<void> {
  const answer = await fetch(url);
  const { status, components } = (await answer.json()) as ReturnType<Health["snapshot"]>;
  console.log(answer.status, status);
  for (const [name, { status, detail = "" }] of Object.entries(components)) console.log(` ${name}: ${status} ${detail}`);
}

const manager = new Manager();
manager.run(health);
pool.report("healthy", "3 connections");
await health.waitUntil("degraded"); // the mail server is down, which is not critical
await look();
pool.report("unhealthy", "too many connections");
await look();
page.close();
page.closeAllConnections();
await manager.stop();
