// Configuration from the environment: checked whole before anything starts, then handed to the services that need it.
import { setTimeout as sleep } from "node:timers/promises";
import { Manager } from "allstop";
import { type Service, ServiceGroup } from "allstop/services";

/** Reads variables, and keeps in mind what is wrong with any of them. */
class Environment {
  readonly errors: string[] = [];

  read<Value>(name: string, parse: (text: string) => Value | undefined, rule: string, fallback?: Value): Value {
    const text = process.env[name];
    const value = text === undefined ? fallback : parse(text);
    if (value === undefined) this.errors.push(`${name} must be ${rule}, got ${text ?? "nothing"}`);
    return value as Value; // which nobody uses if there are errors
  }
}

function wholeNumber(text: string): number | undefined {
  return /^\d{1,9}$/.test(text) ? Number(text) : undefined;
}

function url(text: string): URL | undefined {
  return URL.canParse(text) ? new URL(text) : undefined;
}

const environment = new Environment();
const database = environment.read("DATABASE_URL", url, "a URL");
const port = environment.read("PORT", wholeNumber, "a whole number", 8080);
const batch = environment.read("BATCH_SIZE", wholeNumber, "a whole number", 100);

if (environment.errors.length) {
  for (const error of environment.errors) console.error(error);
  process.exit(1); // nothing has started
}

class Database implements Service {
  readonly #url: URL;

  constructor(url: URL) {
    this.#url = url;
  }

  init(): void {
    console.log(`connected to ${this.#url.hostname}`);
  }

  finalize(): void {
    console.log("disconnected");
  }
}

class Consumer implements Service {
  readonly #batch: number;

  // It gets the database itself, not a name to look it up by: the compiler checks that it is there.
  constructor(_: Database, batch: number) {
    this.#batch = batch;
  }

  async run(signal: AbortSignal): Promise<void> {
    console.log(`consuming ${this.#batch} at a time`);
    await sleep(60_000, undefined, { signal });
  }
}

const db = new Database(database);
const services = new ServiceGroup([db, new Consumer(db, batch)]);
const manager = new Manager();
manager.run(services);
await services.ready();
console.log(`up, to serve on ${port}`);
await manager.stop();
