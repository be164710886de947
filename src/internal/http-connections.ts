import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2Session, Http2Stream } from "node:http2";
import type { Server, Socket } from "node:net";
import { afterTurn, sleep, startTimer, type Timer } from "./time.ts";

/**
 * How long a connection may be idle once the listener is closed, in milliseconds: what a client had sent by then, or
 * sends because its last answer still said `keep-alive`, is on its way.
 */
export const GRACE = 50;

/** What only a server of HTTP/1 has. */
interface Http1Server extends Server {
  closeIdleConnections?: () => void;
  closeAllConnections?: () => void;
}

/** What goes on over a connection: an answer, or a stream of HTTP/2; or the socket itself, once it was upgraded. */
type Subject = ServerResponse | ((Http2Stream | Socket) & { [Key in "headersSent" | "req" | "writeHead"]?: undefined });

/** A connection that can carry requests. (Below one of TLS there is one of TCP, which carries none itself.) */
interface Connection {
  readonly socket: Socket;
  /** 1 if it is of TLS, else 0. */
  readonly secure: number;
  /** What is not done, in order. (A Set would make each request some 2 % slower, by the hash that it gives it.) */
  readonly open: Subject[];
  session?: Http2Session;
  /** Whether an answer has said that it is the last one. */
  isClosing?: boolean;
  /** Whether it takes no more requests before the next answer, as there may always be another one. */
  isFull?: boolean;
  timer?: Timer;
}

/**
 * The connections of a server, and what goes on over each.
 *
 * It sees what the server emits, instead of listening to it: a listener for `upgrade` or `checkContinue` would take
 * from the server what it does by itself without one, and none can keep a request from the others.
 */
export class HttpConnections {
  readonly #closed = new AbortController();
  /** How many requests were in flight at the stop, or came later. */
  requests = 0;
  /** Aborts when the listener is closed and the last connection gone, whoever did that. */
  readonly closed: AbortSignal = this.#closed.signal;
  readonly #pass: (event: string | symbol, ...args: unknown[]) => boolean;
  readonly #restore: () => void;
  readonly #server: Http1Server;
  readonly #connections = new Map<Socket, Connection>();
  /** The one that was opened last. */
  #newest!: Connection;
  /** How many of them are of TLS. */
  #secure = 0;
  /** What waits until the clients that have connected are accepted. */
  #held: (() => void)[] | undefined;
  #listening!: Promise<void>;
  #settle: ((error?: Error) => void) | undefined;
  #isStopping = false;
  #isClosing = false;

  constructor(server: Server) {
    const watched: { emit?: (event: string | symbol, ...args: unknown[]) => boolean } = server;
    const { emit } = server;
    let isReleased = false;
    this.#server = server;
    this.#restore = () => {
      isReleased = true;
      // Unless somebody else has wrapped it since.
      if (server.emit !== observe) return;
      delete watched.emit;
      if (server.emit !== emit) server.emit = emit;
    };
    const observe = (event: string | symbol, ...args: unknown[]): boolean =>
      (!isReleased && this.#takes(event, args)) || this.#pass(event, ...args);
    this.#pass = emit.bind(server);
    server.emit = observe;
  }

  /** Waits until the server listens, which it is about to. */
  listening(): Promise<void> {
    return (this.#listening = new Promise((resolve, reject) => {
      this.#settle = (error) => (error ? reject(error) : resolve());
    }));
  }

  /** Leaves the server as it was; if that is still about to listen, once it does, or has failed to. */
  release(): void {
    if (this.#settle && !this.closed.aborted) this.#listening.then(this.#restore, this.#restore);
    else this.#restore();
  }

  /** From now on each connection is told, with what is the last answer for now, that it ends. */
  stop(): void {
    this.#isStopping = true;
    for (const connection of this.#connections.values()) {
      for (const subject of connection.open) this.#sayLast(connection, subject);
    }
  }

  /**
   * Lets the server accept the clients that have connected by now, which it does one by one, in turns of the event
   * loop. Their requests have to wait, lest each answer brings another client.
   */
  async accept(until: AbortSignal): Promise<void> {
    const held: (() => void)[] = [];
    this.#held = held;
    for (let newest: unknown = held; newest !== this.#newest; ) {
      newest = this.#newest;
      await sleep(0, until);
    }
    this.#held = undefined;
    held.forEach(afterTurn);
  }

  /** Closes the listener, and each connection once it is idle. */
  close(): void {
    this.#isClosing = true;
    // `close` calls it, and it would cut the end of an answer that is still being sent.
    this.#server.closeIdleConnections = () => {};
    if (!this.closed.aborted) this.#server.close();
    delete this.#server.closeIdleConnections;
    for (const connection of this.#connections.values()) this.#rest(connection);
  }

  /** Closes, once there are no others, the idle ones that the server had before it was watched. */
  sweep(): void {
    if (!this.#connections.size) this.#server.closeIdleConnections?.();
  }

  /** @returns Over how many connections something went on. */
  destroy(): number {
    let busy = 0;
    for (const { socket, open } of this.#connections.values()) {
      if (open[0]) busy++;
      socket.destroy();
    }
    // Those that it had before it was watched.
    this.#server.closeAllConnections?.();
    return busy;
  }

  /**
   * Takes note of what the server emits.
   *
   * @param args - Are, for each event, as Node's documentation says.
   * @returns Whether it takes it from the listeners, for now or for ever.
   */
  #takes(event: string | symbol, args: readonly unknown[]): boolean {
    switch (event) {
      case "connection":
      case "secureConnection":
        this.#add(args[0] as Socket);
        break;
      case "session": {
        // It is told from within the emission of its socket.
        const connection = this.#newest;
        connection.session = args[0] as Http2Session;
        // First, so that the session is closed before the server hands the stream on.
        connection.session.prependListener("stream", (stream) => this.#begin(connection, stream));
        break;
      }
      case "stream":
        return this.#takesStream(event, args);
      case "request":
      case "checkContinue":
      case "checkExpectation":
      case "upgrade":
      case "connect":
        return this.#takesRequest(event, args[0] as IncomingMessage, args[1] as ServerResponse | Socket);
      case "close":
        this.#closed.abort();
        break;
      case "listening":
      case "error":
        if (!this.#settle) break;
        this.#settle(args[0] as Error | undefined);
        this.#settle = undefined;
        // Without a listener, an error would be thrown.
        return !this.#server.listenerCount(event);
    }
    return false;
  }

  #add(socket: Socket): Connection {
    const secure = Number("encrypted" in socket);
    const connection: Connection = { socket, secure, open: [] };
    this.#secure += secure;
    this.#newest = connection;
    this.#connections.set(socket, connection);
    socket.on("close", () => {
      this.#connections.delete(socket);
      this.#secure -= secure;
      clearTimeout(connection.timer);
    });
    this.#rest(connection);
    return connection;
  }

  #takesRequest(event: string, request: IncomingMessage, subject: ServerResponse | Socket): boolean {
    // With HTTP/2 it is a stream, which was told before. Without a socket, nobody has sent it.
    if (request.httpVersionMajor > 1 || !request.socket) return false;
    const connection = this.#connections.get(request.socket) ?? this.#add(request.socket);
    // A listener hands it on to the others.
    if (connection.open.includes(subject)) return false;
    // The client has been told, or will be, that this one is not answered any more.
    const isTooMuch = connection.isFull && connection.open.at(-1)?.headersSent === false;
    if (connection.isClosing || isTooMuch) {
      // Nor are those after it, whose answers would wait for its own.
      connection.isClosing = true;
      return true;
    }
    this.#begin(connection, subject);
    if (!this.#isStopping || subject === request.socket) return false;
    // Of several that arrived at once the last one is known, before the first one is answered.
    this.#hold(() => {
      connection.isFull = this.#isClosing;
      if (!request.socket.destroyed) this.#pass(event, request, subject);
    });
    return true;
  }

  /** Lets a stream wait until its session is closed: after an answer, that would cut off what the client asks next. */
  #takesStream(event: string, args: readonly unknown[]): boolean {
    if (!this.#isStopping) return false;
    const stream = args[0] as Http2Stream;
    let told: unknown[] | undefined;
    const note = (...values: unknown[]): void => {
      told = values;
    };
    // What happens to it in the meantime.
    stream.on("trailers", note).on("error", note);
    afterTurn(() =>
      this.#hold(() => {
        stream.off("error", note);
        if (stream.destroyed) return;
        this.#pass(event, ...args);
        if (told) stream.emit("trailers", ...told);
      }),
    );
    return true;
  }

  /** Calls back after this turn, or else once the clients that have connected are accepted. */
  #hold(hand: () => void): void {
    afterTurn(() => (this.#held ? this.#held.push(hand) : hand()));
  }

  #begin(connection: Connection, subject: Subject): void {
    clearTimeout(connection.timer);
    connection.open.push(subject);
    const over = (): void => {
      connection.open.splice(connection.open.indexOf(subject), 1);
      this.#rest(connection);
    };
    // While a client still sends what nobody reads, to destroy the socket would cut the end of the answer.
    subject.on("close", () => {
      if (subject.req && !subject.req.complete) subject.req.on("close", over);
      else over();
    });
    if (this.#isStopping) this.#sayLast(connection, subject);
  }

  /** Counts it, and has the client told that, for all that is known by now, nothing is to follow it. */
  #sayLast(connection: Connection, subject: Subject): void {
    if (subject === connection.socket) return;
    this.requests++;
    // Streams that arrive until then are answered, too. If there is none left, the client may be asking more by then,
    // and is told with the next one.
    afterTurn(() =>
      this.#hold(() => {
        if (connection.open[0]) connection.session?.close();
      }),
    );
    if (!subject.writeHead || subject.headersSent) return;
    const { writeHead } = subject;
    // Node calls it, too, as late as it can.
    subject.writeHead = (...args: unknown[]) => {
      const isLast = connection.open.at(-1) === subject;
      if (isLast && !subject.headersSent) {
        subject.shouldKeepAlive = false;
        const given = args.at(-1);
        // A list of headers is rare, and would be read in another way if there were others.
        if (!Array.isArray(given)) {
          subject.setHeader("Connection", "close");
          // What a proxy copies from its backend, or everybody from an example, is not about this connection.
          if (typeof given === "object") {
            const headers: Record<string, unknown> = { ...given };
            for (const name in headers) if (/^connection$/i.test(name)) delete headers[name];
            args.splice(-1, 1, headers);
          }
        }
      }
      writeHead.apply(subject, args as Parameters<typeof writeHead>); // whichever of its signatures they are of
      // It is true again if a header that was given just now says so.
      if (isLast && !subject.shouldKeepAlive) {
        connection.isClosing = true;
        // Node calls it after this answer. To be destroyed would cut that off for a client that still sends.
        connection.socket.destroySoon = () => connection.socket.end();
      }
      return subject;
    };
  }

  /** Ends a connection that stays idle. */
  #rest(connection: Connection): void {
    if (!this.#isClosing || connection.open[0]) return;
    connection.timer = startTimer(GRACE, () => {
      // What has arrived while the program was busy is read first.
      afterTurn(() => {
        const { socket, secure, session, open } = connection;
        const isBase = "setSecureContext" in this.#server && !secure;
        if (open[0]) return;
        // In its handshake, or below one of TLS: of which, is not known.
        if (isBase ? this.#secure : session && !session.closed) {
          session?.close();
          this.#rest(connection);
        } else if (session) socket.destroySoon();
        else socket.destroy();
      });
    });
  }
}
