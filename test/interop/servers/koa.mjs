import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import Koa from "koa";
import { HttpServerTask } from "../../../dist/http.js";
import { logEvents, Manager, OsSignalTask } from "../../../dist/index.js";

const app = new Koa();
app.use(async (context) => {
  if (context.path === "/ready" && http.stopping) context.status = 503;
  if (context.path === "/slow") await sleep(Number(context.query.ms));
  context.body = "hello";
});
const http = new HttpServerTask(createServer(app.callback()), {
  host: "127.0.0.1",
  drainDelay: Number(process.env.DRAIN_DELAY),
});

const manager = new Manager({ onEvent: logEvents(console) });
manager.run(new OsSignalTask(), http);
await http.ready();
console.log(`http://127.0.0.1:${http.address.port}`);
await manager.wait();
