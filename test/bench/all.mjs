/*
 * Makes all comparisons, on the Node that runs this and on Node 24, one after the other, so that none disturbs another,
 * and writes the report. It takes some minutes, on a machine that has nothing else to do.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const node24 = fileURLToPath(new URL("node_modules/node24/bin/node", import.meta.url));

const TOPICS = ["start", "stop", "limit", "ephemeral", "drain", "exit", "import", "size", "comparison"];

for (const topic of TOPICS) {
  for (const node of [process.execPath, node24]) run(node, `${topic}.mjs`);
}
run(process.execPath, "report.mjs");

function run(node, program) {
  const startedAt = performance.now();
  const { status, signal } = spawnSync(node, [program], { cwd: import.meta.dirname, stdio: "inherit" });
  if (status !== 0) throw new Error(`${program} on ${node} ended with ${signal ?? status}`);
  console.log(`(${program}: ${Math.round((performance.now() - startedAt) / 1_000)} s)`);
}
