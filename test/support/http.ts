import { subscribe } from "node:diagnostics_channel";
import { EventEmitter, once } from "node:events";
import { createServer, type IncomingMessage, type Server as HttpServer, type ServerResponse } from "node:http";
import { connect, type NetConnectOpts, Server, type Socket } from "node:net";
import { type LifecycleEvent, Manager } from "allstop";
import { type HttpServerOptions, HttpServerTask } from "allstop/http";
import { EventLog } from "allstop/testing";
import { afterAll, beforeAll, expect } from "vitest";

/*
 * Real servers and clients. Their tests run at the same time, so what is left behind is looked at once, after the last
 * test of a file.
 */

/** Why the servers here are stopped. */
export const REASON = new Error("enough");

/** Milliseconds: far below the default `drainTimeout`, far above what a busy machine takes for what is over at once. */
export const PROMPT = 5_000;

/** What was opened in a file. */
const opened: { readonly clients: RawClient[]; readonly runs: ServerRun[] } = { clients: [], runs: [] };

/** Checks after the last test of a file that every run has ended and left its server as it was; and no warnings. */
export function useHttp(): void {
  const warnings: unknown[] = [];
  const note = (warning: Error): void => void warnings.push(warning);
  beforeAll(() => void process.on("warning", note));
  afterAll(async () => {
    process.off("warning", note);
    for (const client of opened.clients.splice(0)) client.leave();
    const left = opened.runs.splice(0).flatMap((run) => run.left);
    expect(left).toEqual([]);
    expect(warnings).toEqual([]);
  });
}

/** Something whose changes are waited for. */
class Changing {
  readonly #changes = new EventEmitter().setMaxListeners(0);

  protected changed(): void {
    this.#changes.emit("change");
  }

  /** Resolves with what `find` finds, as soon as it finds something. */
  async until<Found>(find: () => Found | undefined | false): Promise<Found> {
    for (;;) {
      const found = find();
      if (found !== undefined && found !== false) return found;
      await once(this.#changes, "change");
    }
  }
}

/** What servers have accepted, which is known without a listener on any of them. */
class Acceptance extends Changing {
  /** By the ports of both ends, as two clients of two servers may have the same one. */
  readonly #accepted = new Set<string>();

  constructor() {
    super();
    subscribe("net.server.socket", (message) => {
      const { localPort, remotePort } = (message as { socket: Socket }).socket;
      this.#accepted.add(`${localPort} ${remotePort}`);
      this.changed();
    });
  }

  /** Resolves when the server has this client. Of a unix socket that is not known. */
  async of({ localPort, remotePort }: Socket): Promise<void> {
    if (localPort !== undefined) await this.until(() => this.#accepted.delete(`${remotePort} ${localPort}`));
  }
}

const acceptance = new Acceptance();

/** The end of listeners, which no event tells. */
class Closing extends Changing {
  constructor() {
    super();
    const { close } = Server.prototype;
    const changed = (): void => this.changed();
    Server.prototype.close = function (this: Server, ...args) {
      const server = close.apply(this, args);
      changed();
      return server;
    };
  }
}

const closing = new Closing();

/** An answer of HTTP/1, as far as it has come. */
export interface Answer {
  readonly status: number;
  /** By names of lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly isComplete: boolean;
}

/**
 * @param isOver - Whether no more of it comes: that is the end of a body of unknown length.
 * @returns The answers, and what comes after the last whole one.
 */
function parseAnswers(text: string, method: string, isOver: boolean): { answers: Answer[]; left: string } {
  const answers: Answer[] = [];
  let left = text;
  for (let rest = text; rest !== ""; ) {
    const end = rest.indexOf("\r\n\r\n");
    if (end < 0) break;
    const [first = "", ...lines] = rest.slice(0, end).split("\r\n");
    const status = Number(/^HTTP\/1\.[01] (\d{3}) /.exec(first)?.[1] ?? Number.NaN);
    if (!status) throw new Error(`No answer begins with ${JSON.stringify(rest.slice(0, 200))}`);
    const headers = Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 2)]),
    );
    rest = rest.slice(end + 4);
    let body = "";
    let isComplete = true;
    if (method === "HEAD" || status < 200 || status === 204 || status === 304) {
      // There is none.
    } else if (headers["transfer-encoding"] === "chunked") {
      for (let size = -1; size !== 0; ) {
        const [head = ""] = /^[\da-f]+\r\n/.exec(rest) ?? [];
        size = Number.parseInt(head, 16);
        if (head !== "") body += rest.slice(head.length, head.length + size);
        // After the last one there may be trailers.
        const over = size === 0 ? rest.indexOf("\r\n\r\n") + 4 : head.length + size + 2;
        isComplete = head !== "" && over > 3 && rest.length >= over;
        rest = isComplete ? rest.slice(over) : "";
        if (!isComplete) break;
      }
    } else {
      const length = Number(headers["content-length"] ?? Infinity);
      body = rest.slice(0, length);
      isComplete = length === Infinity ? isOver : body.length === length;
      rest = rest.slice(body.length);
    }
    answers.push({ status, headers, body, isComplete });
    if (isComplete) left = rest;
  }
  return { answers, left };
}

/** A client that sends just what it is told to, and keeps what comes back, with how its connection ends. */
export class RawClient extends Changing {
  readonly socket: Socket;
  readonly #chunks: string[] = [];
  /** How many bytes have come. */
  received = 0;
  /**
   * How the connection was closed: `"ended"` by the server in order, by an error with this `code`, or `"left"` by the
   * client itself.
   */
  end: string = "open";
  /** When the server ended it, or it was closed, by `performance.now()`. */
  endedAt: number = Number.NaN;
  /** Resolves with `end`, once it is not open any more. */
  readonly closed: Promise<string>;

  /** @param socket - May be one of TLS. */
  constructor(socket: Socket) {
    super();
    this.socket = socket;
    opened.clients.push(this);
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => {
      this.#chunks.push(chunk);
      this.received += chunk.length;
      this.changed();
    });
    this.closed = new Promise((resolve) => {
      const close = (end: string): void => {
        if (this.end === "open") {
          this.end = end;
          this.endedAt = performance.now();
        }
        resolve(this.end);
        this.changed();
      };
      socket.on("end", () => close("ended"));
      socket.on("error", (error: NodeJS.ErrnoException) => close(error.code ?? error.message));
      socket.on("close", () => close("closed"));
    });
  }

  /** Connects to a server, or to whatever `connect` takes, and resolves when that is done. */
  static async open(to: Server | NetConnectOpts, first = ""): Promise<RawClient> {
    const client = new RawClient(connect(to instanceof EventEmitter ? addressOf(to) : to));
    await once(client.socket, "connect");
    if (first !== "") client.send(first);
    return client;
  }

  /** All that has come, a character for each byte. */
  get text(): string {
    if (this.#chunks.length > 1) this.#chunks.splice(0, Infinity, this.#chunks.join(""));
    return this.#chunks[0] ?? "";
  }

  /** What has come, as answers; those to `HEAD` have no bodies. */
  answers(method = "GET"): Answer[] {
    if (method !== "GET") return parseAnswers(this.text, method, this.end === "ended").answers;
    const { answers, left } = parseAnswers(this.text.slice(this.#parsed), method, this.end === "ended");
    const whole = answers.filter(({ isComplete }) => isComplete);
    this.#parsed = this.text.length - left.length;
    this.#answers.push(...whole);
    return [...this.#answers, ...answers.slice(whole.length)];
  }
  /** The whole ones, and up to where they go. */
  readonly #answers: Answer[] = [];
  #parsed = 0;

  send(text: string): void {
    this.socket.write(text, "latin1");
  }

  /** Asks for each of these paths, all in one write. */
  get(...paths: string[]): void {
    this.send(paths.map((path) => get(path)).join(""));
  }

  /** Resolves with the last of so many whole answers; rejects if the connection is closed before. */
  async answer(count = 1): Promise<Answer> {
    return this.until(() => {
      const answers = this.answers();
      const found = answers[count - 1];
      if (found?.isComplete) return found;
      if (this.end !== "open") throw new Error(`It was ${this.end} with ${answers.length} answers: ${this.text}`);
      return undefined;
    });
  }

  /** Closes it with what it has got, without a word. */
  leave(): void {
    if (this.end === "open") this.end = "left";
    this.socket.destroy();
  }
}

/** Where a server listens. */
function addressOf(server: Server): NetConnectOpts {
  const address = server.address();
  if (address === null) throw new Error("It does not listen");
  return typeof address === "string" ? { path: address } : { host: "127.0.0.1", port: address.port };
}

/** A request, with lines of a header if need be: `get("/", "Connection: close")`. */
export function get(path: string, ...header: string[]): string {
  return [`GET ${path} HTTP/1.1`, "Host: x", ...header, "", ""].join("\r\n");
}

/** A request with a body, or that part of it which is given. */
export function post(path: string, body: string, length: number = body.length, ...header: string[]): string {
  return [`POST ${path} HTTP/1.1`, "Host: x", `Content-Length: ${length}`, ...header, "", body].join("\r\n");
}

/** The code of the error with which a connection to this port is refused, or `"connected"`. */
export async function connecting(port: number): Promise<string> {
  const socket = connect({ host: "127.0.0.1", port });
  try {
    await once(socket, "connect");
    return "connected";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  } finally {
    socket.destroy();
  }
}

/** A request that a handler got, which the test answers. */
export interface Exchange {
  readonly url: string;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Answers with a status of 200 and a body, by default `answer to` and the path. */
  answer(body?: string): void;
}

/** The requests that a server hands to its handler, which are held until the test answers them. */
export class Backend extends Changing {
  readonly exchanges: Exchange[] = [];
  readonly server: HttpServer;

  /**
   * @param handle - Is called with each of them, before the test hears of it. Paths that begin with `/now` are
   * answered at once by default, before the handler returns.
   */
  constructor(handle: (exchange: Exchange) => void = answerNow, server: HttpServer = createServer()) {
    super();
    this.server = server;
    server.on("request", (request, response) => {
      const { url = "" } = request;
      const answer = (body = `answer to ${url}`): void => void response.end(body);
      const exchange: Exchange = { url, request, response, answer };
      this.exchanges.push(exchange);
      handle(exchange);
      this.changed();
    });
  }

  /** The paths of all requests so far. */
  get urls(): string[] {
    return this.exchanges.map(({ url }) => url);
  }

  /** Resolves with the request for this path, once the handler got it. */
  request(url: string): Promise<Exchange> {
    return this.until(() => this.exchanges.find((exchange) => exchange.url === url));
  }
}

function answerNow({ url, answer }: Exchange): void {
  if (url.startsWith("/now")) answer();
}

/** How many listen to each event of a server, and its methods. */
function traces(server: Server): Map<string, unknown> {
  const found = new Map<string, unknown>();
  for (const name of server.eventNames()) found.set(`listeners of ${String(name)}`, server.listenerCount(name));
  for (const name of METHODS) found.set(name, server[name as keyof Server]);
  return found;
}

/** What a task may put itself in the place of. */
const METHODS = ["emit", "on", "close", "closeIdleConnections", "closeAllConnections", "listen"];

/** An HttpServerTask in a manager. */
export class ServerRun {
  readonly server: Server;
  readonly task: HttpServerTask;
  readonly log: EventLog = new EventLog();
  readonly manager: Manager;
  /** When it was told to stop, by `performance.now()`. */
  stoppedAt: number = Number.NaN;
  /** When its task had ended. */
  endedAt: number = Number.NaN;
  readonly #before: ReadonlyMap<string, unknown>;

  constructor(server: Server, options: HttpServerOptions = {}) {
    this.#before = traces(server);
    this.server = server;
    this.task = new HttpServerTask(server, { host: "127.0.0.1", ...options });
    this.manager = new Manager({ onEvent: this.log.observe });
    this.manager.run(this.task);
    opened.runs.push(this);
  }

  /** Where it listens, as a port; it is known after the stop, too. */
  get port(): number {
    const { address } = this.task;
    if (address !== null && typeof address === "object") this.#port = address.port;
    return this.#port;
  }
  #port = Number.NaN;

  /** A connection to it, on which this is sent. It has accepted that, and read nothing of it yet. */
  async client(first = ""): Promise<RawClient> {
    const client = await RawClient.open(this.server, first);
    await acceptance.of(client.socket);
    return client;
  }

  /** Tells it to stop; resolves when all has ended. */
  async stop(): Promise<void> {
    this.begin();
    await this.end();
  }

  /** Tells it to stop, and does not wait. */
  begin(): void {
    if (this.stoppedAt > 0) return;
    // Is asked for while it is known.
    void this.port;
    this.stoppedAt = performance.now();
    this.manager.stop(REASON);
  }

  /** Resolves when all has ended. */
  async end(): Promise<void> {
    await this.manager.wait();
    this.endedAt = performance.now();
  }

  /** How long it took from the stop to the end. */
  get took(): number {
    return this.endedAt - this.stoppedAt;
  }

  /** What it told of its drain, if it did. */
  get drained(): Extract<LifecycleEvent, { type: "http-drained" }> | undefined {
    return this.log.events.find((event) => event.type === "http-drained");
  }

  /** What it left behind. */
  get left(): string[] {
    const left: string[] = this.manager.pending.map((name) => `${name} has not ended`);
    if (this.server.listening) left.push("its server listens");
    const after = traces(this.server);
    for (const name of new Set([...this.#before.keys(), ...after.keys()])) {
      if (this.#before.get(name) !== after.get(name)) left.push(`${name}: ${after.get(name)}`);
    }
    return left;
  }
}

/** Runs a server, and resolves when it listens. */
export async function run(server: Server, options: HttpServerOptions = {}): Promise<ServerRun> {
  const serverRun = new ServerRun(server, options);
  await serverRun.task.ready();
  void serverRun.port;
  return serverRun;
}

/** Runs a server whose requests the test answers. */
export async function serve(
  options: HttpServerOptions = {},
  handle?: (exchange: Exchange) => void,
  httpServer?: HttpServer,
): Promise<{ readonly backend: Backend; readonly server: ServerRun }> {
  const backend = new Backend(handle, httpServer);
  return { backend, server: await run(backend.server, options) };
}

/** Resolves, still in that turn of the event loop, when new connections are refused. */
export function whenClosed({ server }: ServerRun): Promise<true> {
  return closing.until(() => !server.listening);
}

/** What a drain tells, with an `elapsed` of 0 as in `told(log)`. */
export function drained(requests: number, destroyed = 0, task = "http"): LifecycleEvent {
  return { type: "http-drained", task, requests, destroyed, elapsed: 0 };
}
