// A database, a consumer of its queue, and a server, in three stages: up in this order, and down in the reverse.
import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { Manager } from "allstop";
import { type Service, ServiceGroup } from "allstop/services";

class Database implements Service {
  readonly queue = ["order 1", "order 2"];

  async init(): Promise<void> {
    await sleep(10);
    console.log("  connected");
  }

  async finalize(): Promise<void> {
    await sleep(10);
    console.log("  disconnected");
  }
}

class Consumer implements Service {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async run(signal: AbortSignal): Promise<void> {
    for (;;) {
      for (let order; (order = this.#database.queue.shift()); ) console.log(`  took ${order}`);
      await sleep(1_000, undefined, { signal });
    }
  }
}

class Server implements Service {
  readonly #server = createServer((_, response) => response.end("Hello"));

  async init(): Promise<void> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
  }

  async run(signal: AbortSignal): Promise<void> {
    if (!signal.aborted) await once(signal, "abort");
    this.#server.close();
    await once(this.#server, "close");
  }
}

const database = new Database();
const services = new ServiceGroup([database, new Consumer(database), new Server()]);

const manager = new Manager({
  name: "shop",
  onEvent: (event) => event.type === "service-state" && console.log(`${event.service} ${event.to}`),
});
manager.run(services);
await services.ready();
console.log("  all are up");
await manager.stop();
