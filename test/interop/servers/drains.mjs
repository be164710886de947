// One server after the other, each until a SIGTERM. It tells which requests its handlers got, and how it was drained.
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { HttpServerTask } from "../../../dist/http.js";
import { Manager, OsSignalTask } from "../../../dist/index.js";

const tell = (fact) => console.log(JSON.stringify(fact));
const drainDelay = Number(process.env.DRAIN_DELAY);

for (let drain = 1; drain <= Number(process.env.DRAINS); drain++) {
  const requests = [];
  const server = createServer(async ({ url }, response) => {
    requests.push(url);
    const { searchParams } = new URL(url, "http://localhost");
    await sleep(Number(searchParams.get("ms")));
    response.end(Buffer.alloc(Number(searchParams.get("size")), "x"));
  });
  const http = new HttpServerTask(server, {
    host: "127.0.0.1",
    drainDelay,
    onEvent: ({ elapsed, destroyed }) => tell({ requests, elapsed, destroyed }),
  });
  const manager = new Manager();
  manager.run(new OsSignalTask(), http);
  await http.ready();
  tell({ url: `http://127.0.0.1:${http.address.port}` });
  await manager.wait();
}
