/*
 * A service of every battery, in the background and under load, while everything goes wrong that may: tasks fail, its
 * programs and its database are killed, it is reloaded, and replaced again and again. Nothing of that may show: no
 * request is lost, nothing grows, the numbers are right, and one SIGTERM ends it.
 *
 *   node --test soak.test.mjs                                          a minute, with other faults each time
 *   ALLSTOP_SOAK_SECONDS=300 ALLSTOP_SEED=7 node --test soak.test.mjs  five of them, with the faults of a seed
 *
 * What happens, in which order, is the seed's; when it happens is the machine's.
 */
import assert from "node:assert/strict";
import { randomInt, randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { createDatabase } from "./postgres.mjs";
import { deck, seeded } from "./soak-churn.mjs";
import { Client, Load, Probe, parsePage, RUDE } from "./soak-clients.mjs";
import { isLiving, Log, processesWith } from "./soak-log.mjs";
import { node, run, start, temporaryFolder } from "./support.mjs";

const SECONDS = Number(process.env.ALLSTOP_SOAK_SECONDS || 60);
const SEED = Number(process.env.ALLSTOP_SEED || randomInt(2 ** 31));

/** What starts it, in the background. */
const SERVICE = [node.command, ["--expose-gc", fileURLToPath(new URL("soak-service.mjs", import.meta.url))]];

/** How long a drain goes on serving, in milliseconds; clients pause for less. */
const DRAIN_DELAY = 300;

/** What a task does wrong, and how each of its failures is told; `undefined` is none, yet it is run again. */
const TASK_FAULTS = [
  ["worker", "fails", ["by design"]],
  ["worker", "panics", ['Panicked with "by design']],
  ["worker", "aborts", ["by design"]],
  ["worker", "returns", [undefined]],
  ["worker", "throws", ["by design", "by design"]],
  ["worker", "gives no promise", ["by design", "must return a promise"]],
  // What all of the failures of a run are, is told as well.
  ["orders", "a task fails", ["by design"], ["clerk"]],
  ["orders", "a task returns", [undefined], []],
  ["orders", "two tasks fail", ["by design"], ["clerk", "packer"]],
  ["orders", "a task and a hook fail", ["by design"], ["clerk", "cleanup"]],
  ["services", "fails", ["by design"]],
  ["services", "returns", [undefined]],
  ["services", "init", ["by design", "by design"]],
  ["services", "ready", ["by design", "by design"]],
  ["services", "finalize", ["by design"]],
  // They go on.
  ["loop", "fails"],
  ["poll", "fails"],
];

/** What is killed by what, and how that is told. */
const CHILD_FAULTS = [
  ["sh", "SIGKILL", "was killed by SIGKILL"],
  ["sh", "SIGTERM", "was killed by SIGTERM"],
  ["sleep", "SIGKILL", "exited with code 137"],
  ["sleep", "SIGTERM", "exited with code 143"],
];

/** How a process that should replace another one fails: before it has the PID file, or after; and how that is told. */
const UPGRADE_FAULTS = ["early", "late"].flatMap((when) => [
  [when, "exit", "exited with code 3"],
  [when, "error", "exited with code 1"],
  [when, "exception", "exited with code 1"],
  [when, "rejection", "exited with code 1"],
  [when, "hang", "was killed by SIGKILL"],
]);

/** Most of them succeed. */
const UPGRADES = [...Array(20).fill([]), ...UPGRADE_FAULTS];

/** Most of them are just that. */
const RELOADS = [...Array(15).fill("reload"), ...Array(5).fill("reload fails"), "second start", ...UPGRADE_FAULTS];

const DATABASE_FAULTS = ["kill", "kill", "end connections"];

/** How much larger than at its smallest the heap may become, in bytes, as what is kept of the past fills up. */
const HEAP_MARGIN = 1_000_000;

test(`for ${SECONDS} s a service of every battery stands all faults of seed ${SEED}`, async (t) => {
  const folder = await temporaryFolder(t);
  const database = await createDatabase(t);
  await database.start();
  const soak = new Soak(t, folder, database);
  try {
    await soak.run();
  } catch (error) {
    await soak.tell(error);
    throw error;
  } finally {
    await soak.kill();
  }
});

class Soak {
  #t;
  #folder;
  #database;
  #id = `SOAK_ID=${randomUUID()}`;
  #log;
  #load;
  #probe;
  #env;
  #over = new AbortController();
  #failed;
  #fail;
  /** The process that serves, and each that has. */
  #current;
  #generations = [];
  /** Whether the PID file may be nobody's, as a process that held it was killed. */
  #isVacant = false;
  /** Of each process, what its groups have left to clean up. */
  #hooks = new Map();
  /** How many faults there were, of which kind. */
  #faults = {};
  /** How often a task of a process should have been run again, and how often an action should have failed. */
  #restarts = new Map();
  #number = 0;
  #samples = [];
  #gate = new Gate();
  #port;
  #adminPort;
  #isStopping = false;

  constructor(t, folder, database) {
    this.#t = t;
    this.#folder = folder;
    this.#database = database;
    this.#failed = new Promise((_, reject) => {
      this.#fail = (error) => {
        this.#over.abort();
        reject(error);
      };
    });
    this.#failed.catch(() => {});
  }

  async run() {
    await Promise.race([this.#failed, this.#story()]);
  }

  async #story() {
    await this.#start();
    const watch = this.#watched(this.#watchPidFile());
    const endFaults = this.#beginFaults("tasks", "programs", "database", "clients");

    const endUpgrades = this.#beginFaults("upgrades");
    await this.#checkUntil(performance.now() + SECONDS * 500, { pause: SECONDS * 100 });
    await endUpgrades();

    // One process for the rest of the time, to see whether it grows.
    this.#samples = [];
    const endReloads = this.#beginFaults("reloads");
    await this.#checkUntil(performance.now() + SECONDS * 500, { pause: SECONDS * 15, atLeast: 12 });
    await endReloads();
    await endFaults();

    await this.#stop();
    await watch;
    this.#checkFigures();
    this.#tellFigures();
  }

  // The service

  async #start() {
    const [name, value] = this.#id.split("=");
    this.#env = {
      ...this.#database.env,
      [name]: value,
      SOAK_FOLDER: this.#folder,
      SOAK_SEED: SEED,
      SOAK_DRAIN_DELAY: DRAIN_DELAY,
    };
    this.#log = new Log(join(this.#folder, "events"), (event) => this.#hear(event));
    this.#watched(this.#log.ended);
    await run(this.#t, ...SERVICE, { env: this.#env });
    const { by, port, admin } = await this.#log.until("start", ({ type }) => type === "ready");
    [this.#port, this.#adminPort] = [port, admin];
    this.#takesOver(by);
    const options = { random: seeded(SEED), drainDelay: DRAIN_DELAY };
    this.#load = new Load(`http://127.0.0.1:${port}`, options);
    this.#probe = new Probe(`http://127.0.0.1:${admin}`, options);
    this.#watched(this.#load.ended);
    this.#watched(this.#probe.ended);
  }

  #takesOver(pid) {
    this.#current = pid;
    this.#generations.push(pid);
  }

  /** Ends the service by one signal, and looks for what is left of it. */
  async #stop() {
    const last = this.#current;
    await this.#isReady();
    await this.#check();
    // As a balancer does, which is told first: those that are there go on until they are told.
    this.#load.stop();
    this.#probe.stop();
    await this.#probe.ended;
    this.#isStopping = true;
    process.kill(last, "SIGTERM");
    await this.#log.until("stop", (event) => event.by === last && isStop(event));
    const probe = await this.#admin("/ready").catch(() => undefined);
    assert.notEqual(probe?.status, 200, "A process that stops is not ready");
    await this.#exit(last);
    await this.#load.ended;
    await this.#eventually("end of all processes", () => processesWith(this.#id).length === 0);
    this.#over.abort();
    this.#log.stop();
    assert.ok(!existsSync(join(this.#folder, "pid")), "The PID file is still there");
    for (const port of [this.#port, this.#adminPort]) await assert.rejects(connected(port), { code: "ECONNREFUSED" });
    this.#checkErrors();
    const born = this.#log.events.filter(({ type }) => type === "born").length;
    assert.equal(born, 1 + this.#count(/^upgrade|^second start/), "There was a process that nobody has asked for");
  }

  /** What a process has said is checked at once. */
  #hear(event) {
    const { by, type } = event;
    if (type === "wrong") throw new Error(`Process ${by}: ${event.what}`);
    if (type === "hook") this.#hooksOf(by, event.owner).push(event.name);
    if (type === "hooked") assert.equal(this.#hooksOf(by, event.owner).pop(), event.name, "It is this hook's turn");
    if (type === "http-drained") assert.equal(event.destroyed, 0, `${event.task} of ${by} has cut connections`);
    if (/timed-out|gave-up/.test(type)) throw new Error(`Process ${by} told ${JSON.stringify(event)}`);
    if (type === "stopped" && event.manager === "soak" && this.#generations.includes(by)) {
      assert.deepEqual(event.failures, [], `Process ${by} has failed`);
    }
    if (type === "exit") {
      if (this.#generations.includes(by)) assert.equal(event.code, 0, `Process ${by} has failed`);
      // By design, one that exits by itself does not clean up.
      const left = event.code === 3 ? [] : ["soak", "orders"].flatMap((owner) => this.#hooksOf(by, owner));
      assert.deepEqual(left, [], `Process ${by} has not cleaned up`);
    }
  }

  #hooksOf(by, owner) {
    const key = `${by} ${owner}`;
    if (!this.#hooks.has(key)) this.#hooks.set(key, []);
    return this.#hooks.get(key);
  }

  /** Waits for the end of a process that has served. */
  async #exit(pid) {
    const exit = await this.#log.until(`end of process ${pid}`, ({ by, type }) => by === pid && type === "exit");
    await this.#eventually(`end of process ${pid}`, () => !isLiving(pid));
    // The stop may have overtaken one, or one that is two.
    this.#checkRestarts(pid, parsePage(exit.metrics), 2);
  }

  // Faults

  /** Begins faults of several kinds at once; returns what ends them. */
  #beginFaults(...kinds) {
    const end = new AbortController();
    const signal = AbortSignal.any([end.signal, this.#over.signal]);
    const ended = kinds.map((kind) => this.#watched(this.#makeFaults(kind, signal)));
    return async () => {
      end.abort();
      await Promise.all(ended);
    };
  }

  /** Faults of one kind, one after the other, as the seed says; with pauses of so many milliseconds on average. */
  async #makeFaults(kind, signal) {
    const random = seeded([...kind].reduce((hash, letter) => Math.imul(hash, 31) + letter.charCodeAt(0), SEED));
    const { pause, list, make, isFree } = {
      tasks: { pause: 50, list: TASK_FAULTS, make: this.#spoilTask },
      programs: { pause: 300, list: CHILD_FAULTS, make: this.#killProgram },
      upgrades: { pause: 500, list: UPGRADES, make: this.#upgrade },
      reloads: { pause: 300, list: RELOADS, make: this.#reload },
      // The numbers that are compared do not depend on these.
      database: { pause: 1_000, list: DATABASE_FAULTS, make: this.#spoilDatabase, isFree: true },
      clients: { pause: 100, list: Object.keys(RUDE), make: this.#beRude, isFree: true },
    }[kind];
    const next = deck(random, list);
    for (;;) {
      await sleep(random() * 2 * pause, undefined, { signal }).catch(() => {});
      if (signal.aborted) break;
      const leave = isFree ? undefined : await this.#gate.enter();
      const fault = await make.call(this, next(), random);
      if (fault) this.#faults[fault] = (this.#faults[fault] ?? 0) + 1;
      leave?.();
    }
  }

  /** How many faults of some kinds there were. */
  #count(kinds) {
    return Object.entries(this.#faults).reduce((sum, [kind, count]) => sum + (kinds.test(kind) ? count : 0), 0);
  }

  async #spoilTask([task, how, errors, sources]) {
    const from = this.#log.events.length;
    const id = ++this.#number;
    const kind = `${task}: ${how}`;
    if (!errors) return (await this.#spoilAction(task, id, from)) ? kind : undefined;
    const { by, isTaken } = await this.#ask(`/tell?task=${task}&how=${encodeURIComponent(how)}&id=${id}`);
    if (!isTaken) return undefined;
    const texts = errors.map((text) => text?.replace("by design", `by design ${id}`));
    const isDone = await this.#untilRestarted(by, task, texts, from);
    if (sources && isDone) {
      const isTold = (event) => event.by === by && event.type === "failures";
      const { failures } = this.#log.events.slice(from).find(isTold);
      assert.deepEqual(failures.map(({ source }) => source.replace("soak/orders/", "")), sources, kind);
      assert.ok(failures.every(({ error }) => error.includes(`by design ${id}`)), JSON.stringify(failures));
    }
    return kind;
  }

  /** Lets an action of a task fail; tells whether it was able to. */
  async #spoilAction(task, id, from) {
    const { by, isTaken } = await this.#ask(`/later?what=${task}&id=${id}`);
    if (!isTaken) return false;
    const isTold = ({ type, error }) => type === "action-failed" && error.endsWith(`by design ${id}`);
    await this.#log.until(`failure of ${task}`, (event) => event.by === by && (isTold(event) || isStop(event)), from);
    return true;
  }

  /** Waits until a task has been run again after each of these failures; or, which it says, is stopped meanwhile. */
  async #untilRestarted(by, task, errors, from) {
    const key = `${by} ${task}`;
    this.#restarts.set(key, (this.#restarts.get(key) ?? 0) + errors.length);
    const name = `soak/${task}`;
    let left = errors.length;
    const isLast = (event) => event.type === "task-restarted" && event.task === name && --left === 0;
    const isEnd = (event) => event.by === by && (isLast(event) || isStop(event));
    const { type } = await this.#log.until(`restart of ${name}`, isEnd, from);
    if (type !== "task-restarted") return false;
    const told = this.#log.events
      .slice(from)
      .filter((event) => event.by === by && event.type === "task-restarting" && event.task === name);
    for (const [index, text] of errors.entries()) {
      const { error } = told[index];
      assert.ok(text === undefined ? error === undefined : error?.includes(text), `${name} told ${error}, not ${text}`);
    }
    return true;
  }

  async #killProgram([name, signal, text]) {
    const by = this.#current;
    const from = this.#log.events.length;
    const started = this.#log.events.findLast((event) => event.by === by && event.type === "child-started");
    const target = processesWith(this.#id).find((each) => each.group === started?.pid && each.name === name);
    if (!target) return undefined;
    if (!send(target.pid, signal)) return undefined; // The service itself has ended it.
    await this.#untilRestarted(by, "child", [text], from);
    if (isLiving(by)) await this.#eventually("end of the group", () => !this.#isGroup(started.pid));
    return `${name} ${signal}`;
  }

  #isGroup(group) {
    return processesWith(this.#id).some((each) => each.group === group);
  }

  async #spoilDatabase(how, random) {
    if (how === "end connections") {
      const client = await this.#database.connect();
      await client.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
      await client.end();
      return "database ends connections";
    }
    await this.#isReady();
    await this.#database.kill();
    await this.#eventually("unreadiness", () => this.#probe.ready === 503);
    await sleep(random() * 500);
    await this.#database.start();
    await this.#isReady();
    return "database killed";
  }

  async #isReady() {
    await this.#eventually("readiness", () => this.#probe.ready === 200);
  }

  async #beRude(kind) {
    await RUDE[kind](this.#port);
    return kind;
  }

  async #reload(kind) {
    if (Array.isArray(kind)) return this.#spoilUpgrade(kind);
    if (kind === "second start") return this.#startSecond();
    const by = this.#current;
    const from = this.#log.events.length;
    const id = ++this.#number;
    const isSpoilt = kind === "reload fails";
    if (isSpoilt) assert.ok((await this.#ask(`/later?what=reload&id=${id}`)).isTaken);
    process.kill(by, "SIGHUP");
    const isDone = ({ type, error }) =>
      isSpoilt ? type === "action-failed" && error.endsWith(`by design ${id}`) : type === "reloaded";
    await this.#log.until("reload", (event) => event.by === by && isDone(event), from);
    return kind;
  }

  /** Starts the service once more. */
  async #startSecond() {
    const { code, stderr } = await start(this.#t, ...SERVICE, { env: this.#env }).ended;
    assert.equal(code, 1);
    assert.match(stderr, /^Daemon \d+ exited with code 1 before it was ready: see /);
    return "second start";
  }

  /** Replaces the process that serves. */
  async #upgrade(fault, random) {
    if (fault.length) return this.#spoilUpgrade(fault);
    const old = this.#current;
    const { pid } = await this.#beginUpgrade(old);
    if (random() < 0.5) send(old, "SIGUSR2"); // which is refused
    const { port, admin } = await this.#log.until("upgrade", ({ by, type }) => by === pid && type === "ready");
    assert.deepEqual([port, admin], [this.#port, this.#adminPort]);
    this.#takesOver(pid);
    await this.#exit(old);
    assert.equal(readPidFile(this.#folder), pid);
    return "upgrade";
  }

  async #beginUpgrade(old) {
    for (;;) {
      const from = this.#log.events.length;
      process.kill(old, "SIGUSR2");
      const isAnswer = ({ by, type }) => by === old && /^upgrade-/.test(type);
      const answer = await this.#log.until("answer to SIGUSR2", isAnswer, from);
      if (answer.type === "upgrade-started") return { pid: answer.pid, from };
      // Of the end of its parent it hears a little later than we do.
      assert.match(answer.error, /Cannot upgrade: its parent is alive/);
      await sleep(10);
    }
  }

  /** Lets an upgrade fail. */
  async #spoilUpgrade([when, how, text]) {
    const old = this.#current;
    writeFileSync(join(this.#folder, "spoil"), `${when} ${how}`);
    this.#isVacant = when === "late";
    const { pid, from } = await this.#beginUpgrade(old);
    if (how === "hang") {
      await this.#log.until("hang", ({ by, type }) => by === pid && type === "spoilt");
      const { pid: group } = this.#log.events.find(({ by, type }) => by === pid && type === "child-started");
      process.kill(pid, "SIGKILL");
      // Who is killed in this way leaves what it has started.
      await this.#eventually("end", () => !isLiving(pid));
      send(-group, "SIGKILL");
    }
    const isFailed = (event) => event.by === old && event.type === "upgrade-failed" && event.pid === pid;
    const { error } = await this.#log.until("failure of the upgrade", isFailed, from);
    assert.equal(error, `Error: The new process ${text} before it was ready`);
    if (when === "late") await this.#log.until("holder", ({ by, type }) => by === old && type === "holds", from);
    this.#isVacant = false;
    return `upgrade fails ${when} by ${how}`;
  }

  // Checks

  /** Checks now and then, while no fault is on its way. */
  async #checkUntil(time, { pause, atLeast = 0 }) {
    while (performance.now() < time || this.#samples.length < atLeast) {
      await sleep(pause, undefined, { signal: this.#over.signal });
      const open = await this.#gate.close();
      await this.#check();
      open();
    }
  }

  /** Compares the numbers of the process that serves with what was done to it, while nothing is. */
  async #check() {
    const by = this.#current;
    const page = parsePage((await this.#admin("/metrics")).body);
    assert.equal(page.get("soak_process"), by);
    this.#checkRestarts(by, page, 0);
    const names = () => processesWith(this.#id).filter(({ pid }) => pid !== by).map(({ name }) => name).sort();
    // Of the churn there may be another one, for a moment.
    await this.#eventually("programs of one child", () => `${names()}` === "sh,sleep");
    const { by: teller, runs, ...figures } = await this.#ask("/figures");
    assert.equal(teller, by);
    this.#samples.push({ runs, figures });
  }

  #checkRestarts(by, page, margin) {
    for (const task of ["worker", "orders", "services", "child"]) {
      const expected = this.#restarts.get(`${by} ${task}`) ?? 0;
      const restarts = page.get(`allstop_task_restarts_total{task="soak/${task}"}`) ?? 0;
      const isRight = restarts <= expected && restarts >= expected - margin;
      assert.ok(isRight, `${task} of process ${by} was restarted ${restarts} times, not ${expected}`);
    }
    const [runs, churn] = ["soak_churn_runs_total", 'allstop_task_restarts_total{task="soak/churn"}'];
    const difference = (page.get(runs) ?? 0) - (page.get(churn) ?? 0);
    assert.ok(margin || Math.abs(difference) <= 1, `The churn has run ${page.get(runs)} times, not ${page.get(churn)}`);
  }

  /** In the last third, after one to warm up and one to compare with, all that is counted has to come down again. */
  #checkFigures() {
    const third = Math.floor(this.#samples.length / 3);
    const names = new Set(this.#samples.flatMap(({ figures }) => Object.keys(figures)));
    for (const name of names) {
      const values = this.#samples.map(({ figures }) => figures[name] ?? 0);
      const before = values.slice(third, -third);
      // Garbage is large, and no sign of anything.
      const limit = name === "heap" ? Math.min(...before) + HEAP_MARGIN : Math.max(...before);
      assert.ok(Math.min(...values.slice(-third)) <= limit, `There are more and more ${name}: ${values.join(", ")}`);
    }
  }

  #checkErrors() {
    const errors = readFileSync(join(this.#folder, "errors"), "utf8");
    const heads = errors.split("\n").filter((line) => /^[^\s}]/.test(line));
    const isExpected = /^(soak\/uncaught-errors|setup): .*(by design|is already running)/;
    assert.ok(heads.every((line) => isExpected.test(line)), errors);
    assert.equal(heads.length, this.#count(/by (error|exception|rejection)|^second start/), errors);
  }

  /** Looks all the time whose the PID file is. */
  async #watchPidFile() {
    while (!this.#over.signal.aborted && !this.#isStopping) {
      const holder = readPidFile(this.#folder);
      const isRight = this.#isVacant || (holder && isLiving(holder));
      // Unless it has been taken over just now.
      if (!isRight && !this.#isVacant && !this.#isStopping && readPidFile(this.#folder) === holder) {
        throw new Error(`The PID file is that of process ${holder}`);
      }
      await sleep(10);
    }
  }

  /** Asks the service, also while it is replaced. */
  async #ask(path) {
    return JSON.parse((await this.#get(this.#port, path)).body);
  }

  async #admin(path) {
    return this.#get(this.#adminPort, path);
  }

  async #get(port, path) {
    for (;;) {
      const client = new Client(`http://127.0.0.1:${port}`, { keepAlive: false, drainDelay: DRAIN_DELAY });
      const answer = await client.get(path);
      // Else the request came too late, which no process has seen.
      if (answer) return answer;
    }
  }

  async #eventually(what, holds) {
    for (const end = performance.now() + 60_000; !holds(); await sleep(10)) {
      if (performance.now() > end) throw new Error(`There was no ${what} for 60 s`);
      this.#over.signal.throwIfAborted();
    }
  }

  /** Fails as soon as this does. */
  #watched(promise) {
    promise.catch(this.#fail);
    return promise;
  }

  // What people see

  #tellFigures() {
    const [first, last] = [this.#samples[Math.floor(this.#samples.length / 3)], this.#samples.at(-1)];
    const upgrades = this.#generations.length - 1;
    const faults = this.#count(/./);
    const restarts = [...this.#restarts.values()].reduce((sum, count) => sum + count, 0);
    const say = (text) => this.#t.diagnostic(text);
    say(`seed ${SEED}: ${this.#load.answered} requests (${this.#load.late} late), ${this.#probe.asked} probes`);
    say(`${faults} faults, ${restarts} restarts, ${upgrades} upgrades, ${this.#samples.length} samples over`);
    say(`${last.runs - first.runs} runs of the churn of one process`);
    for (const name of Object.keys(last.figures)) say(`${name}: ${first.figures[name] ?? 0} ... ${last.figures[name]}`);
    for (const kind of Object.keys(this.#faults).sort()) say(`${this.#faults[kind]} x ${kind}`);
  }

  async tell(error) {
    console.error(`\nThe soak of seed ${SEED} has failed: ${error.stack}\n`);
    for (const name of readdirSync(this.#folder).filter((each) => each.startsWith("timeline."))) {
      console.error(`${name}\n${readFileSync(join(this.#folder, name), "utf8").split("\n").slice(-60).join("\n")}\n`);
    }
    if (this.#port) {
      const answer = await this.#get(this.#port, "/timeline").catch(({ message }) => ({ body: message }));
      console.error(`Process ${this.#current}\n${answer.body.split("\n").slice(-60).join("\n")}\n`);
    }
    for (const event of this.#log?.events.slice(-60) ?? []) console.error(JSON.stringify(event).slice(0, 500));
    if (existsSync(join(this.#folder, "errors"))) console.error(readFileSync(join(this.#folder, "errors"), "utf8"));
    console.error(this.#faults);
  }

  /** Leaves nothing behind, whatever has happened. */
  async kill() {
    this.#over.abort();
    this.#log?.stop();
    this.#load?.stop();
    this.#probe?.stop();
    for (const { pid } of processesWith(this.#id)) send(pid, "SIGKILL");
  }
}

/** Lets faults in, many at once, or closes when the last of them is over. */
class Gate {
  #inside = 0;
  #closed;
  #isEmpty = () => {};

  async enter() {
    while (this.#closed) await this.#closed;
    this.#inside++;
    return () => {
      if (--this.#inside === 0) this.#isEmpty();
    };
  }

  async close() {
    let open;
    this.#closed = new Promise((resolve) => (open = resolve));
    if (this.#inside) await new Promise((resolve) => (this.#isEmpty = resolve));
    return () => {
      this.#closed = undefined;
      open();
    };
  }
}

function isStop({ type, manager }) {
  return type === "exit" || (type === "stopping" && manager === "soak");
}

function readPidFile(folder) {
  try {
    return Number(readFileSync(join(folder, "pid"), "utf8").split("\n")[0]);
  } catch {
    return undefined;
  }
}

/** Tells whether there was somebody to be sent a signal. */
function send(pid, signal) {
  try {
    return process.kill(pid, signal);
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
    return false;
  }
}

function connected(port) {
  return new Promise((resolve, reject) => {
    createConnection(port, "127.0.0.1").on("connect", resolve).on("error", reject);
  });
}
