import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import express from "express";
import { HttpServerTask } from "../../../dist/http.js";
import { logEvents, Manager, OsSignalTask } from "../../../dist/index.js";

const app = express();
app.get("/", (_, response) => response.send("hello"));
app.get("/ready", (_, response) => response.status(http.stopping ? 503 : 200).send("hello"));
app.get("/slow", async (request, response) => {
  await sleep(Number(request.query.ms));
  response.send("hello");
});
const http = new HttpServerTask(createServer(app), {
  host: "127.0.0.1",
  drainDelay: Number(process.env.DRAIN_DELAY),
});

const manager = new Manager({ onEvent: logEvents(console) });
manager.run(new OsSignalTask(), http);
await http.ready();
console.log(`http://127.0.0.1:${http.address.port}`);
await manager.wait();
