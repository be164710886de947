import { once } from "node:events";
import { Session } from "node:inspector";
import type { Server, Socket } from "node:net";
import { Manager } from "allstop";
import { type AdminServerOptions, AdminServerTask } from "allstop/admin";
import { EventLog } from "allstop/testing";
import { afterAll, expect, type Mock, vi } from "vitest";
import { type Answer, RawClient, useHttp } from "./http.ts";

/** To disconnect from the inspector ends the measuring of coverage of the whole process, so here nobody does. */
export const disconnecting: Mock = vi.spyOn(Session.prototype, "disconnect").mockImplementation(() => {});

/** What every answer has. */
export const SAFE = { "cache-control": "no-store", "x-content-type-options": "nosniff" } as const;

/** What was started in a file. */
const runs: AdminRun[] = [];

/** Checks after the last test of a file that every run ends in order, and that nothing is left of it. */
export function useAdmin(): void {
  useHttp();
  afterAll(async () => {
    const ended = runs.splice(0).map(async ({ manager, task }) => {
      await manager.stop().catch(() => {});
      return { pending: manager.pending, address: task.address };
    });
    for (const left of await Promise.all(ended)) {
      expect([null, expect.any(String)]).toContainEqual(left.address);
      expect(left.pending).toEqual([]);
    }
  });
}

/** How something is asked for: with a `host` of null, without such a header. */
export interface Question {
  readonly method?: string;
  readonly host?: string | null;
  readonly version?: "1.0" | "1.1";
  /** More lines of the header. */
  readonly header?: readonly string[];
  /** The address of the client. */
  readonly localAddress?: string;
}

/** What is sent for it. */
export function question(path: string, { method = "GET", host = "localhost", version, header }: Question = {}): string {
  const hosts = host === null ? [] : [`Host: ${host}`];
  return [`${method} ${path} HTTP/${version ?? "1.1"}`, ...hosts, ...(header ?? []), "", ""].join("\r\n");
}

/** A connection to what listens, on which this is sent. */
export async function clientOf({ address }: AdminServerTask, first = "", localAddress?: string): Promise<RawClient> {
  if (address === null) throw new Error("It does not listen");
  if (typeof address === "string") return RawClient.open({ path: address }, first);
  return RawClient.open({ host: "127.0.0.1", port: address.port, ...(localAddress && { localAddress }) }, first);
}

/** An AdminServerTask in a manager. */
export class AdminRun {
  readonly log: EventLog = new EventLog();
  readonly manager: Manager;
  readonly task: AdminServerTask;

  /** @param options - May need to know the manager. */
  constructor(options: AdminServerOptions | ((manager: Manager) => AdminServerOptions) = {}) {
    this.manager = new Manager({ onEvent: this.log.observe });
    this.task = new AdminServerTask({ port: 0, ...(typeof options === "function" ? options(this.manager) : options) });
    this.manager.run(this.task);
    runs.push(this);
  }

  /** A connection to it, on which this is sent. */
  client(first = "", localAddress?: string): Promise<RawClient> {
    return clientOf(this.task, first, localAddress);
  }

  /** Asks by a connection of its own, and reads that to its end. */
  async ask(path = "/", options: Question = {}): Promise<Answer> {
    const client = await this.client("", options.localAddress);
    client.send(question(path, { ...options, header: ["Connection: close", ...(options.header ?? [])] }));
    const end = await client.closed;
    const [answer] = client.answers(options.method);
    if (!answer?.isComplete) throw new Error(`It was ${end} with ${JSON.stringify(client.text)}`);
    return { ...answer, body: Buffer.from(answer.body, "latin1").toString() };
  }

  /** How long its task took to end, from the stop on, once it has. */
  async stopping(): Promise<number> {
    const stoppedAt = performance.now();
    this.manager.stop().catch(() => {});
    await this.log.until("task-ended", ({ task }) => task === this.task.name);
    return performance.now() - stoppedAt;
  }
}

/** Runs one, and resolves when it listens. */
export async function serveAdmin(
  options: AdminServerOptions | ((manager: Manager) => AdminServerOptions) = {},
): Promise<AdminRun> {
  const run = new AdminRun(options);
  await run.task.ready();
  return run;
}

/** Listens as the server does by itself; `onServer` is told of it before. */
export function listening(onServer: (server: Server) => void): NonNullable<AdminServerOptions["listen"]> {
  return async (server, options) => {
    onServer(server);
    server.listen(options);
    await once(server, "listening");
  };
}

/** Listens on loopback, and sees the clients as if they came from this address. */
export function seenFrom(remoteAddress: string | undefined): AdminServerOptions {
  const pretend = (socket: Socket): void => {
    Object.defineProperty(socket, "remoteAddress", { value: remoteAddress });
  };
  return { listen: listening((server) => server.prependListener("connection", pretend)) };
}

/** A part of a page. */
export interface Element {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly (Element | string)[];
}

const ENTITIES: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'" };
/** In what each of these may be; what is not here may be anywhere. */
const PARENTS: Readonly<Record<string, readonly string[]>> = {
  head: ["html"],
  body: ["html"],
  meta: ["head"],
  title: ["head", "svg"],
  style: ["head"],
  main: ["body"],
  script: ["body"],
  header: ["main"],
  section: ["main"],
  details: ["main"],
  summary: ["details"],
  thead: ["table"],
  tbody: ["table"],
  tr: ["thead", "tbody"],
  th: ["tr"],
  td: ["tr"],
  rect: ["svg"],
  line: ["svg"],
};
const VOID = ["meta"];
const RAW = ["style", "script"];

/**
 * Reads a page far more strictly than a browser does: each element is closed, in order, and is where it may be, each
 * attribute is quoted and there once, and in a text there is no `& < > " '` that is not escaped, and no control
 * character.
 *
 * @throws If that is not so.
 */
export function parsePage(html: string): Element {
  const root: Element & { children: (Element | string)[] } = { name: "", attributes: {}, children: [] };
  const open = [root];
  let at = 0;
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const found = pattern.exec(html);
    if (found) at += found[0].length;
    return found;
  };
  const refuse = (why: string): never => {
    throw new Error(
      `${why} at ${JSON.stringify(html.slice(at, at + 80))}, in ${open.map(({ name }) => name).join(" ")}`,
    );
  };
  if (!take(/<!doctype html>\n/y)) refuse("There is no doctype");
  while (at < html.length) {
    const parent = open.at(-1) ?? refuse("All was closed");
    const text = take(/(?:[^<>&"'\p{Cc}]|\n)+/uy);
    if (text) {
      parent.children.push(text[0]);
      continue;
    }
    const entity = take(/&([a-z]+|#39);/y);
    if (entity) {
      parent.children.push(ENTITIES[entity[1] ?? ""] ?? refuse("An unknown entity is"));
      continue;
    }
    const end = take(/<\/([a-z][a-z\d]*)>/y);
    if (end) {
      if (open.pop()?.name !== end[1]) refuse(`${end[1]} was closed before what is in it`);
      continue;
    }
    const start = take(/<([a-z][a-z\d]*)((?: hidden| [a-z][a-z\d:-]*="[^"<>&']*")*)(\/?)>/iy) ?? refuse("No markup is");
    const [, name = "", rest = "", slash] = start;
    const attributes: Record<string, string> = {};
    for (const [, attribute = "", value = ""] of rest.matchAll(/ ([^ =]+)(?:="([^"]*)")?/g)) {
      if (attribute in attributes) refuse(`There are two ${attribute}`);
      attributes[attribute] = value;
    }
    if (PARENTS[name]?.includes(parent.name) === false) refuse(`There is ${name} in ${parent.name}`);
    const element = { name, attributes, children: [] as (Element | string)[] };
    parent.children.push(element);
    if (slash !== "" && !open.some((above) => above.name === "svg")) refuse(`${name} cannot close itself`);
    if (RAW.includes(name)) {
      const raw = html.slice(at, html.indexOf(`</${name}>`, at));
      element.children.push(raw);
      at += raw.length + name.length + 3;
    } else if (slash === "" && !VOID.includes(name)) open.push(element);
  }
  if (open.length > 1) refuse("Something is not closed");
  return root;
}

/** All elements of this name in another, in order; all at all without a name. */
export function all(element: Element, name?: string): Element[] {
  return element.children.flatMap((child) =>
    typeof child === "string"
      ? []
      : [...(name === undefined || child.name === name ? [child] : []), ...all(child, name)],
  );
}

/** The first of this name, which must be there. */
export function first(element: Element, name: string): Element {
  const [found] = all(element, name);
  if (!found) throw new Error(`There is no ${name}`);
  return found;
}

/** What a person reads of it. */
export function textOf(element: Element): string {
  return element.children.map((child) => (typeof child === "string" ? child : textOf(child))).join("");
}

/** The rows of each table, by the heading above it. Pictures are left out. */
export function tablesOf(page: Element): Record<string, string[][]> {
  const sections = all(page, "section").filter(({ children }) => children.length);
  return Object.fromEntries(
    sections.map((section) => [
      textOf(first(section, "h2")),
      all(first(section, "tbody"), "tr").map((row) =>
        row.children.map((cell) => (typeof cell === "string" || all(cell, "svg").length ? "" : textOf(cell))),
      ),
    ]),
  );
}

/** The page that it shows now. */
export async function pageOf(run: AdminRun): Promise<Element> {
  const { status, body } = await run.ask("/");
  expect(status).toBe(200);
  return parsePage(body);
}
