import { setTimeout as sleep } from "node:timers/promises";
import fastify from "fastify";
import { HttpServerTask } from "../../../dist/http.js";
import { logEvents, Manager, OsSignalTask } from "../../../dist/index.js";

const app = fastify();
app.get("/", async () => "hello");
app.get("/ready", async (_, reply) => reply.code(http.stopping ? 503 : 200).send("hello"));
app.get("/slow", async (request) => {
  await sleep(Number(request.query.ms));
  return "hello";
});
await app.ready();
const http = new HttpServerTask(app.server, { host: "127.0.0.1", drainDelay: Number(process.env.DRAIN_DELAY) });

const manager = new Manager({ onEvent: logEvents(console) });
manager.cleanup(function closeApp() {
  return app.close();
});
manager.run(new OsSignalTask(), http);
await http.ready();
console.log(`http://127.0.0.1:${http.address.port}`);
await manager.wait();
