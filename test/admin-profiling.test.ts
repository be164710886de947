import { Session } from "node:inspector";
import { Session as PromisesSession } from "node:inspector/promises";
import { afterAll, describe, expect, test, vi } from "vitest";
import { type AdminRun, disconnecting, question, SAFE, serveAdmin, useAdmin } from "./support/admin.ts";
import type { Answer, RawClient } from "./support/http.ts";
import { stubborn } from "./support/stubborn.ts";

const inspecting = { begun: vi.spyOn(Session.prototype, "connect"), ended: disconnecting };
// What is registered first is called last: when all has been stopped.
afterAll(() => {
  expect(inspecting.begun.mock.calls.length).toBeGreaterThan(5);
  expect(inspecting.ended.mock.calls.length).toBe(inspecting.begun.mock.calls.length);
});
useAdmin();

/** A `.cpuprofile`, in microseconds. */
interface Profile {
  readonly nodes: readonly { readonly callFrame: { readonly functionName: string } }[];
  readonly startTime: number;
  readonly endTime: number;
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** What it holds, if it is a whole one that names its file. */
function profileOf({ status, headers, body }: Answer): Profile {
  expect([status, headers["content-type"]]).toEqual([200, "application/json"]);
  expect(headers["content-disposition"]).toMatch(/^attachment; filename="\d+\.cpuprofile"$/);
  const profile: Profile = JSON.parse(body);
  expect(profile.nodes.map(({ callFrame }) => callFrame.functionName)).toContain("(root)");
  expect(profile.samples.length).toBe(profile.timeDeltas.length);
  expect(profile.endTime).toBeGreaterThanOrEqual(profile.startTime);
  return profile;
}

/** How a further profile would be answered; to ask for it makes none. */
async function further(run: AdminRun): Promise<number> {
  return (await run.ask("/debug/profile", { method: "HEAD" })).status;
}

/** Begins a profile; resolves when it is being made. */
async function begin(run: AdminRun, query = "?seconds=60"): Promise<RawClient> {
  const client = await run.client(question(`/debug/profile${query}`));
  while ((await further(run)) !== 409);
  return client;
}

describe("A CPU profile", () => {
  test("is a .cpuprofile of as many seconds as were asked for", async () => {
    const run = await serveAdmin({ profiling: true });
    const answer = await run.ask("/debug/profile?seconds=0.05");
    const { startTime, endTime } = profileOf(answer);
    expect(endTime - startTime).toBeGreaterThan(48_000);
    expect(endTime - startTime).toBeLessThan(3_000_000);
    expect(answer.headers).toMatchObject({ ...SAFE, "content-length": String(Buffer.byteLength(answer.body)) });
  });

  test.each([
    "0",
    "-1",
    "-0",
    "60.001",
    "61",
    "1e9",
    "",
    "%20",
    "x",
    "5s",
    "0,5",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e-9999",
  ])("of %j seconds is refused with 400", async (seconds) => {
    const run = await serveAdmin({ profiling: true });
    const path = `/debug/profile?seconds=${seconds}`;
    const answer = await run.ask(path);
    expect([answer.status, answer.body]).toEqual([400, "seconds must be above 0 and at most 60\n"]);
    expect(answer.headers).toMatchObject(SAFE);
    expect((await run.ask(path, { method: "HEAD" })).status).toBe(400);
    expect(await further(run)).toBe(200);
  });

  test.each([
    ["?seconds=60", 60],
    ["?seconds=1e1&seconds=x", 10],
    ["", 5],
  ])("as of %j takes so many seconds: %d; it ends when its client hangs up", async (query, seconds) => {
    const timers = vi.spyOn(globalThis, "setTimeout");
    const run = await serveAdmin({ profiling: true });
    const client = await begin(run, query);
    await vi.waitUntil(() => timers.mock.calls.some(([, delay]) => delay === seconds * 1_000), { interval: 1, timeout: 10_000 });
    timers.mockRestore();
    expect(client.text).toBe("");
    client.leave();
    while ((await further(run)) === 409);
    expect(inspecting.ended.mock.calls.length).toBe(inspecting.begun.mock.calls.length);
  });

  test("is made one at a time: another one is refused with 409 until the first is over", async () => {
    const run = await serveAdmin({ profiling: true });
    const first = await begin(run);
    const second = await run.ask("/debug/profile");
    expect([second.status, second.body]).toEqual([409, "Another profile is being made\n"]);
    expect(second.headers).toMatchObject(SAFE);
    expect((await run.ask("/debug/profile?seconds=61")).status).toBe(400);
    // A heap snapshot is a profile, too.
    expect(await run.ask("/debug/heap")).toMatchObject({ status: 409, body: "Another profile is being made\n" });
    expect((await run.ask("/ready")).status).toBe(200);
    first.leave();
    while ((await further(run)) === 409);
    profileOf(await run.ask("/debug/profile?seconds=0.01"));
  });

  test("ends when the task stops, and is answered with what there is", async () => {
    const run = await serveAdmin({ profiling: true });
    const client = await begin(run);
    const stopped = run.stopping();
    profileOf(await client.answer());
    expect(await stopped).toBeLessThan(8_000);
  });

  test("is cut by the stop; one that is asked for while the others stop, once they have", async () => {
    const slow = stubborn("slow");
    const run = await serveAdmin((manager) => ({ manager, profiling: true }));
    run.manager.run(slow);
    const client = await begin(run);
    const stopped = run.stopping();
    profileOf(await client.answer());
    const another = await begin(run);
    slow.return();
    profileOf(await another.answer());
    await stopped;
  });

  test("that fails is 500, and the next one may be made", async () => {
    const run = await serveAdmin({ profiling: true });
    const post = vi.spyOn(PromisesSession.prototype, "post").mockRejectedValueOnce(new Error("another inspector"));
    const answer = await run.ask("/debug/profile?seconds=0.01");
    expect([answer.status, answer.body]).toEqual([500, "A source failed\n"]);
    post.mockRestore();
    expect(inspecting.ended.mock.calls.length).toBe(inspecting.begun.mock.calls.length);
    expect(await further(run)).toBe(200);
  });
});

test("/debug/resources tells what keeps the process alive", async () => {
  const run = await serveAdmin({ profiling: true });
  const { status, body } = await run.ask("/debug/resources");
  expect(status).toBe(200);
  expect(JSON.parse(body)).toEqual(expect.arrayContaining(["TCPServerWrap", "TCPSocketWrap"]));
});
