import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { constants } from "node:os";
import { join } from "node:path";
import { type LifecycleEvent, Manager, TaskAlreadyStartedError } from "allstop";
import { ChildExitError, type ChildProcessOptions, ChildProcessTask } from "allstop/child";
import { RestartLimitError, RestartTask } from "allstop/restart";
import { EventLog } from "allstop/testing";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { Child, exited, kill, living, Output, shell, statOf, useChildren } from "./support/child.ts";
import { useNoUnhandledRejections, useNoWarnings } from "./support/process-events.ts";
import { Program } from "./support/program.ts";
import { settle } from "./support/settle.ts";
import { thrownBy } from "./support/thrown-by.ts";
import { ended, started, stopped, stopping, told } from "./support/told.ts";
import { throwing } from "./support/ways.ts";

useChildren();
useNoUnhandledRejections();
useNoWarnings();

/* Scripts that print a line when they are ready, and end only when somebody sees to it. */

const LOOP = "while :; do sleep 0.01; done";

/** Any signal kills it. */
const ENDLESS = "echo ready; exec sleep 60";

/** Does not hear SIGTERM, nor does anything that it starts. */
function deaf(line = "ready"): string {
  return `trap '' TERM; echo ${line}; exec sleep 60`;
}

/** Does this at SIGTERM, or another signal. */
function on(action: string, signal = "TERM", line = "ready"): string {
  return `trap '${action}' ${signal}; echo ${line}; ${LOOP}`;
}

/** Says that it has heard SIGTERM, and ends at SIGUSR2. */
const SLOW = `trap 'echo finished; exit' USR2; ${on("echo told", "TERM", "left")}`;

/** The first script, with the second one in the background. */
function beside(script: string, other: string): string {
  return `sh -c '${other.replaceAll("'", `'\\''`)}' & ${script}`;
}

/** Ready, and then told to stop. */
async function stoppedChild(script: string, options: ChildProcessOptions = {}): Promise<Child> {
  const child = shell(script, options);
  await child.output.line("ready");
  child.stop();
  return child;
}

/** Lets all that is left of its group finish, once it has been told to stop; tells how it then ends. */
async function finish(child: Child): Promise<unknown> {
  await child.output.line("told");
  expect([child.now, living(child.pid).length > 0]).toEqual(["running", true]);
  kill(-child.pid, "SIGUSR2");
  const end = await child.end();
  expect((await child.output.all()).at(-1)).toBe("finished");
  return end;
}

/** The timers of the library by a clock of the test's; what Node does by itself goes on. */
function fakeTime(): void {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
}

/** Lets processes end, for as long as it takes, while the clock stands still. */
async function waitUntil(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

describe("A program", () => {
  test("leads a process group of its own, with its `cwd`, its `env` and its arguments", async () => {
    const script = 'echo "$(pwd) $A $B $* $$ $(cut -d" " -f5 /proc/$$/stat)"';
    const options = { cwd: "/", env: { PATH: process.env["PATH"], A: "a", B: undefined } };
    const child = new Child("sh", ["-c", script, "sh", "one two", "$A"], options);
    expect(await child.end()).toBe("returned");
    expect(await child.output.all()).toEqual([`/ a  one two $A ${child.pid} ${child.pid}`]);
  });

  test("is started where this process is, and with its environment, unless told otherwise", async () => {
    process.env["ALLSTOP_CHILD"] = "late";
    onTestFinished(() => void delete process.env["ALLSTOP_CHILD"]);
    const child = shell('echo "$(pwd -P) $ALLSTOP_CHILD"');
    await child.end();
    expect(await child.output.all()).toEqual([`${process.cwd()} late`]);
  });

  test("what it is made of is copied: later changes of the arguments and options change nothing", async () => {
    const output = new Output();
    const args = ["-c", 'echo "$A $1"', "sh", "one"];
    const env: Record<string, string | undefined> = { A: "a" };
    const stdio: ("ignore" | number)[] = ["ignore", output.fd, output.fd];
    const options: ChildProcessOptions = { env, stdio };
    const task = new ChildProcessTask("/bin/sh", args, options);
    args[3] = "two";
    env["A"] = "b";
    stdio[1] = "ignore";
    Object.assign(options, { env: {}, stdio: "ignore", cwd: "/nowhere", name: "late" });
    await task.run(new AbortController().signal);
    expect([task.name, await output.all()]).toEqual(["sh", ["a one"]]);
  });

  test.each([
    ["node", "node"],
    ["/usr/local/bin/node", "node"],
    ["./run.sh", "run.sh"],
  ])("of the command %s has the name %s, unless it is given another", (command, name) => {
    expect(new ChildProcessTask(command).name).toBe(name);
    expect(new ChildProcessTask(command, undefined, { name: undefined }).name).toBe(name);
    expect(new ChildProcessTask(command, [], { name: "worker" }).name).toBe("worker");
  });
});

describe("The end", () => {
  test.each<[string, number | null, string | null, string]>([
    ["exit 3", 3, null, "Program sh exited with code 3"],
    ["exit 143", 143, null, "Program sh exited with code 143"],
    ["kill -TERM $$", null, "SIGTERM", "Program sh was killed by SIGTERM"],
    ["kill -KILL $$", null, "SIGKILL", "Program sh was killed by SIGKILL"],
  ])("by itself, by `%s`, is a ChildExitError", async (script, exitCode, signal, message) => {
    const child = shell(script, { name: "worker" });
    const error = await child.end();
    expect(error).toBeInstanceOf(ChildExitError);
    expect(error).toMatchObject({ name: "ChildExitError", message, command: "sh", exitCode, signal });
    expect(Object.keys(error as object).sort()).toEqual(["command", "exitCode", "signal"]);
    expect(child.log.events).toEqual([
      { type: "child-started", task: "worker", pid: child.pid },
      exited("worker", child.pid, exitCode, signal),
    ]);
  });

  test("exit code 0 is a return", async () => {
    const child = shell("exit 0");
    expect(await child.end()).toBe("returned");
    expect(child.log.events.slice(1)).toEqual([exited("sh", child.pid, 0, null)]);
  });

  test.each<[string, ChildProcessOptions, string, number | null, string | null]>([
    ["death by it", {}, ENDLESS, null, "SIGTERM"],
    ["exit code 0", {}, on("exit 0"), 0, null],
    ["exit code 128 + its number", {}, on("exit 143"), 143, null],
    ["death by another one", { stopSignal: "SIGINT" }, ENDLESS, null, "SIGINT"],
    ["exit code 128 + that of another one", { stopSignal: "SIGINT" }, on("exit 130", "INT"), 130, null],
    ["death by one with two names", { stopSignal: "SIGIOT" }, ENDLESS, null, "SIGABRT"],
    ["death by SIGKILL, if it is that", { stopSignal: "SIGKILL" }, deaf(), null, "SIGKILL"],
  ])("after `stopSignal`, %s is a return", async (_, options, script, exitCode, signal) => {
    const child = await stoppedChild(script, options);
    expect(await child.end()).toBe("returned");
    expect(child.log.events.slice(1)).toEqual([exited("sh", child.pid, exitCode, signal)]);
  });

  test.each<[string, string, number | null, string | null]>([
    ["exit code 3", on("exit 3"), 3, null],
    ["the exit code of another signal", on("exit 130"), 130, null],
    ["death by another signal", on("kill -HUP $$"), null, "SIGHUP"],
    ["death by SIGKILL from elsewhere", on("kill -KILL $$"), null, "SIGKILL"],
  ])("after `stopSignal`, %s is a ChildExitError", async (_, script, exitCode, signal) => {
    const child = await stoppedChild(script);
    expect(await child.end()).toMatchObject({ name: "ChildExitError", exitCode, signal });
  });

  test("death by `stopSignal` before the stop is a ChildExitError, also if that comes while others end", async () => {
    const child = shell(beside(LOOP, SLOW));
    await child.output.line("left");
    kill(child.pid, "SIGTERM");
    await child.log.until("child-exited");
    child.stop();
    expect(await finish(child)).toMatchObject({ name: "ChildExitError", exitCode: null, signal: "SIGTERM" });
  });

  test.each<[string, string, ChildProcessOptions, string, string]>([
    ["a command that does not exist", "allstop-nope", {}, "ENOENT", "spawn allstop-nope ENOENT"],
    ["a command that is no program", "/etc/passwd", {}, "EACCES", "spawn /etc/passwd EACCES"],
    ["a `cwd` that does not exist", "sh", { cwd: "/nowhere" }, "ENOENT", "spawn sh ENOENT"],
    ["a command with a zero byte", "s\0h", {}, "ERR_INVALID_ARG_VALUE", "null bytes"],
  ])("with %s it fails with Node's own error, and tells nothing", async (_, command, options, code, message) => {
    const child = new Child(command, [], options);
    const error = await child.end();
    expect(error).toBeInstanceOf(Error);
    expect((error as NodeJS.ErrnoException).code).toBe(code);
    expect((error as Error).message).toContain(message);
    expect(child.log.events).toEqual([]);
  });

  test("a program that cannot be started is a failure after the stop, too", async () => {
    const child = new Child("allstop-nope", []);
    child.stop();
    expect(await child.end()).toMatchObject({ code: "ENOENT" });
  });
});

describe("A stop", () => {
  test("signals the group, so that grandchildren end, too", async () => {
    const child = shell(beside(ENDLESS, "sh -c 'echo grandchild; sleep 60 & wait' & wait"));
    await child.output.line("ready", "grandchild");
    child.stop();
    expect(await child.end()).toBe("returned");
    expect([...(await child.output.all())].sort()).toEqual(["grandchild", "ready"]);
  });

  test("and kills the whole group at `stopTimeout`, which is a ChildExitError", async () => {
    const child = shell(beside(deaf(), deaf("left")), { stopTimeout: 20 });
    await child.output.line("ready", "left");
    child.stop();
    expect(await child.end()).toMatchObject({
      name: "ChildExitError",
      message: "Program sh was killed by SIGKILL; its group got SIGKILL after 20 ms",
      exitCode: null,
      signal: "SIGKILL",
    });
    await child.output.all();
    expect(child.log.events.slice(1)).toEqual([
      { type: "child-stop-timed-out", task: "sh", pid: child.pid },
      exited("sh", child.pid, null, "SIGKILL"),
    ]);
  });

  test("a leader that ends early does not cut its children short", async () => {
    const child = shell(beside(on("exit 0"), SLOW));
    await child.output.line("ready", "left");
    child.stop();
    await child.log.until("child-exited");
    expect(await finish(child)).toBe("returned");
    expect(child.told).toEqual(["child-started", "child-exited"]);
  });

  test("a leader that ends well, but leaves one that has to be killed, is a ChildExitError that says so", async () => {
    const child = shell(beside(on("exit 0"), deaf("left")), { stopTimeout: 20 });
    await child.output.line("ready", "left");
    fakeTime();
    child.stop();
    await child.log.until("child-exited");
    while (child.now === "running") await vi.advanceTimersByTimeAsync(1);
    expect(await child.end()).toMatchObject({
      name: "ChildExitError",
      message: "Program sh exited with code 0; its group got SIGKILL after 20 ms",
      exitCode: 0,
      signal: null,
    });
    expect(child.told).toEqual(["child-started", "child-exited", "child-stop-timed-out"]);
  });

  test("reaches what is suspended, too", async () => {
    const child = shell(on("echo told; exit"));
    await child.output.line("ready");
    kill(-child.pid, "SIGSTOP");
    child.stop();
    expect(await child.end()).toBe("returned");
    expect((await child.output.all()).at(-1)).toBe("told");
  });

  test("before the run starts nothing", async () => {
    const log = new EventLog();
    const task = new ChildProcessTask("allstop-nope", [], { onEvent: log.observe });
    await task.run(AbortSignal.abort());
    expect(log.events).toEqual([]);
  });

  test.each<[string, (child: Child) => unknown]>([
    ["in the turn of the start", () => {}],
    ["a microtask later", () => null],
    ["a turn later", () => new Promise((resolve) => setImmediate(resolve))],
  ])("%s is heard", async (_, moment) => {
    // Where `sh` starts it as a child of its own, that may be just then, and hear nothing.
    const child = shell("exec sleep 60");
    await moment(child);
    child.stop();
    expect(await child.end()).toBe("returned");
    expect(child.log.events.slice(1)).toEqual([exited("sh", child.pid, null, "SIGTERM")]);
  });

  test("by whoever is told of the start is heard", async () => {
    const controller = new AbortController();
    const log = new EventLog();
    const onEvent = (event: LifecycleEvent): void => {
      log.observe(event);
      controller.abort();
    };
    await new ChildProcessTask("sleep", ["60"], { onEvent }).run(controller.signal);
    expect(log.events.map(({ type }) => type)).toEqual(["child-started", "child-exited"]);
  });

  test("that finds the program dead, which nobody was told of yet, is no failure of its own", async () => {
    const child = shell("exit 3");
    // Without leaving the turn, so that Node cannot hear of it.
    while (statOf(child.pid)[0] !== "Z");
    child.stop();
    expect(await child.end()).toMatchObject({ exitCode: 3, message: "Program sh exited with code 3" });
  });

  test("a `stopTimeout` of 10 seconds is the default, and more than 2^31-1 is no limit", async () => {
    const children = await Promise.all(
      [undefined, 2 ** 31 - 1, 2 ** 31, Infinity].map(async (stopTimeout) => {
        const child = shell(deaf(), { stopTimeout });
        await child.output.line("ready");
        return child;
      }),
    );
    fakeTime();
    for (const child of children) child.stop();
    await settle();
    const timedOut = (): boolean[] => children.map(({ told }) => told.includes("child-stop-timed-out"));
    for (const [milliseconds, count] of [[9_999, 0], [1, 1], [2 ** 31 - 10_002, 1], [1, 2], [2 ** 31, 2]] as const) {
      vi.advanceTimersByTime(milliseconds);
      await settle();
      expect(timedOut()).toEqual(children.map((_, i) => i < count));
      await children[count - 1]?.end();
    }
    for (const { pid } of children.slice(2)) kill(pid);
    const messages = await Promise.all(children.map(async (child) => ((await child.end()) as Error).message));
    expect(messages).toEqual([
      "Program sh was killed by SIGKILL; its group got SIGKILL after 10000 ms",
      "Program sh was killed by SIGKILL; its group got SIGKILL after 2147483647 ms",
      "Program sh was killed by SIGKILL",
      "Program sh was killed by SIGKILL",
    ]);
  });
});

describe("What a program that ends by itself has left behind", () => {
  /** A program that ends so, once the one that it leaves behind is ready. */
  async function leaving(exitCode: number, left: string, options: ChildProcessOptions = {}): Promise<Child> {
    const child = shell(beside(on(`exit ${exitCode}`, "USR1"), left), options);
    await child.output.line("ready", "left");
    kill(child.pid, "SIGUSR1");
    await child.log.until("child-exited");
    return child;
  }

  test.each<[number, unknown]>([
    [0, "returned"],
    [3, expect.objectContaining({ message: "Program sh exited with code 3" })],
  ])("is stopped in the same way, before the run settles as the program has ended, with %s", async (code, end) => {
    const child = await leaving(code, SLOW);
    expect(await finish(child)).toEqual(end);
    expect(child.log.events.slice(1)).toEqual([exited("sh", child.pid, code, null)]);
  });

  test.each([0, 3])("is killed at `stopTimeout`, which is a ChildExitError, also after code %s", async (exitCode) => {
    const child = await leaving(exitCode, deaf("left"), { stopTimeout: 20 });
    const message = `Program sh exited with code ${exitCode}; its group got SIGKILL after 20 ms`;
    expect(await child.end()).toMatchObject({ name: "ChildExitError", message, exitCode, signal: null });
    expect(child.told).toEqual(["child-started", "child-exited", "child-stop-timed-out"]);
    expect((await child.output.all()).length).toBe(2);
  });

  test("is told to stop once, also if the stop comes meanwhile", async () => {
    const child = await leaving(0, SLOW);
    await child.output.line("told");
    child.stop();
    expect(await finish(child)).toBe("returned");
    expect((await child.output.all()).filter((line) => line === "told")).toEqual(["told"]);
  });

  test("is looked for after 1, 2, 4, 8, 16, 32 and then each 50 ms, by reading of one of it", async () => {
    const { readdirSync } = fs;
    const list = vi.fn(() => readdirSync("/proc"));
    replace("readdirSync", list as never);
    const looks = vi.spyOn(process, "kill");
    onTestFinished(() => void vi.restoreAllMocks());
    fakeTime();
    const child = await leaving(0, deaf("left"));
    await settle();
    const count = (): number => looks.mock.calls.filter(([pid, signal]) => pid === -child.pid && signal === 0).length;
    const counts = [count()];
    for (const milliseconds of [1, 2, 4, 8, 16, 31, 1, 49, 1, 850]) {
      await vi.advanceTimersByTimeAsync(milliseconds);
      counts.push(count());
    }
    expect(counts).toEqual([2, 3, 4, 5, 6, 7, 7, 8, 8, 9, 26]);
    expect(list).toHaveBeenCalledTimes(1);
    // The end of the time is not one of a pause.
    await vi.advanceTimersByTimeAsync(10_000 - 963 - 1);
    expect(child.told).not.toContain("child-stop-timed-out");
    await vi.advanceTimersByTimeAsync(1);
    expect(child.told).toContain("child-stop-timed-out");
    while (child.now === "running") await vi.advanceTimersByTimeAsync(1);
    expect(await child.end()).toMatchObject({ exitCode: 0 });
  });

  test("is found, even if it comes while it is looked for", async () => {
    const { readdirSync } = fs;
    const list = vi.fn(() => readdirSync("/proc")).mockReturnValueOnce([]);
    replace("readdirSync", list as never);
    const child = await leaving(0, SLOW);
    expect(await finish(child)).toBe("returned");
    expect(list.mock.calls.length).toBeGreaterThan(1);
  });

  test("and has left the group, as a daemon does, goes on, and keeps nothing of this process alive", async () => {
    const output = new Output();
    const pipes = (): number => process.getActiveResourcesInfo().filter((name) => name === "PipeWrap").length;
    const before = pipes();
    // It holds the pipes that the program had.
    const script = "setsid sleep 60 & while [ $(cut -d' ' -f5 /proc/$!/stat) = $$ ]; do :; done; echo $! >&3";
    const task = new ChildProcessTask("sh", ["-c", script], { stdio: ["pipe", "pipe", "pipe", output.fd, "ipc"] });
    await task.run(new AbortController().signal);
    const pid = Number(await output.line(""));
    onTestFinished(() => kill(pid));
    expect(statOf(pid).length).toBe(3);
    await waitUntil(() => pipes() === before);
  });

  test.each([
    ["is dead", ""],
    ["dies", `; ${SLOW}`],
  ])("and %s, but whose parent has left the group and does not ask how it ended, holds up nothing", async (_, more) => {
    // Its parent is in a group of its own by then.
    const dying = "while [ $(cut -d' ' -f5 /proc/$PPID/stat) = $LEADER ]; do :; done";
    const left = "sh -c 'sh -c \"$DYING\" & echo dying $!; exec setsid sleep 60 >/dev/null' & echo parent $!";
    const env = { ...process.env, DYING: dying + more };
    const child = shell(`export LEADER=$$; ${left}; ${on("exit 0", "USR1")}`, { env });
    const pidOf = async (line: string): Promise<number> => Number((await child.output.line(line)).slice(line.length));
    const parent = await pidOf("parent ");
    onTestFinished(() => kill(parent));
    const zombie = await pidOf("dying ");
    await child.output.line("ready");
    if (more) await child.output.line("left");
    else await waitUntil(() => statOf(zombie)[0] === "Z");
    expect(statOf(zombie).slice(1)).toEqual([`${parent}`, `${child.pid}`]);
    const read = vi.fn(fs.readFileSync);
    replace("readFileSync", read as never);
    kill(child.pid, "SIGUSR1");
    if (more) await child.log.until("child-exited");
    expect(await (more ? finish(child) : child.end())).toBe("returned");
    // Nothing but processes is read about, of which there may be many.
    for (const [path] of read.mock.calls) expect(path).toMatch(/^\/proc\/(\d+|self)\/stat$/);
    // It was there all the time.
    expect([statOf(zombie)[0], process.kill(-child.pid, 0)]).toEqual(["Z", true]);
    expect(child.told).toEqual(["child-started", "child-exited"]);
  });

  /** Replaces a function of `node:fs` until the end of the test, or what is returned is called. */
  function replace<Name extends "readFileSync" | "readdirSync">(name: Name, by: (typeof fs)[Name]): () => void {
    const real = fs[name];
    const put = (one: (typeof fs)[Name]): void => {
      fs[name] = one;
      syncBuiltinESMExports();
    };
    put(by);
    onTestFinished(() => put(real));
    return () => put(real);
  }

  test.each<[string, (path: string, real: typeof fs.readFileSync) => unknown]>([
    ["no /proc", () => expect.fail("There is none")],
    ["the /proc of another namespace", (_, real) => real("/proc/1/stat", "latin1")],
  ])("is waited for, where there is %s, as long as anything of the group can be signalled", async (_, read) => {
    const { readFileSync } = fs;
    const restore = replace("readFileSync", ((path: string) => read(path, readFileSync)) as never);
    const starting = leaving(0, deaf("left"));
    restore();
    const child = await starting;
    const left = living(child.pid);
    let asked = 0;
    let isGone = false;
    const { kill: real } = process;
    vi.spyOn(process, "kill").mockImplementation((pid, signal) => {
      if (pid !== -child.pid || signal !== 0) return real.call(process, pid, signal);
      // Who asks how it ended is not this process, and may take his time.
      if (isGone) throw Object.assign(new Error("kill ESRCH"), { code: "ESRCH" });
      asked++;
      return true;
    });
    onTestFinished(() => void vi.restoreAllMocks());
    await waitUntil(() => asked > 5);
    expect([child.now, left.length > 0]).toEqual(["running", true]);
    for (const pid of left) kill(pid);
    await waitUntil(() => living(child.pid).length === 0);
    asked = 0;
    await waitUntil(() => asked > 2);
    isGone = true;
    await child.end();
    expect(child.now).toBe("returned");
  });
});

describe("What cannot be killed", () => {
  /** As if its processes belonged to another user, or the kernel could not end them. */
  function unkillable(way: "refused" | "ignored"): void {
    const real = process.kill.bind(process);
    const fake = vi.spyOn(process, "kill").mockImplementation((pid, signal) => {
      if (way === "refused" && pid < 0) throw Object.assign(new Error("kill EPERM"), { code: "EPERM" });
      return signal === "SIGKILL" ? true : real(pid, signal);
    });
    onTestFinished(() => fake.mockRestore());
  }

  test.each(["refused", "ignored"] as const)("(a SIGKILL is %s) is left alone 2 seconds after SIGKILL", async (way) => {
    const handles = (): number => process.getActiveResourcesInfo().filter((name) => name === "ProcessWrap").length;
    const before = [handles(), process.listenerCount("exit")];
    const child = shell(deaf());
    await child.output.line("ready");
    fakeTime();
    unkillable(way);
    child.stop();
    await settle();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(child.told).toEqual(["child-started", "child-stop-timed-out"]);
    await vi.advanceTimersByTimeAsync(1_999);
    expect(child.now).toBe("running");
    await vi.advanceTimersByTimeAsync(1);
    await settle();
    // Nothing of it is left here, though it lives.
    expect([handles(), process.listenerCount("exit")]).toEqual(before);
    expect(living(child.pid)).toEqual([child.pid]);
    expect(child.now).toMatchObject({
      name: "ChildExitError",
      message: "Program sh has not ended; its group got SIGKILL after 10000 ms",
      exitCode: null,
      signal: null,
    });
    vi.restoreAllMocks();
    vi.useRealTimers();
    kill(-child.pid);
    await child.output.all();
    await waitUntil(() => statOf(child.pid).length === 0);
    // What it does afterwards is told to nobody.
    expect(child.told).toEqual(["child-started", "child-stop-timed-out"]);
  });
});

describe("The end of this process", () => {
  test("all groups share one listener for it, which kills those that live, and is gone with the last", async () => {
    const before = process.listeners("exit");
    const children = [shell(ENDLESS), shell(beside(deaf(), deaf("left"))), shell(ENDLESS)];
    const [first, second, third] = children as [Child, Child, Child];
    await Promise.all([first.output.line("ready"), second.output.line("ready", "left"), third.output.line("ready")]);
    const [listener, ...others] = process.listeners("exit").filter((each) => !before.includes(each));
    expect(others).toEqual([]);
    first.stop();
    expect(await first.end()).toBe("returned");
    expect(process.listeners("exit")).toEqual([...before, listener]);
    listener?.call(process, 0);
    const killed = { name: "ChildExitError", message: "Program sh was killed by SIGKILL" };
    expect(await second.end()).toMatchObject(killed);
    expect(await third.end()).toMatchObject(killed);
    expect(process.listeners("exit")).toEqual(before);
    await Promise.all(children.map(({ output }) => output.all()));
  });

  test.each([
    ["process.exit", "exit", 5],
    ["an error that nobody caught", "throw", 1],
  ])("by %s, kills all groups that live", async (_, mode, code) => {
    const program = new Program("fixtures/child.ts", [mode], {}, { stdin: "pipe" });
    for (const line of ["one", "two", "three"]) await program.line(line);
    expect(program.processes.length).toBeGreaterThanOrEqual(4);
    program.write("end");
    // That comes only when nobody is left who could print anything.
    expect(await program.end()).toBe(code);
    await waitUntil(() => program.processes.length === 0);
  });

  test("does not come before that of a program and of what it has left behind, and nothing else keeps it", async () => {
    const program = new Program("fixtures/child.ts", ["alone"]);
    expect([await program.end(), program.stderr]).toEqual([0, ""]);
    expect(program.lines).toEqual(["ready", "finished", "left [] and 0 listeners"]);
  });
});

describe("Runs", () => {
  test("a second one at once is refused with TaskAlreadyStartedError, and leaves the first alone", async () => {
    const child = shell(ENDLESS);
    const error = await child.task.run(new AbortController().signal).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(TaskAlreadyStartedError);
    expect(error).toMatchObject({ task: "sh" });
    await child.output.line("ready");
    expect([child.now, child.told]).toEqual(["running", ["child-started"]]);
    child.stop();
    // It is one until the group is gone.
    await expect(child.task.run(child.controller.signal)).rejects.toThrow(TaskAlreadyStartedError);
    expect(await child.end()).toBe("returned");
  });

  test("may follow each other, whether one has returned, failed, or could not be started", async () => {
    const output = new Output();
    const folder = fs.mkdtempSync("/tmp/allstop-child-");
    onTestFinished(() => fs.rmSync(folder, { recursive: true }));
    const command = join(folder, "program");
    const task = new ChildProcessTask(command, [], { stdio: ["ignore", output.fd, "inherit"], stopTimeout: 20 });
    const { signal } = new AbortController();
    await expect(task.run(signal)).rejects.toMatchObject({ code: "ENOENT" });
    for (const script of ["exit 3", "exit 0", "echo again"]) {
      fs.writeFileSync(command, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
      const run = task.run(signal);
      if (script === "exit 3") await expect(run).rejects.toMatchObject({ exitCode: 3 });
      else await run;
    }
    expect(await output.all()).toEqual(["again"]);
  });

  test("with RestartTask it is a process supervisor", async () => {
    const log = new EventLog();
    const manager = new Manager({ name: "api", onEvent: log.observe });
    const task = new ChildProcessTask("sh", ["-c", "exit 3"], { name: "worker" });
    manager.run(new RestartTask(task, { maxRestarts: 1, delay: 0 }));
    const error = await manager.wait().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RestartLimitError);
    const cause = (error as Error).cause as ChildExitError;
    expect([cause.name, cause.exitCode]).toEqual(["ChildExitError", 3]);
    const words = log.events.map((event) => "task" in event ? `${event.type} ${event.task}` : event.type);
    expect(words).toEqual([
      "task-started api/worker",
      "child-started api/worker",
      "child-exited api/worker",
      "task-restarting api/worker",
      "task-restarted api/worker",
      "child-started api/worker",
      "child-exited api/worker",
      "task-gave-up api/worker",
      "task-ended api/worker",
      "stopping",
      "stopped",
    ]);
  });
});

describe("Events", () => {
  test("go to the `onEvent` of its manager, under its full name", async () => {
    const [log, output] = [new EventLog(), new Output()];
    const manager = new Manager({ name: "api", onEvent: log.observe });
    const stdio: ChildProcessOptions["stdio"] = ["ignore", output.fd, "ignore"];
    manager.run(new ChildProcessTask("sh", ["-c", deaf()], { stdio, stopTimeout: 5 }));
    const { pid } = await log.until("child-started");
    await output.line("ready");
    const reason = new Error("enough");
    const error = (await manager.stop(reason).catch((thrown: unknown) => thrown)) as ChildExitError;
    expect(error).toBeInstanceOf(ChildExitError);
    expect(told(log)).toEqual([
      started("api/sh"),
      { type: "child-started", task: "api/sh", pid },
      stopping("api", reason, "api/sh"),
      { type: "child-stop-timed-out", task: "api/sh", pid },
      exited("api/sh", pid, null, "SIGKILL"),
      ended("api/sh", error),
      stopped("api", { source: "api/sh", error }),
    ]);
  });

  test("go to its own `onEvent`, if it has one, also under a manager; one that throws changes nothing", async () => {
    const onEvent = vi.fn(throwing(new Error("no")));
    const ofManager = new EventLog();
    const manager = new Manager({ name: "api", onEvent: ofManager.observe });
    manager.run(new ChildProcessTask("true", [], { onEvent }));
    await manager.wait();
    expect(onEvent.mock.calls.flat().map((event: LifecycleEvent) => "task" in event && event.task)).toEqual([
      "api/true",
      "api/true",
    ]);
    expect(ofManager.events.filter(({ type }) => type.startsWith("child"))).toEqual([]);
  });
});

describe("Bad arguments and options", () => {
  const refusal = "Cannot create a ChildProcessTask: ";

  test.each<[string, unknown, string]>([
    ["command", undefined, "command must be of type string, got undefined"],
    ["command", 5, "command must be of type string, got 5"],
    ["args", "-c", 'args must be a list of strings, got "-c"'],
    ["args", null, "args must be a list of strings, got null"],
    ["args", ["a", 5], 'args must be a list of strings, got ["a",5]'],
    ["args", new Array(1), "args must be a list of strings, got [null]"],
    ["options", "name", 'options must be of type object, got "name"'],
    ["name", 5, "name must be of type string, got 5"],
    ["cwd", 5, "cwd must be of type string, got 5"],
    ["env", "A=a", 'env must be of type object, got "A=a"'],
    ["env", null, "env must be of type object, got null"],
    ["stdio", 5, "stdio must be a string or a list, got 5"],
    ["stdio", null, "stdio must be a string or a list, got null"],
    ["stopSignal", 15, "stopSignal must be of type string, got 15"],
    ["stopTimeout", "1", 'stopTimeout must be of type number, got "1"'],
    ["onEvent", "log", 'onEvent must be of type function, got "log"'],
  ])("%s, %j, is a TypeError", (what, value, message) => {
    const thrown = thrownBy(() => make(what, value));
    expect(thrown).toBeInstanceOf(TypeError);
    expect((thrown as Error).message).toBe(refusal + message);
  });

  test.each<[string, unknown, string]>([
    ["command", "", 'command must not be empty, got ""'],
    ["stopSignal", "SIGNOPE", 'stopSignal must be one that the system knows, got "SIGNOPE"'],
    ["stopSignal", "sigterm", 'stopSignal must be one that the system knows, got "sigterm"'],
    ["stopSignal", "toString", 'stopSignal must be one that the system knows, got "toString"'],
    ["stopTimeout", -1, "stopTimeout must be 0 or more milliseconds, got -1"],
    ["stopTimeout", NaN, "stopTimeout must be 0 or more milliseconds, got NaN"],
  ])("%s, %j, is a RangeError", (what, value, message) => {
    const thrown = thrownBy(() => make(what, value));
    expect(thrown).toBeInstanceOf(RangeError);
    expect((thrown as Error).message).toBe(refusal + message);
  });

  function make(what: string, value: unknown): ChildProcessTask {
    if (what === "command") return new ChildProcessTask(value as string);
    if (what === "args") return new ChildProcessTask("sh", value as string[]);
    return new ChildProcessTask("sh", [], (what === "options" ? value : { [what]: value }) as ChildProcessOptions);
  }

  test("every signal that the system knows can be the `stopSignal`", () => {
    for (const stopSignal of Object.keys(constants.signals) as NodeJS.Signals[]) {
      expect(new ChildProcessTask("sh", [], { stopSignal }).name).toBe("sh");
    }
  });

  test("on Windows, which has no process groups, the constructor throws an error that says so", () => {
    const platform = Object.getOwnPropertyDescriptor(process, "platform") ?? {};
    Object.defineProperty(process, "platform", { ...platform, value: "win32" });
    onTestFinished(() => void Object.defineProperty(process, "platform", platform));
    const message = `${refusal}there are no process groups on Windows`;
    expect(thrownBy(() => new ChildProcessTask("sh"))).toEqual(new Error(message));
  });
});
