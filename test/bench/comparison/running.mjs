/*
 * A service of service.mjs that runs, and all that it said.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("service.mjs", import.meta.url));

/** After that it is taken to go on for ever, in milliseconds: well above all that was asked for. */
export const PATIENCE = 3_000;

/** These packages tell what they do only if they are asked to. */
const LOGGING = { ROARR_LOG: "true", DEBUG: "http-graceful-shutdown" };

/** A running service, and all that it said. */
export class Service {
  static #living = new Set();

  static {
    // An experiment that failed leaves its service behind.
    process.once("exit", () => Service.#living.forEach((service) => service.send("SIGKILL")));
  }

  #child;
  text = "";
  ready;
  ended;

  /** Without an HTTP server, some cannot even start: then it is not `ready`. */
  static async start(peer, scenario) {
    const service = new Service(peer, scenario);
    const line = await service.says(/^ready (.*)$/m);
    if (line) service.ready = JSON.parse(line[1]);
    else if (scenario !== "serverless") throw new Error(`It did not start:\n${service.text}`);
    return service;
  }

  constructor(peer, scenario) {
    this.#child = spawn(process.execPath, [program, peer, scenario], {
      env: { ...process.env, ...LOGGING },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (this.text += text));
    }
    Service.#living.add(this);
    // All of its output has arrived, too.
    this.ended = once(this.#child, "close").then(([code, signal]) => {
      Service.#living.delete(this);
      return code ?? signal;
    });
  }

  get pid() {
    return this.#child.pid;
  }

  send(signal) {
    this.#child.kill(signal);
  }

  /** The match of what it says, or nothing if it ends, or takes too long. */
  async says(pattern, patience = 10_000) {
    const over = Promise.race([this.ended.then(() => true), sleep(patience, true, { ref: false })]);
    for (let isOver = false; ; isOver = await Promise.race([over, sleep(5)])) {
      const match = pattern.exec(this.text);
      if (match || isOver) return match;
    }
  }

  /** Its exit code, or what killed it, or nothing if it does not end; then it is killed. */
  async end(patience = PATIENCE) {
    const end = await Promise.race([this.ended, sleep(patience)]);
    if (end === undefined) this.send("SIGKILL");
    await this.ended;
    return end;
  }

  /** The hooks that ran, by their places. */
  get ran() {
    return Array.from(this.text.matchAll(/^hook (\d)$/gm), ([, place]) => place).join("");
  }
}
