/**
 * A server for who looks after a program: a page, probes, metrics, profiles.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import { getHeapSnapshot } from "node:v8";
import { type HttpServerOptions, HttpServerTask } from "./http.ts";
import { onAbort, untilAborted } from "./internal/abort.ts";
import { adminPage } from "./internal/admin-page.ts";
import type { AdminComponent } from "./internal/admin-view.ts";
import { check, checkType } from "./internal/check.ts";
import { cpuProfile } from "./internal/profile.ts";
import { sleep, startTimer, type Timer } from "./internal/time.ts";

export type { AdminComponent } from "./internal/admin-view.ts";

/** Where the health of the program is known: a `Health`. */
export interface AdminHealth {
  snapshot(): {
    readonly status: string;
    readonly components: Readonly<Record<string, AdminComponent>>;
  };
}

/** Where its numbers are known: a `Metrics`, or a registry of prom-client. */
export type AdminMetrics =
  | { render(): string; readonly contentType?: string }
  | { metrics(): string | PromiseLike<string>; readonly contentType: string };

/** Where it is known who ran when: a `Timeline`. */
export interface AdminTimeline {
  toText(options: { width: number }): string;
  toTrace?(): string;
}

/** A `Manager`. */
export interface AdminManager {
  readonly signal: AbortSignal;
  readonly pending: readonly string[];
  readonly failures?: readonly { readonly source: string; readonly error: Error }[];
}

/** Those of an {@link HttpServerTask}, but for three defaults; and what the server tells of. */
export interface AdminServerOptions extends HttpServerOptions {
  /** @default "admin" */
  name?: string | undefined;
  /** @default 9464 */
  port?: number | undefined;
  /** @default "127.0.0.1" */
  host?: string | undefined;
  health?: AdminHealth | undefined;
  /** Whether the program is ready: not if it gives `false`, throws, or takes more than a second. @default it is */
  ready?: (() => unknown) | undefined;
  /** A `ServiceGroup`. @default undefined */
  services?: { readonly states: Readonly<Record<string, string>> } | undefined;
  metrics?: AdminMetrics | undefined;
  timeline?: AdminTimeline | undefined;
  /** The one that runs this task: while its other tasks stop, this one goes on answering. */
  manager?: AdminManager | undefined;
  /** Whether there is `/debug`: profiles and heap snapshots tell what the program is made of. @default false */
  profiling?: boolean | undefined;
}

/** What is asked for. */
interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly query: URLSearchParams;
  /** Whether who asks may see details. */
  readonly isLocal: boolean;
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Without one, it is not known how long it would be. */
  readonly body?: string;
}

/** Gives nothing if it has answered by itself. */
type Route = (call: Call) => Answer | undefined | Promise<Answer | undefined>;

/** For the promise of the option `ready`, in milliseconds. */
const READY_TIMEOUT = 1_000;

/** How often it asks whether the other tasks have ended, in milliseconds. */
const POLL = 5;

/** How long it waits for its own clients once it is alone, in milliseconds. */
const LINGER = 1_000;

/** For a profile. */
const MAX_SECONDS = 60;

const BUSY = "Another profile is being made";

const COMMON = { "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff" };

/**
 * A server for who looks after a program.
 *
 * `/` is a page for people: tasks, services, health, failures and the timeline. `/health` answers 503 while the whole
 * is unhealthy, and `/ready` unless `ready()` holds, and from the first instant of the stop; both else 200. `/metrics`
 * is there if there are any, and with `profiling` also `/debug/profile?seconds=5` (a `.cpuprofile` of at most 60
 * seconds, one at a time), `/debug/heap` (a `.heapsnapshot`) and `/debug/resources` (what keeps the process alive).
 * All of them are for GET and HEAD.
 *
 * It listens on loopback, unless told otherwise. What goes beyond a status, `/metrics` aside, is told to clients of
 * loopback only; and of these to none that came by another name, such as a page that a browser was lured to.
 *
 * Run it in the manager that it is given, which should have no other of its kind. While that stops, which is when
 * probes and page are needed most, it goes on answering until the other tasks have ended, or `drainTimeout` has passed,
 * which is for that and its own drain; its own clients it then gives a second at most. So it is always among the last
 * to end, though it holds up nothing. A profile ends with the stop, or, if it was asked for later, with the others.
 *
 * @example With a health page, and a readiness probe
 * ```ts
 * import { Manager } from "allstop";
 * import { AdminServerTask } from "allstop/admin";
 * import { Health } from "allstop/health";
 *
 * const manager = new Manager();
 * const health = new Health();
 * const admin = new AdminServerTask({ port: 0, manager, health, ready: () => health.snapshot().status === "healthy" });
 * manager.runBackground(admin, health);
 * health.component("database").report("starting");
 *
 * await admin.ready();
 * const { port } = admin.address as import("node:net").AddressInfo;
 * const answer = await fetch(`http://127.0.0.1:${port}/ready`);
 * console.log(answer.status); // prints 503
 * await manager.stop();
 * ```
 */
export class AdminServerTask extends HttpServerTask {
  readonly #sources: AdminServerOptions;
  readonly #hosts: readonly string[];
  readonly #routes = new Map<string, Route>();
  readonly #server: Server;
  /** Ends the profile that is being made. */
  #end = new AbortController();
  #isProfiling = false;
  #timer: Timer | undefined;

  /**
   * @throws {TypeError} If an option has the wrong type, or lacks what it is asked for.
   * @throws {RangeError} If `port` is no whole number from 0 to 65535, or a delay is below 0.
   */
  constructor(options: AdminServerOptions = {}) {
    const action = "create an AdminServerTask";
    checkType(action, "options", "object", options ?? undefined);
    const { name = "admin", port = 9464, host = "127.0.0.1", profiling = false } = options;
    const { health, ready, services, metrics, timeline, manager } = options;
    const holds = (option: string, source: object | undefined, ...members: readonly string[]): void => {
      const isOne = source === undefined || members.every((member) => member in Object(source));
      check(isOne, action, `${option} must have ${members.join(" and ")}`, source);
    };
    holds("health", health, "snapshot");
    holds("services", services, "states");
    holds("metrics", metrics, metrics && "metrics" in Object(metrics) ? "metrics" : "render");
    holds("timeline", timeline, "toText");
    holds("manager", manager, "signal", "pending");
    if (ready !== undefined) checkType(action, "ready", "function", ready);
    checkType(action, "profiling", "boolean", profiling);

    const server = createServer();
    super(server, { ...options, name, port, host });
    server.on("request", (request, response) => this.#respond(request, response));
    this.#server = server;
    this.#sources = options;
    this.#hosts = ["localhost", "127.0.0.1", "[::1]", host.toLowerCase(), `[${host.toLowerCase()}]`];
    this.#routes.set("/", () => this.#page());
    this.#routes.set("/health", (call) => this.#health(call));
    this.#routes.set("/ready", (call) => this.#readiness(call));
    if (metrics) this.#routes.set("/metrics", () => metricsOf(metrics));
    if (profiling) {
      this.#routes.set("/debug/profile", (call) => this.#profile(call));
      this.#routes.set("/debug/heap", (call) => this.#heap(call));
      this.#routes.set("/debug/resources", () => json(process.getActiveResourcesInfo()));
    }
  }

  /** As that of an {@link HttpServerTask}. */
  override async run(signal: AbortSignal): Promise<void> {
    const unlisten = onAbort(signal, () => this.#endProfile());
    await super.run(signal).finally(() => {
      unlisten();
      clearTimeout(this.#timer);
    });
  }

  /** Goes on while the manager that runs it waits for others. */
  protected override async needed(task: string, signal: AbortSignal): Promise<void> {
    const { manager } = this.#sources;
    // Another manager would wait for it as well.
    if (manager?.pending.includes(task)) {
      while (manager.pending.length > 1 && !signal.aborted) await sleep(POLL, signal);
    }
    // Whoever has not read an answer by then is not worth to be waited for.
    this.#endProfile();
    this.#timer = startTimer(LINGER, () => this.#server.closeAllConnections());
  }

  #endProfile(): void {
    this.#end.abort();
    this.#end = new AbortController();
  }

  get #isStopping(): boolean {
    return this.stopping || this.#sources.manager?.signal.aborted === true;
  }

  async #respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const answer = await this.#answer(request, response);
      if (answer) send(response, answer);
    } catch {
      // What is thrown may tell more than anybody should know.
      send(response, plain("A source failed", 500));
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<Answer | undefined> {
    const { method = "", url = "", headers, socket } = request;
    const { remoteAddress } = socket;
    // A unix socket has no addresses, and no browser comes by one.
    const isUnix = typeof this.address === "string";
    const isLocal = isUnix || /^(::ffff:)?127\.|^::1$/.test(remoteAddress ?? "");
    const host = headers.host?.replace(/:\d*$/, "").toLowerCase();
    if (isLocal && !isUnix && host !== undefined && !this.#hosts.includes(host)) return plain("Forbidden host", 403);
    if (method !== "GET" && method !== "HEAD") return plain("Only GET and HEAD", 405, { Allow: "GET, HEAD" });
    const [path = "", query] = url.split("?");
    const route = this.#routes.get(path);
    if (!route) return plain("Not found", 404);
    if (!isLocal && /^\/(debug|$)/.test(path)) return plain("Only for clients of this machine", 403);
    // Some page on the web can make a browser ask for a profile, though not read it.
    const isForeign = headers["sec-fetch-site"] === "cross-site" && path.startsWith("/debug");
    if (isForeign) return plain("Not for other sites", 403);
    return route({ request, response, query: new URLSearchParams(query), isLocal });
  }

  #health({ isLocal }: Call): Answer {
    const snapshot = this.#sources.health?.snapshot() ?? { status: "healthy" };
    const { status } = snapshot;
    return json(isLocal ? snapshot : { status }, status === "unhealthy" ? 503 : 200);
  }

  async #readiness({ response }: Call): Promise<Answer> {
    const { ready } = this.#sources;
    let isReady = false;
    const timeout = new AbortController();
    const timer = startTimer(READY_TIMEOUT, () => timeout.abort());
    response.on("close", () => timeout.abort());
    const ask = async (): Promise<void> => {
      isReady = (await ready?.()) !== false;
    };
    if (!this.#isStopping) await untilAborted(timeout.signal, ask()).catch(() => {});
    clearTimeout(timer);
    return isReady && !this.#isStopping ? plain("Ready") : plain("Not ready", 503);
  }

  async #profile({ request, query }: Call): Promise<Answer | undefined> {
    const seconds = Number(query.get("seconds") ?? 5);
    const isValid = seconds > 0 && seconds <= MAX_SECONDS;
    if (!isValid) return plain(`seconds must be above 0 and at most ${MAX_SECONDS}`, 400);
    if (this.#isProfiling) return plain(BUSY, 409);
    const headers = attachment("application/json", "cpuprofile");
    if (request.method === "HEAD") return { status: 200, headers };
    this.#isProfiling = true;
    const over = new AbortController();
    const end = (): void => over.abort();
    const unlisten = onAbort(this.#end.signal, end);
    // An answer that waits for another one would not tell.
    request.socket.on("close", end);
    try {
      return { status: 200, headers, body: await cpuProfile(seconds * 1_000, over.signal) };
    } finally {
      unlisten();
      request.socket.off("close", end);
      this.#isProfiling = false;
    }
  }

  async #heap({ request, response }: Call): Promise<Answer | undefined> {
    const headers = attachment("application/json", "heapsnapshot");
    if (request.method === "HEAD") return { status: 200, headers };
    if (this.#isProfiling) return plain(BUSY, 409);
    const snapshot = getHeapSnapshot();
    this.#isProfiling = true;
    response.writeHead(200, { ...COMMON, ...headers });
    // It fails when the client hangs up.
    await pipeline(snapshot, response).catch(() => {});
    this.#isProfiling = false;
    return undefined;
  }

  #page(): Answer {
    const nonce = randomUUID();
    const policy = [
      "default-src 'none'",
      `style-src 'nonce-${nonce}'`,
      `script-src 'nonce-${nonce}'`,
      "connect-src 'self'",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ];
    return {
      status: 200,
      headers: { "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy.join("; ") },
      body: adminPage(this.name, this.#isStopping, this.#sources, nonce),
    };
  }
}

function send(response: ServerResponse, { status, headers, body }: Answer): void {
  const length = body !== undefined && { "Content-Length": Buffer.byteLength(body) };
  response.writeHead(status, { ...COMMON, ...headers, ...length }).end(body);
}

function plain(text: string, status = 200, headers: Answer["headers"] = {}): Answer {
  return { status, headers: { "Content-Type": "text/plain; charset=utf-8", ...headers }, body: `${text}\n` };
}

function json(value: unknown, status = 200): Answer {
  return { status, headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
}

async function metricsOf(metrics: AdminMetrics): Promise<Answer> {
  const type = metrics.contentType ?? "text/plain; version=0.0.4; charset=utf-8";
  const body = await ("render" in metrics ? metrics.render() : metrics.metrics());
  return { status: 200, headers: { "Content-Type": type }, body };
}

function attachment(type: string, extension: string): Answer["headers"] {
  return { "Content-Type": type, "Content-Disposition": `attachment; filename="${Date.now()}.${extension}"` };
}
