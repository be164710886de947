import { setTimeout as sleep } from "node:timers/promises";
import { createAdaptorServer } from "@hono/node-server";
import { Hono } from "hono";
import { HttpServerTask } from "../../../dist/http.js";
import { logEvents, Manager, OsSignalTask } from "../../../dist/index.js";

const app = new Hono();
app.get("/", (context) => context.text("hello"));
app.get("/ready", (context) => context.text("hello", http.stopping ? 503 : 200));
app.get("/slow", async (context) => {
  await sleep(Number(context.req.query("ms")));
  return context.text("hello");
});
const http = new HttpServerTask(createAdaptorServer(app), {
  host: "127.0.0.1",
  drainDelay: Number(process.env.DRAIN_DELAY),
});

const manager = new Manager({ onEvent: logEvents(console) });
manager.run(new OsSignalTask(), http);
await http.ready();
console.log(`http://127.0.0.1:${http.address.port}`);
await manager.wait();
