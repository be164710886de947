/*
 * Of all processes that want a PID file exactly one gets it, at the same time or one after the other, also when some of
 * them are killed or frozen: at random, and before each of their calls of the file system.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { node, node22, node24, temporaryFolder } from "./support.mjs";

const STARTERS = 20;
const ROUNDS = 25;
const STORM_ROUNDS = 300;
const STORM_STARTERS = 6;

const starter = fileURLToPath(new URL("pid-file-starter.mjs", import.meta.url));

/** What the file may be like before. No process can have so large an id. */
const kinds = { fresh: undefined, stale: "99999999\n1\n", empty: "", garbage: "no pid\n" };

/** A process of which it is known how its calls came out. */
class Starter {
  #child;
  #lines;

  constructor(t, command = node.command, ...args) {
    const stdio = ["pipe", "pipe", "inherit"];
    this.#child = spawn(command, [starter, ...args], { stdio, timeout: 120_000, killSignal: "SIGKILL" });
    // One that was killed does not read any more.
    this.#child.stdin.on("error", () => {});
    this.ended = once(this.#child, "close");
    this.#lines = createInterface(this.#child.stdout)[Symbol.asyncIterator]();
    t.after(() => this.kill());
  }

  get pid() {
    return this.#child.pid;
  }

  get isFrozen() {
    return / T /.test(readFileSync(`/proc/${this.pid}/stat`, "latin1"));
  }

  send(signal) {
    this.#child.kill(signal);
  }

  async kill() {
    this.send("SIGKILL");
    await this.ended;
  }

  tell(command) {
    this.#child.stdin.write(`${JSON.stringify(command)}\n`);
  }

  /** Resolves with what came of it; nothing, if it was killed before it could say so. */
  async outcome() {
    const { value } = await this.#lines.next();
    return value === undefined ? undefined : JSON.parse(value);
  }

  does(command) {
    this.tell(command);
    return this.outcome();
  }
}

/** A path in an empty folder, at which there can be what there was before. */
async function newPath(t) {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.pid");
  return {
    path,
    files: () => readdirSync(folder),
    pid: () => parseInt(readFileSync(path, "utf8"), 10),
    putBack(text) {
      for (const name of readdirSync(folder)) rmSync(join(folder, name));
      if (text !== undefined) writeFileSync(path, text);
    },
  };
}

/** Exactly one has won, and all others say which. */
function assertOneWinner(starters, outcomes, file) {
  const winners = starters.filter((_, i) => outcomes[i].won);
  assert.equal(winners.length, 1, JSON.stringify(outcomes));
  const [{ pid }] = winners;
  assert.deepEqual(outcomes.filter(({ won }) => !won), Array(starters.length - 1).fill({ running: pid }));
  assert.equal(file.pid(), pid);
  assert.deepEqual(file.files(), ["app.pid"]);
  return winners[0];
}

for (const [kind, text] of Object.entries(kinds)) {
  test(`exactly one of ${STARTERS} starters wins, ${ROUNDS} times, over a ${kind} file`, async (t) => {
    const file = await newPath(t);
    const starters = Array.from({ length: STARTERS }, () => new Starter(t));
    for (let round = 1; round <= ROUNDS; round++) {
      file.putBack(text);
      const outcomes = await Promise.all(starters.map((each) => each.does({ path: file.path })));
      const winner = assertOneWinner(starters, outcomes, file);
      await winner.does({ release: true });
      assert.deepEqual(file.files(), []);
    }
  });

  test(`exactly one of ${STARTERS} processes wins that start at the same time, over a ${kind} file`, async (t) => {
    const file = await newPath(t);
    file.putBack(text);
    const starters = Array.from({ length: STARTERS }, () => new Starter(t, node.command, file.path));
    const outcomes = await Promise.all(starters.map((each) => each.outcome()));
    assertOneWinner(starters, outcomes, file);
  });
}

// The calls over an empty file, and one of garbage, are those over a stale one.
for (const [kind, text] of Object.entries(kinds).slice(0, 2)) {
  test(`one that is killed before any of its calls does not keep the next out, over a ${kind} file`, async (t) => {
    const file = await newPath(t);
    const next = new Starter(t);
    const calls = await beforeEachCall(t, async (victim, call) => {
      file.putBack(text);
      const outcome = await victim.does({ path: file.path, signal: "SIGKILL", call });
      if (outcome.reached) await victim.ended;
      else await victim.kill();
      assert.deepEqual(await next.does({ path: file.path }), { won: true });
      assert.equal(file.pid(), next.pid);
      await next.does({ release: true });
      return outcome.reached;
    });
    t.diagnostic(`${calls} calls`);
  });

  test(`one that is frozen before any of its calls does not let two win, over a ${kind} file`, async (t) => {
    const file = await newPath(t);
    const next = new Starter(t);
    const ends = [];
    await beforeEachCall(t, async (victim, call) => {
      file.putBack(text);
      const first = await victim.does({ path: file.path, signal: "SIGSTOP", call });
      if (!first.reached) return victim.kill();
      while (!victim.isFrozen) await sleep(1);
      const outcome = await next.does({ path: file.path });
      victim.send("SIGCONT");
      const last = await victim.outcome();
      const winner = assertOneWinner([victim, next], [last, outcome], file);
      ends.push(winner === next ? "next" : "frozen");
      await winner.does({ release: true });
      assert.deepEqual(file.files(), []);
      await victim.kill();
      return true;
    });
    // Up to some moment it can be overtaken, and from then on it has won.
    const [overtaken, won] = [ends.lastIndexOf("next"), ends.indexOf("frozen")];
    assert.ok(overtaken >= 0 && won === overtaken + 1, ends.join());
  });
}

test("a holder that is killed or frozen before any call of its release does not let two win", async (t) => {
  const file = await newPath(t);
  const next = new Starter(t);
  for (const signal of ["SIGKILL", "SIGSTOP"]) {
    await beforeEachCall(t, async (victim, call) => {
      file.putBack(undefined);
      assert.deepEqual(await victim.does({ path: file.path }), { won: true });
      const { reached } = await victim.does({ release: true, signal, call });
      if (!reached) return victim.kill();
      if (signal === "SIGKILL") await victim.ended;
      else while (!victim.isFrozen) await sleep(1);
      const outcome = await next.does({ path: file.path });
      if (signal === "SIGKILL") assert.deepEqual(outcome, { won: true });
      victim.send("SIGCONT");
      if (signal === "SIGSTOP") assert.deepEqual(await victim.outcome(), { released: true });
      assert.equal(existsSync(file.path), outcome.won ?? false);
      if (outcome.won) assert.equal(file.pid(), next.pid);
      else assert.deepEqual(outcome, { running: victim.pid });
      await next.does({ release: true });
      await victim.kill();
      return true;
    });
  }
});

test(`in ${STORM_ROUNDS} rounds of starters that are killed and frozen at random, never two have won`, async (t) => {
  const file = await newPath(t);
  const texts = Object.values(kinds);
  let starters = Array.from({ length: STORM_STARTERS }, () => new Starter(t));
  // Another one that starts meanwhile.
  let spare = new Starter(t);
  const wins = { living: 0, killed: 0 };
  for (let round = 0; round < STORM_ROUNDS; round++) {
    file.putBack(texts[round % texts.length]);
    const [killed, frozen, ...others] = starters.sort(() => Math.random() - 0.5);
    const outcomes = starters.map((each) => each.does({ path: file.path }));
    const until = performance.now() + Math.random() * 10;
    while (performance.now() < until);
    frozen.send("SIGSTOP");
    killed.send("SIGKILL");
    const [, lateOutcome, ...otherOutcomes] = outcomes;
    await killed.ended;
    // Nobody waits for the frozen one.
    await Promise.all(otherOutcomes);
    frozen.send("SIGCONT");
    const known = await Promise.all([lateOutcome, ...otherOutcomes]);
    const living = [frozen, ...others];
    assert.deepEqual(known.filter(({ error }) => error), []);
    const winners = living.filter((_, i) => known[i].won);
    assert.ok(winners.length <= 1, JSON.stringify(known));
    const [next] = others;
    if (winners.length) {
      wins.living++;
      assert.equal(file.pid(), winners[0].pid);
      await winners[0].does({ release: true });
    } else wins.killed++;
    assert.deepEqual(await next.does({ path: file.path }), { won: true });
    await next.does({ release: true });
    assert.equal(existsSync(file.path), false);
    starters = [...living, spare];
    spare = new Starter(t);
  }
  t.diagnostic(JSON.stringify(wins));
  assert.ok(wins.living && wins.killed, "every time the same one was killed");
});

for (const { name, command } of [node22, node24]) {
  test(`under ${name} exactly one wins, against others under ${node.name}, and may be replaced`, async (t) => {
    const file = await newPath(t);
    const starters = Array.from({ length: 6 }, (_, i) => new Starter(t, i % 2 ? command : node.command));
    for (const text of Object.values(kinds)) {
      file.putBack(text);
      const outcomes = await Promise.all(starters.map((each) => each.does({ path: file.path })));
      const winner = assertOneWinner(starters, outcomes, file);
      const others = starters.filter((each) => each !== winner);
      const replaced = await Promise.all(others.map((each) => each.does({ path: file.path, replaces: winner.pid })));
      const heir = assertOneWinner(others, replaced, file);
      await winner.does({ release: true });
      assert.equal(file.pid(), heir.pid);
      await heir.does({ release: true });
    }
  });
}

/** Has something done with a new process for each call, until one has no such call. */
async function beforeEachCall(t, round) {
  for (let call = 1; ; call++) if (!(await round(new Starter(t), call))) return call - 1;
}
