/*
 * A service that is upgraded again and again: under load, where not one request may fail, and in a storm of signals,
 * where there must never be nobody who serves.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { node, node22, node24, temporaryFolder } from "./support.mjs";

const UPGRADES = 5;
const BUSY = 20;

/** How long requests take at most, and clients pause at most, and how long a drain goes on serving, in milliseconds. */
const LONGEST = 30;
const PAUSE = 20;
const DRAIN_DELAY = 300;

/** An upgrade takes at most so much more than the start of the new process; on a busy machine, most take much more. */
const MARGIN = 50;
const SLACK = 5_000;

/** How many upgrades are disturbed. */
const STORM = 50;

/** How long a client waits for an answer before it says that there is nobody. */
const PATIENCE = 10_000;

const any = { host: "127.0.0.1" };


for (const runtime of [node, node22, node24]) {
  for (const [title, placesIn] of [
    ["one listener", () => [any]],
    ["two listeners and a unix socket", (folder) => [any, any, { path: join(folder, "a.sock") }]],
  ]) {
    test(`${runtime.name}: under load, with ${title}, ${UPGRADES} upgrades lose not one request`, async (t) => {
      const places = placesIn(await temporaryFolder(t));
      const service = new Service(t, places, { runtime, drainDelay: DRAIN_DELAY });
      const pids = [service.pid];
      const addresses = await service.says(service.pid, "ready");
      const load = new Load(t, addresses);
      const watch = watchPath(t, places.at(-1).path);
      for (let upgrade = 1; upgrade <= UPGRADES; upgrade++) {
        await load.answers(100);
        const old = pids.at(-1);
        const { pid } = await service.upgrade(old);
        assert.deepEqual(await service.says(pid, "ready"), addresses);
        await service.says(old, "exit");
        const said = service.of(old).map(({ what, fact }) => `${what} ${fact}`);
        assert.deepEqual(said.slice(-2), ["cleaned-up null", "exit 0"]);
        assert.deepEqual(said.filter((line) => line.startsWith("http-drained")), places.map(() => "http-drained 0"));
        pids.push(pid);
      }
      await load.answers(100);
      await load.end();
      const { looks, missing } = await watch.end();
      service.send(pids.at(-1), "SIGTERM");
      await service.ended;

      assert.deepEqual(load.failures, []);
      assert.equal(missing, 0);
      // Each of the processes has served.
      assert.deepEqual([...load.answered.keys()].sort(), pids.map(String).sort());
      assert.ok(places.every(({ path }) => !existsSync(path ?? "")));
      t.diagnostic(`${[...load.answered.values()].join(" + ")} requests, ${looks} looks at the path`);
    });
  }
}

test("the listener of the old process is closed as soon as the new one has started", async (t) => {
  const service = new Service(t, [any]);
  let old = service.pid;
  await service.says(old, "ready");
  const times = [];
  for (let upgrade = 1; upgrade <= 2 * UPGRADES; upgrade++) {
    const { pid, sentAt } = await service.upgrade(old);
    await service.says(pid, "ready");
    await service.says(old, "exit");
    const start = service.time(pid, "able") - service.time(pid, "born");
    times.push(service.time(old, "closed") - sentAt - start);
    old = pid;
  }
  t.diagnostic(`from SIGHUP until then, less that start: ${times.map(Math.round).join(", ")} ms`);
  assert.ok(Math.min(...times) <= MARGIN, `${times} ms`);
  assert.ok(Math.max(...times) <= MARGIN + SLACK, `${times} ms`);
});

test("in a storm of signals there is never nobody who serves, unless the service was stopped", async (t) => {
  const services = [];
  const tally = {};
  let usual = 100; // how long an upgrade takes
  let pid;
  for (let round = 0; round < STORM; round++) {
    if (pid === undefined) {
      services.push(new Service(t, [any]));
      pid = services.at(-1).pid;
    }
    const service = services.at(-1);
    const [address] = await service.says(pid, "ready");
    const probe = new Probe(t, address);
    const { pid: child, isLater } = await service.upgrade(pid);
    const [what, target, signal] = [
      ["new process killed", child, "SIGKILL"],
      ["old process stopped", pid, "SIGTERM"],
      ["second SIGHUP", pid, "SIGHUP"],
      ["old process killed", pid, "SIGKILL"],
    ][round % 4];
    await sleep(Math.random() * 1.5 * usual);
    service.send(target, signal);

    // What has become of the upgrade, the old process has said, if it could.
    const isOver = ({ pid: teller, what, fact }) =>
      teller === pid && (what === "upgrade-ready" || (what === "upgrade-failed" && !/^Cannot/.test(fact)));
    const isDead = signal === "SIGKILL" && target === pid;
    const over = isDead ? undefined : await service.line((line) => isLater(line) && isOver(line));
    if (over?.what === "upgrade-ready") usual = over.time - service.time(child, "born");
    const isUpgraded = over?.what !== "upgrade-failed";
    const [left, right] = isUpgraded ? [pid, child] : [child, pid];
    const isStopped = target === right && signal !== "SIGHUP";
    if (isStopped) {
      await service.gone(pid, child);
    } else {
      await service.says(right, "ready");
      await service.gone(left);
      assert.equal(await who(address), `${right}`);
    }
    await probe.end();
    if (!isStopped) assert.deepEqual(probe.failures, []);
    pid = isStopped ? undefined : right;
    const outcome = `${what}: ${isStopped ? "over" : isUpgraded ? "upgraded" : "not upgraded"}`;
    tally[outcome] = (tally[outcome] ?? 0) + 1;
  }
  if (pid !== undefined) services.at(-1).send(pid, "SIGTERM");
  for (const service of services) await service.gone();
  t.diagnostic(JSON.stringify(tally));
});

/** A service and all the processes that follow its first one; all are killed at the end of the test. */
class Service {
  /** What they have said. */
  lines = [];
  #child;
  #heard = () => {};

  constructor(t, places, { runtime = node, drainDelay = 0 } = {}) {
    const file = fileURLToPath(new URL("upgrade-service.mjs", import.meta.url));
    const env = { ...process.env, PLACES: JSON.stringify(places), DRAIN_DELAY: drainDelay };
    // They make a group of their own.
    this.#child = spawn(runtime.command, [file], { env, stdio: ["ignore", "pipe", "inherit"], detached: true });
    this.pid = this.#child.pid;
    t.after(() => this.living().forEach((pid) => this.send(pid, "SIGKILL")));
    createInterface(this.#child.stdout).on("line", (line) => {
      const [, pid, time, what, fact] = /^(\d+) (\S+) (\S+) (.*)$/.exec(line);
      this.lines.push({ pid: Number(pid), time: Number(time), what, fact: JSON.parse(fact) });
      this.#heard();
    });
    /** Resolves when none of them can say any more. */
    this.ended = once(this.#child, "close").then(() => {
      this.#heard(new Error(`All have ended: ${JSON.stringify(this.lines)}`));
    });
  }

  /** What one has said. */
  of(pid) {
    return this.lines.filter((line) => line.pid === pid);
  }

  /** Waits for a line, which may have been said already. */
  async line(matches) {
    for (;;) {
      const found = this.lines.find(matches);
      if (found) return found;
      await new Promise((resolve, reject) => (this.#heard = (error) => (error ? reject(error) : resolve())));
    }
  }

  /** Waits until one has said that; returns the fact. */
  async says(pid, what) {
    return (await this.line((line) => line.pid === pid && line.what === what)).fact;
  }

  /** When one has said that. */
  time(pid, what) {
    return this.of(pid).find((line) => line.what === what).time;
  }

  send(pid, signal) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if (error.code !== "ESRCH") throw error;
    }
  }

  /** Starts an upgrade, which is refused until the process knows of the end of its own parent. */
  async upgrade(old) {
    for (;;) {
      const { length } = this.lines;
      const sentAt = performance.timeOrigin + performance.now();
      this.send(old, "SIGHUP");
      const isLater = (line) => this.lines.indexOf(line) >= length;
      const isAnswer = ({ pid, what }) => pid === old && what.startsWith("upgrade-");
      const { what, fact } = await this.line((line) => isLater(line) && isAnswer(line));
      if (what === "upgrade-started") return { pid: fact, sentAt, isLater };
      assert.equal(fact, "Cannot upgrade: its parent is alive");
    }
  }

  /** The ids of all that live. */
  living() {
    return readdirSync("/proc").map(Number).filter((pid) => pid > 0 && groupOf(pid) === this.pid);
  }

  /** Waits until these do not live any more, or none of them. */
  async gone(...pids) {
    while (this.living().some((pid) => !pids.length || pids.includes(pid))) await sleep(5);
  }
}

/** The group of a process that lives. */
function groupOf(pid) {
  try {
    const [state, , group] = readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\) /s, "").split(" ");
    return "ZX".includes(state) ? undefined : Number(group);
  } catch {
    return undefined; // It has ended meanwhile.
  }
}

/** Asks at an address; returns the answer. */
async function who(address, { agent = false, path = "/0" } = {}) {
  const where = typeof address === "string" ? { socketPath: address } : { host: any.host, port: address };
  const sent = request({ ...where, path, agent, timeout: PATIENCE }).end();
  sent.on("timeout", () => sent.destroy(new Error("Nobody answers")));
  const [response] = await once(sent, "response");
  return text(response);
}

/** Clients, half of which keep their connections. */
class Load {
  /** How many requests were answered, by whom. */
  answered = new Map();
  /** The other ones. A machine can be so busy that a client comes after its time: that is none. */
  failures = [];
  #isOver = false;
  #clients;

  constructor(t, addresses) {
    t.after(() => this.end());
    this.#clients = Array.from({ length: BUSY }, (_, index) => {
      const keepAlive = Math.floor(index / addresses.length) % 2 === 0;
      return this.#ask(addresses[index % addresses.length], new Agent({ keepAlive, maxSockets: 1 }));
    });
  }

  /** Waits until so many more were. */
  async answers(count) {
    const sum = () => [...this.answered.values()].reduce((total, each) => total + each, 0);
    for (const before = sum(); sum() < before + count && !this.failures.length; ) await sleep(1);
  }

  async end() {
    this.#isOver = true;
    await Promise.all(this.#clients);
  }

  async #ask(address, agent) {
    let askedAt;
    while (!this.#isOver) {
      const isOpen = Object.keys(agent.freeSockets).length > 0;
      const knownAt = isOpen ? askedAt : performance.now();
      askedAt = performance.now();
      try {
        const pid = await who(address, { agent, path: `/${Math.floor(Math.random() * LONGEST)}` });
        this.answered.set(pid, (this.answered.get(pid) ?? 0) + 1);
      } catch (error) {
        const age = performance.now() - knownAt;
        if (age < DRAIN_DELAY || !isOpen) this.failures.push({ address, error, age });
      }
      await sleep(Math.random() * PAUSE);
    }
    agent.destroy();
  }
}

/** Looks, all the time, whether there is somebody who listens, and answers. */
class Probe {
  failures = [];
  #isOver = false;
  #asking;

  constructor(t, address) {
    this.#asking = this.#ask(address);
    t.after(() => this.end());
  }

  async end() {
    this.#isOver = true;
    await this.#asking;
  }

  async #ask(address) {
    while (!this.#isOver) {
      // Who is killed resets his connections: somebody was there.
      await who(address).catch((error) => error.code === "ECONNRESET" || this.failures.push(error));
      await sleep(1);
    }
  }
}

/** Looks, all the time and in a thread of its own, whether there is a file. */
function watchPath(t, path) {
  const isOver = new Int32Array(new SharedArrayBuffer(4));
  const look = `
    const { parentPort, workerData: { path, isOver } } = require("node:worker_threads");
    const { existsSync } = require("node:fs");
    let looks = 0, missing = 0;
    while (path && !Atomics.load(isOver, 0)) {
      looks++;
      if (!existsSync(path)) missing++;
    }
    parentPort.postMessage({ looks, missing });
  `;
  const worker = new Worker(look, { eval: true, workerData: { path, isOver } });
  const told = once(worker, "message");
  t.after(() => Atomics.store(isOver, 0, 1));
  return {
    async end() {
      Atomics.store(isOver, 0, 1);
      const [counts] = await told;
      return counts;
    },
  };
}
