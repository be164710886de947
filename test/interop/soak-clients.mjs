/*
 * The clients of the soak: those that ask all the time and have to be answered, those that ask the admin server, and
 * those that behave badly.
 */
import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { http1 } from "./load.mjs";

/** How long an answer may take until nobody answers, in milliseconds. */
const PATIENCE = 60_000;

/** How long a server in its drain waits for the first request of a connection, in milliseconds. */
const GRACE = 50;

/**
 * A client that asks a server that is upgraded. A request may fail only if it comes after its time, as it may on a busy
 * machine: the connection was there and has not been used for as long as a drain goes on serving; or it was new, and
 * nothing came over it for as long as it is waited for then. No connection may be refused.
 */
export class Client {
  answered = 0;
  late = 0;
  #client;
  #drainDelay;
  #askedAt = 0;

  constructor(url, { keepAlive, drainDelay }) {
    this.#client = http1(url, { keepAlive });
    this.#drainDelay = drainDelay;
  }

  get isOpen() {
    return this.#client.isOpen;
  }

  /** Gives the answer, or nothing if the request came too late. */
  async get(path) {
    const { isOpen } = this;
    const now = performance.now();
    const knownAt = isOpen ? this.#askedAt : now;
    this.#askedAt = now;
    const patience = new AbortController();
    const impatient = sleep(PATIENCE, undefined, { signal: patience.signal, ref: false }).then(() => {
      throw new Error(`Nobody has answered for ${PATIENCE} ms`);
    });
    try {
      const answer = await Promise.race([this.#client.get(path), impatient]);
      this.answered++;
      return answer;
    } catch (error) {
      const age = performance.now() - knownAt;
      const isLate = error.code === "ECONNRESET" && age >= (isOpen ? this.#drainDelay : GRACE);
      const which = isOpen ? "a connection" : "a new connection";
      if (!isLate) throw new Error(`${path} over ${which} was lost after ${Math.round(age)} ms`, { cause: error });
      this.late++;
      return undefined;
    } finally {
      patience.abort();
      impatient.catch(() => {});
    }
  }

  close() {
    this.#client.close();
  }
}

/** Many clients that ask all the time, and check each answer, until nobody has a connection any more. */
export class Load {
  /** Resolves then; rejects with the first loss. */
  ended;
  #clients = [];
  #isOver = false;
  #number = 0;

  constructor(url, { random, drainDelay, keepingAlive = 10, connecting = 5, pause = 50 }) {
    for (let index = 0; index < keepingAlive + connecting; index++) {
      this.#clients.push(new Client(url, { keepAlive: index < keepingAlive, drainDelay }));
    }
    this.ended = Promise.all(this.#clients.map((client) => this.#ask(client, random, pause)));
  }

  get answered() {
    return this.#clients.reduce((sum, { answered }) => sum + answered, 0);
  }

  get late() {
    return this.#clients.reduce((sum, { late }) => sum + late, 0);
  }

  /** From now on there are no new connections; over those that there are, clients go on until told that they end. */
  stop() {
    this.#isOver = true;
  }

  async #ask(client, random, pause) {
    while (!this.#isOver || client.isOpen) {
      const id = ++this.#number;
      const size = random() < 0.02 ? 1_000_000 : 100;
      const answer = await client.get(`/work?id=${id}&ms=${Math.floor(random() * 30)}&size=${size}`);
      const isRight = answer?.status === 200 && answer.body === `${id}`.padEnd(size, ".");
      if (answer && !isRight) throw new Error(`Request ${id} got ${answer.status} ${answer.body.slice(0, 100)}`);
      await sleep(random() * pause);
    }
    client.close();
  }
}

/** Clients that no server should stumble over. Each is gone when its promise resolves; none minds how it ends. */
export const RUDE = {
  "client hangs up": async (port) => {
    const socket = await opened(port, "GET /hang-up?ms=1000 HTTP/1.1\r\nHost: soak\r\n\r\n");
    await sleep(10);
    socket.destroy();
  },
  "client resets": async (port) => {
    const socket = await opened(port, "GET /hang-up?ms=5 HTTP/1.1\r\nHost: soak\r\n\r\n");
    socket.resetAndDestroy();
  },
  "client sends half a request": async (port) => {
    const socket = await opened(port, "GET /work?id=1 HTTP/1.1\r\nHos");
    await Promise.race([once(socket, "close"), sleep(500)]);
    socket.destroy();
  },
  "client sends nothing": async (port) => {
    const socket = await opened(port, "");
    await Promise.race([once(socket, "close"), sleep(500)]);
    socket.destroy();
  },
  "client sends nonsense": async (port) => {
    const socket = await opened(port, "\0\0\0\r\n\r\n");
    await once(socket, "close");
  },
};

async function opened(port, sent) {
  const socket = connect(port, "127.0.0.1").on("error", () => {}).resume();
  await once(socket, "connect");
  socket.write(sent);
  return socket;
}

/** Asks the admin server all the time, by new connections and by one that it keeps. */
export class Probe {
  asked = 0;
  late = 0;
  /** The last answer of `/ready`: 200 or 503. */
  ready;
  ended;
  #isOver = false;
  #clients;
  #counts = new Map();

  constructor(url, { random, drainDelay }) {
    this.#clients = [true, false].map((keepAlive) => new Client(url, { keepAlive, drainDelay }));
    this.ended = this.#ask(random);
  }

  stop() {
    this.#isOver = true;
  }

  async #ask(random) {
    while (!this.#isOver) {
      const client = this.#clients[random() < 0.5 ? 0 : 1];
      const metrics = await client.get("/metrics");
      if (metrics && metrics.status !== 200) throw new Error(`/metrics got ${metrics.status}`);
      if (metrics) this.#check(parsePage(metrics.body));
      const ready = await client.get("/ready");
      if (ready && ![200, 503].includes(ready.status)) throw new Error(`/ready got ${ready.status}`);
      this.ready = ready?.status ?? this.ready;
      this.asked += 2;
      await sleep(random() * 50);
    }
    this.late = this.#clients.reduce((sum, { late }) => sum + late, 0);
    for (const client of this.#clients) client.close();
  }

  /** A counter of a process never goes back. */
  #check(page) {
    const process = page.get("soak_process");
    for (const [name, count] of page) {
      if (!/_total/.test(name)) continue;
      const key = `${process} ${name}`;
      if (count < (this.#counts.get(key) ?? 0)) throw new Error(`${name} of process ${process} went back to ${count}`);
      this.#counts.set(key, count);
    }
  }
}

/** A page of metrics, as numbers by their names and labels. */
export function parsePage(text) {
  const lines = text.split("\n").filter((line) => line && !line.startsWith("#"));
  return new Map(lines.map((line) => [line.replace(/ \S+$/, ""), Number(line.replace(/^.* /, ""))]));
}
