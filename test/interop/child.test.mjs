/*
 * A hundred programs that are stopped at random moments, and programs whose parent crashes, leave nothing of their
 * process groups alive. Where there is a /proc, all that they have started is found by a mark in its environment.
 */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { node, node22, node24, root, start } from "./support.mjs";

const program = join(root, "test/interop/children.mjs");

/** How they may end: stopped before they were deaf, or had ended by themselves, they all return. */
const KILLED = "its group got SIGKILL after 50 ms";
const expected = {
  plain: ["returned"],
  leader: ["returned"],
  // It may be told before it is deaf, and be dead for a while before anybody hears of that.
  deaf: ["returned", ...["SIGKILL", "SIGTERM"].map((by) => `Program sh was killed by ${by}; ${KILLED}`)],
  deafChild: ["returned", `Program sh was killed by SIGTERM; ${KILLED}`],
  growing: ["returned"],
  leaving: ["returned"],
  crashing: ["returned", "Program sh exited with code 3"],
  suspended: ["returned"],
  node: ["returned"],
};

for (const { name, command } of [node, node22, node24]) {
  test(`a hundred programs that are stopped at random moments leave nothing alive, under ${name}`, async (t) => {
    const mark = markFor(t);
    const { code, stdout, stderr } = await start(t, command, [program, "stop"], { env: mark.env }).ended;
    assert.deepEqual([code, stderr], [0, ""]);
    const { ends, left, listeners } = JSON.parse(stdout);
    t.diagnostic(JSON.stringify(ends));
    assert.deepEqual(mark.processes(), []);
    assert.deepEqual([left, listeners], [[], 0]);
    for (const [name, of] of Object.entries(ends)) {
      assert.deepEqual(Object.keys(of).filter((end) => !expected[name].includes(end)), [], name);
    }
    for (const [name, by] of [["deaf", "SIGKILL"], ["deafChild", "SIGTERM"]]) {
      assert.ok(ends[name][`Program sh was killed by ${by}; ${KILLED}`] > 0, name);
    }
  });

  for (const [mode, exitCode] of [["exit", 9], ["throw", 1]]) {
    test(`the end of their parent (${mode}) leaves nothing of eighteen programs alive, under ${name}`, async (t) => {
      const mark = markFor(t);
      for (const milliseconds of [0, 20, 100]) {
        const parent = start(t, command, [program, mode, milliseconds], { env: mark.env });
        assert.equal((await parent.ended).code, exitCode);
        // Who is killed needs a moment to be gone.
        for (let i = 0; i < 100 && mark.processes().length > 0; i++) await sleep(10);
        assert.deepEqual(mark.processes(), []);
      }
    });
  }
}

/** What is handed on to all processes that those of this test start, and kills those that are left after it. */
function markFor(t) {
  const variable = `ALLSTOP_MARK=${randomUUID()}`;
  const processes = () =>
    readdirSync("/proc")
      .map(Number)
      .filter((pid) => {
        try {
          return pid > 0 && readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(variable);
        } catch {
          return false; // It has ended meanwhile, or is that of another user.
        }
      });
  t.after(() => {
    for (const pid of processes()) process.kill(pid, "SIGKILL");
  });
  return { processes, env: { ALLSTOP_MARK: variable.slice("ALLSTOP_MARK=".length) } };
}
