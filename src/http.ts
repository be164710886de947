/**
 * An HTTP server that ends without losing a request.
 *
 * @module
 */
import type { AddressInfo, Server } from "node:net";
import { TaskAlreadyStartedError } from "./errors.ts";
import type { LifecycleEvent } from "./events.ts";
import { onAbort, untilAborted } from "./internal/abort.ts";
import { check, checkMilliseconds, checkNumber, checkType } from "./internal/check.ts";
import { GRACE, HttpConnections } from "./internal/http-connections.ts";
import { type Observer, observer } from "./internal/observer.ts";
import { type Place, placeOf } from "./internal/place.ts";
import { sleep, startTimer } from "./internal/time.ts";
import type { Task } from "./task.ts";

/** Where a server listens: at a path, or else at a port. */
export interface HttpListenOptions {
  port?: number | undefined;
  host?: string | undefined;
  path?: string | undefined;
}

/** Timeouts and delays are in milliseconds; a timeout of `Infinity`, or more than 2^31-1, is no limit. */
export interface HttpServerOptions {
  /** @default "http" */
  name?: string | undefined;
  /** 0 is any free one. @default 0 */
  port?: number | undefined;
  /** Which addresses of the machine. @default all */
  host?: string | undefined;
  /** A unix socket, or a pipe of Windows, instead of port and host. @default undefined */
  path?: string | undefined;
  /** Listens instead of `server.listen`; the task is ready when it is done. @default undefined */
  listen?: ((server: Server, options: HttpListenOptions) => PromiseLike<unknown>) | undefined;
  /**
   * How long it goes on serving after the stop, so that whoever routes clients to it hears of that first. Above the
   * pauses that clients make on their connections, none of them sees an error. (One of HTTP/2 that asks several things
   * at once may have one refused, unprocessed, when its session ends, and repeats that on a new one.) @default 0
   */
  drainDelay?: number | undefined;
  /** How long requests in flight may take after that. @default 10_000 */
  drainTimeout?: number | undefined;
  /** Is told what was drained. @default `onEvent` of the manager that runs it */
  onEvent?: ((event: LifecycleEvent) => void) | undefined;
}

/**
 * Runs a server of `node:http`, `node:https` or `node:http2`, whatever framework is behind it, and drains it.
 *
 * At the stop it goes on serving for `drainDelay`, and its answers say `Connection: close`. Then it closes the
 * listener, and every connection once nothing has gone on over it for 50 milliseconds, as what was sent before is on
 * its way. Each request that a handler got is answered in full, unless `drainTimeout` passes, when what is left is
 * destroyed. (`server.close()` waits for clients that never ask, or were upgraded, and cuts the end of answers.)
 *
 * Upgraded connections, such as WebSockets, are open until you close them, at the stop, or until `drainTimeout`.
 *
 * A server that listens already is adopted; one that is only about to is not. Its connections are tracked from the
 * construction of the task on, which is one for a single run, and has what a service of a `ServiceGroup` has. If
 * somebody else closes the server, it returns.
 *
 * Event: `http-drained`. The order of the steps is that of Kubernetes' endpoints, and of `Server.Shutdown` in Go.
 *
 * @example Answers what it was asked before the stop
 * ```ts
 * import { createServer } from "node:http";
 * import type { AddressInfo } from "node:net";
 * import { setTimeout as sleep } from "node:timers/promises";
 * import { Manager } from "allstop";
 * import { HttpServerTask } from "allstop/http";
 *
 * const http = new HttpServerTask(
 *   createServer(async (_, response) => {
 *     void manager.stop(); // in the middle of a request
 *     await sleep(20);
 *     response.end("here you are");
 *   }),
 *   { host: "127.0.0.1" },
 * );
 * const manager = new Manager();
 * manager.run(http);
 * await http.ready();
 * const { port } = http.address as AddressInfo;
 * const answer = await fetch(`http://127.0.0.1:${port}`);
 * console.log(await answer.text(), answer.headers.get("connection")); // prints here you are close
 * await manager.wait();
 * console.log(http.address); // prints null
 * ```
 */
export class HttpServerTask implements Task {
  readonly name: string;
  readonly #server: Server;
  readonly #connections: HttpConnections;
  readonly #listenOptions: HttpListenOptions;
  readonly #listen: HttpServerOptions["listen"];
  readonly #drainDelay: number;
  readonly #drainTimeout: number;
  readonly #onEvent: Observer | undefined;
  #started = false;
  #stoppedAt = Infinity;
  #opened!: () => void;
  #gaveUp!: (reason: unknown) => void;
  readonly #ready = new Promise<void>((resolve, reject) => {
    this.#opened = resolve;
    this.#gaveUp = reject;
  });

  /**
   * @param server - Of `node:http`, `node:https` or `node:http2`; not the application of a framework, which has one.
   * @throws {TypeError} If it is none, or an option has the wrong type.
   * @throws {RangeError} If `port` is no whole number from 0 to 65535, or a delay or timeout is below 0.
   */
  constructor(server: Server, options: HttpServerOptions = {}) {
    const action = "create an HttpServerTask";
    checkType(action, "options", "object", options);
    const { name = "http", port = 0, host, path, listen, onEvent } = options;
    const { drainDelay = 0, drainTimeout = 10_000 } = options;
    check(typeof server?.address === "function", action, "server must be of http, https or http2", server);
    checkType(action, "name", "string", name);
    const isPort = Number.isInteger(port) && (port & 65_535) === port;
    checkNumber(action, "port", port, isPort, "a whole number from 0 to 65535");
    if (host !== undefined) checkType(action, "host", "string", host);
    if (path !== undefined) checkType(action, "path", "string", path);
    if (listen !== undefined) checkType(action, "listen", "function", listen);
    checkMilliseconds(action, "drainDelay", drainDelay);
    checkMilliseconds(action, "drainTimeout", drainTimeout);

    this.name = name;
    this.#server = server;
    this.#listenOptions = path === undefined ? { port, host } : { path };
    this.#listen = listen;
    this.#drainDelay = drainDelay;
    this.#drainTimeout = drainTimeout;
    this.#onEvent = observer(action, onEvent);
    this.#connections = new HttpConnections(server);
    // To be awaited late, or never, is no unhandled rejection.
    this.#ready.catch(() => {});
  }

  /** Where the server listens, as its own `address()` tells. */
  get address(): AddressInfo | string | null {
    return this.#server.address();
  }

  /** Whether it was told to stop; which is when a readiness probe should fail, while it still serves. */
  get stopping(): boolean {
    return this.#stoppedAt < Infinity;
  }

  /** @returns A promise that resolves when it listens; it rejects with the failure, or the reason of the stop. */
  ready(): Promise<void> {
    return this.#ready;
  }

  /**
   * @returns A promise that resolves when the server is closed: drained after a stop, or closed by somebody else.
   * @throws {TaskAlreadyStartedError} If it ran before.
   */
  async run(signal: AbortSignal): Promise<void> {
    const place = placeOf(signal, this.name, this.#onEvent);
    if (this.#started) throw new TaskAlreadyStartedError(place.task);
    this.#started = true;
    const unlisten = onAbort(signal, () => {
      this.#stoppedAt = performance.now();
      this.#connections.stop();
    });
    try {
      if (!signal.aborted || this.#server.listening) await this.#serve(signal, place);
    } catch (error) {
      // Closed, a server that looks up its host does not go on.
      if (this.#server.listening || this.#listen) this.#server.close();
      this.#gaveUp(error);
      throw error;
    } finally {
      unlisten();
      this.#connections.release();
      this.#gaveUp(signal.reason ?? this.#connections.closed.reason);
    }
  }

  /**
   * For a subclass that is needed beyond `drainDelay`: it goes on serving until the promise that this returns settles,
   * or until `signal` aborts, which is when `drainTimeout` has passed.
   *
   * @param _task - The full name of the task.
   */
  protected needed(_task: string, _signal: AbortSignal): unknown {
    return undefined;
  }

  async #serve(signal: AbortSignal, place: Place): Promise<void> {
    let isOpen = false;
    const opening = this.#open();
    const serving = opening.then(() => {
      isOpen = true;
      this.#opened();
      return new Promise(() => {});
    });
    await untilAborted(signal, untilAborted(this.#connections.closed, serving));
    if (!isOpen && !this.#server.listening) {
      // Should that still come, it comes too late.
      opening.then(() => this.#server.close(), () => {});
    } else if (signal.aborted) await this.#drain(place);
  }

  async #open(): Promise<void> {
    if (this.#server.listening) return;
    if (this.#listen) await this.#listen(this.#server, this.#listenOptions);
    else {
      this.#server.listen(this.#listenOptions);
      await this.#connections.listening();
    }
  }

  async #drain({ task, onEvent }: Place): Promise<void> {
    const { closed } = this.#connections;
    const timeout = new AbortController();
    await sleep(this.#drainDelay, closed);
    const timer = startTimer(this.#drainTimeout, () => timeout.abort());
    await untilAborted(timeout.signal, this.needed(task, timeout.signal));
    await this.#connections.accept(timeout.signal);
    this.#connections.close();
    while (!closed.aborted && !timeout.signal.aborted) {
      await untilAborted(timeout.signal, sleep(GRACE, closed));
      this.#connections.sweep();
    }
    clearTimeout(timer);
    const destroyed = timeout.signal.aborted ? this.#connections.destroy() : 0;
    // Sockets need a moment to be gone; those from before the server was watched may stay.
    if (timeout.signal.aborted) await sleep(GRACE, closed);
    onEvent?.({
      type: "http-drained",
      task,
      requests: this.#connections.requests,
      destroyed,
      elapsed: performance.now() - this.#stoppedAt,
    });
  }
}
