import { getEventListeners } from "node:events";
import { setImmediate } from "node:timers/promises";
import { Manager } from "allstop";
import { AdminServerTask } from "allstop/admin";
import { GroupTask } from "allstop/group";
import type { ControlledTask } from "allstop/testing";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { type AdminRun, clientOf, question, serveAdmin, useAdmin } from "./support/admin.ts";
import type { RawClient } from "./support/http.ts";
import { stubborn } from "./support/stubborn.ts";
import { hangs } from "./support/ways.ts";

useAdmin();

/** How long what is idle is waited for, and by how much a busy machine may be late. */
const GRACE = 50;
const LATE = 8_000;

/** More than fits between a server and a client that does not read. */
const BIG = { render: () => "x".repeat(1 << 24) };

/** A manager with a task that ends only when the test ends it, and a server that knows the manager. */
async function held(options: object = {}): Promise<{ run: AdminRun; slow: ControlledTask }> {
  const slow = stubborn("slow");
  const run = await serveAdmin((manager) => ({ manager, ...options }));
  run.manager.run(slow);
  return { run, slow };
}

describe.concurrent("The stop", () => {
  test("leaves it answering, over new connections and old ones, while other tasks of its manager drain", async () => {
    const { run, slow } = await held();
    const old = await run.client(question("/ready"));
    expect((await old.answer()).status).toBe(200);
    const stopped = run.stopping();
    expect(run.task.stopping).toBe(true);
    for (let i = 0; i < 12; i++) {
      expect((await run.ask("/ready")).status).toBe(503);
      expect((await run.ask("/health")).status).toBe(200);
      expect((await run.ask("/")).body).toContain("<title>admin: stopping</title>");
    }
    old.send(question("/ready"));
    expect((await old.answer(2)).headers).toMatchObject({ connection: "close" });
    expect(run.manager.pending).toEqual(["admin", "slow"]);
    slow.return();
    const endedAt = performance.now();
    await stopped;
    expect(performance.now() - endedAt).toBeLessThan(20 + GRACE + LATE);
    await run.manager.wait();
  });

  test("leaves it answering under whatever name its manager has for it", async () => {
    const manager = new Manager({ name: "shop" });
    const slow = stubborn("slow");
    const task = new AdminServerTask({ port: 0, manager, name: "inner" });
    manager.run(slow, async function outer(signal) {
      await task.run(signal);
    });
    await task.ready();
    const over = manager.stop();
    for (let i = 0; i < 12; i++) {
      expect((await (await clientOf(task, question("/ready"))).answer()).status).toBe(503);
    }
    slow.return();
    await over;
    expect(task.address).toBeNull();
  });

  test("lets it wait for others at most `drainTimeout`, after `drainDelay`", async () => {
    const { run, slow } = await held({ drainDelay: 60, drainTimeout: 100 });
    const took = await run.stopping();
    expect(took).toBeGreaterThan(158);
    expect(took).toBeLessThan(160 + GRACE + LATE);
    expect(run.manager.pending).toEqual(["slow"]);
    slow.return();
  });

  test("gives that and its own drain one `drainTimeout` together", async () => {
    const { run, slow } = await held({ drainTimeout: 1_600, metrics: BIG });
    const client = await unread(run);
    const stopped = run.stopping();
    let isLate = false;
    setTimeout(() => {
      slow.return();
      setTimeout(() => (isLate = true), 1_500);
    }, 1_200);
    expect(await stopped).toBeGreaterThan(1_598);
    expect(isLate).toBe(false);
    client.leave();
    const told = run.log.events.find(({ type }) => type === "http-drained");
    expect(told).toMatchObject({ requests: 1, destroyed: 1 });
  });

  test.each<[string, (manager: Manager) => { manager?: Manager }]>([
    ["it runs in another manager than the one given", () => ({ manager: withTask() })],
    ["no manager was given", () => ({})],
  ])("is not held up by other tasks if %s: it drains at once", async (_, options) => {
    const slow = stubborn("slow");
    const run = await serveAdmin(options);
    run.manager.run(slow);
    expect(await run.stopping()).toBeLessThan(GRACE + LATE);
    slow.return();
  });

  test("is not held up in a group of the manager that was given, which waits for that group", async () => {
    const manager = new Manager();
    const [inner, outer] = [stubborn("inner"), stubborn("outer")];
    const task = new AdminServerTask({ port: 0, manager });
    manager.run(new GroupTask("group", (group) => group.run(task, inner)), outer);
    await task.ready();
    const stoppedAt = performance.now();
    const over = manager.stop();
    await vi.waitUntil(() => task.address === null, { interval: 1, timeout: 10_000 });
    expect(performance.now() - stoppedAt).toBeLessThan(GRACE + LATE);
    inner.return();
    outer.return();
    await over;
  });

  test("is not held up by a server that is alone in its manager", async () => {
    const run = await serveAdmin((manager) => ({ manager }));
    expect(await run.stopping()).toBeLessThan(GRACE + LATE);
  });

  test("leaves no listener on its signal, nor on that of the manager it was given", async () => {
    const manager = new Manager();
    const controller = new AbortController();
    const task = new AdminServerTask({ port: 0, manager, ready: hangs });
    const end = task.run(controller.signal);
    await task.ready();
    const [ready, page] = await Promise.all(["/ready", "/"].map((path) => clientOf(task, question(path))));
    await page?.answer();
    controller.abort();
    ready?.leave();
    await end;
    expect(getEventListeners(controller.signal, "abort")).toEqual([]);
    expect(getEventListeners(manager.signal, "abort")).toEqual([]);
  });

  test.each<[string, (run: AdminRun) => Promise<RawClient>]>([
    ["sends nothing", (run) => run.client()],
    ["sends half a header", (run) => run.client("GET / HTTP/1.1\r\nHost: localh")],
    ["sends half a header and ends its half", halfOpen],
    ["keeps its connection alive", (run) => answered(run, question("/health"))],
    ["never ends its upload", (run) => answered(run, question("/", { method: "POST", header: ["Content-Length: 9"] }))],
    ["keeps its connection busy", busy],
  ])("is not held up by a client that %s", async (_, connect) => {
    const run = await serveAdmin((manager) => ({ manager }));
    const client = await connect(run);
    expect(await run.stopping()).toBeLessThan(GRACE + LATE);
    client.leave();
  });

  test.each<[string, (run: AdminRun) => Promise<RawClient>]>([
    ["does not read its answer", unread],
    ["stops reading in the middle of its answer", halfRead],
  ])("is held up by a client that %s until `drainTimeout`, and no longer", async (_, connect) => {
    const run = await serveAdmin((manager) => ({ manager, drainTimeout: 200, metrics: BIG }));
    const client = await connect(run);
    const took = await run.stopping();
    expect(took).toBeGreaterThan(198);
    expect(took).toBeLessThan(200 + GRACE + LATE);
    client.leave();
  });

  test("is held up for a second at most by a client that does not read its answer", async () => {
    const run = await serveAdmin((manager) => ({ manager, metrics: BIG }));
    const client = await unread(run);
    const took = await run.stopping();
    expect(took).toBeGreaterThan(998);
    expect(took).toBeLessThan(1_000 + GRACE + LATE);
    client.leave();
  });
});

async function answered(run: AdminRun, first: string): Promise<RawClient> {
  const client = await run.client(first);
  await client.answer();
  return client;
}

async function halfOpen(run: AdminRun): Promise<RawClient> {
  const client = await run.client("GET / HTTP/1.1\r\nHost: localh");
  client.socket.end();
  return client;
}

async function busy(run: AdminRun): Promise<RawClient> {
  const client = await answered(run, question("/ready"));
  client.socket.on("data", () => client.send(question("/ready")));
  client.send(question("/ready"));
  await client.answer(3);
  return client;
}

async function unread(run: AdminRun): Promise<RawClient> {
  const client = await run.client();
  client.socket.pause();
  client.send(question("/metrics"));
  // Is asked later, so what is above has come.
  await run.ask("/ready");
  return client;
}

async function halfRead(run: AdminRun): Promise<RawClient> {
  const client = await run.client(question("/metrics"));
  await client.until(() => client.received > 1_000);
  client.socket.pause();
  return client;
}

/** A manager that never stops. */
function withTask(): Manager {
  const manager = new Manager();
  manager.run(async function forever(signal) {
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
  });
  manager.run(hangs);
  return manager;
}

describe("No timer of a second is left", () => {
  /** Those that were started, and those that were cleared. */
  function watch(): { started: () => unknown[]; cleared: () => unknown[] } {
    const { setTimeout } = globalThis;
    // They last as long as they have to, to be cleared.
    const start = vi.spyOn(globalThis, "setTimeout").mockImplementation(((callback: () => void, delay: number) =>
      setTimeout(callback, delay === 1_000 ? 60_000 : delay)) as never);
    const clear = vi.spyOn(globalThis, "clearTimeout");
    onTestFinished(() => {
      start.mockRestore();
      clear.mockRestore();
    });
    const isOfASecond = (call: number): boolean => start.mock.calls[call]?.[1] === 1_000;
    return {
      started: () => start.mock.results.filter((_, call) => isOfASecond(call)).map(({ value }) => value),
      cleared: () => clear.mock.calls.map(([timer]) => timer),
    };
  }

  test("by a client that does not wait for `ready`", async () => {
    const run = await serveAdmin({ ready: hangs });
    const timers = watch();
    const client = await run.client(question("/ready"));
    while (timers.started().length === 0) await setImmediate();
    client.leave();
    while (!timers.cleared().includes(timers.started()[0])) await setImmediate();
  });

  test("by the end of the task", async () => {
    const run = await serveAdmin();
    const timers = watch();
    await run.stopping();
    expect(timers.started().length).toBe(1);
    expect(timers.cleared()).toEqual(expect.arrayContaining(timers.started()));
  });
});
