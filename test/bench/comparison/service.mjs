/*
 * A service, in a process of its own: `node service.mjs <peer> <scenario>`. It greets over HTTP, and has cleanup hooks
 * and, where the peer has it, a health endpoint, all made as the peer's documentation says. What it prints is what the
 * experiments read. A package that has no way for something leaves that out: then the service has none.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

/** For the whole shutdown, or for what the package bounds of it, in milliseconds. */
const DEADLINE = 400;

/** How long it serves on after a signal, in the scenario for that, in milliseconds. */
const DELAY = 800;

/** More than a pipe holds, in bytes. */
const MUCH = 1_000_000;

const dist = new URL("../../../dist/", import.meta.url);
const listen = async (server) => once(server.listen(0, "127.0.0.1"), "listening");
const portOf = (server) => server.address().port;

/*
 * `hooks` is how many cleanup functions it takes; `start` gives the port of the service, and that of
 * its health endpoint if there is one; `stop` ends the service, not the process.
 */
const PEERS = {
  allstop: {
    hooks: Infinity,
    async start({ server, hooks, health, deadline, delay }) {
      const { runMain } = await import(new URL("main.js", dist));
      const { HttpServerTask } = await import(new URL("http.js", dist));
      const { AdminServerTask } = await import(new URL("admin.js", dist));
      return new Promise((resolve, reject) => {
        const timeouts = { shutdownTimeout: deadline + delay, cleanupTimeout: deadline };
        void runMain(async (manager) => {
          for (const hook of hooks) manager.cleanup(hook);
          this.stop = () => manager.stop();
          this.uses?.(manager);
          if (!server) {
            manager.run((signal) => once(signal, "abort"));
            return resolve({});
          }
          const options = { host: "127.0.0.1", drainDelay: delay, listen: this.upgrade?.listen };
          const http = new HttpServerTask(server, options);
          const admin = new AdminServerTask({ port: 0, manager, ready: health });
          manager.run(http);
          if (health) manager.runBackground(admin);
          await http.ready();
          if (health) await admin.ready();
          await this.upgrade?.ready();
          resolve({ port: http.address.port, health: health && `${admin.address.port}/ready` });
        }, timeouts).catch(reject);
      });
    },
    async child() {
      const { ChildProcessTask } = await import(new URL("child.js", dist));
      const task = new ChildProcessTask("sleep", ["60"], {
        onEvent: (event) => event.type === "child-started" && sayChild(event),
      });
      this.uses = (manager) => manager.run(task);
    },
    async renew() {
      const { UpgradeTask } = await import(new URL("upgrade.js", dist));
      this.upgrade = new UpgradeTask();
      this.uses = (manager) => manager.run(this.upgrade);
    },
  },
  "close-with-grace": {
    hooks: 1,
    async start({ server, hooks, deadline }) {
      const { default: closeWithGrace } = await import("close-with-grace");
      closeWithGrace({ delay: deadline }, async () => {
        if (server) await new Promise((resolve) => server.close(resolve));
        await hooks[0]();
      });
      if (!server) return setInterval(() => {}, 1_000) && {};
      await listen(server);
      return { port: portOf(server) };
    },
  },
  terminus: {
    hooks: 2,
    async start({ server, hooks: [onSignal, onShutdown], health, deadline, delay }) {
      const { createTerminus } = await import("@godaddy/terminus");
      createTerminus(server, {
        timeout: deadline,
        healthChecks: health ? { "/ready": async () => void health() } : {},
        beforeShutdown: () => sleep(delay),
        onSignal: async () => onSignal(),
        onShutdown: async () => onShutdown?.(),
      });
      await listen(server);
      return { port: portOf(server), health: health && `${portOf(server)}/ready` };
    },
  },
  lightship: {
    hooks: Infinity,
    async start({ server, hooks, health, deadline, delay }) {
      const { createLightship } = await import("lightship");
      const lightship = await createLightship({
        shutdownDelay: delay,
        shutdownHandlerTimeout: deadline,
        gracefulShutdownTimeout: deadline + delay,
      });
      if (server) {
        lightship.registerShutdownHandler(() => server.close());
        await listen(server);
      }
      for (const hook of hooks) lightship.registerShutdownHandler(hook);
      lightship.signalReady();
      this.stop = () => lightship.shutdown();
      return { port: server && portOf(server), health: health && `${lightship.server.address().port}/ready` };
    },
  },
  "http-graceful-shutdown": {
    hooks: 2,
    async start({ server, hooks: [onShutdown, last], deadline, delay }) {
      const { default: gracefulShutdown } = await import("http-graceful-shutdown");
      const options = { timeout: deadline, preShutdown: () => sleep(delay), finally: last };
      this.stop = gracefulShutdown(server, { ...options, onShutdown: async () => onShutdown() });
      await listen(server);
      return { port: portOf(server) };
    },
  },
  "http-terminator": {
    hooks: 0,
    async start({ server, deadline }) {
      const { createHttpTerminator } = await import("http-terminator");
      const terminator = createHttpTerminator({ server, gracefulTerminationTimeout: deadline });
      this.stop = () => terminator.terminate();
      await listen(server);
      return { port: portOf(server) };
    },
  },
  stoppable: {
    hooks: 0,
    async start({ server, deadline }) {
      const { default: stoppable } = await import("stoppable");
      stoppable(server, deadline);
      this.stop = () => new Promise((resolve) => server.stop(resolve));
      await listen(server);
      return { port: portOf(server) };
    },
  },
  "server.close()": {
    hooks: 0,
    async start({ server }) {
      this.stop = () => new Promise((resolve) => server.close(resolve));
      await listen(server);
      return { port: portOf(server) };
    },
  },
};

/** What each scenario has that the plain service, with three hooks that say that they ran, has not. */
const SCENARIOS = {
  plain: {},
  uncaught: { later: () => Promise.reject(new Error("lost")) },
  // Whichever of two is called first fails.
  failing: {
    hooks: [1, 2].map((place) => () => {
      console.log(`hook ${place}`);
      if (calls++ === 0) throw new Error("hook failed");
    }),
  },
  hanging: { hooks: [closeDatabase], deadline: DEADLINE },
  stuck: { hooks: [closeDatabase] },
  slow: {
    hooks: [
      async () => {
        await sleep(DEADLINE);
        console.log("hook 1");
      },
    ],
  },
  output: { hooks: [() => void process.stdout.write("x".repeat(MUCH))] },
  health: { health: () => true, delay: DELAY },
  serverless: { isServerless: true },
  child: { prepare: "child" },
  renew: { prepare: "renew" },
  stopped: {
    async later(peer) {
      await sleep(50);
      await peer.stop?.();
      await sleep(1_500);
      console.log(peer.stop ? "alive" : "no way");
    },
  },
};

/** What a service does itself where the package has no way. */
const BY_HAND = { child: () => sayChild(spawn("sleep", ["60"], { stdio: "ignore" })) };

let calls = 0;

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await main(...process.argv.slice(2));

async function main(name, scenario) {
  const peer = PEERS[name];
  const { later, prepare, isServerless, ...options } = SCENARIOS[scenario];
  const server = isServerless ? undefined : createServer((_, response) => response.end(`hello from ${process.pid}`));
  const plain = [1, 2, 3].map((place) => () => console.log(`hook ${place}`));
  const hooks = (options.hooks ?? plain).slice(0, peer.hooks);
  await (peer[prepare] ? peer[prepare]() : BY_HAND[prepare]?.());
  const { port, health } = await peer.start({ deadline: 10_000, delay: 0, ...options, server, hooks });
  console.log(`ready ${JSON.stringify({ port, health, hooks: hooks.length })}`);
  if (later) void later(peer);
}

function sayChild({ pid }) {
  console.log(`child ${pid}`);
}

/** Never ends; its name is only said by whoever looks at it. */
async function closeDatabase() {
  console.log("hanging");
  await new Promise((resolve) => setTimeout(resolve, 2 ** 31 - 1));
}

export const SERVICES = Object.keys(PEERS);
export { DEADLINE, DELAY, MUCH };
