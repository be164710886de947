/*
 * A program of a user, which uses all that allstop/http exports. It is compiled, never run.
 */
import { createServer } from "node:http";
import { createSecureServer } from "node:http2";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo, Server } from "node:net";
import { type LifecycleEvent, Manager, OsSignalTask, type Task } from "allstop";
import { type HttpListenOptions, HttpServerTask, type HttpServerOptions } from "allstop/http";
import { type Service, ServiceGroup } from "allstop/services";

const options: HttpServerOptions = {
  name: "api",
  port: 8080,
  host: "127.0.0.1",
  listen,
  drainDelay: 5_000,
  drainTimeout: Infinity,
  onEvent: observe,
};

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults: Task = new HttpServerTask(createServer(), {
  name: undefined,
  port: undefined,
  host: undefined,
  path: undefined,
  listen: undefined,
  drainDelay: undefined,
  drainTimeout: undefined,
  onEvent: undefined,
});

export const others: readonly Service[] = [
  new HttpServerTask(createHttpsServer({ key: "", cert: "" })),
  new HttpServerTask(createSecureServer({ allowHTTP1: true }), { path: "/run/api.sock" }),
];

export async function main(): Promise<void> {
  const server = createServer((_, response) => {
    response.writeHead(http.stopping ? 503 : 200).end();
  });
  const http = new HttpServerTask(server, options);
  // @ts-expect-error A server is needed.
  new HttpServerTask();
  // @ts-expect-error An unknown option is a type error.
  new HttpServerTask(server, { timeout: 1 });
  // @ts-expect-error It says itself whether it was told to stop.
  http.stopping = true;

  const manager = new Manager();
  manager.run(new OsSignalTask(), new ServiceGroup([http]));
  const ready: Promise<void> = http.ready();
  await ready;
  const address: AddressInfo | string | null = http.address;
  const name: string = http.name;
  console.log(name, typeof address === "object" ? address?.port.toFixed() : address.toUpperCase());
  const run: Promise<void> = http.run(manager.signal);
  await run;
  await manager.wait();
}

async function listen(server: Server, { port, host, path }: HttpListenOptions): Promise<void> {
  const where: readonly (string | number | undefined)[] = [port, host, path];
  await new Promise<void>((resolve) => server.listen({ port, host, path }, resolve));
  console.log(...where);
}

function observe(event: LifecycleEvent): void {
  if (event.type !== "http-drained") return;
  const { task, requests, destroyed, elapsed } = event;
  console.log(task.toUpperCase(), requests + destroyed, elapsed.toFixed());
}
