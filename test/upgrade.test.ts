import { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { setImmediate } from "node:timers/promises";
import { Manager, TaskAlreadyStartedError } from "allstop";
import { EventLog } from "allstop/testing";
import { type UpgradeListenOptions, type UpgradeOptions, UpgradeTask } from "allstop/upgrade";
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { newListeners, send } from "./support/os-signals.ts";
import { useNoUnhandledRejections, useNoWarnings } from "./support/process-events.ts";
import { thrownBy } from "./support/thrown-by.ts";
import { greeter, isAlive, Subject, textOf, until, useUpgrades } from "./support/upgrade.ts";

useUpgrades();
useNoUnhandledRejections();
useNoWarnings();

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "allstop-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** What a new process does that is ready, and lives on; it notes what its parent answers. */
const isReady = (): string => `echo ready >&3; cat <&3 >'${folder}/answer'`;

/** One that never is. */
const HANGS = "exec sleep 60";

const failed = (message: string, pid?: number): object => ({
  type: "upgrade-failed",
  task: "upgrade",
  ...(pid && { pid }),
  error: new Error(message),
});

const refused = (why: string): object => failed(`Cannot upgrade: ${why}`);

describe("In a first process, listen", () => {
  test.each<[what: string, where: UpgradeListenOptions | undefined]>([
    ["any free port of any host", undefined],
    ["any free port", { port: undefined, host: "127.0.0.1", path: undefined }],
    ["a unix socket", { path: "a.sock", port: 1, host: "nowhere.invalid" }],
  ])("listens at once, at %s; it is bound", async (_, where) => {
    if (where?.path !== undefined) where.path = join(folder, where.path);
    const { listen } = new Subject().task;
    const served = greeter();
    await listen(served, where);
    expect(served.listening).toBe(true);
    const address = served.address();
    if (where?.path) expect(address).toBe(where.path);
    else expect(address).toMatchObject({ port: expect.any(Number), address: where?.host ?? expect.any(String) });
    const client = typeof address === "string" ? connect(address) : connect(address?.port ?? 0);
    expect(`${await once(client, "data")}`).toBe("hello");
  });

  test("gives a unix socket its path, also a relative one, and no other name, until the server closes", async () => {
    const path = join(folder, "a.sock");
    const { task } = new Subject();
    const served = greeter();
    for (const name of [path, relative(process.cwd(), path)]) {
      await task.listen(served, { path: name });
      expect(readdirSync(folder)).toEqual(["a.sock"]);
      expect(served.address()).toBe(path);
      await once(served.close(), "close");
      expect(readdirSync(folder)).toEqual([]);
    }
    expect(served.listenerCount("close")).toBe(0);
    await task.listen(served, { host: "127.0.0.1" });
    expect(served.address()).toMatchObject({ address: "127.0.0.1" });
  });

  test("listens at a path as long as the system takes", async () => {
    const path = join(folder, "x".repeat(101 - folder.length), "sock");
    mkdirSync(dirname(path));
    const { task } = new Subject();
    const served = greeter();
    await task.listen(served, { path });
    expect([path.length, readdirSync(dirname(path))]).toEqual([107, ["sock"]]);
    await once(served.close(), "close");
  });

  test("leaves the path alone when the server closes if it is somebody else's by then", async () => {
    const path = join(folder, "a.sock");
    const { task } = new Subject();
    const [served, other] = [greeter(), greeter()];
    await task.listen(served, { path });
    rmSync(path);
    await once(other.listen(path), "listening");
    await once(served.close(), "close");
    expect(`${await once(connect(path), "data")}`).toBe("hello");
    await task.listen(served, { path: join(folder, "b.sock") });
    rmSync(join(folder, "b.sock"));
    await once(served.close(), "close"); // and it may be gone
  });

  test.each<[what: string, code: string, where: () => Promise<UpgradeListenOptions>]>([
    ["a port that is taken", "EADDRINUSE", async () => {
      const other = greeter().listen(0, "127.0.0.1");
      await once(other, "listening");
      return { host: "127.0.0.1", port: (other.address() as { port: number }).port };
    }],
    ["a path that is taken", "EADDRINUSE", async () => {
      await once(greeter().listen(join(folder, "taken")), "listening");
      return { path: join(folder, "taken") };
    }],
    ["the path of a file", "EADDRINUSE", async () => {
      writeFileSync(join(folder, "file"), "precious");
      return { path: join(folder, "file") };
    }],
    ["a link to nowhere", "EEXIST", async () => {
      symlinkSync("nowhere", join(folder, "link"));
      return { path: join(folder, "link") };
    }],
    ["a path in no directory", "EACCES", async () => ({ path: join(folder, "no", "a.sock") })],
  ])("rejects, at %s, with Node's own error: %s; nothing half done is left", async (_, code, where) => {
    const place = await where();
    const before = readdirSync(folder);
    const served = greeter();
    await expect(new Subject().task.listen(served, place)).rejects.toMatchObject({ code });
    expect([served.listening, readdirSync(folder)]).toEqual([false, before]);
    expect(textOf(join(folder, "file"))).toBe(before.includes("file") ? "precious" : "");
  });

  test("rejects for a server that listens already, which goes on", async () => {
    const { task } = new Subject();
    const served = greeter();
    await task.listen(served);
    const address = served.address();
    await expect(task.listen(served)).rejects.toMatchObject({ code: "ERR_SERVER_ALREADY_LISTEN" });
    expect(served.address()).toEqual(address);
  });
});

describe("ready()", () => {
  test("resolves at once in a first process, which has no parentPid, and is always the same promise", async () => {
    const { task } = new Subject();
    expect(task.ready()).toBe(task.ready());
    await task.ready();
    expect([task.parentPid, task.name]).toEqual([undefined, "upgrade"]);
  });

  test.each(["before", "after"])("rejects with the reason of the stop, if that comes %s the call", async (when) => {
    const { task } = new Subject();
    const controller = new AbortController();
    const reason = new Error("enough");
    const run = task.run(controller.signal);
    if (when === "before") controller.abort(reason);
    const ready = task.ready();
    controller.abort(reason);
    await expect(ready).rejects.toBe(reason);
    await expect(task.ready()).rejects.toBe(reason);
    await run;
  });
});

describe("An upgrade", () => {
  test("starts the same program as at construction, with its execArgv and arguments, and its environment", async () => {
    const { execPath, execArgv, argv, env } = process;
    onTestFinished(() => void Object.assign(process, { execPath, execArgv, argv }));
    process.execPath = "/bin/sh";
    process.execArgv = ["-c", 'pwd >$NOTE; echo "$GREETING $0 $*" >>$NOTE; echo ready >&3; cat <&3 >/dev/null'];
    process.argv = [execPath, "program.mjs", "one", "two words"];
    const subject = await new Subject("", { command: undefined }).start();
    Object.assign(process, { execPath, execArgv, argv });
    Object.assign(env, { NOTE: join(folder, "note"), GREETING: "hello" });
    onTestFinished(() => ["NOTE", "GREETING"].forEach((name) => delete env[name]));
    expect(await subject.upgrade()).toHaveProperty("type", "upgrade-ready");
    expect(textOf(join(folder, "note"))).toBe(`${process.cwd()}\nhello program.mjs one two words\n`);
  });

  test("tells of itself; once the new process is ready, that is told to go on, and the task returns", async () => {
    const subject = await new Subject(isReady()).start();
    const over = subject.upgrade();
    const { pid } = await subject.log.until("upgrade-started");
    expect(subject.now).toBe("running");
    await over;
    expect(await subject.end()).toBe("returned");
    const event = { task: "upgrade", pid };
    expect(subject.log.events).toEqual([{ type: "upgrade-started", ...event }, { type: "upgrade-ready", ...event }]);
    expect(isAlive(pid)).toBe(true);
    await until(() => textOf(join(folder, "answer")) === "go on");
    send("SIGHUP");
    expect(subject.log.events).toHaveLength(3);
    expect(subject.log.events[2]).toHaveProperty("type", "upgrade-failed");
  });

  test("hands on what listens, and nothing else", async () => {
    const note = join(folder, "note");
    const files = "for file in 4 5 6 7; do test -e /proc/$$/fd/$file && echo $file; done";
    const subject = await new Subject(`{ ${files}; } >'${note}'; ${isReady()}`).start();
    const [one, two, closed, closing] = [greeter(), greeter(), greeter(), greeter()];
    for (const served of [one, closed, closing, two]) await subject.task.listen(served, { host: "127.0.0.1" });
    await once(closed.close(), "close");
    await once(two.close(), "close");
    await subject.task.listen(two, { host: "127.0.0.1" });
    closing.removeAllListeners("connection");
    const client = connect((closing.address() as { port: number }).port, "127.0.0.1");
    const [socket] = await once(closing, "connection");
    closing.close(); // which that client holds up
    expect(await subject.upgrade()).toHaveProperty("type", "upgrade-ready");
    expect(textOf(note)).toBe("4\n5\n");
    socket.destroy();
    client.destroy();
  });

  test("leaves the path of a unix socket to the new process", async () => {
    const subject = await new Subject(isReady()).start();
    const served = greeter();
    await subject.task.listen(served, { path: join(folder, "a.sock") });
    await subject.upgrade();
    if (served.listening) throw new Error("It listens still");
    await setImmediate(); // It has closed.
    expect(readdirSync(folder)).toContain("a.sock");
  });

  test("leaves all new connections to the new process from then on, and goes on with its own", async () => {
    const subject = await new Subject(isReady()).start();
    const served = greeter();
    served.removeAllListeners("connection");
    await subject.task.listen(served, { host: "127.0.0.1" });
    const { port } = served.address() as AddressInfo;
    const client = connect(port, "127.0.0.1");
    const [socket] = await once(served, "connection");
    await subject.upgrade();
    expect([served.listening, socket.readyState]).toEqual([false, "open"]);
    // Nobody accepts it, as the new process of this test only says that it would.
    const late = connect(port, "127.0.0.1");
    await once(late, "connect");
    socket.end("hello");
    expect(`${await once(client, "data")}`).toBe("hello");
    for (const one of [client, late]) one.destroy();
  });

  test("closes nothing that does not listen", async () => {
    const subject = await new Subject(isReady()).start();
    const [served, closed] = [greeter(), vi.fn()];
    await expect(subject.task.listen(served, { path: folder })).rejects.toHaveProperty("code", "EADDRINUSE");
    served.on("close", closed);
    await subject.upgrade();
    await setImmediate();
    expect(closed).not.toHaveBeenCalled();
  });

  test("that has failed keeps this process no longer, though what it left behind has the other end of the line", async () => {
    const note = join(folder, "note");
    const subject = await new Subject(`sleep 60 & echo $! >'${note}'; exit 3`).start();
    expect(await subject.upgrade()).toHaveProperty("type", "upgrade-failed");
    const pid = Number(textOf(note));
    // After it has been checked that nothing of the upgrade is left here.
    onTestFinished(() => void process.kill(pid, "SIGKILL"));
    expect(isAlive(pid)).toBe(true);
  });

  test.each<[what: string, script: string, why: string]>([
    ["exits", "exit 3", "exited with code 3"],
    ["exits cleanly", "exit 0", "exited with code 0"],
    ["dies", "kill -TERM $$", "was killed by SIGTERM"],
    ["closes its line, and exits", "exec 3>&-; exit 4", "exited with code 4"],
  ])("fails if the new process %s, and says why; the next one works", async (_, script, why) => {
    const note = join(folder, "note");
    const subject = await new Subject(`test -f '${note}' || { touch '${note}'; ${script}; }; ${isReady()}`).start();
    const event = await subject.upgrade();
    const { pid } = await subject.log.until("upgrade-started");
    expect(event).toEqual(failed(`The new process ${why} before it was ready`, pid));
    expect(subject.now).toBe("running");
    expect(await subject.upgrade()).toHaveProperty("type", "upgrade-ready");
    expect(await subject.end()).toBe("returned");
  });

  test("fails if the code of the new process does not parse", async () => {
    const program = join(folder, "broken.mjs");
    writeFileSync(program, "this is no program");
    const command = ["sh", "-c", `exec '${process.execPath}' '${program}' 2>'${folder}/error'`];
    const subject = await new Subject("", { command }).start();
    const error = new Error("The new process exited with code 1 before it was ready");
    expect(await subject.upgrade()).toMatchObject({ type: "upgrade-failed", error });
    expect(textOf(join(folder, "error"))).toContain("SyntaxError");
  });

  test.each<[command: string[], code: string, message: RegExp]>([
    [["/no/such/command", "x"], "ENOENT", /\/no\/such\/command/],
    [["/etc"], "EACCES", /\/etc/],
    [["sh", "\0"], "ERR_INVALID_ARG_VALUE", /null bytes/],
  ])("fails if %j cannot be started, with Node's own error and no pid", async (command, code, message) => {
    const subject = await new Subject("", { command }).start();
    for (let time = 1; time <= 2; time++) {
      const error = expect.objectContaining({ code, message: expect.stringMatching(message) });
      expect(await subject.upgrade()).toEqual({ type: "upgrade-failed", task: "upgrade", error });
    }
    expect(subject.log.events).toHaveLength(2);
    expect(subject.now).toBe("running");
  });

  test.each<[readyTimeout: number | undefined, passes: number]>([
    [undefined, 60_000],
    [70_000, 70_000],
    [1, 1],
  ])("fails if the new process is not ready within readyTimeout (%s), and kills it", async (readyTimeout, passes) => {
    vi.useFakeTimers();
    const subject = await new Subject(HANGS, { readyTimeout }).start();
    const over = subject.upgrade();
    const { pid } = await subject.log.until("upgrade-started");
    vi.advanceTimersByTime(passes - 1);
    for (let turn = 0; turn < 10; turn++) await setImmediate();
    expect(isAlive(pid)).toBe(true);
    vi.advanceTimersByTime(1);
    expect(await over).toEqual(failed(`The new process timed out after ${passes} ms before it was ready`, pid));
    expect(isAlive(pid)).toBe(false);
    expect(subject.now).toBe("running");
  });

  test("has no limit with a readyTimeout of Infinity; only the run has a timer, to keep the process alive", async () => {
    vi.useFakeTimers();
    const subject = await new Subject(HANGS, { readyTimeout: Infinity }).start();
    expect(vi.getTimerCount()).toBe(1);
    const over = subject.upgrade();
    const { pid } = await subject.log.until("upgrade-started");
    vi.advanceTimersByTime(2 ** 31);
    for (let turn = 0; turn < 10; turn++) await setImmediate();
    expect(subject.log.events).toHaveLength(1);
    process.kill(pid, "SIGKILL");
    expect(await over).toEqual(failed("The new process was killed by SIGKILL before it was ready", pid));
    expect(vi.getTimerCount()).toBe(1);
    subject.stop();
    await subject.end();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("is ended by a stop, which kills the new process; the task returns when that is dead", async () => {
    const subject = await new Subject(HANGS).start();
    void subject.upgrade();
    const { pid } = await subject.log.until("upgrade-started");
    subject.stop();
    expect(await subject.end()).toBe("returned");
    expect(isAlive(pid)).toBe(false);
    expect(subject.log.events.slice(1)).toEqual([failed("The new process was stopped before it was ready", pid)]);
  });

  test("fails also if the new process cannot be killed, as one of another user cannot", async () => {
    const subject = await new Subject("cat <&3 >/dev/null").start();
    void subject.upgrade();
    const { pid } = await subject.log.until("upgrade-started");
    const kill = vi.spyOn(ChildProcess.prototype, "kill").mockImplementation(function (this: ChildProcess) {
      return this.emit("error", new Error("kill EPERM"));
    });
    onTestFinished(() => void kill.mockRestore());
    subject.stop();
    expect(await subject.end()).toBe("returned");
    expect(subject.log.events.slice(1)).toEqual([failed("The new process was stopped before it was ready", pid)]);
  });

  test("that has failed is told to a process that is started by what it started, and is late", async () => {
    const note = join(folder, "note");
    const subject = await new Subject(`sh -c 'echo here >"${note}"; cat <&3 >>"${note}"'; true`).start();
    void subject.upgrade();
    await until(() => textOf(note) === "here\n");
    subject.stop();
    await subject.end();
    await until(() => textOf(note) === "here\ngive up");
  });
});

describe("An upgrade is refused", () => {
  test("before the task runs, and before this process is ready", async () => {
    const subject = new Subject(isReady());
    expect(await subject.upgrade()).toEqual(refused("this process is not ready"));
    await subject.task.ready();
    expect(await subject.upgrade()).toEqual(refused("the task does not run"));
    const unready = new Subject(isReady(), { signals: ["SIGUSR2"] });
    const run = unready.task.run(new AbortController().signal);
    send("SIGUSR2");
    expect(unready.log.events).toEqual([refused("this process is not ready")]);
    await unready.task.ready();
    send("SIGUSR2");
    await run;
    await unready.log.until("upgrade-ready");
  });

  test("during another one, which goes on", async () => {
    const subject = await new Subject(isReady()).start();
    const over = subject.upgrade();
    send("SIGHUP");
    expect(subject.log.events.slice(-1)).toEqual([refused("another one is under way")]);
    await over;
    await subject.log.until("upgrade-ready");
  });

  test("after a stop", async () => {
    const subject = await new Subject(isReady()).start();
    subject.stop();
    expect(await subject.upgrade()).toEqual(refused("the group stops"));
    await subject.end();
    expect(await subject.upgrade()).toEqual(refused("the group stops"));
  });
});

describe("The task", () => {
  test("listens for its signals from its construction until it is disposed of, also after its run", async () => {
    const subject = new Subject("", { signals: ["SIGUSR2", "SIGHUP"] });
    const both = { SIGUSR2: 1, SIGHUP: 1 };
    expect(newListeners()).toEqual(both);
    await subject.start();
    subject.stop();
    await subject.end();
    expect(newListeners()).toEqual(both);
    subject.task[Symbol.dispose]();
    subject.task[Symbol.dispose]();
    expect(newListeners()).toEqual({});
  });

  test("listens for SIGHUP alone by default, and for its own signals instead", async () => {
    const byDefault = new Subject();
    expect(newListeners()).toEqual({ SIGHUP: 1 });
    byDefault.task[Symbol.dispose]();
    const subject = await new Subject(isReady(), { signals: ["SIGUSR2"] }).start();
    send("SIGHUP");
    expect(subject.log.events).toEqual([]);
    send("SIGUSR2");
    await subject.log.until("upgrade-ready");
  });

  test("runs once", async () => {
    const task = new UpgradeTask({ name: "twice" });
    await task.run(AbortSignal.abort());
    await expect(task.run(AbortSignal.abort())).rejects.toEqual(new TaskAlreadyStartedError("twice"));
    task[Symbol.dispose]();
  });

  test("tells its own onEvent or, without one, that of its manager, under its full name once it runs", async () => {
    const log = new EventLog();
    const own = new EventLog();
    const command = ["/no/such/command"];
    const tasks = [new UpgradeTask({ command, onEvent: own.observe }), new UpgradeTask({ command, name: "other" })];
    send("SIGHUP");
    const manager = new Manager({ name: "api", onEvent: log.observe });
    manager.run(...tasks);
    for (const task of tasks) await task.ready();
    send("SIGHUP");
    await own.until("upgrade-failed", ({ task }) => task === "api/upgrade");
    await log.until("upgrade-failed");
    const failures = ({ events }: EventLog): unknown[] =>
      events.flatMap((event) => (event.type === "upgrade-failed" ? event.task : []));
    expect([failures(own), failures(log)]).toEqual([["upgrade", "api/upgrade"], ["api/other"]]);
    expect(own.events).toHaveLength(2);
    await manager.stop();
    for (const task of tasks) task[Symbol.dispose]();
  });

  test("has copied its command: a later change to it changes nothing", async () => {
    const command = ["sh", "-c", isReady()];
    const subject = await new Subject("", { command }).start();
    command[2] = "exit 1";
    expect(await subject.upgrade()).toHaveProperty("type", "upgrade-ready");
  });

  test.each<[options: unknown, Refusal: ErrorConstructor, rule: string]>([
    ["x", TypeError, 'options must be of type object, got "x"'],
    [{ name: 1 }, TypeError, "name must be of type string, got 1"],
    [{ signals: [] }, TypeError, "signals must be catchable, such as SIGTERM, got []"],
    [{ signals: ["SIGKILL"] }, TypeError, 'signals must be catchable, such as SIGTERM, got ["SIGKILL"]'],
    [{ signals: null }, TypeError, "signals must be catchable, such as SIGTERM, got null"],
    [{ readyTimeout: "1" }, TypeError, 'readyTimeout must be of type number, got "1"'],
    [{ readyTimeout: -1 }, RangeError, "readyTimeout must be 0 or more milliseconds, got -1"],
    [{ readyTimeout: NaN }, RangeError, "readyTimeout must be 0 or more milliseconds, got NaN"],
    [{ command: "node x.mjs" }, TypeError, 'command must be a list of strings, got "node x.mjs"'],
    [{ command: [] }, TypeError, "command must be a list of strings, got []"],
    [{ command: ["", "x"] }, TypeError, 'command must be a list of strings, got ["","x"]'],
    [{ command: ["node", 1] }, TypeError, 'command must be a list of strings, got ["node",1]'],
    [{ command: null }, TypeError, "command must be a list of strings, got null"],
    [{ onEvent: 1 }, TypeError, "onEvent must be of type function, got 1"],
  ])("cannot be created with %o, which is refused before it listens for signals", (options, Refusal, rule) => {
    const error = thrownBy(() => new UpgradeTask(options as UpgradeOptions));
    expect(error).toBeInstanceOf(Refusal);
    expect(error).toHaveProperty("message", `Cannot create an UpgradeTask: ${rule}`);
    expect(newListeners()).toEqual({});
  });

  test("takes the default for an option that is undefined", () => {
    const names = ["name", "signals", "readyTimeout", "command", "onEvent"];
    const task = new UpgradeTask(Object.fromEntries(names.map((name) => [name, undefined])));
    expect(task.name).toBe("upgrade");
    expect(newListeners()).toEqual({ SIGHUP: 1 });
    task[Symbol.dispose]();
  });
});
