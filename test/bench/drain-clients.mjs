/*
 * The clients of the comparison of drains. None tries a request again. Each notes what it did not get an answer to,
 * once it had a connection to send it over; to be refused a connection is no loss, as somebody else can be asked.
 */
import { once } from "node:events";
import { Agent, request } from "node:http";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import WebSocket from "ws";

/**
 * For how many milliseconds after its answer was sent, at the earliest, a busy client trusts that a connection is still
 * open. Its pauses are shorter; what is longer is the fault of a machine that is too busy, and should be no server's.
 */
const KEEP = 30;

/** When each connection was made. */
const connectedAt = new WeakMap();

/** What the clients of one server share. */
export class Target {
  /** Where it listens. */
  port;
  /** How many requests there were. */
  issued = 0;
  /** How many of them were answered in full. */
  answered = 0;
  /** The numbers of those that were not; how they failed, and whether their connections were made after the stop. */
  unanswered = new Map();
  /** The numbers of those that were not either, after an answer that said it is the last one. */
  unansweredAsTold = new Map();
  /** Whether they should come to an end, as the server does not. */
  isOver = false;
  #tellStop;
  /** Resolves when the server is told to stop. */
  stopped = new Promise((resolve) => (this.#tellStop = resolve));
  stoppedAt = Infinity;
  #settling = [];
  #closers = [];

  constructor(port) {
    this.port = port;
  }

  tellStop() {
    this.stoppedAt = performance.now();
    this.#tellStop();
  }

  /** Numbers a request. */
  next() {
    return String(++this.issued);
  }

  /** Goes on beside the others. */
  goOn(work) {
    this.#settling.push(work);
  }

  /** Waits until nothing goes on. */
  async settled() {
    await Promise.all(this.#settling);
  }

  /** Something that stays open until the end. */
  keep(close) {
    this.#closers.push(close);
  }

  close() {
    for (const close of this.#closers) close();
  }
}

/** Asks with one request after the other, over one connection as long as that is kept open. */
export async function keepBusy(target) {
  let agent = keepAlive();
  let isAnswered = true;
  while (isAnswered && !target.isOver) {
    if (performance.now() - agent.answeredAt > KEEP) {
      agent.destroy();
      agent = keepAlive();
    }
    const size = Math.random() < 0.05 ? 1_000_000 : 100;
    isAnswered = await ask(target, agent, { ms: someTime(), size });
    await sleep(Math.random() * 20);
  }
  agent.destroy();
}

/** Sends request after request without a wait for the answers, some at once. */
export async function pipeline(target) {
  const socket = connect(target.port, "127.0.0.1").on("error", () => {});
  const waiting = [];
  let isLast = false;
  let received = "";
  socket.setEncoding("latin1").on("data", (text) => {
    received += text;
    for (let answer; (answer = takeAnswer(received)); received = received.slice(answer.length)) {
      isLast ||= answer.isLast;
      waiting.shift().resolve(true);
    }
  });
  let isOpen = true;
  socket.on("end", () => (isOpen = false));
  socket.on("close", () => {
    isOpen = false;
    for (const { resolve } of waiting) resolve(false);
  });
  await once(socket, "connect");

  let answeredAt = performance.now();
  while (isOpen && !isLast && !target.isOver && performance.now() - answeredAt <= KEEP) {
    const sent = Array.from({ length: 4 }, () => {
      const answered = new Promise((resolve) => waiting.push({ resolve }));
      return { number: target.next(), ms: someTime(), answered };
    });
    answeredAt = performance.now() + Math.max(...sent.map(({ ms }) => ms));
    socket.write(sent.map(({ number, ms }) => head(`/${number}?ms=${ms}&size=100`)).join(""));
    for (const { number, answered } of sent) {
      if (await answered) target.answered++;
      else (isLast ? target.unansweredAsTold : target.unanswered).set(number, { how: "pipelined" });
    }
    await sleep(Math.random() * 20);
  }
  socket.destroy();
}

// What is made ready first; what it returns is called just before the stop.

/** Asks for something that takes a second. */
export async function askSlow(target) {
  return () => askOnce(target, { ms: 1_000, size: 100 });
}

/** Sends half of a body before the stop, and half of it 300 ms after. */
export async function uploadSlowly(target) {
  return () => askOnce(target, { size: 100, method: "POST", late: 300 });
}

/** Asks for more than the buffers of the system can hold, and reads it only 300 ms after the stop. */
export async function readSlowly(target) {
  return () => askOnce(target, { size: 16_000_000, late: 300 });
}

/** Is sent a message 300 ms after each that it sends, and does not close its connection. */
export async function talk(target) {
  const socket = new WebSocket(`ws://127.0.0.1:${target.port}`).on("error", () => {});
  target.keep(() => socket.terminate());
  await once(socket, "open");
  return async () => {
    const number = target.next();
    socket.send(number);
    const isAnswered = await new Promise((resolve) => {
      socket.on("message", () => resolve(true)).on("close", () => resolve(false));
    });
    if (isAnswered) target.answered++;
    else target.unanswered.set(number, { how: "message" });
  };
}

/** Asks once, and keeps its connection. */
export async function restAfterRequest(target) {
  const agent = keepAlive();
  target.keep(() => agent.destroy());
  await ask(target, agent, { size: 100 });
}

/** Connects, sends so much, and then nothing. */
export function idle(sent) {
  return async (target) => {
    const socket = connect(target.port, "127.0.0.1").on("error", () => {});
    target.keep(() => socket.destroy());
    await once(socket.resume(), "connect");
    if (sent) await new Promise((resolve) => socket.write(sent, resolve));
  };
}

export const HALF_HEAD = "GET /half HTTP/1.1\r\nHost: ";
export const HALF_BODY = "POST /half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello";

/** Keeps the server from doing anything until a file exists. */
export function block(target, file) {
  target.goOn(askOnce(target, { size: 100, until: file }));
}

/** Connects, which the system accepts, and asks; returns when it has sent that. */
export async function askFromBacklog(target) {
  await new Promise((resolve) => target.goOn(askOnce(target, { ms: 10, size: 100, onSent: resolve })));
}

async function askOnce(target, options) {
  const agent = keepAlive();
  await ask(target, agent, options);
  agent.destroy();
}

/** @returns Whether it was answered in full. */
async function ask(target, agent, { ms = 0, size, method = "GET", late, until, onSent }) {
  const number = target.next();
  const askedAt = performance.now();
  const path = `/${number}?ms=${ms}&size=${size}${until ? `&until=${encodeURIComponent(until)}` : ""}`;
  const headers = method === "POST" ? { "content-length": 10 } : {};
  const sent = request({ host: "127.0.0.1", port: target.port, agent, path, method, headers });
  sent.on("error", () => {});
  sent.on("socket", (socket) => {
    if (socket.connecting) socket.once("connect", () => connectedAt.set(socket, performance.now()));
  });
  if (onSent) sent.on("finish", onSent).on("close", onSent);
  try {
    const answered = once(sent, "response");
    if (method === "GET") sent.end();
    else void sendInHalves(target, sent, late);
    const [response] = await answered;
    if (method === "GET" && late !== undefined) await target.stopped.then(() => sleep(late));
    let length = 0;
    for await (const chunk of response) length += chunk.length;
    if (response.statusCode !== 200 || length !== size) throw new Error(`${response.statusCode}, ${length} bytes`);
    target.answered++;
    agent.answeredAt = askedAt + ms;
    return true;
  } catch (error) {
    // Else it was refused.
    if (connectedAt.has(sent.socket)) {
      const isLate = connectedAt.get(sent.socket) > target.stoppedAt;
      target.unanswered.set(number, { how: `${method}: ${error.code ?? error.message}`, isLate });
    }
    return false;
  }
}

async function sendInHalves(target, sent, late) {
  sent.write("hello");
  await target.stopped;
  await sleep(late);
  sent.end("world");
}

/** How long a handler takes, from 5 to 50 ms. */
function someTime() {
  return Math.floor(5 + Math.random() * 46);
}

function head(path) {
  return `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;
}

/** The first answer of what was received, if it is there in full. */
function takeAnswer(received) {
  const end = received.indexOf("\r\n\r\n") + 4;
  if (end < 4) return undefined;
  const header = received.slice(0, end);
  const length = end + Number(/content-length: (\d+)/i.exec(header)[1]);
  return received.length < length ? undefined : { length, isLast: /connection: close/i.test(header) };
}

function keepAlive() {
  return new Agent({ keepAlive: true, maxSockets: 1 });
}
