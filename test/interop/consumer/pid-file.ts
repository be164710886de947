/*
 * A program of a user, which uses all that allstop/pid-file exports. It is compiled, never run.
 */
import { Manager } from "allstop";
import {
  type AcquirePidFileOptions,
  acquirePidFile,
  AlreadyRunningError,
  type PidFile,
  type PidFileStatus,
  readPidFile,
} from "allstop/pid-file";

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
const options: AcquirePidFileOptions = { replaces: undefined };

export async function main(): Promise<void> {
  const manager = new Manager();
  try {
    const file: PidFile = await acquirePidFile("/run/app.pid", options);
    manager.cleanup(() => file.release());
    manager.cleanup(file.release);
    const released: Promise<void> = file.release();
    await released;
    const disposable: AsyncDisposable = file;
    await disposable[Symbol.asyncDispose]();
    console.log(file.path.toUpperCase(), file.pid.toFixed());
    // @ts-expect-error It does not move.
    file.path = "/run/other.pid";
  } catch (error) {
    if (!(error instanceof AlreadyRunningError)) throw error;
    console.log(error.name, error.pid.toFixed(), error.path.toUpperCase());
  }
  await manager.wait();
}

export function stop(): void {
  const status: PidFileStatus = readPidFile("/run/app.pid");
  // What is running has an id.
  if (status.running) process.kill(status.pid, "SIGTERM");
  const { pid, running }: { pid: number | undefined; running: boolean } = status;
  console.log(pid?.toFixed(), running);
  // @ts-expect-error There may be none.
  console.log(pid.toFixed());
}

export const refused: Error = new AlreadyRunningError(1, "/run/app.pid");

export async function bad(): Promise<void> {
  // @ts-expect-error A path is needed.
  await acquirePidFile();
  // @ts-expect-error An unknown option is a type error.
  await acquirePidFile("/run/app.pid", { replace: 1 });
  // @ts-expect-error It is the id of a process.
  await acquirePidFile("/run/app.pid", { replaces: "1" });
}
