import { readdirSync, readFileSync } from "node:fs";
import { get } from "node:http";
import { expect, test } from "vitest";
import { Program } from "./support/program.ts";

const folder = new URL("./examples/", import.meta.url);
const programs = readdirSync(folder).filter((file) => file.endsWith(".ts"));
const service = "05-service.ts";
const configuration = "12-configuration.ts";
const environment = { DATABASE_URL: "postgres://db.example/shop", BATCH_SIZE: "10" };

test("the examples are numbered without a gap", () => {
  expect(programs.map((file) => Number(file.slice(0, 2)))).toEqual(programs.map((_, i) => i + 1));
});

test.each(programs.filter((file) => file !== service))("%s prints what is expected", async (file) => {
  const program = new Program(`examples/${file}`, [], file === configuration ? environment : {});
  const end = await program.end();
  expect([end, program.stderr]).toEqual([0, ""]);
  expect(`${program.lines.join("\n")}\n`).toBe(readFileSync(new URL(file.replace(".ts", ".txt"), folder), "utf8"));
});

function fetchText(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(url, { agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk) => (text += chunk)).on("end", () => resolve(text));
    });
    request.on("error", reject);
  });
}

test.each(["SIGINT", "SIGTERM"] as const)("the service serves until %s, and ends with exit code 0, cleanup shown", async (signal) => {
  const program = new Program(`examples/${service}`);
  const url = await program.line("http://");
  expect(program.lines[0]).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
  await program.line("Loaded the visits");
  expect(await fetchText(url)).toBe("Visit 1 of /\n");
  expect(await fetchText(url)).toBe("Visit 2 of /\n");
  await program.line("task-ended shop/loadVisits");
  program.send(signal);
  expect(await program.end()).toBe(0);
  expect(program.stderr).toBe("");
  const timeless = program.lines.slice(1).map((line) => line.replace(/elapsed: \d+/, "elapsed: N"));
  expect(timeless).toEqual([
    "task-started shop/loadVisits { manager: 'shop', kind: 'ephemeral' }",
    "task-started shop/os-signal { manager: 'shop', kind: 'main' }",
    "task-started shop/http { manager: 'shop', kind: 'main' }",
    "task-started shop/heartbeat { manager: 'shop', kind: 'main' }",
    "Loaded the visits",
    "task-ended shop/loadVisits returned { manager: 'shop', kind: 'ephemeral', elapsed: N }",
    "task-ended shop/os-signal returned { manager: 'shop', kind: 'main', elapsed: N }",
    "stopping shop { reason: 'AbortError: Stopped by shop/os-signal', pending: [ 'shop/http', 'shop/heartbeat' ] }",
    "task-ended shop/heartbeat cancelled { manager: 'shop', kind: 'main', elapsed: N }",
    "task-ended shop/http returned { manager: 'shop', kind: 'main', elapsed: N }",
    "Saved the visits of 1 pages",
    "cleanup-ended saveVisits { manager: 'shop', elapsed: N }",
    "stopped shop { failures: [], elapsed: N }",
  ]);
});

test("the service takes its port from PORT, and ends with an error when that is taken", async () => {
  const first = new Program(`examples/${service}`);
  const url = await first.line("http://");
  const second = new Program(`examples/${service}`, [], { PORT: new URL(url).port });
  expect(await second.end()).toBe(1);
  expect(second.stderr).toContain("EADDRINUSE");
});

test("the configuration is checked whole before anything starts: every bad variable is named, exit code 1", async () => {
  const program = new Program(`examples/${configuration}`, [], { PORT: "http", BATCH_SIZE: "-1" });
  expect(await program.end()).toBe(1);
  expect(program.lines).toEqual([]);
  expect(program.stderr.split("\n")).toEqual([
    "DATABASE_URL must be a URL, got nothing",
    "PORT must be a whole number, got http",
    "BATCH_SIZE must be a whole number, got -1",
    "",
  ]);
});
