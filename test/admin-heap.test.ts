import { syncBuiltinESMExports } from "node:module";
import v8 from "node:v8";
import { describe, expect, test, vi } from "vitest";
import { question, SAFE, serveAdmin, useAdmin } from "./support/admin.ts";

useAdmin();

describe("A heap snapshot", () => {
  test("is a .heapsnapshot that can be parsed", async () => {
    const run = await serveAdmin({ profiling: true });
    const answer = await run.ask("/debug/heap");
    expect(answer.status).toBe(200);
    expect(answer.headers).toMatchObject({ ...SAFE, "content-type": "application/json" });
    expect(answer.headers["content-disposition"]).toMatch(/^attachment; filename="\d+\.heapsnapshot"$/);
    const { snapshot, nodes, edges, strings } = JSON.parse(answer.body);
    expect(nodes.length).toBe(snapshot.node_count * snapshot.meta.node_fields.length);
    expect(edges.length).toBe(snapshot.edge_count * snapshot.meta.edge_fields.length);
    expect(strings).toContain("AdminServerTask");
  });

  test("is not made for HEAD", async () => {
    const made = vi.spyOn(v8, "getHeapSnapshot");
    syncBuiltinESMExports();
    const run = await serveAdmin({ profiling: true });
    expect((await run.ask("/debug/heap", { method: "HEAD" })).status).toBe(200);
    expect(made).not.toHaveBeenCalled();
    made.mockRestore();
    syncBuiltinESMExports();
  });

  test("that cannot be made is 500", async () => {
    const made = vi.spyOn(v8, "getHeapSnapshot").mockImplementation(() => {
      throw new Error("out of memory");
    });
    syncBuiltinESMExports();
    const run = await serveAdmin({ profiling: true });
    expect(await run.ask("/debug/heap")).toMatchObject({ status: 500, body: "A source failed\n" });
    made.mockRestore();
    syncBuiltinESMExports();
  });

  test("whose client hangs up in the middle leaves nothing that would hold the stop", async () => {
    const made = vi.spyOn(v8, "getHeapSnapshot");
    syncBuiltinESMExports();
    const run = await serveAdmin({ profiling: true, drainTimeout: 20_000 });
    const client = await run.client(question("/debug/heap"));
    await client.until(() => client.received > 1_000_000);
    client.socket.pause();
    expect((await run.ask("/debug/profile")).status).toBe(409);
    client.leave();
    await vi.waitUntil(() => made.mock.results[0]?.value.destroyed, { interval: 1, timeout: 10_000 });
    made.mockRestore();
    syncBuiltinESMExports();
    expect((await run.ask("/ready")).status).toBe(200);
    expect(await run.stopping()).toBeLessThan(10_000);
    expect(run.log.events.find(({ type }) => type === "http-drained")).toMatchObject({ requests: 0, destroyed: 0 });
  });
});
