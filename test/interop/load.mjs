/*
 * Clients that put a server under load. No request is tried again, and each that is not answered in full is a failure.
 */
import { once } from "node:events";
import { Agent, request } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectTcp } from "node:net";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";

/** One connection of HTTP/1 after the other, each until the server ends it; without `keepAlive`, one a request. */
export function http1(url, { keepAlive = true } = {}) {
  const agent = new Agent({ keepAlive, maxSockets: 1 });
  return {
    /** Whether the next request goes over a connection that there is. */
    get isOpen() {
      return Object.keys(agent.freeSockets).length > 0;
    },
    async get(path) {
      const sent = request(new URL(path, url), { agent }).end();
      const [response] = await once(sent, "response");
      return { status: response.statusCode, body: await text(response) };
    },
    close: () => agent.destroy(),
  };
}

/** The same with sessions of HTTP/2. */
export function http2(url, { keepAlive = true } = {}) {
  let session;
  const isOpen = () => session !== undefined && !session.closed && !session.destroyed;
  return {
    get isOpen() {
      return isOpen();
    },
    async get(path) {
      // What becomes of the session, its streams are told as well.
      if (!isOpen()) session = connectHttp2(url).on("error", () => {});
      const stream = session.request({ ":path": path });
      const cut = once(stream, "close").then(() => Promise.reject(new Error("The stream has ended")));
      const [headers] = await Promise.race([once(stream, "response"), cut]);
      const body = await text(stream);
      if (!keepAlive) session.close();
      return { status: headers[":status"], body };
    },
    close: () => session?.destroy(),
  };
}

/**
 * Asks a server again and again, for what all the programs answer. A balancer asks it whether it is ready: once it is
 * not, no connection is made any more, and those that there are go on.
 */
export class Load {
  /** How many requests were answered as they should be. */
  answered = 0;
  /** The other ones; each with how old, in milliseconds, the client's knowledge of the server was when it failed. */
  failures = [];
  #url;
  #connect;
  #pause;
  /** When the balancer last asked, and was told that it is ready; `undefined` once it is not. */
  #readyAt = performance.now();
  #refused;
  #clients = [];

  /** @param connect - Makes a client: {@link http1} or {@link http2}. */
  constructor(url, { connect = http1, keepingAlive = 10, connecting = 5, pause = 50 } = {}) {
    this.#url = url;
    this.#connect = connect;
    this.#pause = pause;
    this.#refused = this.#balance();
    for (let index = 0; index < keepingAlive; index++) this.#clients.push(this.#ask(true));
    for (let index = 0; index < connecting; index++) this.#clients.push(this.#ask(false));
  }

  /** Waits until so many requests were answered, or the server is not ready. */
  async answers(count) {
    while (this.answered < count && this.#readyAt !== undefined) await sleep(5);
  }

  /** Waits until the server takes no connection, and no client has one. */
  async ended() {
    await Promise.all([this.#refused, ...this.#clients]);
  }

  async #ask(keepAlive) {
    const client = this.#connect(this.#url, { keepAlive });
    let askedAt;
    for (let count = 0; this.#readyAt !== undefined || client.isOpen; count++) {
      const knownAt = client.isOpen ? askedAt : this.#readyAt;
      const path = count % 2 ? "/slow?ms=20" : "/";
      askedAt = performance.now();
      try {
        const { status, body } = await client.get(path);
        if (status !== 200 || body !== "hello") throw new Error(`${status} ${body}`);
        this.answered++;
      } catch (error) {
        this.failures.push({ path, error, age: performance.now() - knownAt });
      }
      await sleep(Math.random() * this.#pause);
    }
    client.close();
  }

  async #balance() {
    for (;;) {
      const client = this.#connect(this.#url, { keepAlive: false });
      const askedAt = performance.now();
      try {
        const { status } = await client.get("/ready");
        this.#readyAt = status === 200 ? askedAt : undefined;
      } catch {
        this.#readyAt = undefined;
        return;
      } finally {
        client.close();
      }
      await sleep(10);
    }
  }
}

/** Connects, sends so much, and then nothing. Its `ended` waits for the end of the connection; a reset rejects it. */
export async function idle(url, sent = "") {
  const { hostname, port } = new URL(url);
  const socket = connectTcp(Number(port), hostname);
  const ended = once(socket.resume(), "end");
  ended.catch(() => {}); // whoever waits for it, later, has it
  await once(socket, "connect");
  if (sent) await new Promise((resolve) => socket.write(sent, resolve));
  return { ended };
}
