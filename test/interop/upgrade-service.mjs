// A service that upgrades itself on SIGHUP, and listens at the PLACES. It answers with its pid. What it does it prints,
// one line each: its pid, the time in milliseconds, what, and a fact as JSON.
import { writeSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { HttpServerTask } from "../../dist/http.js";
import { Manager, OsSignalTask } from "../../dist/index.js";
import { UpgradeTask } from "../../dist/upgrade.js";

const { PLACES, DRAIN_DELAY } = process.env;

function say(what, fact = null, time = performance.now()) {
  writeSync(1, `${process.pid} ${performance.timeOrigin + time} ${what} ${JSON.stringify(fact)}\n`);
}

say("born", null, 0);
process.on("exit", (code) => say("exit", code));

const upgrade = new UpgradeTask();
const servers = [];
const manager = new Manager({
  onEvent({ type, pid, error, destroyed }) {
    if (type.startsWith("upgrade-")) say(type, error?.message ?? pid);
    if (type === "upgrade-ready" && !servers.some(({ listening }) => listening)) say("closed");
    if (type === "http-drained") say(type, destroyed);
  },
});
const services = JSON.parse(PLACES).map((place) => {
  const server = createServer(async ({ url }, response) => {
    await sleep(Number(url.slice(1)));
    response.end(`${process.pid}`);
  });
  servers.push(server);
  return new HttpServerTask(server, { drainDelay: Number(DRAIN_DELAY), listen: upgrade.listen, ...place });
});
manager.cleanup(() => say("cleaned-up"));
manager.run(new OsSignalTask(), upgrade, ...services);
for (const service of services) await service.ready();
say("able");
await upgrade.ready();
say("ready", services.map(({ address }) => address.port ?? address));
await manager.wait();
