import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { setImmediate } from "node:timers/promises";
import { Manager } from "allstop";
import { AlreadyRunningError, acquirePidFile, readPidFile } from "allstop/pid-file";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { dead, kinds, me, Scene, startOf, withoutProc } from "./support/pid-file.ts";
import { useNoUnhandledRejections } from "./support/process-events.ts";
import { Program } from "./support/program.ts";
import { thrownBy } from "./support/thrown-by.ts";

useNoUnhandledRejections();
const scene = new Scene();

describe("acquirePidFile", () => {
  test("gives the path, the pid, release() and [Symbol.asyncDispose]()", async () => {
    const file = await acquirePidFile(scene.path);
    const [{ path }, release] = [scene, expect.any(Function)];
    expect(file).toEqual({ path, pid: me, release, [Symbol.asyncDispose]: release });
    scene.expectHeldBy(me);
    expect(await file[Symbol.asyncDispose]()).toBeUndefined();
    expect(scene.files).toEqual([]);
  });

  test("throws an AlreadyRunningError with the pid and the path, also in the process that holds it", async () => {
    await acquirePidFile(scene.path);
    const error = await acquirePidFile(relative(process.cwd(), scene.path)).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(AlreadyRunningError);
    expect(String(error)).toBe(`AlreadyRunningError: Cannot acquire ${scene.path}: process ${me} is already running`);
    expect({ ...(error as object) }).toEqual({ pid: me, path: scene.path });
    scene.expectHeldBy(me);
  });

  test("makes a file whose first line is the pid, and whose second is when that process started", async () => {
    await acquirePidFile(scene.path);
    expect(scene.text).toBe(`${me}\n${startOf(me)}\n`);
  });

  test("makes a file of one line where there is no /proc, and counts others by their pid", async () => {
    await withoutProc(() => acquirePidFile(scene.path));
    expect(scene.text).toBe(`${me}\n`);
    expect(await withoutProc(() => scene.acquire(scene.adam))).toBe(me);
    expect(withoutProc(() => readPidFile(scene.path))).toEqual({ pid: me, running: true });
  });

  test("leaves nothing open", async () => {
    const { opened } = scene;
    for (const [, text] of kinds) {
      scene.putBack(text);
      await (await acquirePidFile(scene.path)).release();
    }
    await acquirePidFile(scene.folder).catch(() => {});
    expect(scene.opened).toBe(opened);
  });

  test("takes a dangling symbolic link for garbage, and reads one that leads to a file", async () => {
    symlinkSync(join(scene.folder, "nothing"), scene.path);
    expect(readPidFile(scene.path)).toEqual({ pid: undefined, running: false });
    expect(await scene.acquire(scene.adam)).toBe("won");
    scene.expectHeldBy(scene.adam);
    symlinkSync(scene.path, join(scene.folder, "link.pid"));
    scene.path = join(scene.folder, "link.pid");
    expect(await scene.acquire(scene.berta)).toBe(scene.adam);
    // What is replaced is the link itself.
    expect(await scene.acquire(scene.berta, undefined, { replaces: scene.adam })).toBe("won");
    expect([scene.text, readFileSync(join(scene.folder, "app.pid"), "utf8")]).toEqual([
      `${scene.berta}\n${startOf(scene.berta)}\n`,
      `${scene.adam}\n${startOf(scene.adam)}\n`,
    ]);
  });
});

describe("readPidFile", () => {
  test("tells the pid, and whether that process is running", () => {
    writeFileSync(scene.path, `${scene.adam}\n${startOf(scene.adam)}\n`);
    expect(readPidFile(scene.path)).toEqual({ pid: scene.adam, running: true });
    writeFileSync(scene.path, `${dead}\n`);
    expect(readPidFile(scene.path)).toEqual({ pid: dead, running: false });
  });

  test("tells of no pid if the file is missing or empty", () => {
    expect(readPidFile(scene.path)).toEqual({ pid: undefined, running: false });
    writeFileSync(scene.path, "");
    expect(readPidFile(scene.path)).toEqual({ pid: undefined, running: false });
  });

  test("counts a file of one line by its pid", () => {
    for (const text of [`${scene.adam}`, `${scene.adam}\n`, `${scene.adam}\n\n`]) {
      writeFileSync(scene.path, text);
      expect(readPidFile(scene.path)).toEqual({ pid: scene.adam, running: true });
    }
  });

  test("takes a second line that is no number for none: whoever wrote it is not taken for another", () => {
    for (const line of ["/var/lib/data", "1234567890123456789012345 days", "-1", "1.5"]) {
      writeFileSync(scene.path, `${scene.adam}\n${line}\n`);
      expect(readPidFile(scene.path)).toEqual({ pid: scene.adam, running: true });
    }
  });

  test.each([
    ["2147483647", 2_147_483_647],
    ["2147483648", undefined],
    ["4294967297", undefined],
    ["9".repeat(400), undefined],
  ])("takes the largest pid that a system may have for one, and all above for garbage: %s", (text, pid) => {
    writeFileSync(scene.path, text);
    expect(readPidFile(scene.path)).toEqual({ pid, running: false });
  });

  // Most of them are what somebody could take for 1, which is always running.
  const like1 = ["+1", "1.0", "1e0", "0x1", "01", " 1", "1 ", "1\r\n", "\n1", "1 2", "1\0", "\ufeff1", "\u0661"];
  const garbage = [...like1, "0", "-1", "one"];

  test.each(garbage)("takes a first line that is no positive decimal integer for garbage: %j", async (text) => {
    writeFileSync(scene.path, text);
    expect(readPidFile(scene.path)).toEqual({ pid: undefined, running: false });
    await acquirePidFile(scene.path);
    scene.expectHeldBy(me);
  });

  test("reads only the beginning of garbage that is long", async () => {
    writeFileSync(scene.path, Buffer.alloc(10_000_000, "1"));
    expect(readPidFile(scene.path)).toEqual({ pid: undefined, running: false });
    await acquirePidFile(scene.path);
    scene.expectHeldBy(me);
  });
});

describe("The holder", () => {
  test("that is of another user, which EPERM tells, is alive", async () => {
    const kill = vi.spyOn(process, "kill").mockImplementation(() => {
      throw Object.assign(new Error("kill EPERM"), { code: "EPERM" });
    });
    writeFileSync(scene.path, `${scene.adam}\n${startOf(scene.adam)}\n`);
    const outcomes = [readPidFile(scene.path), await scene.acquire(scene.berta)];
    kill.mockRestore();
    expect(outcomes).toEqual([{ pid: scene.adam, running: true }, scene.adam]);
  });

  test("that is a zombie is dead", async () => {
    const parent = spawn("sh", ["-c", "sleep 100 & echo $!; exec sleep 100"]);
    onTestFinished(() => void parent.kill("SIGKILL"));
    const [output] = (await once(parent.stdout, "data")) as [Buffer];
    const zombie = Number(output);
    // A shell would ask how it has ended.
    while (!readFileSync(`/proc/${parent.pid}/comm`, "latin1").startsWith("sleep")) await setImmediate();
    process.kill(zombie, "SIGKILL");
    while (!readFileSync(`/proc/${zombie}/stat`, "latin1").includes(") Z ")) await setImmediate();
    for (const text of [`${zombie}\n`, `${zombie}\n${startOf(zombie)}\n`]) {
      writeFileSync(scene.path, text);
      expect(process.kill(zombie, 0)).toBe(true);
      expect(readPidFile(scene.path)).toEqual({ pid: zombie, running: false });
    }
    await acquirePidFile(scene.path);
    scene.expectHeldBy(me);
  });

  test.each([-1, 1])("whose pid was recycled, as it started %i ticks apart, is stale", async (difference) => {
    writeFileSync(scene.path, `${me}\n${Number(startOf(me)) + difference}\n`);
    expect(readPidFile(scene.path)).toEqual({ pid: me, running: false });
    await acquirePidFile(scene.path);
    scene.expectHeldBy(me);
  });
});

describe("replaces", () => {
  test("names a holder that may be taken over", async () => {
    await scene.acquire(scene.adam);
    expect(await scene.acquire(scene.berta, undefined, { replaces: scene.adam })).toBe("won");
    scene.expectHeldBy(scene.berta);
  });

  test("names no other holder, and is needed by each of several starters", async () => {
    await scene.acquire(scene.adam);
    expect(await scene.acquire(scene.berta, undefined, { replaces: scene.carl })).toBe(scene.adam);
    expect(await scene.acquire(scene.berta, undefined, { replaces: undefined })).toBe(scene.adam);
    expect(await scene.acquire(scene.carl, undefined, { replaces: scene.adam })).toBe("won");
    expect(await scene.acquire(scene.berta, undefined, { replaces: scene.adam })).toBe(scene.carl);
  });

  test.each([
    [0, RangeError],
    [-1, RangeError],
    [1.5, RangeError],
    [NaN, RangeError],
    [Infinity, RangeError],
    ["1", TypeError],
    [null, TypeError],
  ])("must be a whole number above 0: %s is a %o", async (replaces, Refusal) => {
    const error = await acquirePidFile(scene.path, { replaces: replaces as never }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(Refusal);
    const rule = Refusal === TypeError ? "of type number" : "a whole number above 0";
    expect(String(error)).toContain(`Cannot acquire a PID file: replaces must be ${rule}, got `);
    expect(scene.files).toEqual([]);
  });
});

describe("release", () => {
  test("removes the file only if it is still ours", async () => {
    const file = await acquirePidFile(scene.path);
    for (const text of [`${scene.berta}\n`, `${me}\n`, `${me}\n1\n`, ""]) {
      writeFileSync(scene.path, text);
      await file.release();
      expect(scene.text).toBe(text);
      expect(scene.files).toEqual(["app.pid"]);
      // That was its release.
      file.release = (await acquireAgain()).release;
    }
  });

  async function acquireAgain(): Promise<{ release(): Promise<void> }> {
    rmSync(scene.path);
    return acquirePidFile(scene.path);
  }

  test("is idempotent: the second time it does nothing, even if this process has acquired the file again", async () => {
    const file = await acquirePidFile(scene.path);
    await file.release();
    await file.release();
    await acquirePidFile(scene.path);
    await file.release();
    await file[Symbol.asyncDispose]();
    scene.expectHeldBy(me);
  });

  test("does nothing if the file, or its directory, is not there any more", async () => {
    const file = await acquirePidFile(scene.path);
    rmSync(scene.path);
    await file.release();
    const other = await acquirePidFile(scene.path);
    scene.putBack(undefined);
    rmSync(scene.folder, { recursive: true });
    await other.release();
    mkdirSync(scene.folder);
  });

  test("is a cleanup hook as it is", async () => {
    const manager = new Manager();
    manager.cleanup((await acquirePidFile(scene.path)).release);
    await manager.stop();
    expect(scene.files).toEqual([]);
  });
});

describe("A path", () => {
  const file = (): string => join(scene.folder, "file");
  const directory = (): string => join(scene.folder, "directory");

  test.each([
    ["is a directory", directory, "EISDIR"],
    ["is in a directory that is not there", () => join(scene.folder, "none", "app.pid"), "ENOENT"],
    ["is below a file", () => join(file(), "app.pid"), "ENOTDIR"],
    ["is a loop of symbolic links", () => join(scene.folder, "loop"), "ELOOP"],
    ["has too long a name", () => join(scene.folder, "x".repeat(256)), "ENAMETOOLONG"],
    ["leaves no room for a longer name", () => join(scene.folder, "x".repeat(255)), "ENAMETOOLONG"],
  ])("that %s is Node's own error, with its code and the path", async (_, pathOf, code) => {
    mkdirSync(directory());
    writeFileSync(file(), "");
    symlinkSync("loop", join(scene.folder, "loop"));
    const before = scene.files;
    scene.path = pathOf();
    const error = await acquirePidFile(scene.path).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code, message: expect.stringContaining(scene.path) });
    expect((error as Error).stack).toContain(scene.path);
    if (!code.startsWith("ENA") && code !== "ENOENT") {
      expect(thrownBy(() => readPidFile(scene.path))).toMatchObject({ code });
    }
    expect(scene.files).toEqual(before);
  });

  test("that is a pipe, or a device, is refused: it is neither replaced nor waited for", async () => {
    scene.path = join(scene.folder, "pipe");
    spawnSync("mkfifo", [scene.path]);
    const message = `Cannot read a PID from ${scene.path}: it is no regular file`;
    await expect(acquirePidFile(scene.path)).rejects.toThrow(message);
    expect(() => readPidFile(scene.path)).toThrow(message);
    expect(statSync(scene.path).isFIFO()).toBe(true);
    expect(scene.files).toEqual(["pipe"]);
  });

  test.each([
    [undefined, "be of type string, got undefined"],
    [5, "be of type string, got 5"],
    [new URL("file:///app.pid"), "be of type string, got file:///app.pid"],
    ["", 'not be empty, got ""'],
  ])("must be a string that is not empty: %s is a TypeError", async (bad, rule) => {
    const error = await acquirePidFile(bad as never).catch((thrown: unknown) => thrown);
    expect(String(error)).toBe(`TypeError: Cannot acquire a PID file: path must ${rule}`);
    const reading = String(thrownBy(() => readPidFile(bad as never)));
    expect(reading).toBe(`TypeError: Cannot read a PID file: path must ${rule}`);
  });

  test("takes options that are an object, or none", async () => {
    await expect(acquirePidFile(scene.path, 5 as never)).rejects.toThrow("options must be of type object, got 5");
    await acquirePidFile(scene.path, undefined);
  });
});

describe("A program", () => {
  let last = 0;

  /** Has it do something: resolves with what came of it. */
  async function has(program: Program, command: object): Promise<unknown> {
    const id = ++last;
    program.write(JSON.stringify({ id, ...command }));
    return JSON.parse(await program.line(`{"id":${id},`)).outcome;
  }

  test("has a file of mode 0644 less its umask, wherever it goes", async () => {
    const program = new Program("fixtures/pid-file.ts", [], {}, { cwd: scene.folder, stdin: "pipe" });
    const { path } = scene;
    for (const [umask, mode] of [
      [0, 0o644],
      [0o077, 0o600],
    ]) {
      await has(program, { action: "chdir", path: scene.folder });
      await has(program, { action: "umask", value: umask });
      expect(await has(program, { action: "acquire", path: "app.pid" })).toEqual({ pid: program.pid, path });
      expect(statSync(path).mode & 0o777).toBe(mode);
      scene.expectHeldBy(program.pid);
      expect(await scene.acquire(me)).toBe(program.pid);
      await has(program, { action: "chdir", path: tmpdir() });
      await has(program, { action: "release" });
      expect(scene.files).toEqual([]);
    }
  });

  test("that may not read or write gets Node's own error, and learns who is running even so", async () => {
    const program = new Program("fixtures/pid-file.ts", [], {}, { stdin: "pipe" });
    const denied = { error: expect.objectContaining({ code: "EACCES" }) };
    const running = (pid: number): object => ({ error: { name: "AlreadyRunningError", path: scene.path, pid } });
    const locked = join(scene.folder, "locked.pid");
    writeFileSync(locked, "");
    chmodSync(locked, 0);
    await acquirePidFile(scene.path);
    chmodSync(scene.folder, 0o555);
    await has(program, { action: "become-nobody" });
    expect(await has(program, { action: "acquire", path: locked })).toEqual(denied);
    expect(await has(program, { action: "read", path: locked })).toEqual(denied);
    expect(await has(program, { action: "acquire", path: join(scene.folder, "new.pid") })).toEqual(denied);
    expect(await has(program, { action: "acquire", path: scene.path })).toEqual(running(me));
    // What this process is to it only if we are root, this one is in any case: that of another user.
    writeFileSync(scene.path, "1\n");
    expect(await has(program, { action: "acquire", path: scene.path })).toEqual(running(1));
    expect(scene.files).toEqual(["app.pid", "locked.pid"]);
    chmodSync(scene.folder, 0o755);
  });
});
