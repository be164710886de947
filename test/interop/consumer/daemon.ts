/*
 * A program of a user, which uses all that allstop/daemon exports. It is compiled, never run.
 */
import { type Daemon, daemonize, type DaemonizeOptions } from "allstop/daemon";

const options: DaemonizeOptions = {
  cwd: "/",
  stdout: "/var/log/shop.log",
  stderr: undefined,
  umask: 0o022,
  readyTimeout: 10_000,
};

export async function main(): Promise<number | undefined> {
  const daemon: Daemon = await daemonize(options);
  if (daemon.role === "parent") return daemon.exitCode + daemon.pid;
  daemon.ready();
  // @ts-expect-error A daemon has no exit code yet
  return daemon.exitCode;
}

// @ts-expect-error It is a number, as of `chmod`
void daemonize({ umask: "027" });
// @ts-expect-error There is no such option
void daemonize({ pidFile: "shop.pid" });
