import { queryObjects } from "node:v8";
import { type LifecycleEvent, Manager } from "allstop";
import { Health, type HealthComponent, type HealthSnapshot, type HealthStatus } from "allstop/health";
import { EventLog } from "allstop/testing";
import { describe, expect, test, vi } from "vitest";
import { start } from "./support/by-hand.ts";
import { HealthModel } from "./support/health-model.ts";
import {
  brief,
  controlled,
  failure,
  listener,
  listening,
  pass,
  remove,
  STATUSES,
  stop,
  useHealth,
} from "./support/health.ts";
import { microtasks } from "./support/microtasks.ts";
import { settle } from "./support/settle.ts";
import { stubborn } from "./support/stubborn.ts";
import { thrownBy } from "./support/thrown-by.ts";
import { hangs, nothing, throwing } from "./support/ways.ts";

useHealth();

describe("A component", () => {
  test("is `starting` until its first report, then what it reported last, with the text of that as `detail`", () => {
    const health = new Health();
    const db = health.component("db");
    const since = Date.now();
    expect(health.snapshot()).toStrictEqual({ status: "starting", components: { db: { status: "starting", since } } });
    for (const status of STATUSES) {
      const { report } = db; // may be handed on by itself
      report(status, `it is ${status}`);
      expect(db.status).toBe(status);
      const only = { status, detail: `it is ${status}`, since };
      expect(health.snapshot()).toStrictEqual({ status, components: { db: only } });
      db.report(status, "");
      expect(health.snapshot().components["db"]).toStrictEqual({ status, detail: "", since });
      db.report(status);
      expect(health.snapshot().components["db"]).toStrictEqual({ status, since });
    }
  });

  test("has as `since` the epoch ms of the last change of status, its own or by what it depends on", () => {
    vi.setSystemTime(1_000);
    const health = new Health();
    const db = health.component("db");
    const wallet = health.component("wallet", { dependsOn: ["db"] });
    const since = (): unknown[] => Object.values(health.snapshot().components).map((component) => component.since);
    const at = (time: number, act: () => void): unknown[] => {
      vi.setSystemTime(time);
      act();
      return since();
    };
    expect(since()).toEqual([1_000, 1_000]);
    expect(at(2_000, () => wallet.report("healthy"))).toEqual([1_000, 2_000]);
    expect(at(3_000, () => db.report("unhealthy"))).toEqual([3_000, 3_000]);
    expect(at(4_000, () => db.report("unhealthy", "refused"))).toEqual([3_000, 3_000]);
    expect(at(5_000, () => wallet.report("degraded", "slow"))).toEqual([3_000, 3_000]);
    expect(at(6_000, () => db.report("healthy"))).toEqual([6_000, 3_000]);
    expect(at(7_000, () => void health.snapshot())).toEqual([6_000, 3_000]);
  });

  test("whose dependency is unhealthy is at best degraded, until that recovers", () => {
    const health = new Health();
    const [db, queue] = [health.component("db", { critical: false }), health.component("queue")];
    const wallet = health.component("wallet", { dependsOn: ["db", "queue", "db"] });
    const shop = health.component("shop", { dependsOn: ["wallet"] });
    shop.report("healthy");
    for (const ofWallet of STATUSES) {
      wallet.report(ofWallet, "mine");
      for (const ofDb of STATUSES) {
        for (const ofQueue of STATUSES) {
          db.report(ofDb);
          queue.report(ofQueue);
          const isHeld = ofDb === "unhealthy" || ofQueue === "unhealthy";
          const expected = isHeld && ofWallet === "healthy" ? "degraded" : ofWallet;
          expect([ofWallet, ofDb, ofQueue, wallet.status]).toEqual([ofWallet, ofDb, ofQueue, expected]);
          expect(health.snapshot().components["wallet"]).toMatchObject({ status: expected, detail: "mine" });
          expect(shop.status).toBe(ofWallet === "unhealthy" ? "degraded" : "healthy"); // that is not handed on
        }
      }
    }
    queue.report("unhealthy");
    wallet.report("unhealthy");
    wallet.report("healthy"); // what it reports meanwhile counts afterwards
    expect(wallet.status).toBe("degraded");
    queue.report("degraded");
    db.report("healthy");
    expect(wallet.status).toBe("healthy");
  });

  test("that is registered with an unhealthy dependency is at best degraded from its first report on", () => {
    const health = new Health();
    health.component("db").report("unhealthy");
    const wallet = health.component("wallet", { dependsOn: ["db"] });
    expect(wallet.status).toBe("starting");
    wallet.report("healthy");
    expect(wallet.status).toBe("degraded");
  });

  test("is taken out again by `[Symbol.dispose]()`, told as `health-removed {component}`, once", () => {
    const log = new EventLog();
    const health = new Health({ onEvent: log.observe });
    const db = health.component("db");
    health.component("queue").report("healthy");
    remove(db);
    remove(db);
    expect(brief(health.snapshot())).toBe("healthy: queue healthy");
    expect(log.events.slice(1)).toStrictEqual([{ type: "health-removed", component: "db" }]);
  });

  test("that depended on one that was taken out no longer does, also not when the name comes again", () => {
    const log = new EventLog();
    const health = new Health({ onEvent: log.observe });
    const [db, queue] = [health.component("db"), health.component("queue")];
    const wallet = health.component("wallet", { dependsOn: ["db", "queue"] });
    const ledger = health.component("ledger", { dependsOn: ["db"] });
    for (const component of [wallet, ledger]) component.report("healthy");
    for (const component of [db, queue]) component.report("unhealthy");
    const told = log.events.length;
    remove(db);
    expect([wallet.status, ledger.status]).toEqual(["degraded", "healthy"]); // the other one still holds
    expect(log.events.slice(told)).toStrictEqual([
      { type: "health-removed", component: "db" },
      { type: "health-changed", component: "ledger", from: "degraded", to: "healthy" },
    ]);
    health.component("db").report("unhealthy");
    expect(ledger.status).toBe("healthy");
  });

  test("has a name that is free once it was taken out; a late report counts for nothing", () => {
    const log = new EventLog();
    const health = new Health({ onEvent: log.observe });
    const { told, listen } = listener();
    const old = health.component("db");
    health.subscribe(undefined, listen);
    old.report("healthy", "old");
    remove(old);
    old.report("unhealthy", "late");
    const db = health.component("db");
    health.component("wallet", { dependsOn: ["db"] }).report("healthy");
    old.report("unhealthy", "late");
    remove(old);
    expect(db.status).toBe("starting"); // as a new one
    db.report("degraded", "new");
    expect(brief(health.snapshot())).toBe("degraded: db degraded (new), wallet healthy");
    expect(told.join("\n")).not.toMatch("late");
    expect(log.events.filter(({ type }) => type === "health-removed").length).toBe(1);
  });
});

describe("The whole", () => {
  test("is `healthy` without any component", () => {
    const health = new Health();
    expect(health.snapshot()).toStrictEqual({ status: "healthy", components: {} });
    remove(health.component("db"));
    expect(health.snapshot()).toStrictEqual({ status: "healthy", components: {} });
  });

  test("is the worst of the critical ones: from best to worst healthy, degraded, starting, unhealthy", () => {
    for (const [i, first] of STATUSES.entries()) {
      for (const [j, second] of STATUSES.entries()) {
        const health = new Health();
        health.component("first").report(first);
        health.component("second", { critical: true }).report(second);
        health.component("third", { critical: undefined }).report("healthy");
        expect([first, second, health.snapshot().status]).toEqual([first, second, STATUSES[Math.max(i, j)]]);
      }
    }
  });

  test("is at most degraded by a component that is not critical", () => {
    for (const critical of STATUSES) {
      for (const other of STATUSES) {
        const health = new Health();
        health.component("critical").report(critical);
        const component = health.component("other", { critical: false });
        component.report(other);
        const expected = critical === "healthy" && other !== "healthy" ? "degraded" : critical;
        expect([critical, other, health.snapshot().status]).toEqual([critical, other, expected]);
        expect(component.status).toBe(other); // itself it is what it is
      }
    }
  });

  test("is that of the names a listener, or `waitUntil`, was given", async () => {
    const health = new Health();
    health.component("db").report("unhealthy");
    health.component("queue", { critical: false }).report("unhealthy");
    health.component("web").report("healthy");
    const { told, listen } = listener();
    for (const names of [["web"], ["web", "queue", "web"], ["db", "web"], []]) health.subscribe(names, listen);
    expect(told).toEqual([
      "healthy: web healthy",
      "degraded: queue unhealthy, web healthy",
      "unhealthy: db unhealthy, web healthy",
      "healthy: ",
    ]);
    await health.waitUntil("degraded", { names: ["queue", "web"] });
  });
});

test("what is taken from a snapshot, or changed in it, changes nothing; later changes leave it as it is", () => {
  const health = new Health();
  const db = health.component("db");
  const first = health.snapshot();
  const { told, listen } = listener();
  health.subscribe(undefined, (snapshot) => Reflect.deleteProperty(snapshot.components, "db"));
  health.subscribe(undefined, listen);
  db.report("healthy");
  expect(brief(first)).toBe("starting: db starting");
  Object.assign(first.components["db"] ?? {}, { status: "unhealthy" });
  expect([brief(health.snapshot()), ...told]).toEqual([
    "healthy: db healthy",
    "starting: db starting",
    "healthy: db healthy",
  ]);
});

test("names and statuses such as __proto__ and toString are as any other", () => {
  const health = new Health();
  const names = ["__proto__", "toString", "constructor", "hasOwnProperty", " ", "0"];
  for (const name of names) {
    expect(() => health.subscribe([name], nothing)).toThrow(TypeError);
    expect(() => health.component("other", { dependsOn: [name] })).toThrow(TypeError);
  }
  const { told, listen } = listener();
  const components = names.map((name) => health.component(name));
  const dependent = health.component("dependent", { dependsOn: names });
  dependent.report("healthy");
  health.subscribe(["__proto__", "toString"], listen);
  for (const [i, component] of components.entries()) component.report(i ? "healthy" : "unhealthy");
  expect(Object.keys(health.snapshot().components).sort()).toEqual([...names, "dependent"].sort());
  expect(Object.entries(health.snapshot().components).find(([name]) => name === "__proto__")?.[1]).toMatchObject({
    status: "unhealthy",
  });
  expect([health.snapshot().status, dependent.status]).toEqual(["unhealthy", "degraded"]);
  expect(told.at(-1)).toBe("unhealthy: __proto__ unhealthy, toString healthy");
  remove(components[0]);
  expect([health.snapshot().status, dependent.status]).toEqual(["healthy", "healthy"]);
});

describe("Events", () => {
  test("`health-changed {component, from, to, detail?}` tells of each change of a status, and of nothing else", () => {
    const log = new EventLog();
    const health = new Health({ onEvent: log.observe });
    const db = health.component("db");
    db.report("starting");
    db.report("healthy");
    db.report("healthy", "fine");
    db.report("unhealthy", "refused");
    db.report("unhealthy");
    const changes = { type: "health-changed", component: "db" };
    expect(log.events).toStrictEqual([
      { ...changes, from: "starting", to: "healthy" },
      { ...changes, from: "healthy", to: "unhealthy", detail: "refused" },
    ]);
  });

  test("go to the `onEvent` of the manager that runs it, while it does, or else to its own", async () => {
    for (const isOwn of [false, true]) {
      const own = new EventLog();
      const health = new Health({ onEvent: isOwn ? own.observe : undefined });
      const { check, calls } = controlled();
      const db = health.component("db");
      const told: unknown[] = [];
      for (const [name, status] of [["first", "degraded"], ["second", "unhealthy"]] as const) {
        health.component(name, { check });
        db.report("healthy"); // to nobody else
        const manager = new Manager({
          onEvent: (event) => {
            if (event.type === "health-changed") told.push(`${name} ${event.component} ${event.to}`);
          },
        });
        const other = stubborn();
        manager.run(health, other);
        db.report(status);
        const stopped = manager.stop();
        db.report("starting"); // it still runs
        calls.forEach((call) => call.return());
        await settle();
        db.report(status); // only the other one does
        other.return();
        await stopped;
      }
      const toManagers = ["first db degraded", "first db starting", "second db unhealthy", "second db starting"];
      expect(told).toEqual(isOwn ? [] : toManagers);
      const toOwn = ["healthy", "degraded", "starting", "degraded", "healthy", "unhealthy", "starting", "unhealthy"];
      expect(own.events.map((event) => "to" in event && event.to)).toEqual(isOwn ? toOwn : []);
    }
  });

  test("go to nobody by hand or behind AbortSignal.any, and through a function to its manager", async () => {
    const log = new EventLog();
    const manager = new Manager({ onEvent: log.observe });
    const names = ["by hand", "any", "function"];
    const tasks = names.map((name) => {
      const health = new Health();
      health.component(name, { check: nothing });
      return health;
    });
    const run = start(tasks[0] as Health);
    manager.run((signal) => (tasks[1] as Health).run(AbortSignal.any([signal])));
    manager.run((signal) => (tasks[2] as Health).run(signal));
    await settle();
    await manager.stop();
    await stop(run);
    const components = log.events.flatMap((event) => ("component" in event ? event.component : []));
    expect(components).toEqual(["function"]);
  });

  test("come before the snapshots of the same change; an observer that throws or rejects changes nothing", async () => {
    for (const way of [nothing, throwing(failure), () => Promise.reject(failure)]) {
      const told: string[] = [];
      const onEvent = (event: LifecycleEvent): unknown => {
        told.push(event.type);
        return way();
      };
      const health = new Health({ onEvent });
      const db = health.component("db");
      health.component("wallet", { dependsOn: ["db"] }).report("healthy");
      health.subscribe(undefined, (snapshot) => void told.push(brief(snapshot)));
      db.report("unhealthy");
      remove(db);
      const held = "unhealthy: db unhealthy, wallet degraded";
      expect(told.slice(1)).toEqual([
        "starting: db starting, wallet healthy",
        ...["health-changed", held, "health-changed", held],
        ...["health-removed", "healthy: wallet healthy", "health-changed", "healthy: wallet healthy"],
      ]);
      await settle();
    }
  });
});

describe("A listener", () => {
  test("is told how it is now, at once, then of each change, synchronously, never coalesced", async () => {
    const health = new Health({ interval: 10 });
    const { told, listen } = listener();
    expect(health.subscribe(undefined, listen)).toBeTypeOf("function");
    expect(told.splice(0)).toEqual(["healthy: "]);
    const db = health.component("db", { check: vi.fn(nothing).mockImplementationOnce(throwing(failure)) });
    expect(told.splice(0)).toEqual(["starting: db starting"]);
    const wallet = health.component("wallet", { dependsOn: ["db"] });
    const shop = health.component("shop", { dependsOn: ["db"] });
    for (const component of [wallet, shop]) component.report("healthy");
    expect(told.splice(0).length).toBe(4);
    for (const detail of ["a", "b"]) db.report("degraded", detail);
    wallet.report("healthy", "fine"); // a change of the detail alone, as the one before
    expect(told.splice(0)).toEqual([
      "degraded: db degraded (a), wallet healthy, shop healthy",
      "degraded: db degraded (b), wallet healthy, shop healthy",
      "degraded: db degraded (b), wallet healthy (fine), shop healthy",
    ]);
    const run = start(health); // the first check fails
    const held = "unhealthy: db unhealthy (refused), wallet degraded (fine), shop degraded";
    expect(told.splice(0)).toEqual([held, held, held]); // of three changes, in a state that was
    await pass(10);
    const well = "healthy: db healthy, wallet healthy (fine), shop healthy";
    expect(told.splice(0)).toEqual([well, well, well]);
    remove(wallet);
    expect(told.splice(0)).toEqual(["healthy: db healthy, shop healthy"]);
    remove(shop);
    health.component("web", { check: throwing(failure) }); // that it is there, then that it fails
    const both = ["starting: db healthy, web starting", "unhealthy: db healthy, web unhealthy (refused)"];
    expect(told.splice(0)).toEqual(["healthy: db healthy", ...both]);
    await stop(run);
  });

  test("is told only of what concerns its names: of changes, of removals, and of those that come again", () => {
    const health = new Health();
    const { told, listen } = listener();
    const [db, queue] = [health.component("db"), health.component("queue")];
    const wallet = health.component("wallet", { dependsOn: ["db"] });
    const names = ["wallet", "queue"];
    health.subscribe(names, listen);
    names.length = 0; // what becomes of the list is its owner's affair
    db.report("healthy");
    wallet.report("healthy");
    db.report("degraded", "slow");
    db.report("unhealthy");
    remove(queue);
    remove(db);
    health.component("db").report("healthy");
    health.component("queue");
    expect(told).toEqual([
      "starting: queue starting, wallet starting",
      "starting: queue starting, wallet healthy",
      "starting: queue starting, wallet degraded",
      "degraded: wallet degraded",
      "healthy: wallet healthy",
      "starting: wallet healthy, queue starting",
    ]);
  });

  test("is told of another text of one of its names, though its status is the same, and not of one of others", () => {
    const health = new Health();
    const [db, queue] = [health.component("db"), health.component("queue")];
    const told: (string | undefined)[] = [];
    health.subscribe(["db"], ({ components }) => void told.push(components["db"]?.detail));
    db.report("starting", "connecting");
    queue.report("starting", "connecting");
    db.report("starting", "logging in");
    expect(told).toEqual([undefined, "connecting", "logging in"]);
  });

  test("is told of no report that changes nothing", () => {
    const health = new Health();
    const { told, listen } = listener();
    const db = health.component("db");
    const wallet = health.component("wallet", { dependsOn: ["db"] });
    db.report("unhealthy", "refused");
    wallet.report("healthy");
    health.subscribe(undefined, listen);
    db.report("unhealthy", "refused");
    wallet.report("degraded"); // as it is already
    wallet.report("healthy");
    expect(told.length).toBe(1);
  });

  test("is told nothing once its signal has aborted, or its function was called, and leaves no listener there", () => {
    for (const way of ["signal", "function", "both", "function twice", "before"]) {
      const health = new Health();
      const { told, listen } = listener();
      const other = listener();
      const db = health.component("db");
      const controller = new AbortController();
      if (way === "before") controller.abort();
      const unsubscribe = health.subscribe(undefined, listen, { signal: controller.signal });
      health.subscribe(undefined, other.listen, { signal: undefined });
      expect(listening(controller.signal)).toBe(way === "before" ? 0 : 1);
      db.report("healthy");
      if (way.includes("function")) unsubscribe();
      if (way === "function twice") unsubscribe();
      if (way === "signal" || way === "both") controller.abort();
      if (way === "both") unsubscribe();
      db.report("unhealthy");
      expect([way, told.length, other.told.length]).toEqual([way, way === "before" ? 0 : 2, 3]);
      expect(listening(controller.signal)).toBe(0);
    }
  });

  test("is told nothing once its signal has aborted, also of what an older listener of that signal does", () => {
    const health = new Health();
    const { told, listen } = listener();
    const db = health.component("db");
    const controller = new AbortController();
    controller.signal.addEventListener("abort", () => db.report("unhealthy"));
    health.subscribe(undefined, listen, { signal: controller.signal });
    controller.abort();
    expect(told).toEqual(["starting: db starting"]);
  });

  test("that unsubscribes itself or another while it is told takes effect at once", () => {
    for (const way of ["signal", "function"]) {
      const health = new Health();
      const db = health.component("db");
      const told: string[] = [];
      const controller = new AbortController();
      const ends: (() => void)[] = [];
      const note = (name: string, act: () => void = nothing) => ({ status }: HealthSnapshot): void => {
        told.push(`${name} ${status}`);
        if (status === "unhealthy") act();
      };
      const endBoth = (): void => (way === "signal" ? controller.abort() : ends.forEach((end) => end()));
      const { signal } = controller;
      health.subscribe(undefined, note("first"));
      for (const [name, act] of [["second", endBoth], ["third"]] as const) {
        ends.push(health.subscribe(undefined, note(name, act), { signal }));
      }
      health.subscribe(undefined, note("fourth"));
      told.length = 0;
      for (const status of ["unhealthy", "healthy"] as const) db.report(status);
      const last = ["first unhealthy", "second unhealthy", "fourth unhealthy", "first healthy", "fourth healthy"];
      expect([way, ...told]).toEqual([way, ...last]);
    }
  });

  test("that ends its subscription in the very first call is told nothing more", () => {
    const health = new Health();
    const db = health.component("db");
    const controller = new AbortController();
    const listen = vi.fn(() => controller.abort());
    health.subscribe(undefined, listen, { signal: controller.signal });
    db.report("healthy");
    expect([listen.mock.calls.length, listening(controller.signal)]).toEqual([1, 0]);
  });

  test("that is subscribed while others are told begins with how it is now, and hears nothing older, nor less", () => {
    const health = new Health();
    const [db, late, all] = [health.component("db"), listener(), listener()];
    health.subscribe(undefined, ({ status }) => {
      if (status !== "unhealthy" || late.told.length) return;
      db.report("degraded");
      health.subscribe(undefined, late.listen);
      db.report("healthy");
    });
    health.subscribe(undefined, all.listen);
    db.report("unhealthy");
    expect(all.told.slice(1)).toEqual(["unhealthy: db unhealthy", "degraded: db degraded", "healthy: db healthy"]);
    expect(late.told).toEqual(["degraded: db degraded", "healthy: db healthy"]);
  });

  test("that reports gets what it caused after all have been told of what was before: the order is one for all", () => {
    const log = new EventLog();
    const health = new Health({ onEvent: log.observe });
    const [first, last] = [listener(), listener()];
    const [db, ledger] = [health.component("db"), health.component("ledger")];
    health.subscribe(undefined, first.listen);
    health.subscribe(["db"], ({ status }) => {
      ledger.report(status);
      ledger.report("degraded", "flaps");
      ledger.report("degraded", "on");
    });
    health.subscribe(undefined, last.listen);
    db.report("unhealthy");
    expect(last.told.slice(-4)).toEqual([
      "unhealthy: db unhealthy, ledger degraded (on)",
      "unhealthy: db unhealthy, ledger unhealthy",
      "unhealthy: db unhealthy, ledger degraded (flaps)",
      "unhealthy: db unhealthy, ledger degraded (on)",
    ]);
    expect(first.told.slice(-4)).toEqual(last.told.slice(-4));
    const events = log.events.map((event) => "component" in event && "to" in event && `${event.component} ${event.to}`);
    expect(events.slice(-3)).toEqual(["db unhealthy", "ledger unhealthy", "ledger degraded"]);
  });

  test("that reports in its very first call gets what it caused after that call", () => {
    const health = new Health();
    const db = health.component("db");
    const told: string[] = [];
    health.subscribe(undefined, ({ status }) => {
      if (status === "starting") db.report("healthy");
      told.push(status);
    });
    expect(told).toEqual(["starting", "healthy"]);
  });

  test("that throws, at once or later, or is slow, disturbs nobody", async () => {
    const ways: ((snapshot: HealthSnapshot) => unknown)[] = [
      throwing(failure),
      throwing(undefined),
      async () => Promise.reject(failure),
      () => microtasks(3).then(throwing(failure)),
      () => ({ then: throwing(failure) }),
      hangs,
    ];
    const health = new Health({ interval: 10 });
    const { told, listen } = listener();
    const db = health.component("db", { check: nothing });
    const calls = ways.map((way) => {
      const mock = vi.fn(way);
      expect(health.subscribe(undefined, mock)).toBeTypeOf("function");
      return mock;
    });
    health.subscribe(undefined, listen);
    const run = start(health);
    await settle();
    expect(() => db.report("unhealthy")).not.toThrow();
    expect(told).toEqual(["starting: db starting", "healthy: db healthy", "unhealthy: db unhealthy"]);
    expect(calls.map(({ mock }) => mock.calls.length)).toEqual(ways.map(() => 3));
    await stop(run);
  });

  test("that is subscribed twice is told twice, and ends each by itself", () => {
    const health = new Health();
    const listen = vi.fn();
    const db = health.component("db");
    const [end] = [health.subscribe(undefined, listen), health.subscribe(undefined, listen)];
    db.report("healthy");
    expect(listen).toHaveBeenCalledTimes(4);
    end();
    db.report("degraded");
    expect(listen).toHaveBeenCalledTimes(5);
  });
});

describe("`waitUntil`", () => {
  test("resolves when the whole has this status, at once if it has; exactly this one", async () => {
    for (const status of STATUSES) {
      const health = new Health();
      const db = health.component("db");
      const isOver = vi.fn();
      void health.waitUntil(status).then(isOver);
      for (const other of STATUSES) {
        if (other === status) continue;
        if (status !== "starting") db.report(other);
        await settle();
        expect([status, other, isOver.mock.calls.length]).toEqual([status, other, status === "starting" ? 1 : 0]);
      }
      db.report(status);
      await settle();
      expect(isOver).toHaveBeenCalledTimes(1);
      await expect(health.waitUntil(status, { signal: undefined, names: undefined })).resolves.toBeUndefined();
    }
  });

  test("misses no status, however short it lasts", async () => {
    const health = new Health();
    const db = health.component("db");
    const waits = STATUSES.map((status) => health.waitUntil(status));
    for (const status of STATUSES) db.report(status);
    await expect(Promise.all(waits)).resolves.toHaveLength(4);
  });

  test("rejects with the reason of its signal, also if that aborted before, and leaves no listener there", async () => {
    for (const isBefore of [true, false]) {
      const health = new Health();
      const db = health.component("db");
      if (isBefore) db.report("healthy"); // it is so already
      const controller = new AbortController();
      if (isBefore) controller.abort(failure);
      const wait = health.waitUntil("healthy", { signal: controller.signal });
      expect(listening(controller.signal)).toBe(isBefore ? 0 : 1);
      controller.abort(failure);
      db.report("healthy");
      await expect(wait).rejects.toBe(failure);
      expect(listening(controller.signal)).toBe(0);
    }
  });

  test("leaves no listener on its signal when it resolves, or refuses", async () => {
    const health = new Health();
    const db = health.component("db");
    const { signal } = new AbortController();
    const controller = new AbortController();
    const waits = [signal, controller.signal].map((each) => health.waitUntil("healthy", { signal: each }));
    await expect(health.waitUntil("healthy", { signal, names: ["nobody"] })).rejects.toThrow(TypeError);
    expect(listening(signal)).toBe(1);
    db.report("healthy");
    await settle();
    controller.abort(failure);
    await expect(Promise.all(waits)).resolves.toHaveLength(2);
    expect([listening(signal), listening(controller.signal)]).toEqual([0, 0]);
  });

  test("keeps nothing once it is over, nor does a subscription, or a component that was taken out", async () => {
    const health = new Health();
    const run = start(health);
    const promises: number[] = [];
    for (let i = 0; i < 200; i++) {
      if (i % 100 === 0) promises.push(Number(queryObjects(Promise, { format: "count" })));
      const component = health.component("db", { check: nothing });
      const unsubscribe = health.subscribe(["db"], nothing);
      await health.waitUntil("healthy", { names: ["db"] });
      unsubscribe();
      remove(component);
      await settle();
    }
    const [before = NaN, after = NaN] = promises;
    expect(after - before).toBeLessThan(50);
    await stop(run);
  });
});

describe("Bad input", () => {
  const notNumbers = [null, "10", 5n, {}, true];
  const negatives = [-1, -0.001, -Infinity, NaN];
  const options: [option: string, Refusal: ErrorConstructor, values: unknown[]][] = [
    ["interval", TypeError, notNumbers],
    ["interval", RangeError, negatives],
    ["timeout", TypeError, notNumbers],
    ["timeout", RangeError, negatives],
  ];

  /** It is an error of just this class, whose message has all these. */
  function expectRefusal(call: () => unknown, Refusal: ErrorConstructor, ...parts: string[]): void {
    const thrown = thrownBy(call) as Error;
    expect(thrown.constructor).toBe(Refusal);
    for (const part of parts) expect(thrown.message).toContain(part);
  }
  const shown = (value: unknown): string =>
    `, got ${typeof value === "string" || Array.isArray(value) ? JSON.stringify(value) : String(value)}`;

  test.each([
    ...options,
    ["name", TypeError, [null, 5, Symbol("x")]],
    ["onEvent", TypeError, [null, 5, "x", {}]],
  ] as typeof options)("of a Health: a bad %s is refused with a %o that names it", (option, Refusal, values) => {
    for (const value of values) {
      const create = (): Health => new Health({ [option]: value });
      expectRefusal(create, Refusal, `Cannot create a Health: ${option} must be `, shown(value));
    }
  });

  test.each([
    ...options,
    ["check", TypeError, [null, 5, "x", {}]],
    ["critical", TypeError, [null, 0, "no"]],
  ] as typeof options)("of a component: a bad %s is refused with a %o that names both", (option, Refusal, values) => {
    const health = new Health();
    for (const value of values) {
      const create = (): unknown => health.component("db", { [option]: value });
      expectRefusal(create, Refusal, `Cannot add component db: ${option} must be `, shown(value));
    }
    expect(health.snapshot().components).toEqual({});
    health.component("db"); // the name is still free
  });

  test("of a component: a name that is taken, empty or no string is refused with a TypeError that shows it", () => {
    const health = new Health();
    const { told, listen } = listener();
    health.component("db", { check: throwing(failure) }).report("healthy");
    health.subscribe(undefined, listen);
    const refusal = "Cannot add a component: names must be unique and not empty";
    for (const name of ["db", "", null, undefined, 5, {}]) {
      expectRefusal(() => health.component(name as never), TypeError, refusal + shown(name));
    }
    expect(() => health.component(Symbol("db") as never)).toThrow(TypeError);
    expect([brief(health.snapshot()), told.length]).toEqual(["healthy: db healthy", 1]);
  });

  test("of a component: a dependency that does not exist already is refused with a TypeError", async () => {
    const health = new Health();
    const check = vi.fn();
    remove(health.component("old"));
    health.component("db");
    const run = start(health);
    for (const name of ["nobody", "wallet", "old", "", "DB"]) { // itself, too
      const create = (): unknown => health.component("wallet", { check, dependsOn: ["db", name] });
      expectRefusal(create, TypeError, `Cannot add component wallet: components must exist${shown(name)}`);
    }
    for (const dependsOn of ["db", 5, {}, [null], [["db"]], null]) {
      expect(() => health.component("wallet", { check, dependsOn: dependsOn as never })).toThrow(TypeError);
    }
    expect([brief(health.snapshot()), check.mock.calls.length]).toEqual(["starting: db starting", 0]);
    const dependsOn = ["db"];
    const wallet = health.component("wallet", { dependsOn });
    dependsOn[0] = "nobody"; // what becomes of the list is its owner's affair
    health.component("shop", { dependsOn: undefined });
    wallet.report("healthy");
    await stop(run);
  });

  test("of a report or a wait: an unknown status is refused with a TypeError that shows it", async () => {
    const health = new Health();
    const db = health.component("db");
    const { told, listen } = listener();
    health.subscribe(undefined, listen);
    for (const status of ["", "ok", "Healthy", "toString", null, undefined, 0, 3, ["healthy"]] as never[]) {
      const text = shown(status);
      expectRefusal(() => db.report(status), TypeError, "Cannot report on db: status must be one of healthy,", text);
      const wait = health.waitUntil(status);
      await expect(wait).rejects.toThrow(TypeError);
      await expect(wait).rejects.toThrow("Cannot wait for health: status must be one of healthy,");
      await expect(wait).rejects.toThrow(text);
    }
    expect([db.status, told.length]).toEqual(["starting", 1]);
  });

  test("of a listener or a wait: an unknown name is refused with a TypeError that shows it", async () => {
    const health = new Health();
    const db = health.component("db");
    remove(health.component("old"));
    const { signal } = new AbortController();
    const listen = vi.fn();
    for (const name of ["nobody", "old", "", "toString", 5, null] as never[]) {
      const subscribe = (): unknown => health.subscribe(["db", name], listen, { signal });
      expectRefusal(subscribe, TypeError, `Cannot subscribe to health: components must exist${shown(name)}`);
      const wait = health.waitUntil("starting", { names: ["db", name], signal });
      await expect(wait).rejects.toThrow(TypeError);
      await expect(wait).rejects.toThrow(shown(name));
    }
    for (const value of [undefined, null, 5, {}] as never[]) {
      const subscribe = (): unknown => health.subscribe(undefined, value, { signal });
      expectRefusal(subscribe, TypeError, "Cannot subscribe to health: listener must be of type function", shown(value));
    }
    expect(() => health.subscribe("db" as never, listen)).toThrow(TypeError);
    db.report("healthy");
    expect([listen.mock.calls.length, listening(signal)]).toEqual([0, 0]);
  });
});

test("the database goes unhealthy, the ledger hears of it and reports, the wallet degrades; they recover", async () => {
  vi.setSystemTime(0);
  const log = new EventLog();
  const health = new Health({ interval: 1_000, timeout: 100 });
  let isUp = true;
  const postgres = async (signal: AbortSignal): Promise<void> => {
    await microtasks(2);
    signal.throwIfAborted();
    if (!isUp) throw new Error("connection refused");
  };
  health.component("postgres", { check: postgres });
  const ledger = health.component("ledger");
  health.component("wallet", { dependsOn: ["ledger"] }).report("healthy");
  health.component("mailer", { critical: false }).report("unhealthy", "no route");
  const { told, listen } = listener();
  const manager = new Manager({ name: "shop", onEvent: log.observe });
  manager.run(health);
  const isHealthy = health.waitUntil("degraded", { signal: manager.signal });
  health.subscribe(
    ["postgres"],
    ({ status }) => {
      if (status === "unhealthy") ledger.report("unhealthy", "read only");
      if (status === "healthy") ledger.report("healthy");
    },
    { signal: manager.signal },
  );
  await isHealthy;
  health.subscribe(undefined, listen);
  isUp = false;
  await pass(1_000, 1_000);
  isUp = true;
  await pass(1_000, 1_000);
  await manager.stop();
  expect(manager.failures).toEqual([]);
  const mailer = "mailer unhealthy (no route)";
  const down = `postgres unhealthy (connection refused), ledger unhealthy (read only), wallet degraded, ${mailer}`;
  expect(told).toEqual([
    `degraded: postgres healthy, ledger healthy, wallet healthy, ${mailer}`,
    `unhealthy: postgres unhealthy (connection refused), ledger healthy, wallet healthy, ${mailer}`,
    `unhealthy: ${down}`,
    `unhealthy: ${down}`,
    `unhealthy: postgres healthy, ledger unhealthy (read only), wallet degraded, ${mailer}`,
    `degraded: postgres healthy, ledger healthy, wallet healthy, ${mailer}`,
    `degraded: postgres healthy, ledger healthy, wallet healthy, ${mailer}`,
  ]);
  const { components } = health.snapshot();
  expect(Object.values(components).map(({ since }) => since)).toEqual([2_000, 2_000, 2_000, 0]);
  const changes = log.events.flatMap((event) => (event.type === "health-changed" ? event : []));
  const story = changes.map(({ component, to }) => `${component} ${to}`);
  expect(story).toEqual([
    ...["postgres healthy", "ledger healthy"],
    ...["postgres unhealthy", "ledger unhealthy", "wallet degraded"],
    ...["postgres healthy", "ledger healthy", "wallet healthy"],
  ]);
});

test("listeners are told the same, in one order, and all of it, whatever they do meanwhile: 200 histories", () => {
  for (let seed = 1; seed <= 200; seed++) {
    let state = seed;
    const random = (below: number): number => (state = (state * 48_271) % 2_147_483_647) % below;
    for (let i = 0; i < 5; i++) random(2);
    const model = new HealthModel();
    const problems: unknown[] = [];
    const note = (what: string, actual: unknown, expected: unknown): void => {
      if (actual !== expected) problems.push({ what, actual, expected });
    };
    /** What is told of a component may act before its handle is here. */
    const handles = new Map<string, HealthComponent | undefined>();
    let budget = 0;
    const health = new Health({
      onEvent: () => {
        if (random(4) === 0) act();
      },
    });
    const late: { told: string[]; from: number }[] = [];
    const register = (): void => {
      const name = `c${random(6)}`;
      if (handles.has(name)) return report();
      const on = [...handles.keys()].filter(() => random(3) === 0);
      const critical = random(3) > 0;
      model.change(() => model.parts.set(name, { reported: "starting", critical, on: new Set(on) }));
      handles.set(name, undefined);
      handles.set(name, health.component(name, { dependsOn: on, critical }));
    };
    const report = (): void => {
      const [name = "", handle] = [...handles][random(handles.size)] ?? [];
      const part = model.parts.get(name);
      if (!part || !handle) return;
      const [status, detail] = [STATUSES[random(4)] as HealthStatus, ["x", "y", undefined][random(3)]];
      model.change(() => {
        part.reported = status;
        part.detail = detail;
      });
      handle.report(status, detail);
    };
    const takeOut = (): void => {
      const [name = "", handle] = [...handles][random(handles.size)] ?? [];
      if (!handle) return;
      model.change(() => {
        model.parts.delete(name);
        model.parts.forEach(({ on }) => on.delete(name));
      });
      handles.delete(name);
      remove(handle);
    };
    const subscribe = (): void => {
      const { told, listen } = listener();
      late.push({ told, from: model.changes });
      health.subscribe(undefined, (snapshot) => {
        listen(snapshot);
        if (random(5) === 0) act();
      });
    };
    const act = (): void => {
      if (budget-- <= 0) return;
      const which = random(10);
      if (which < 6) report();
      else if (which < 8) register();
      else if (which < 9) takeOut();
      else subscribe();
      note("snapshot", brief(health.snapshot()), model.brief);
    };
    for (let i = 0; i < 3; i++) subscribe();
    for (let i = 0; i < 20; i++) {
      budget = 5;
      act();
    }
    for (const { told, from } of late) {
      note("length", told.length, 1 + model.changes - from);
      note("last", told.at(-1), model.brief);
      note("order", told.find((line, i) => i > 0 && line !== late[0]?.told[i + from]), undefined);
    }
    expect([seed, ...problems]).toEqual([seed]);
  }
});
