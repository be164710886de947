// A server of node:http alone.
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { HttpServerTask } from "../../../dist/http.js";
import { logEvents, Manager, OsSignalTask } from "../../../dist/index.js";

const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  if (pathname === "/ready" && http.stopping) response.statusCode = 503;
  if (pathname === "/upload") await text(request);
  if (pathname === "/slow") await sleep(Number(searchParams.get("ms")));
  response.end("hello");
});
const http = new HttpServerTask(server, { host: "127.0.0.1", drainDelay: Number(process.env.DRAIN_DELAY) });

const manager = new Manager({ onEvent: logEvents(console) });
manager.run(new OsSignalTask(), http);
await http.ready();
console.log(`http://127.0.0.1:${http.address.port}`);
await manager.wait();
