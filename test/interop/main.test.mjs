/*
 * Whole programs: their output into slow and broken pipes, what they leave open, and errors of all kinds.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { node, node22, node24 } from "./support.mjs";

const program = fileURLToPath(new URL("main-program.mjs", import.meta.url));

for (const runtime of [node, node22, node24]) {
  for (const ways of [[], ["leak"], ["end"], ["leak", "end"]]) {
    test(`${runtime.name}: output is complete also into a slow pipe: ${ways.join(" and ") || "plain"}`, async (t) => {
      const { child, ended } = start(t, runtime, ["prints", ...ways]);
      // Slower than the exitTimeout, whichever is read first.
      const output = { stdout: 0, stderr: "" };
      await sleep(200);
      child.stdout.on("data", (data) => (output.stdout += data.length));
      await sleep(200);
      child.stderr.setEncoding("utf8").on("data", (text) => (output.stderr += text));
      assert.deepEqual(await ended, [0, null]);
      assert.equal(output.stdout, 1_000_001 + (ways.includes("end") ? 8 : 0));
      const said = ways.includes("leak") ? "Still alive 50 ms after the end, because of: Timeout\n" : "";
      assert.equal(output.stderr.replace(/^y{500000}\n/, ""), said);
    });
  }

  for (const [what, names] of [
    ["server", "TCPServerWrap"],
    ["watcher", "FSEventWrap"],
    ["child", "PipeWrap (3), ProcessWrap"],
    ["worker", "something that Node does not name"],
    ["stdin", "PipeWrap"],
    ["nothing", ""],
  ]) {
    test(`${runtime.name}: a leaked handle is named and does not keep the process: ${what}`, async (t) => {
      const { child, ended } = start(t, runtime, ["leaks", what]);
      let stderr = "";
      child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
      child.stdout.resume();
      assert.deepEqual(await ended, [0, null]);
      assert.equal(stderr, names && `Still alive 50 ms after the end, because of: ${names}\n`);
    });
  }

  test(`${runtime.name}: that stderr is gone is no endless loop of uncaught errors`, async (t) => {
    const { child, ended } = start(t, runtime, ["fails"]);
    let stdout = "";
    child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
    child.stderr.destroy();
    await sleep(20);
    child.stdin.end();
    assert.deepEqual(await ended, [1, null]);
    assert.match(stdout, /^exit 1 after (\d|\d\d) errors$/m);
  });

  test(`${runtime.name}: forty errors in one go are all told, once each, and Node warns of nothing`, async (t) => {
    const { child, ended } = start(t, runtime, ["fails", "much"]);
    let stderr = "";
    child.stdin.end();
    child.stdout.resume();
    await sleep(300); // Meanwhile all of it has to wait.
    child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
    assert.deepEqual(await ended, [1, null]);
    const told = Array.from(stderr.matchAll(/^uncaught-errors: .*Error: (\w+ \d+)$/gm), ([, message]) => message);
    assert.deepEqual(told, ["rejected", "thrown"].flatMap((how) => Array.from({ length: 20 }, (_, i) => `${how} ${i}`)));
    assert.doesNotMatch(stderr, /Warning/);
  });

  for (const mode of ["throw", "strict", "warn", "none", "warn-with-error-code"]) {
    test(`${runtime.name}: with --unhandled-rejections=${mode}, an error of the module itself is a failure`, async (t) => {
      const { child, ended } = start(t, runtime, ["throws"], [`--unhandled-rejections=${mode}`]);
      let output = "";
      for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
      assert.deepEqual(await ended, [1, null]);
      assert.match(output, /^cleaned up$/m);
      assert.equal(output.match(/^uncaught-errors: PanicError: Panicked with Error: top level$/gm)?.length, 1);
    });
  }
}

/** Starts the program, which is killed when it still runs at the end of the test. */
function start(t, { command }, args, options = []) {
  const child = spawn(command, [...options, program, ...args], { stdio: "pipe", timeout: 20_000, killSignal: "SIGKILL" });
  t.after(() => child.kill("SIGKILL"));
  return { child, ended: once(child, "close") };
}
