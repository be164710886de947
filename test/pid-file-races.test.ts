import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { acquirePidFile, readPidFile } from "allstop/pid-file";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { as, atEachMoment, CALLS, dead, frozenAt, killedAt, kinds, me, Scene, startOf } from "./support/pid-file.ts";
import { useNoUnhandledRejections } from "./support/process-events.ts";
import { Program } from "./support/program.ts";

useNoUnhandledRejections();
const scene = new Scene();
const stale = kinds[1]?.[1];

test("of 8 simultaneous starters exactly one wins, 25 times, over a fresh, stale, empty or garbage file", async () => {
  const crowd = new Program("fixtures/pid-file.ts", ["8"], {}, { stdin: "pipe" });
  await crowd.line("ready");
  for (let id = 1; id <= 50; id += 2) {
    const [, text] = kinds[((id - 1) / 2) % kinds.length] ?? [];
    scene.putBack(text);
    crowd.write(JSON.stringify({ id, action: "acquire", path: scene.path }));
    const told: { outcome: object }[] = JSON.parse(await crowd.line(`{"id":${id},`));
    const { path } = scene;
    const { pid = 0 } = readPidFile(path);
    const outcomes = told.map(({ outcome }) => outcome);
    expect(outcomes.filter((outcome) => !("error" in outcome))).toEqual([{ path, pid }]);
    const refusal = { error: { name: "AlreadyRunningError", path, pid } };
    expect(outcomes.filter((outcome) => "error" in outcome)).toEqual(Array(7).fill(refusal));
    scene.expectHeldBy(pid);
    crowd.write(JSON.stringify({ id: id + 1, action: "release" }));
    await crowd.line(`{"id":${id + 1},`);
    expect(scene.files).toEqual([]);
  }
  // Less than a second, but more on a machine that has a lot to do besides. (20 of them are in test/interop.)
});

test.each(kinds)("nobody ever finds it empty, half or missing, but as it was: %s", async (_, text) => {
  scene.putBack(text);
  const own = `${me}\n${startOf(me)}\n`;
  const seen: unknown[] = [];
  expect(await scene.acquire(me, () => seen.push(scene.text))).toBe("won");
  seen.push(scene.text);
  const change = seen.indexOf(own);
  expect(change).toBeGreaterThan(2);
  expect(seen).toEqual([...Array(change).fill(text), ...Array(seen.length - change).fill(own)]);
});

test.each(kinds)("nothing is ever removed but what is its own: %s", async (_, text) => {
  scene.putBack(text);
  const removed: unknown[] = [];
  const look = (_: number, name: string, path: unknown): void => {
    if (name === "unlinkSync") removed.push(existsSync(String(path)) && readFileSync(String(path), "latin1"));
  };
  const file = await as(me, () => acquirePidFile(scene.path), look);
  await as(me, () => file.release(), look);
  expect(removed.length).toBeGreaterThan(3);
  expect(removed).toEqual(removed.map(() => `${me}\n${startOf(me)}\n`));
});

describe("one that is frozen at any moment does not let two win", () => {
  test.each(kinds)("%s", async (_, text) => {
    const moments = await atEachMoment(async (moment, onReached) => {
      scene.putBack(text);
      const outcomes: Promise<unknown>[] = [];
      const meanwhile = frozenAt(moment, onReached, () => outcomes.push(scene.acquire(scene.berta)));
      outcomes.push(scene.acquire(scene.adam, meanwhile));
      scene.expectOneOf(await Promise.all(outcomes));
      expect(scene.files).toEqual(["app.pid"]);
    });
    expect(moments).toBeGreaterThanOrEqual(5);
  });

  test("nor two of them", async () => {
    await atEachMoment(async (first, onFirst) => {
      await atEachMoment(async (second, onSecond) => {
        scene.putBack(stale);
        const outcomes: Promise<unknown>[] = [];
        const carls = frozenAt(second, onSecond, () => outcomes.push(scene.acquire(scene.carl)));
        const bertas = frozenAt(first, onFirst, () => outcomes.push(scene.acquire(scene.berta, carls)));
        outcomes.push(scene.acquire(scene.adam, bertas));
        scene.expectOneOf(await Promise.all(outcomes));
        expect(scene.files).toEqual(["app.pid"]);
      });
    });
  });

  test("nor while another is killed", async () => {
    await atEachMoment(async (frozen, onFrozen) => {
      await atEachMoment(async (killed, onKilled) => {
        scene.putBack(stale);
        const outcomes: Promise<unknown>[] = [];
        const others = frozenAt(frozen, onFrozen, () => {
          void scene.acquire(dead, killedAt(killed, onKilled));
          outcomes.push(scene.acquire(scene.berta));
        });
        outcomes.push(scene.acquire(scene.adam, others));
        scene.expectOneOf(await Promise.all(outcomes));
      });
    });
  });

  test("nor after another was killed", async () => {
    await atEachMoment(async (killed, onKilled) => {
      await atEachMoment(async (frozen, onFrozen) => {
        scene.putBack(stale);
        await scene.acquire(dead, killedAt(killed, onKilled));
        const outcomes: Promise<unknown>[] = [];
        const others = frozenAt(frozen, onFrozen, () => outcomes.push(scene.acquire(scene.berta)));
        outcomes.push(scene.acquire(scene.adam, others));
        scene.expectOneOf(await Promise.all(outcomes));
      });
    });
  });

  test("nor has won, if its claim is void", async () => {
    await atEachMoment(async (first, onFirst) => {
      await atEachMoment(async (second, onSecond) => {
        scene.putBack(stale);
        const outcomes: Promise<unknown>[] = [];
        // Overtaken as it claims the file, and frozen for good as it is about to look at it again.
        const overtaken = frozenAt(second, onSecond, () => outcomes.push(scene.acquire(scene.berta)));
        const frozen = killedAt(second + 2, () => {});
        const carls = (...call: Parameters<typeof frozen>): void => {
          overtaken(...call);
          frozen(...call);
        };
        const meanwhile = frozenAt(first, onFirst, () => void scene.acquire(scene.carl, carls));
        outcomes.push(scene.acquire(scene.adam, meanwhile));
        const ends = await Promise.all(outcomes);
        if (ends.includes("won")) scene.expectOneOf(ends);
        else expect(ends).toEqual(ends.map(() => scene.carl));
      });
    });
  });

  test("nor keeps the next out, if its claim is void", async () => {
    scene.putBack(stale);
    let isOvertaken = false;
    let isFrozen = false;
    const end = scene.acquire(scene.carl, (_, name) => {
      // Overtaken as it makes the claim, and frozen for good as it is about to look at the file again.
      isFrozen ||= isOvertaken && name === "openSync";
      if (isFrozen) throw new Error("frozen");
      if (isOvertaken || name !== "linkSync") return;
      isOvertaken = true;
      void scene.acquire(dead);
    });
    expect(await end).toEqual(new Error("frozen"));
    expect([readPidFile(scene.path).pid, scene.files.length]).toEqual([dead, 2]);
    expect(await scene.acquire(scene.adam)).toBe("won");
  });

  test("nor when the directory has two names", async () => {
    const alias = join(scene.folder, "alias");
    const real = join(scene.folder, "real");
    const paths = [join(real, "app.pid"), join(alias, "app.pid")];
    await atEachMoment(async (moment, onReached) => {
      mkdirSync(real);
      symlinkSync("real", alias);
      scene.path = paths[0] ?? "";
      await scene.acquire(dead);
      const outcomes: Promise<unknown>[] = [];
      const meanwhile = frozenAt(moment, onReached, () => {
        scene.path = paths[1] ?? "";
        outcomes.push(scene.acquire(scene.berta));
      });
      outcomes.push(scene.acquire(scene.adam, meanwhile));
      scene.expectOneOf(await Promise.all(outcomes));
      rmSync(real, { recursive: true });
      rmSync(alias);
    });
  });
});

describe("one that is killed at any moment does not keep the next out", () => {
  test.each(kinds)("%s", async (_, text) => {
    const moments = await atEachMoment(async (moment, onReached) => {
      scene.putBack(text);
      await scene.acquire(dead, killedAt(moment, onReached));
      expect(await scene.acquire(scene.adam)).toBe("won");
      expect(readPidFile(scene.path)).toEqual({ pid: scene.adam, running: true });
    });
    expect(moments).toBeGreaterThanOrEqual(5);
  });

  test("nor do two of them", async () => {
    await atEachMoment(async (first, onFirst) => {
      await atEachMoment(async (second, onSecond) => {
        scene.putBack(stale);
        await scene.acquire(dead, killedAt(first, onFirst));
        await scene.acquire(dead, killedAt(second, onSecond));
        expect(await scene.acquire(scene.adam)).toBe("won");
        expect(readPidFile(scene.path)).toEqual({ pid: scene.adam, running: true });
      });
    });
  });

  test("nor while it releases the file", async () => {
    await atEachMoment(async (moment, onReached) => {
      scene.putBack(undefined);
      const file = await scene.hold(dead);
      await as(dead, () => file.release(), killedAt(moment, onReached)).catch(() => {});
      expect(await scene.acquire(scene.adam)).toBe("won");
      expect(readPidFile(scene.path)).toEqual({ pid: scene.adam, running: true });
    });
  });
});

describe("a disk that fails at any moment", () => {
  const failure = Object.assign(new Error("EIO"), { code: "EIO" });

  /** Fails once, and not only at calls that others could notice. */
  function failing<Result>(moment: number, onReached: (name: string) => void, action: () => Result): Result {
    const fail = (call: number, name: string): void => {
      if (call !== moment) return;
      onReached(name);
      throw failure;
    };
    return as(scene.adam, action, fail, CALLS);
  }

  test.each(kinds)("leaves nothing behind, and nobody out: %s", async (_, text) => {
    await atEachMoment(async (moment, onReached) => {
      scene.putBack(text);
      let failed = "";
      const onFailed = (name: string): void => {
        failed = name;
        onReached();
      };
      const end = await failing(moment, onFailed, () => acquirePidFile(scene.path)).catch((error: unknown) => error);
      // What could not be removed is there, and does no harm.
      const hasWon = ["", "unlinkSync"].includes(failed);
      if (!hasWon) {
        expect([end, scene.text]).toEqual([failure, text]);
        expect(scene.files).toEqual(text === undefined ? [] : ["app.pid"]);
      }
      expect(await scene.acquire(scene.berta)).toBe(hasWon ? scene.adam : "won");
    });
  });

  test("can be told by a release, which can then be tried again", async () => {
    await atEachMoment(async (moment, onReached) => {
      scene.putBack(undefined);
      const file = await scene.hold(scene.adam);
      const released = failing(moment, onReached, () => file.release());
      const error = await released.catch((thrown: unknown) => thrown);
      expect([undefined, failure]).toContain(error);
      expect(existsSync(scene.path)).toBe(error !== undefined);
      if (error) scene.expectHeldBy(scene.adam);
      await file.release();
      expect(existsSync(scene.path)).toBe(false);
    });
  });
});

describe("replaces", () => {
  test("lets one of several take over, whenever one of them is frozen", async () => {
    await atEachMoment(async (moment, onReached) => {
      scene.putBack(undefined);
      const replaces = scene.adam;
      await scene.hold(replaces);
      const outcomes: Promise<unknown>[] = [];
      const meanwhile = frozenAt(moment, onReached, () => {
        outcomes.push(scene.acquire(scene.carl, undefined, { replaces }));
      });
      outcomes.push(scene.acquire(scene.berta, meanwhile, { replaces }));
      scene.expectOneOf(await Promise.all(outcomes));
      expect(scene.files).toEqual(["app.pid"]);
    });
  });

  test("waits for a holder that is just releasing the file, and then acquires it", async () => {
    let waited = 0;
    const moments = await atEachMoment(async (moment, onReached) => {
      scene.putBack(undefined);
      const replaces = scene.adam;
      const file = await scene.hold(replaces);
      let end: Promise<unknown> | undefined;
      const meanwhile = frozenAt(moment, onReached, () => {
        end = scene.acquire(scene.berta, undefined, { replaces });
        if (readPidFile(scene.path).pid === replaces) waited++;
      });
      await as(replaces, () => file.release(), meanwhile);
      if (end) expect(await end).toBe("won");
      expect(scene.files).toEqual(end ? ["app.pid"] : []);
    });
    expect(moments).toBeGreaterThan(7);
    expect(waited).toBeGreaterThan(1);
  });

  test("leaves the file of one that is releasing it, to the one that is taking it over", async () => {
    await atEachMoment(async (moment, onReached) => {
      scene.putBack(undefined);
      const replaces = scene.adam;
      const file = await scene.hold(replaces);
      let released: Promise<void> | undefined;
      const meanwhile = frozenAt(moment, onReached, () => {
        released = as(replaces, () => file.release());
      });
      expect(await scene.acquire(scene.berta, meanwhile, { replaces })).toBe("won");
      await released;
      scene.expectHeldBy(scene.berta);
    });
  });

  test("lets one win, when the holder is frozen as it releases the file, and another one comes", async () => {
    await atEachMoment(async (first, onFirst) => {
      await atEachMoment(async (second, onSecond) => {
        scene.putBack(undefined);
        const replaces = scene.adam;
        const file = await scene.hold(replaces);
        const outcomes: Promise<unknown>[] = [];
        let released: Promise<void> | undefined;
        const carls = frozenAt(second, onSecond, () => outcomes.push(scene.acquire(scene.carl)));
        const adams = frozenAt(first, onFirst, () => {
          released = as(replaces, () => file.release(), carls);
        });
        outcomes.push(scene.acquire(scene.berta, adams, { replaces }));
        const ends = await Promise.all(outcomes);
        await released;
        expect(ends.filter((end) => end === "won")).toEqual(["won"]);
        scene.expectHeldBy(readPidFile(scene.path).pid ?? 0);
      });
    });
  });

  describe("waits a second at most", () => {
    /** Has a process frozen while it releases the file. */
    async function freeze(pid: number): Promise<void> {
      const file = await scene.hold(pid);
      let isFrozen = false;
      const frozen = as(
        pid,
        () => file.release(),
        () => {
          isFrozen ||= scene.files.length === 2 && scene.files.some((name) => /pid\.\w{16}$/.test(name));
          if (isFrozen) throw new Error("frozen");
        },
      );
      await expect(frozen).rejects.toThrow("frozen");
    }

    beforeEach(() => void vi.useFakeTimers());
    afterEach(() => void vi.useRealTimers());

    test("for a holder that does not end to release the file, and then refuses", async () => {
      await freeze(scene.adam);
      const end = scene.acquire(scene.berta, undefined, { replaces: scene.adam });
      await vi.advanceTimersByTimeAsync(999);
      expect(vi.getTimerCount()).toBe(1);
      await vi.advanceTimersByTimeAsync(1);
      expect(vi.getTimerCount()).toBe(0);
      expect(await end).toBe(scene.adam);
      expect(readPidFile(scene.path).pid).toBe(scene.adam);
    });

    test("and acquires the file when that holder has ended meanwhile", async () => {
      const holder = spawn("sleep", ["100"]);
      await freeze(holder.pid ?? 0);
      const end = scene.acquire(scene.berta, undefined, { replaces: holder.pid });
      await vi.advanceTimersByTimeAsync(100);
      expect(vi.getTimerCount()).toBe(1);
      holder.kill("SIGKILL");
      await once(holder, "close");
      await vi.advanceTimersByTimeAsync(5);
      expect(await end).toBe("won");
      scene.expectHeldBy(scene.berta);
    });
  });
});
