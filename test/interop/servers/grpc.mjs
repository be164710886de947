// A gRPC server as a task of its own.
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { logEvents, Manager, OsSignalTask } from "../../../dist/index.js";
import { service } from "./grpc-service.mjs";

const server = new Server();
server.addService(service, {
  async wait({ request }, answer) {
    await sleep(request.ms, undefined, { ref: false });
    answer(null, request);
  },
});

async function grpc(signal) {
  const port = await promisify(server.bindAsync).call(server, "127.0.0.1:0", ServerCredentials.createInsecure());
  console.log(`grpc://127.0.0.1:${port}`);
  if (!signal.aborted) await once(signal, "abort");
  const timer = setTimeout(() => server.forceShutdown(), Number(process.env.DRAIN_TIMEOUT));
  await promisify(server.tryShutdown).call(server); // takes no new calls, and waits for the others
  clearTimeout(timer);
}

const manager = new Manager({ onEvent: logEvents(console) });
manager.run(new OsSignalTask(), grpc);
await manager.wait();
