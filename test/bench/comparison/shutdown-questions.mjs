/*
 * What users ask of a package for the shutdown of a service, each question with an experiment on a service made with
 * it, in a process of its own (service.mjs). Every package is asked the same; where it has no hooks at all, a question
 * about them is "-".
 */
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { PATIENCE, Service } from "./running.mjs";
import { DEADLINE, DELAY, MUCH } from "./service.mjs";

export const SHUTDOWN_QUESTIONS = [
  ["cleans up and ends on its own on", signals],
  ["cleans up after an error that nobody caught", uncaught],
  ["works without an HTTP server", serverless],
  ["cleanup hooks", orderOfHooks],
  ["a hook that fails does not skip the next", failingHook],
  ["and the exit code tells", exitCode],
  ["a hook that hangs is given up at a deadline", hangingHook],
  ["and named", namedHook],
  ["two signals at once, as of one Ctrl-C, let the cleanup end", twoSignals],
  ["a second signal ends what hangs", secondSignal],
  ["1 MB of output of the cleanup is written before the exit", output],
  ["a health endpoint", health],
  ["says at the stop that it is not ready, and still serves", notReady],
  ["can be stopped in a test, and the process goes on", stopInTest],
  ["programs that it started end with it", children],
  ["SIGHUP replaces it by a new process, on the same port", renewal],
];

const answer = (isYes) => (isYes ? "yes" : "no");

/** Of services on which several questions are asked, one is enough. */
const seen = new Map();

function asked(peer, key, experiment) {
  const id = `${peer} ${key}`;
  if (!seen.has(id)) seen.set(id, experiment());
  return seen.get(id);
}

/** What became of a service that got a signal: its exit code, and what it had said. */
async function stopped(peer, scenario, signal = "SIGTERM") {
  const service = await Service.start(peer, scenario);
  if (!service.ready) return { service, end: await service.end() };
  const startedAt = performance.now();
  service.send(signal);
  const end = await service.end();
  return { service, end, took: performance.now() - startedAt };
}

const plain = (peer, signal = "SIGTERM") => asked(peer, signal, () => stopped(peer, "plain", signal));
const hanging = (peer) => asked(peer, "hanging", () => stopped(peer, "hanging"));
const failing = (peer) => asked(peer, "failing", () => stopped(peer, "failing"));
const healthy = (peer) => asked(peer, "health", () => watched(peer));

async function signals(peer) {
  const handled = [];
  for (const signal of ["SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP"]) {
    const { service, end } = await plain(peer, signal);
    if (service.ran && end !== undefined) handled.push(signal);
  }
  return handled.join(", ") || "no";
}

async function uncaught(peer) {
  const service = await Service.start(peer, "uncaught");
  await service.end();
  return hasHooks(service) ? answer(service.ran) : "-";
}

async function serverless(peer) {
  const { service } = await stopped(peer, "serverless");
  return answer(service.ready && service.ran);
}

function hasHooks(service) {
  return service.ready.hooks > 0;
}

async function orderOfHooks(peer) {
  const { service } = await plain(peer);
  const answers = { 321: "any, last first", 123: "any, in order", 12: "two, in order", 1: "one function", "": "no" };
  if (!(service.ran in answers)) throw new Error(`Hooks of ${peer} run in the order ${service.ran}`);
  return answers[service.ran];
}

async function failingHook(peer) {
  const { service } = await failing(peer);
  if (service.ready.hooks < 2) return "-";
  return answer(service.ran.length === 2);
}

async function exitCode(peer) {
  const { service, end } = await failing(peer);
  return hasHooks(service) ? answer(end !== 0) : "-";
}

async function hangingHook(peer) {
  const { service, end, took } = await hanging(peer);
  if (!hasHooks(service)) return "-";
  if (took < DEADLINE) throw new Error(`It ended after ${took} ms`);
  return answer(end !== undefined);
}

async function namedHook(peer) {
  const { service } = await hanging(peer);
  return hasHooks(service) ? answer(service.text.includes("closeDatabase")) : "-";
}

async function twoSignals(peer) {
  const service = await Service.start(peer, "slow");
  if (!hasHooks(service)) return (await unstopped(service)) && "-";
  service.send("SIGTERM");
  await sleep(20);
  service.send("SIGTERM");
  await service.end();
  return answer(service.ran);
}

async function unstopped(service) {
  service.send("SIGKILL");
  await service.ended;
  return true;
}

async function secondSignal(peer) {
  const service = await Service.start(peer, "stuck");
  if (!hasHooks(service)) return (await unstopped(service)) && "-";
  service.send("SIGTERM");
  await service.says(/hanging/);
  // Far enough from the first to be another one.
  await sleep(800);
  service.send("SIGTERM");
  return answer((await service.end()) !== undefined);
}

async function output(peer) {
  const { service } = await stopped(peer, "output");
  return hasHooks(service) ? answer(service.text.includes("x".repeat(MUCH))) : "-";
}

/** Asks the health endpoint of a service before and after a signal, and then the service itself. */
async function watched(peer) {
  const service = await Service.start(peer, "health");
  const { port, health } = service.ready;
  const found = {};
  if (health) {
    found.before = await statusOf(health);
    service.send("SIGTERM");
    await sleep(DELAY / 4);
    found.after = await statusOf(health);
    found.served = await statusOf(port);
    found.isSame = health.startsWith(`${port}/`);
  }
  await unstopped(service);
  return found;
}

async function statusOf(place) {
  const url = `http://127.0.0.1:${place}`.replace(/:(\d+)$/, ":$1/");
  return fetch(url).then(
    ({ status }) => status,
    () => 0,
  );
}

async function health(peer) {
  const { before, isSame } = await healthy(peer);
  if (before === undefined) return "no";
  if (before !== 200) throw new Error(`The health endpoint of ${peer} answers ${before}`);
  return isSame ? "on its port" : "on another port";
}

async function notReady(peer) {
  const { before, after, served } = await healthy(peer);
  return before === undefined ? "-" : answer(after >= 500 && served === 200);
}

async function stopInTest(peer) {
  const service = await Service.start(peer, "stopped");
  const said = await service.says(/^(alive|no way)$/m, 2 * PATIENCE);
  await unstopped(service);
  return answer(said?.[1] === "alive");
}

async function children(peer) {
  const { service } = await stopped(peer, "child");
  const pid = Number(/^child (\d+)$/m.exec(service.text)?.[1]);
  const isAlive = isThere(pid);
  if (isAlive) process.kill(pid, "SIGKILL");
  return answer(!isAlive);
}

function isThere(pid) {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function renewal(peer) {
  const service = await Service.start(peer, "renew");
  service.send("SIGHUP");
  let pid;
  for (let turn = 0; turn < PATIENCE / 50 && (pid ?? service.pid) === service.pid; turn++) {
    await sleep(50);
    pid = await greeter(service.ready.port);
  }
  for (const each of [pid, service.pid]) if (each && isThere(each)) process.kill(each, "SIGKILL");
  await service.ended;
  return answer(pid && pid !== service.pid);
}

/** The process that answers at this port, or 0. */
async function greeter(port) {
  return fetch(`http://127.0.0.1:${port}`, { headers: { connection: "close" } }).then(
    async (response) => Number(/\d+/.exec(await response.text())?.[0]),
    () => 0,
  );
}
