// An echo over WebSockets, which says goodbye when it stops.
import { once } from "node:events";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { HttpServerTask } from "../../../dist/http.js";
import { logEvents, Manager, OsSignalTask } from "../../../dist/index.js";

const server = createServer();
const sockets = new WebSocketServer({ server });
sockets.on("connection", (socket) => socket.on("message", (message) => socket.send(message)));
const http = new HttpServerTask(server, { host: "127.0.0.1" });

const manager = new Manager({ onEvent: logEvents(console) });
manager.run(new OsSignalTask(), http, async function goodbye(signal) {
  if (!signal.aborted) await once(signal, "abort");
  for (const socket of sockets.clients) socket.close(1001);
});
await http.ready();
console.log(`ws://127.0.0.1:${http.address.port}`);
await manager.wait();
