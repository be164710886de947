import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, watch } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { type Address, Generations, HeldRequest, isOpen, until, who } from "./support/upgrade.ts";

/*
 * Real processes that follow each other.
 */

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "allstop-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** What real processes do once, in the first test that asks for it, and all of these look at. */
function story<Facts>(tell: () => Promise<Facts>): () => Promise<Facts> {
  let facts: Promise<Facts> | undefined;
  return () => (facts ??= tell());
}

describe("A service that is upgraded", () => {
  const told = story(async () => {
    const [kept, gone] = [join(folder, "kept.sock"), join(folder, "gone.sock")];
    const [any, other] = [{ port: 0 }, { port: 0, host: "localhost" }];
    const changed: (string | null)[] = [];

    const service = new Generations(folder, { places: [any, { path: kept }, { path: gone }, other] });
    const first = service.program.pid;
    const addresses = [await service.ready(first)];
    const [port = "", , , unclaimed = ""] = addresses[0] ?? [];
    const watcher = watch(folder, (_, name) => void (name !== "plan" && changed.push(name)));
    onTestFinished(() => watcher.close());

    // The second one listens at one more place.
    service.plan({ places: [any, any, { path: kept }, { path: gone }, other], does: "wait", isLate: true });
    const second = await service.upgrade(first);
    const unready = await service.says(second, "listens");
    const code = await service.says(second, "cannot listen");
    const held = new HeldRequest(port);
    const before = [await who(port), await who(port), await who(kept), await who(unclaimed)];
    const refusals = [(await service.hup(first)).error, (await service.hup(second)).error];
    process.kill(second, "SIGUSR2");
    addresses.push(await service.ready(second));
    await service.says(first, "upgrade-ready");
    refusals.push((await service.hup(first)).error, (await service.hup(second)).error);
    const answers = { before, held: Number(await held.answer()), after: [] as unknown[] };
    const exit = await service.program.exit();
    for (const address of addresses[1] ?? []) answers.after.push(await who(address));
    const late = await service.says<Address>(second, "is late");

    // The third one listens at two places less. Its parent is killed before it has heard that it is ready.
    service.plan({ places: [any, any, { path: kept }], does: "wait", naps: true });
    const third = await service.upgrade(second);
    await service.says(third, "listens");
    process.kill(second, "SIGSTOP");
    const all = [port, kept, unclaimed, gone, late];
    const open = [await Promise.all(all.map(isOpen))];
    const waiting = who(port);
    process.kill(third, "SIGUSR2");
    await service.says(third, "waits");
    process.kill(second, "SIGKILL");
    addresses.push(await service.ready(third));
    const waited = await waiting;
    open.push(await Promise.all(all.map(isOpen)));
    const names = readdirSync(folder);

    // One more is stopped itself, before it is ready, and another one by the stop of its parent.
    service.plan({ places: [any, any, { path: kept }], does: "wait" });
    const fourth = await service.upgrade(third);
    await service.says(fourth, "listens");
    process.kill(fourth, "SIGTERM");
    await service.says(fourth, "exit");
    await until(() => service.events(third).length > 1);
    service.plan({ does: "hang" });
    const fifth = await service.upgrade(third);
    await service.says(fifth, "listens");
    const renamed = changed.splice(0);
    process.kill(third, "SIGTERM");
    await service.program.end();
    open.push(await Promise.all(all.map(isOpen)));

    const { program } = service;
    return {
      ...{ service, first, second, third, fourth, fifth, unready, code, addresses, answers },
      ...{ refusals, exit, open, waited },
      ...{ names, renamed, changed, stderr: program.stderr, left: program.processes },
    };
  });

  test("has the same argv, environment, cwd at construction, and stdio; the mark is taken out again", async () => {
    const { service, first, second, third } = await told();
    const { inherited, ...start } = await service.started(first);
    expect(start).toEqual({ marks: [[], []] });
    for (const [pid, parent] of [[second, first], [third, second]] as const) {
      expect(await service.started(pid)).toEqual({ parent, marks: [["ALLSTOP_UPGRADE"], []], inherited });
    }
    expect(inherited).toMatchObject({ GREETING: "hello" });
  });

  test("accepts nothing before ready(), and server.address() is null until then", async () => {
    const { unready, code, answers, first } = await told();
    expect(unready).toEqual([null, null, null, null, null]);
    expect(answers.before).toEqual([first, first, first, first]);
    expect(code).toBe("ERR_SERVER_ALREADY_LISTEN"); // of a server that listens already
  });

  test("takes over what listens at equal places, in the order of the calls: port 0 keeps its port", async () => {
    const { addresses: [first = [], second = [], third = []] } = await told();
    expect(second).toEqual([first[0], second[1], ...first.slice(1)]);
    expect(second[1]).not.toEqual(first[0]);
    expect(third).toEqual(second.slice(0, 3));
  });

  test("listens at new places when it is ready, and from then on at once", async () => {
    const { answers, second } = await told();
    expect(answers.after).toEqual([second, second, second, second, second]);
  });

  test("is served by the new process once that is ready; the old one drains, runs its hooks, exits 0", async () => {
    const { service, answers, exit, first, second } = await told();
    expect(answers.held).toBe(first);
    expect(exit).toBe(0);
    const event = { task: "api/upgrade", pid: second };
    const [started, , ready] = service.events(first);
    expect([started, ready]).toEqual([{ type: "upgrade-started", ...event }, { type: "upgrade-ready", ...event }]);
    expect(service.lines(first).slice(-2)).toEqual(["cleaned up", "exit 0"]);
  });

  test("refuses an upgrade during another, before ready(), while it drains, and while its parent lives", async () => {
    const { refusals } = await told();
    const drains = "(the group stops|.*replaced.*)";
    const why = ["another one is under way", "this process is not ready", drains, "its parent is alive"];
    expect(refusals).toEqual(why.map((reason) => expect.stringMatching(`^Cannot upgrade: ${reason}$`)));
  });

  test("goes on and takes over if its parent dies; what comes meanwhile waits", async () => {
    const { open, waited, third } = await told();
    expect(open[0]).toEqual([true, true, true, true, true]);
    expect(waited).toBe(third);
  });

  test("closes what nobody has claimed when it is ready, and removes the path of such a unix socket", async () => {
    const { open, names } = await told();
    expect(open[1]).toEqual([true, true, false, false, false]);
    expect(names.sort()).toEqual(["kept.sock", "plan"]);
  });

  test("never misses the path of its unix socket, which is removed only at the real stop", async () => {
    const { renamed, changed } = await told();
    expect(renamed).toEqual(["gone.sock"]);
    expect(changed).toEqual(["kept.sock"]);
  });

  test("may be stopped before it is ready: ready() rejects with the reason, and the parent serves on", async () => {
    const { service, third, fourth } = await told();
    expect(service.lines(fourth).slice(3)).toEqual(['failed "with the reason"', "cleaned up", "exit 0"]);
    const error = "The new process exited with code 0 before it was ready";
    expect(service.events(third)[1]).toEqual({ type: "upgrade-failed", task: "api/upgrade", pid: fourth, error });
  });

  test("ends with the new process if it is stopped while that starts up: a SIGTERM ends both", async () => {
    const { service, third, fifth } = await told();
    expect(service.lines(fifth)).toHaveLength(2);
    const error = "The new process was stopped before it was ready";
    expect(service.events(third).at(-1)).toEqual({ type: "upgrade-failed", task: "api/upgrade", pid: fifth, error });
    expect(service.lines(third).slice(-2)).toEqual(["cleaned up", "exit 0"]);
  });

  test("hands its sockets on to no other process that it starts", async () => {
    const { left, open, stderr } = await told();
    expect(left).toHaveLength(1);
    expect(open[2]).toEqual([false, false, false, false, false]);
    expect(stderr).toBe("");
  });
});

describe("A service whose upgrades fail", () => {
  const told = story(async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const service = new Generations(folder, { isWrapped: true });
    const { pid } = service.program;
    const [port = ""] = await service.ready(pid);
    service.plan({ does: "crash" });
    await service.upgrade(pid);
    const crashed = await until(() => service.events(pid)[1]);
    const answers = [await who(port)];

    service.plan({ places: [{}, { port: (taken.address() as AddressInfo).port }] });
    await service.upgrade(pid);
    const without = await until(() => service.events(pid)[3]);
    const failed = await service.program.line(" failed ");
    answers.push(await who(port));
    taken.close();

    service.plan({ does: "wait" });
    const shell = await service.upgrade(pid);
    const listens = (line: string): boolean => line.includes(" listens ");
    const late = Number.parseInt(await until(() => service.program.lines.filter(listens)[3]), 10);
    process.kill(shell, "SIGKILL");
    await until(() => service.events(pid)[5]);
    process.kill(late, "SIGUSR2");
    await service.says(late, "exit");
    answers.push(await who(port));

    service.plan({ does: "nothing" });
    const held = new HeldRequest(port);
    answers.push(await who(port));
    await service.upgrade(pid);
    const ends = await until(() => service.program.lines.filter((line) => line.includes(" exit "))[3]);
    answers.push(Number(await held.answer()));
    return { service, pid, crashed, without, failed, late, answers, ends, exit: await service.program.end() };
  });

  test("serves on if that crashes after listen() and before ready(), and says why", async () => {
    const { crashed, service } = await told();
    expect(crashed).toMatchObject({ error: "The new process exited with code 1 before it was ready" });
    expect(service.program.stderr).toContain("Error: crashed");
  });

  test("serves on if that cannot listen at a new place: ready() rejects with Node's own error", async () => {
    const { without, failed } = await told();
    expect(without).toMatchObject({ error: "The new process exited with code 0 before it was ready" });
    expect(failed).toContain("EADDRINUSE");
  });

  test("serves on alone if what it had started was killed, and somebody says too late that he is ready", async () => {
    const { service, pid, late, answers } = await told();
    expect(service.lines(late).slice(3)).toEqual([
      `failed "Error: Cannot replace process ${pid}: it gave up"`,
      "cleaned up",
      "exit 0",
    ]);
    expect(answers).toEqual([pid, pid, pid, pid, pid]);
  });

  test("is replaced by one that nothing but ready() keeps alive, which ends while the old one drains", async () => {
    const { service, pid, ends, exit } = await told();
    const [last = ""] = ends.split(" ");
    expect(service.lines(Number(last)).slice(1)).toEqual(["ready", "exit 0"]);
    expect(service.events(pid).map(({ type }) => type).slice(-2)).toEqual(["upgrade-started", "upgrade-ready"]);
    expect(exit).toBe(0);
  });
});
