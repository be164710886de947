// An echo over WebSockets, which does nothing of its own about the stop.
import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { HttpServerTask } from "../../../dist/http.js";
import { logEvents, Manager, OsSignalTask } from "../../../dist/index.js";

const server = createServer();
const sockets = new WebSocketServer({ server });
sockets.on("connection", (socket) => socket.on("message", (message) => socket.send(message)));
const http = new HttpServerTask(server, { host: "127.0.0.1", drainTimeout: Number(process.env.DRAIN_TIMEOUT) });

const manager = new Manager({ onEvent: logEvents(console) });
manager.run(new OsSignalTask(), http);
await http.ready();
console.log(`ws://127.0.0.1:${http.address.port}`);
await manager.wait();
