/*
 * A group of nearly every battery that comes up, ends in one of many ways, and is made anew, some dozens of times a
 * second: what a run leaves behind is soon too much to be overlooked. What a run reports is compared with what it did.
 */
import { once } from "node:events";
import { createServer, get } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { AdminServerTask } from "../../dist/admin.js";
import { ChildProcessTask } from "../../dist/child.js";
import { GroupTask } from "../../dist/group.js";
import { Health } from "../../dist/health.js";
import { HttpServerTask } from "../../dist/http.js";
import { OsSignalTask } from "../../dist/index.js";
import { UncaughtErrorTask } from "../../dist/main.js";
import { Metrics } from "../../dist/metrics.js";
import { acquirePidFile } from "../../dist/pid-file.js";
import { LoopTask, PollTask, SignalTriggerTask } from "../../dist/repeat.js";
import { backoff, RestartTask } from "../../dist/restart.js";
import { ServiceGroup } from "../../dist/services.js";
import { ControlledTask, EventLog } from "../../dist/testing.js";
import { Timeline } from "../../dist/timeline.js";
import { UpgradeTask } from "../../dist/upgrade.js";

/** An error that nothing but the test wants. */
export class Fault extends Error {
  constructor(id) {
    super(`by design ${id}`);
  }
}

/** Gives a function that gives the numbers from 0 to 1 of this seed, always the same ones (mulberry32). */
export function seeded(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Gives a function that deals the items of a list in random order, and again when all have been dealt. */
export function deck(random, list) {
  const left = [];
  return () => {
    if (left.length === 0) left.push(...list);
    return left.splice(Math.floor(random() * left.length), 1)[0];
  };
}

/** How a run may end, and which failures it then reports, each as `source: message`. */
const ENDS = {
  "a task fails": ({ one, fault }) => {
    one.fail(fault);
    return [`churn/one: ${fault.message}`];
  },
  "a task panics": ({ one, fault }) => {
    one.fail(fault.message);
    return [`churn/one: Panicked with "${fault.message}"`];
  },
  "a task returns": ({ one }) => {
    one.return();
    return [];
  },
  "two tasks fail": ({ one, failTwo, fault }) => {
    failTwo(new Fault(2));
    one.fail(fault);
    return [`churn/one: ${fault.message}`, "churn/two: by design 2"];
  },
  "two hooks fail": ({ one, group, fault }) => {
    one.return();
    for (const count of [1, 2]) group.cleanup(() => Promise.reject(new Fault(count)));
    return ["cleanup: by design 2, by design 1"];
  },
  "a service fails": ({ service, fault }) => {
    service.fail(fault);
    return [`churn/services: ${fault.message}`];
  },
  "a restarted task gives up": ({ group, fault }) => {
    const delay = backoff({ base: 1, max: 2 });
    group.run(new RestartTask({ name: "flaky", run: () => Promise.reject(fault) }, { maxRestarts: 2, delay }));
    return ["churn/flaky: Gave up on soak/churn/flaky after 2 restarts"];
  },
  "an action fails": ({ group, fault }) => {
    group.run(new LoopTask(() => Promise.reject(fault)));
    return [`churn/loop: ${fault.message}`];
  },
  "a program fails": ({ group }) => {
    group.run(new ChildProcessTask("sh", ["-c", "exit 3"], { stdio: "ignore" }));
    return ["churn/sh: Program sh exited with code 3"];
  },
};

/** The task. Its figures are those of the runs so far. */
export class Churn {
  name = "churn";
  /** How many runs there were that ended before the stop. */
  runs = 0;
  /** How many of the objects that runs have made live, or have not been found dead. */
  alive = 0;
  #graves = new FinalizationRegistry(() => this.alive--);
  #random;
  #nextEnd;
  #folder;
  #wrong;
  #log;
  #expected;
  #group;
  #restarting;

  /**
   * @param observe - Is told all events.
   * @param wrong - Is told what a run should not have done.
   */
  constructor({ seed, folder, observe, wrong }) {
    this.#random = seeded(seed);
    this.#nextEnd = deck(this.#random, Object.keys(ENDS));
    this.#folder = folder;
    this.#wrong = wrong;
    const onEvent = (event) => {
      this.#log.observe(event);
      observe(event);
    };
    this.#group = new GroupTask(this.name, (group) => this.#fill(group), { limit: 2, onEvent });
    const delay = backoff({ base: 5, max: 10 });
    const task = { name: this.name, run: (signal) => this.#runOnce(signal) };
    this.#restarting = new RestartTask(task, { policy: "always", maxRestarts: Infinity, delay, healthyAfter: 1_000 });
  }

  run(signal) {
    return this.#restarting.run(signal);
  }

  async #runOnce(signal) {
    this.#log = this.#track(new EventLog());
    this.#expected = undefined;
    this.#track(signal);
    const error = await this.#group.run(signal).then(() => undefined, (thrown) => thrown);
    const isStop = signal.aborted;
    const told = this.#group.failures
      // What nobody caught has stopped the program, too, and is of others.
      .filter(({ source }) => !isStop || source !== "soak/churn/uncaught-errors")
      .map(({ source, error }) => {
        const messages = error.errors?.map(({ message }) => message) ?? [error.message];
        return `${source.replace("soak/", "")}: ${messages.join(", ")}`;
      });
    // The stop may have overtaken what was to come.
    const expected = isStop ? this.#expected?.slice(0, told.length) : this.#expected;
    if (`${told}` !== `${expected ?? []}`) this.#wrong(`the churn should have told ${expected}, not ${told}`);
    if (error !== this.#group.failures[0]?.error) this.#wrong(`the churn has told the wrong error, ${error}`);
    if (isStop) return;
    this.runs++;
    if (error) throw error;
  }

  #track(object) {
    this.#graves.register(object);
    this.alive++;
    return object;
  }

  async #fill(group) {
    this.#track(group);
    const [one, service] = ["one", "service"].map((name) => this.#track(new ControlledTask(name)));
    const two = this.#track(new ControlledTask("two", { ignoreAbort: true }));
    let late;
    two.aborted.then(() => (late ? two.fail(late) : two.return()));
    const failTwo = (error) => (late = error);
    const fault = this.#track(new Fault(this.runs));
    const health = this.#track(new Health());
    const services = this.#track(new ServiceGroup([{ init() {}, finalize() {} }, [service, { name: "other" }]]));
    const upgrade = new UpgradeTask({ signals: ["SIGIO"] });
    const pidFile = await acquirePidFile(join(this.#folder, `churn.${process.pid}.pid`));
    let hooks = "";
    group.cleanup(() => hooks === "ba" || this.#wrong(`the hooks of the churn have run as ${hooks}`));
    group.cleanup(() => void (hooks += "a"));
    group.cleanup(() => void (hooks += "b"));
    group.cleanup(() => pidFile.release());
    group.cleanup(() => upgrade[Symbol.dispose]());
    if (group.signal.aborted) return;

    const end = this.#nextEnd();
    group.runBackground(health, new UncaughtErrorTask(), new OsSignalTask({ signals: ["SIGIO"] }));
    group.runBackground(upgrade, new SignalTriggerTask(() => {}, { signals: ["SIGIO"] }));
    group.runBackground(new LoopTask(() => {}, { name: "looping", delay: 1 }), new PollTask(() => {}, { interval: 1 }));
    group.run(one, two, services);
    for (const name of ["step", "step", "step"]) group.runEphemeral({ name, run: async () => {} });
    if (this.#random() < 0.25) await this.#serve(group, hello());
    if (this.#random() < 0.25) await this.#serve(group, admin(group, health, services));
    if (group.signal.aborted) return;

    group.run(async (signal) => {
      health.component("checked", { check: () => {} });
      const unsubscribe = health.subscribe(undefined, () => {});
      await Promise.all([health.waitUntil("healthy", { signal }), services.ready(signal)]);
      await this.#log.until("task-ended", ({ task, outcome }) => task.endsWith("step") && outcome === "returned");
      unsubscribe();
      if (!signal.aborted) this.#expected = ENDS[end]({ one, failTwo, service, group, fault });
      await once(signal, "abort");
    });
  }

  /** Runs a server, and asks it once. */
  async #serve(group, task) {
    group.run(this.#track(task));
    try {
      await task.ready();
      const [response] = await once(get({ host: "127.0.0.1", port: task.address.port, agent: false }), "response");
      await text(response);
    } catch (error) {
      if (!group.signal.aborted) throw error;
    }
  }
}

function hello() {
  return new HttpServerTask(createServer((_, response) => response.end("hello")));
}

function admin(manager, health, services) {
  return new AdminServerTask({ port: 0, manager, health, services, metrics: new Metrics(), timeline: new Timeline() });
}
