/*
 * The README's first command: `npm start` serves, and ends with exit code 0 after Ctrl-C, its cleanup shown.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { root } from "./support.mjs";

// A Ctrl-C goes to all processes of the terminal; `kill` and an orchestrator tell only the first one.
for (const { signal, toAll } of [
  { signal: "SIGINT", toAll: true },
  { signal: "SIGINT", toAll: false },
  { signal: "SIGTERM", toAll: false },
]) {
  test(`npm start, until ${signal} to ${toAll ? "all its processes" : "npm alone"}`, async (t) => {
    const npm = spawn("npm", ["start", "--silent"], { cwd: root, detached: true, stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(npm, "close");
    t.after(() => {
      // What is left of its process group, if anything.
      try {
        process.kill(-npm.pid, "SIGKILL");
      } catch {}
    });

    const lines = [];
    for await (const line of createInterface(npm.stdout)) {
      lines.push(line);
      if (line.startsWith("task-ended shop/loadVisits")) process.kill(toAll ? -npm.pid : npm.pid, signal);
    }
    const text = lines.join("\n");
    assert.match(text, /^http: http:\/\/127\.0\.0\.1:\d+$/m);
    assert.match(text, /^admin: http:\/\/127\.0\.0\.1:\d+$/m);
    assert.match(text, /^Saved the visits of 0 pages$/m);
    assert.match(text, /^stopped shop .*\n[^]*shop\/heartbeat +[^ ]/m);
    assert.deepEqual(await ended, [0, null]);
  });
}
