import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Daemon, daemonize, type DaemonizeOptions } from "allstop/daemon";
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { compiledPath } from "./support/bundle.ts";
import { Program } from "./support/program.ts";

/** The machine may be busy. */
const PATIENTLY = { timeout: 20_000, interval: 10 };

let folder: string;
let note: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "allstop-"));
  note = join(folder, "note");
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** A process that daemonizes, in the folder of the test. */
function start(mode: string, options: DaemonizeOptions = {}, env: Record<string, string> = {}): Program {
  return new Program("fixtures/daemon.ts", [mode, JSON.stringify(options), note], env, { cwd: folder });
}

/** What a daemon has noted of itself. */
function noted(): Record<string, unknown> {
  return JSON.parse(readFileSync(note, "utf8"));
}

function parentOf(program: Program): Daemon & { role: "parent" } {
  return JSON.parse(program.lines[0]?.replace(/ \d+$/, "") ?? "");
}

const log = (name: string): string => readFileSync(join(folder, name), "utf8");

describe("The daemon", () => {
  test("is the same program once more, in a session of its own, without a terminal, input or mark", async () => {
    const program = start("ready", {}, { GREETING: "hello" });
    expect(await program.end()).toBe(0);
    const { pid } = parentOf(program);
    expect(program.lines).toEqual([`{"role":"parent","pid":${pid},"exitCode":0} 0`]);
    expect(program.stderr).toBe("");
    expect(program.processes).toEqual([pid]);
    expect(noted()).toEqual({
      role: "child",
      pid,
      execArgv: [],
      greeting: "hello",
      marks: [],
      umask: 0o027,
      input: "",
      startedIn: folder,
      worksIn: "/",
      group: pid,
      session: pid,
      terminal: "0",
    });
  });

  test("changes to cwd and sets umask; its logs are appended to, have 0666 less the umask, and are below the start", async () => {
    writeFileSync(join(folder, "out.log"), "before\n");
    mkdirSync(join(folder, "work"));
    const options = { cwd: "work", umask: 0o077, stdout: "out.log", stderr: join(folder, "err.log") };
    expect(await start("ready", options).end()).toBe(0);
    expect(noted()).toMatchObject({ startedIn: folder, worksIn: join(folder, "work"), umask: 0o077 });
    expect([log("out.log"), log("err.log")]).toEqual(["before\nan output\n", "an error\n"]);
    expect((statSync(join(folder, "err.log")).mode & 0o777).toString(8)).toBe("600");
  });

  test("may have one file for both logs, which all may write if no umask forbids that, whatever that of the parent", async () => {
    expect(await start("ready", { umask: 0, stdout: "log", stderr: "log" }).end()).toBe(0);
    expect(log("log")).toBe("an output\nan error\n");
    expect((statSync(join(folder, "log")).mode & 0o777).toString(8)).toBe("666");
    expect(noted()["umask"]).toBe(0);
  });

  test("is ready without an error, also when its parent has gone", async () => {
    const program = start("orphan", { stderr: "err.log" });
    await vi.waitFor(() => expect(log("err.log")).toBe("an error\n"), PATIENTLY);
    program.send("SIGKILL");
    expect(await program.exit()).toBe("SIGKILL");
    await vi.waitFor(noted, PATIENTLY);
    expect(noted()).toMatchObject({ role: "child" });
  });

  test("is the child at once, and what it was, in a process that an upgrade has started", async () => {
    const args = [compiledPath("fixtures/daemon.ts"), "ready", "{}", note];
    const env = { ...process.env, ALLSTOP_UPGRADE: "{}" };
    const child = spawn(process.execPath, args, { cwd: folder, env, stdio: ["ignore", "ignore", "inherit", "pipe"] });
    onTestFinished(() => void child.kill("SIGKILL"));
    await vi.waitFor(noted, PATIENTLY);
    const umask = process.umask();
    // The mark is for the UpgradeTask.
    expect(noted()).toMatchObject({ role: "child", pid: child.pid, worksIn: folder, umask, marks: ["ALLSTOP_UPGRADE"] });
  });

  test("is no other process that only has such marks in its environment", async () => {
    const program = start("ready", {}, { ALLSTOP_DAEMON: "1", ALLSTOP_UPGRADE: "{}" });
    expect(await program.end()).toBe(0);
    expect(noted()).toMatchObject({ role: "child", pid: parentOf(program).pid, worksIn: "/" });
  });
});

describe("The parent", () => {
  test("has the child's own code if it ends early, and stderr says why, and which log to read", async () => {
    const program = start("die", { stdout: "out.log", stderr: "err.log" });
    expect(await program.end()).toBe(143);
    const { pid, exitCode } = parentOf(program);
    expect(exitCode).toBe(143);
    expect(program.lines[0]).toMatch(/ 143$/);
    expect(program.stderr).toBe(`Daemon ${pid} was killed by SIGTERM before it was ready: see ${folder}/err.log\n`);
    expect(log("err.log")).toBe("an error\n");
    expect(program.processes).toEqual([]);
  });

  test("kills a child that is not ready in time, with its group, and has code 1", async () => {
    const program = start("hang", { readyTimeout: 2_000, stdout: "out.log" });
    expect(await program.end()).toBe(1);
    const { pid } = parentOf(program);
    expect(program.stderr).toBe(`Daemon ${pid} was not ready within 2000 ms: see ${folder}/out.log\n`);
    expect(log("out.log")).toBe("an output\nhas started another one\n");
    await vi.waitFor(() => expect(program.processes).toEqual([]), PATIENTLY);
  });
});

describe("In this process", () => {
  const { argv, execArgv, execPath } = process;
  const umask = process.umask();

  afterEach(() => {
    expect(process.umask()).toBe(umask);
  });

  /** Makes this process look as if it had been started as the program of the fixture. */
  function asProgram(mode: string): void {
    process.argv = [execPath, compiledPath("fixtures/daemon.ts"), mode, "{}", note];
    process.execArgv = ["--no-deprecation"];
    onTestFinished(() => {
      Object.assign(process, { argv, execArgv, execPath });
      process.exitCode = undefined;
    });
  }

  test("the child has the execArgv of the parent, which may end beside it", async () => {
    asProgram("ready");
    const daemon = await daemonize();
    if (daemon.role === "child") throw new Error("This is no child");
    onTestFinished(() => void process.kill(daemon.pid, "SIGKILL"));
    expect([daemon.exitCode, process.exitCode]).toEqual([0, 0]);
    expect(noted()).toMatchObject({ pid: daemon.pid, execArgv: ["--no-deprecation"] });
    expect(process.getActiveResourcesInfo()).not.toContain("ProcessWrap");
  });

  test.each([
    ["exit", 3, "exited with code 3 before it was ready"],
    ["die", 143, "was killed by SIGTERM before it was ready"],
    ["leave", 1, "exited with code 0 before it was ready"],
  ])("an early end (%s) has the code %i; without logs, stderr says how to get one", async (mode, code, why) => {
    asProgram(mode);
    const told = vi.spyOn(console, "error").mockReturnValue();
    onTestFinished(() => void told.mockRestore());
    const daemon = await daemonize();
    if (daemon.role === "child") throw new Error("This is no child");
    expect([daemon.exitCode, process.exitCode]).toEqual([code, code]);
    expect(told.mock.calls).toEqual([[`Daemon ${daemon.pid} ${why}: name a log with the option stderr`]]);
  });

  test("a child that is not ready in time is killed, and no file is left open", async () => {
    asProgram("hang");
    const files = readdirSync("/proc/self/fd").length;
    const told = vi.spyOn(console, "error").mockReturnValue();
    onTestFinished(() => void told.mockRestore());
    expect(await daemonize({ readyTimeout: 1, stderr: join(folder, "log") })).toMatchObject({ exitCode: 1 });
    expect(readdirSync("/proc/self/fd").length).toBe(files);
    expect(told.mock.calls.flat()[0]).toMatch(/^Daemon \d+ was not ready within 1 ms: see .*\/log$/);
  });

  test("a program that cannot be started rejects with Node's own error", async () => {
    asProgram("ready");
    process.execPath = join(folder, "nothing");
    await expect(daemonize()).rejects.toMatchObject({ code: "ENOENT", message: expect.stringContaining("nothing") });
    expect(process.exitCode).toBe(undefined);
  });

  test.each([
    ["a log whose directory is missing", { stderr: "missing/err.log" }, "ENOENT", "missing/err.log"],
    ["a log that is a directory", { stdout: "." }, "EISDIR", "."],
    ["a cwd that is missing", { cwd: "/missing" }, "ENOENT", "/missing"],
    ["a cwd that is a file", { cwd: "/etc/passwd" }, "ENOTDIR", "/etc/passwd"],
  ])("%s rejects with Node's own error, and nothing is started", async (_, options, code, path) => {
    asProgram("ready");
    const error = await daemonize(options).catch((thrown) => thrown);
    expect(error).toMatchObject({ code, message: expect.stringContaining(path) });
    expect(process.exitCode).toBe(undefined);
    expect(existsSync(note)).toBe(false);
    expect(process.env).not.toHaveProperty("ALLSTOP_DAEMON");
  });
});

test.each<[DaemonizeOptions | string, ErrorConstructor, string]>([
  ["x", TypeError, 'options must be of type object, got "x"'],
  [{ cwd: 1 as never }, TypeError, "cwd must be of type string, got 1"],
  [{ cwd: "" }, RangeError, 'cwd must not be empty, got ""'],
  [{ stdout: 1 as never }, TypeError, "stdout must be of type string, got 1"],
  [{ stderr: null as never }, TypeError, "stderr must be of type string, got null"],
  [{ umask: "027" as never }, TypeError, 'umask must be of type number, got "027"'],
  [{ umask: -1 }, RangeError, "umask must be from 0 to 0o777, got -1"],
  [{ umask: 0o1000 }, RangeError, "umask must be from 0 to 0o777, got 512"],
  [{ umask: 1.5 }, RangeError, "umask must be from 0 to 0o777, got 1.5"],
  [{ umask: NaN }, RangeError, "umask must be from 0 to 0o777, got NaN"],
  [{ readyTimeout: -1 }, RangeError, "readyTimeout must be 0 or more milliseconds, got -1"],
  [{ readyTimeout: "1" as never }, TypeError, 'readyTimeout must be of type number, got "1"'],
])("daemonize(%o) rejects, and says why", async (options, Refusal, rule) => {
  const error = await daemonize(options as DaemonizeOptions).catch((thrown) => thrown);
  expect(error).toBeInstanceOf(Refusal);
  expect(error.message).toBe(`Cannot daemonize: ${rule}`);
});
