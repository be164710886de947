/*
 * The unit suite holds on the other Nodes, too. Its child processes run on the same Node as itself.
 */
import { test } from "node:test";
import { join } from "node:path";
import { node22, node24, node26, root, run } from "./support.mjs";

// More random schedules than there is time for by default.
const env = { ALLSTOP_SCHEDULES: "5000" };
const vitest = join(root, "node_modules/vitest/vitest.mjs");

for (const { name, command } of [node22, node24, node26]) {
  test(`the unit suite under ${name}`, async (t) => {
    const printed = await run(t, command, [vitest, "run", "--config", "test/vitest.config.ts"], { env });
    t.diagnostic(printed.trim());
  });
}
