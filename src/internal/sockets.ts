import { once } from "node:events";
import { closeSync, existsSync, linkSync, rmSync, statSync } from "node:fs";
import { Server } from "node:net";
import { dirname, join, resolve } from "node:path";
import { LINE } from "./respawn.ts";

/** Where a server listens: at a path, or else at a port. */
export interface ListenOptions {
  port?: number | undefined;
  host?: string | undefined;
  path?: string | undefined;
}

/** A server, where it listens, that as text, and the open file that it does so with, if that is inherited. */
interface Listening {
  readonly server: Server;
  readonly place: ListenOptions;
  readonly key: string;
  readonly file?: number;
}

/** The sockets that servers of this process listen with: its own, or those of the process that it replaces. */
export class Sockets {
  /** The places of servers, in the order of the calls, by which equal ones are told apart. */
  readonly #keys = new Map<Server, string>();
  /** The places of inherited ones that nobody has claimed, in their order. */
  readonly #unclaimed: string[];
  /** What listens only when this process takes over; absent in one that listens at once. */
  #claims: Listening[] | undefined;
  #isHandedOn = false;

  /** @param inherited - The places of what this process has inherited, in order, if it is to replace another one. */
  constructor(inherited?: string[]) {
    this.#unclaimed = inherited ?? [];
    /* v8 ignore next -- only a process that an upgrade has started inherits something: upgrade-generations.test.ts */
    this.#claims = inherited && [];
  }

  /** What can be handed on to another process: open files, and what that has to know of them. */
  get inheritance(): { readonly keys: string[]; readonly files: readonly number[] } {
    const listening = [...this.#keys].filter(([server]) => server.listening);
    return { keys: listening.map(([, key]) => key), files: listening.map(([server]) => fileOf(server)) };
  }

  async listen(server: Server, { port = 0, host, path }: ListenOptions): Promise<void> {
    const place = path === undefined ? { port, host } : { path: resolve(path) };
    const key = JSON.stringify(place);
    if (!server.listening) this.#keys.set(server, key);
    // Of a server that listens already, Node itself says that it cannot do so again.
    /* v8 ignore start -- the rest runs only in a process that an upgrade has started: upgrade-generations.test.ts */
    if (!this.#claims || server.listening) return this.#open({ server, place, key });
    const index = this.#unclaimed.indexOf(key);
    // It leaves a hole, so that the others keep their numbers.
    delete this.#unclaimed[index];
    this.#claims.push({ server, place, key, ...(index >= 0 && { file: LINE + 1 + index }) });
  }
  /* v8 ignore stop */

  /**
   * Listens at the places that the other process had not. They may be taken, so this comes first.
   *
   * @returns What does the rest, which cannot fail: it listens with what is inherited, or closes that.
   */
  async open(): Promise<() => Promise<void>> {
    /* v8 ignore start -- there are claims only in a process that an upgrade has started: upgrade-generations.test.ts */
    const claims = this.#claims ?? [];
    this.#claims = undefined;
    await Promise.all(claims.map((claim) => claim.file ?? this.#open(claim)));
    return async () => {
      this.#unclaimed.forEach((key, index) => {
        closeSync(LINE + 1 + index);
        const { path } = JSON.parse(key) as ListenOptions;
        if (path !== undefined) rmSync(path, { force: true });
      });
      await Promise.all(claims.map((claim) => claim.file && this.#open(claim)));
    };
    /* v8 ignore stop */
  }

  /** Listens no more, as another process does so now with the same sockets, which has their names, too. */
  handOn(): void {
    this.#isHandedOn = true;
    // Connections are none of its business; that of a server of HTTP closes the idle ones.
    this.#keys.forEach((_, server) => server.listening && Server.prototype.close.call(server));
  }

  async #open({ server, place, file }: Listening): Promise<void> {
    const { path } = place;
    /* v8 ignore next -- as above */
    await (file ? listen(server, { fd: file }) : listenAt(server, place));
    const inode = path === undefined ? 0 : inodeOf(path);
    // It knows at most the name that the socket was made with.
    if (path !== undefined) (server as Server & { _pipeName: string })._pipeName = path;
    server.once("close", () => {
      this.#keys.delete(server);
      // It may be somebody else's by now.
      if (path !== undefined && !this.#isHandedOn && inodeOf(path) === inode) rmSync(path);
    });
  }
}

/** Listens at a place of its own. */
async function listenAt(server: Server, place: ListenOptions): Promise<void> {
  const { path } = place;
  // What is there is somebody else's, which Node itself has an error for.
  if (path === undefined || existsSync(path)) return listen(server, place);

  // With a server, the name that its socket was made with is gone, and whoever took it over needs this one. The other
  // is short, as the system takes only some hundred bytes of a path.
  const made = join(dirname(path), Math.random().toString(36).slice(-4));
  await listen(server, { path: made });
  try {
    linkSync(made, path);
  } catch (error) {
    server.close();
    throw error;
  } finally {
    rmSync(made, { force: true });
  }
}

async function listen(server: Server, options: ListenOptions | { fd: number }): Promise<void> {
  server.listen(options);
  await once(server, "listening");
}

/** No API tells the number of a server's open file; `spawn` itself reads it there when it is given a socket. */
function fileOf(server: Server): number {
  return (server as Server & { _handle: { fd: number } })._handle.fd;
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}
