/*
 * Twenty drains of a server under load, with idle connections of all kinds: what the clients saw is compared with what
 * the handlers got.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { http1, idle } from "./load.mjs";
import { node } from "./support.mjs";

const DRAINS = 20;
const BUSY = 50;

/** What those clients send that stay idle from then on. */
const IDLE = [
  ...Array(7).fill(""),
  ...Array(7).fill("GET / HTTP/1.1\r\nHost: "),
  ...Array(6).fill("GET /?ms=0&size=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
];

/** How long requests take at most. */
const LONGEST = 50;

/** A drain takes at most so much more; on a busy machine, where only the fastest shows it, much more. */
const MARGIN = 100;
const SLACK = 3_000;

for (const { title, drainDelay, pause } of [
  { title: "with a drainDelay above the clients' pauses not one client sees an error", drainDelay: 300, pause: 20 },
  { title: "without a drainDelay every request that a handler got is answered in full", drainDelay: 0, pause: 100 },
]) {
  test(title, async (t) => {
    const program = startProgram(t, { DRAINS, DRAIN_DELAY: drainDelay });
    const times = [];
    for (let drain = 1; drain <= DRAINS; drain++) {
      const { url } = await program.tells();
      const idles = await Promise.all(IDLE.map((sent) => idle(url, sent)));
      const load = new Load(url, pause);
      await load.answers(100);
      // Else nobody tells the clients, and each of them goes on to its first error.
      if (drainDelay) load.stop();
      program.kill("SIGTERM");
      const { requests, elapsed, destroyed } = await program.tells();
      await load.ended;
      await Promise.all(idles.map(({ ended }) => ended));

      const unanswered = requests.filter((path) => path.startsWith("/busy") && !load.answered.has(path));
      assert.deepEqual(unanswered, []);
      // A machine can be so busy that a client comes after its time.
      assert.deepEqual(load.failures.filter(({ age }) => age < drainDelay), []);
      assert.equal(destroyed, 0);
      times.push(elapsed - drainDelay);
    }
    assert.deepEqual(await program.ended, [0, null]);

    assert.ok(Math.min(...times) < LONGEST + MARGIN, `${times} ms`);
    assert.ok(Math.max(...times) < LONGEST + MARGIN + SLACK, `${times} ms`);
  });
}

/** Starts the program, which is killed when it still runs at the end of the test. */
function startProgram(t, env) {
  const file = fileURLToPath(new URL("servers/drains.mjs", import.meta.url));
  const stdio = ["ignore", "pipe", "inherit"];
  const child = spawn(node.command, [file], { env: { ...process.env, ...env }, stdio, timeout: 60_000 });
  t.after(() => child.kill("SIGKILL"));
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  return {
    ended: once(child, "close"),
    kill: (signal) => child.kill(signal),
    /** Waits for the next line. */
    async tells() {
      const { value } = await lines.next();
      return JSON.parse(value);
    },
  };
}

/** Clients that keep their connections busy, each with one request after the other. */
class Load {
  /** The requests that were answered in full. */
  answered = new Set();
  /** The other ones; each with how long before it failed the one before was sent, in milliseconds. */
  failures = [];
  #isStopping = false;
  #url;
  #pause;
  #number = 0;

  constructor(url, pause) {
    this.#pause = pause;
    this.#url = url;
    this.ended = Promise.all(Array.from({ length: BUSY }, () => this.#ask(http1(url))));
  }

  /** Waits until so many requests were answered. */
  async answers(count) {
    while (this.answered.size < count && !this.failures.length) await sleep(1);
  }

  /** From now on no client makes a connection; they go on with those that they have. */
  stop() {
    this.#isStopping = true;
  }

  async #ask(client) {
    let isFailed = false;
    let askedAt;
    while (!isFailed && (!this.#isStopping || client.isOpen)) {
      const size = Math.random() < 0.05 ? 1_000_000 : 100;
      const path = `/busy/${++this.#number}?size=${size}&ms=${Math.floor(Math.random() * LONGEST)}`;
      const knownAt = client.isOpen ? askedAt : performance.now();
      askedAt = performance.now();
      try {
        const { status, body } = await client.get(path);
        assert.deepEqual([status, body.length], [200, size]);
        this.answered.add(path);
      } catch (error) {
        isFailed = true;
        this.failures.push({ path, error, age: performance.now() - knownAt });
      }
      await sleep(Math.random() * this.#pause);
    }
    client.close();
  }
}
