// A service in the background, and its command line: `14-daemon.ts start | stop | status | reload`.
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type LifecycleEvent, logEvents, type Manager } from "allstop";
import { daemonize } from "allstop/daemon";
import { HttpServerTask } from "allstop/http";
import { runMain } from "allstop/main";
import { acquirePidFile, readPidFile } from "allstop/pid-file";
import { UpgradeTask } from "allstop/upgrade";

const folder = process.env["STATE_DIRECTORY"] ?? tmpdir();
const [path, log] = [join(folder, "hello.pid"), join(folder, "hello.log")];

async function start(): Promise<void> {
  const daemon = await daemonize({ stdout: log, stderr: log });
  if (daemon.role === "parent") return; // its exit code is how the start went
  const upgrade = new UpgradeTask();
  const server = createServer((_, response) => response.end(`Hello from ${process.pid}\n`));
  const port = Number(process.env["PORT"] ?? 8080);
  const http = new HttpServerTask(server, { host: "127.0.0.1", port, listen: upgrade.listen });
  const setup = async (manager: Manager): Promise<void> => {
    const pidFile = await acquirePidFile(path, { replaces: upgrade.parentPid });
    manager.cleanup(() => pidFile.release());
    manager.run(upgrade, http);
    await http.ready();
    await upgrade.ready();
    daemon.ready();
  };
  const tell = logEvents(console);
  const onEvent = (event: LifecycleEvent): void => {
    tell(event);
    // The new process may have taken the file over before it failed.
    if (event.type === "upgrade-failed") acquirePidFile(path).catch(() => {});
  };
  await runMain(setup, { onEvent });
}

/** Sends a signal to the process that the file names, and waits until it has ended: stopped, or replaced. */
async function send(signal: NodeJS.Signals): Promise<void> {
  const { pid, running } = readPidFile(path);
  if (!running) throw new Error("It is not running");
  process.kill(pid, signal);
  for (const end = Date.now() + 30_000; isRunning(pid); await sleep(20)) {
    if (Date.now() > end) throw new Error(`It still runs after 30 s: see ${log}`);
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

function status(): void {
  const { pid, running } = readPidFile(path);
  console.log(running ? `Process ${pid} is running` : "It is not running");
  process.exitCode = running ? 0 : 3; // as of `systemctl status`
}

const commands = { start, stop: () => send("SIGTERM"), status, reload: () => send("SIGHUP") };
await commands[process.argv[2] as keyof typeof commands]();
