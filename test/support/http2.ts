import { EventEmitter, once } from "node:events";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionOptions,
  type ClientSessionRequestOptions,
  connect as connectHttp2,
  createSecureServer,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type IncomingHttpStatusHeader,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import { createServer as createHttpsServer, type Server as HttpsServer } from "node:https";
import { type AddressInfo, connect, type Server, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { setImmediate } from "node:timers/promises";
import { connect as connectTls, type ConnectionOptions } from "node:tls";
import { afterAll } from "vitest";
import { CERTIFICATE, KEY } from "./certificate.ts";
import { Backend, RawClient } from "./http.ts";

/** Whether HTTP/2 is spoken over TLS or over TCP. */
export type Transport = "cleartext" | "secure";

/** What a server of HTTP/2 listens to: requests, as with HTTP/1, or just streams. */
export type Listens = "request" | "stream";

/** Both ways of both. */
export const WAYS: readonly (readonly [Transport, Listens])[] = [
  ["cleartext", "request"],
  ["cleartext", "stream"],
  ["secure", "request"],
  ["secure", "stream"],
];

export const TLS = { key: KEY, cert: CERTIFICATE };

export function httpsServer(): HttpsServer {
  return createHttpsServer(TLS);
}

/** @param allowHTTP1 - Counts only over TLS. */
export function http2Server(transport: Transport, allowHTTP1 = false): Http2Server {
  if (transport === "cleartext") return createServer();
  // It is not of that type, but it does all of it.
  return createSecureServer({ ...TLS, allowHTTP1 }) as unknown as Http2Server;
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

/** Resolves when the listener of a server has been closed, though the server may go on. */
export async function closing(server: Server): Promise<void> {
  while (server.listening) await setImmediate();
}

/** Calls back in the very turn in which a server closes its listener, just after that. */
export function whenClosing(server: Server, act: () => void): void {
  const { close } = server;
  server.close = (callback) => {
    Reflect.deleteProperty(server, "close");
    close.call(server, callback);
    act();
    return server;
  };
}

/** A client of TLS that does nothing by itself, once its handshake is done. */
export async function secureClient(server: Server, options: ConnectionOptions = {}): Promise<RawClient> {
  const socket = connectTls({ host: "127.0.0.1", port: portOf(server), rejectUnauthorized: false, ...options });
  const client = new RawClient(socket);
  await once(socket, "secureConnect");
  return client;
}

/** A client of TLS whose first message, its ClientHello, is sent only in part until the rest is released. */
export class HesitantClient {
  /** The connection below. */
  readonly tcp: RawClient;
  /** That of TLS; it tells `secureConnect` once that is done. */
  readonly tls: RawClient;
  #held: Buffer[] = [];
  #isHeld = true;

  private constructor(tcp: Socket, bytes: number) {
    const wire = new Duplex({
      read() {},
      write: (chunk: Buffer, _, callback) => {
        if (this.#isHeld) {
          tcp.write(chunk.subarray(0, bytes));
          this.#held.push(chunk.subarray(bytes));
        } else tcp.write(chunk);
        callback();
      },
    });
    tcp.on("data", (chunk: string) => wire.push(Buffer.from(chunk, "latin1")));
    tcp.on("close", () => wire.destroy());
    this.tcp = new RawClient(tcp);
    this.tls = new RawClient(connectTls({ socket: wire, rejectUnauthorized: false }));
  }

  /** @param bytes - How much of each message it sends. */
  static async open(server: Server, bytes = Infinity): Promise<HesitantClient> {
    const tcp = connect(portOf(server), "127.0.0.1");
    await once(tcp, "connect");
    return new HesitantClient(tcp, bytes);
  }

  /** Sends the rest. */
  release(): void {
    this.#isHeld = false;
    for (const chunk of this.#held) this.tcp.socket.write(chunk);
  }
}

/** A stream that a handler got, which the test answers. */
export interface ServerStream {
  readonly stream: ServerHttp2Stream;
  /** Answers with a status of 200 and a body, by default `answer to` and the path, and then with trailers. */
  answer(body?: string, trailers?: OutgoingHttpHeaders): void;
}

/** The streams that a server hands to its listener, as requests or as they are, which the test answers. */
export class Http2Backend {
  readonly server: Http2Server;
  readonly #ofRequests: Backend | undefined;
  readonly #streams = new Map<string, ServerHttp2Stream>();
  readonly #changes = new EventEmitter().setMaxListeners(0);

  constructor(listens: Listens, server: Http2Server) {
    this.server = server;
    if (listens === "request") this.#ofRequests = new Backend(undefined, server as never);
    else {
      server.on("stream", (stream, headers) => {
        this.#streams.set(headers[":path"] ?? "", stream);
        this.#changes.emit("change");
      });
    }
  }

  /** The paths of all streams so far. */
  get urls(): string[] {
    return this.#ofRequests?.urls ?? [...this.#streams.keys()];
  }

  /** Resolves with the stream for this path, once the handler got it. */
  async request(url: string): Promise<ServerStream> {
    if (this.#ofRequests) {
      const { response, answer } = await this.#ofRequests.request(url);
      return {
        stream: (response as unknown as { stream: ServerHttp2Stream }).stream,
        answer(body, trailers = {}) {
          response.addTrailers(trailers);
          answer(body);
        },
      };
    }
    let stream: ServerHttp2Stream | undefined;
    while (!(stream = this.#streams.get(url))) await once(this.#changes, "change");
    const found = stream;
    return {
      stream,
      answer(body = `answer to ${url}`, trailers) {
        found.respond({ ":status": 200 }, { waitForTrailers: true });
        found.once("wantTrailers", () => found.sendTrailers(trailers ?? {}));
        found.end(body);
      },
    };
  }
}

/** An answer of HTTP/2. */
export interface Http2Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly trailers: IncomingHttpHeaders;
  readonly body: string;
  /** `"ended"` if it came in full, else with which code it was cut. */
  readonly end: string;
}

const clients: ClientHttp2Session[] = [];

/** Closes after the last test of a file what clients of HTTP/2 there have left open. */
export function useHttp2(): void {
  afterAll(() => {
    for (const session of clients.splice(0)) session.destroy();
  });
}

/** A session of a client, and how it ends. */
export class Http2Client {
  readonly session: ClientHttp2Session;
  /** The codes of all GOAWAY frames that came. */
  readonly goaways: number[] = [];
  /** Resolves when its connection is closed: with `"closed"`, or with the code of the error. */
  readonly closed: Promise<string>;
  /** What `closed` resolved with, or `"open"`. */
  end = "open";

  private constructor(session: ClientHttp2Session) {
    this.session = session;
    clients.push(session);
    session.on("goaway", (code) => void this.goaways.push(code));
    let end = "closed";
    session.on("error", (error: NodeJS.ErrnoException) => (end = error.code ?? error.message));
    this.closed = once(session, "close").then(
      () => (this.end = end),
      () => once(session, "close").then(() => (this.end = end)),
    );
  }

  /** Connects to a server, and resolves when both sides have said their settings. */
  static async open(server: Server, options: ClientSessionOptions = {}): Promise<Http2Client> {
    const scheme = "setSecureContext" in server ? "https" : "http";
    const tls = { rejectUnauthorized: false };
    const session = connectHttp2(`${scheme}://127.0.0.1:${portOf(server)}`, { ...tls, ...options });
    const client = new Http2Client(session);
    await Promise.all([once(session, "remoteSettings"), once(session, "localSettings")]);
    return client;
  }

  /** Begins a stream. */
  stream(headers: OutgoingHttpHeaders, options?: ClientSessionRequestOptions): ClientHttp2Stream {
    return this.session.request(headers, options);
  }

  /** Asks for this path. */
  get(path: string): Promise<Http2Answer> {
    return answerOn(this.stream({ ":path": path }));
  }
}

/** Resolves with all that comes on a stream, when that is closed. */
export function answerOn(stream: ClientHttp2Stream): Promise<Http2Answer> {
  let headers: IncomingHttpHeaders & IncomingHttpStatusHeader = {};
  let trailers: IncomingHttpHeaders = {};
  const chunks: string[] = [];
  let end: string | undefined;
  stream.setEncoding("latin1");
  // A pushed stream tells of its own with `push`.
  for (const event of ["response", "push"]) stream.on(event, (told) => (headers = told));
  stream.on("trailers", (told) => (trailers = told));
  stream.on("data", (chunk: string) => void chunks.push(chunk));
  stream.on("end", () => (end ??= "ended"));
  stream.on("aborted", () => (end = "aborted"));
  stream.on("error", (error: NodeJS.ErrnoException) => (end = error.code ?? error.message));
  return new Promise((resolve) => {
    stream.on("close", () => {
      const { ":status": status, ...others } = headers;
      const code = stream.rstCode ? `reset with ${stream.rstCode}` : "closed";
      const whole = end === "ended" && stream.rstCode ? code : end;
      resolve({ status, headers: others, trailers, body: chunks.join(""), end: whole ?? code });
    });
  });
}

/** What a client of HTTP/2 sends first, by hand: its preface, and its settings, each a number and a value. */
export function preface(...settings: (readonly [id: number, value: number])[]): string {
  const payload = settings.map(([id, value]) => bytes(id, 2) + bytes(value, 4)).join("");
  return `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${frame(4, 0, 0, payload)}`;
}

/** A frame of HTTP/2. */
export function frame(type: number, flags: number, stream: number, payload = ""): string {
  return bytes(payload.length, 3) + bytes(type, 1) + bytes(flags, 1) + bytes(stream, 4) + payload;
}

/** The frame of a whole `GET` for a path of less than 127 characters. */
export function getFrame(stream: number, path: string): string {
  // `:method: GET` and `:scheme: http` of the static table; `:path` and `:authority` with their values.
  const header = `\x82\x86\x04${bytes(path.length, 1)}${path}\x01\x01x`;
  return frame(1, 0x5, stream, header);
}

/** Lets the other side send so much, on a stream, or on all of them (0). */
export function windowUpdate(stream: number, size: number): string {
  return frame(8, 0, stream, bytes(size, 4));
}

function bytes(value: number, count: number): string {
  return Array.from({ length: count }, (_, i) => String.fromCharCode((value >>> (8 * (count - 1 - i))) & 255)).join("");
}

/** A frame that came. */
export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: string;
}

/** The whole frames that a client got. */
export function framesOf(client: RawClient): Frame[] {
  const frames: Frame[] = [];
  const { text } = client;
  const number = (at: number, count: number): number => {
    return Buffer.from(text.slice(at, at + count), "latin1").readUIntBE(0, count);
  };
  for (let at = 0; at + 9 <= text.length; ) {
    const end = at + 9 + number(at, 3);
    if (end > text.length) break;
    const [type, flags, stream] = [number(at + 3, 1), number(at + 4, 1), number(at + 5, 4)];
    frames.push({ type, flags, stream, payload: text.slice(at + 9, end) });
    at = end;
  }
  return frames;
}

/** Tells of all events of a server, those of which nobody hears included, until what it returns is called. */
export function watch(server: Server, tell: (event: string) => void): () => void {
  const { emit } = server;
  const watching = (event: string | symbol, ...args: unknown[]): boolean => {
    tell(String(event));
    return emit.apply(server, [event, ...args] as never);
  };
  server.emit = watching;
  return () => {
    if (server.emit === watching) server.emit = emit;
  };
}
