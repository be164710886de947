/*
 * A program of a user, which uses all that allstop/upgrade exports. It is compiled, never run.
 */
import { createServer } from "node:http";
import { createServer as createTcpServer, type Server } from "node:net";
import { type LifecycleEvent, Manager, type Task } from "allstop";
import { HttpServerTask } from "allstop/http";
import { type UpgradeListenOptions, type UpgradeOptions, UpgradeTask } from "allstop/upgrade";

const options: UpgradeOptions = {
  name: "replace",
  signals: ["SIGUSR2"],
  readyTimeout: Infinity,
  command: [process.execPath, "next.js"] as const,
  onEvent: observe,
};

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults: Task & Disposable = new UpgradeTask({
  name: undefined,
  signals: undefined,
  readyTimeout: undefined,
  command: undefined,
  onEvent: undefined,
});

const places: readonly UpgradeListenOptions[] = [
  {},
  { port: 8080, host: "127.0.0.1" },
  { path: "/run/api.sock" },
  { port: undefined, host: undefined, path: undefined },
];

export async function main(): Promise<void> {
  const upgrade = new UpgradeTask(options);
  const parentPid: number | undefined = upgrade.parentPid;
  const name: string = upgrade.name;
  console.log(name.toUpperCase(), parentPid?.toFixed());

  // It is bound, and so is what HttpServerTask takes.
  const listen: (server: Server, where?: UpgradeListenOptions) => Promise<void> = upgrade.listen;
  for (const where of places) await listen(createTcpServer(), where);
  await upgrade.listen(createServer());
  const http = new HttpServerTask(createServer(), { port: 8081, listen: upgrade.listen });

  const manager = new Manager();
  manager.run(upgrade, http);
  const ready: Promise<void> = upgrade.ready();
  await ready;
  const run: Promise<void> = upgrade.run(manager.signal);
  await run;
  await manager.wait();
  upgrade[Symbol.dispose]();
}

export function refused(): void {
  // @ts-expect-error An unknown option is a type error.
  new UpgradeTask({ timeout: 1 });
  // @ts-expect-error A command is a list, not a line.
  new UpgradeTask({ command: "node server.js" });
  // @ts-expect-error It says itself whom it replaces.
  new UpgradeTask().parentPid = 1;
  // @ts-expect-error A server is needed.
  void new UpgradeTask().listen();
  // @ts-expect-error What listens at a file that is open is not handed on.
  void new UpgradeTask().listen(createServer(), { fd: 3 });
}

function observe(event: LifecycleEvent): void {
  if (event.type === "upgrade-started" || event.type === "upgrade-ready") console.log(event.task, event.pid.toFixed());
  if (event.type === "upgrade-failed") console.log(event.task, event.pid?.toFixed(), event.error.message);
}
