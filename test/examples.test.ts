import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { compile } from "./support/bundle.ts";
import { Program } from "./support/program.ts";
import { unusedPort } from "./support/unused-port.ts";

const folder = new URL("./examples/", import.meta.url);
const programs = readdirSync(folder).filter((file) => file.endsWith(".ts"));
const service = "05-service.ts";
const configuration = "12-configuration.ts";
const daemon = "14-daemon.ts";
const environment = { DATABASE_URL: "postgres://db.example/shop", BATCH_SIZE: "10" };

beforeAll(() => compile(...programs.map((file) => `examples/${file}`)));

test("the examples are numbered without a gap", () => {
  expect(programs.map((file) => Number(file.slice(0, 2)))).toEqual(programs.map((_, i) => i + 1));
});

test.each(programs.filter((file) => ![service, daemon].includes(file)))("%s prints what is expected", async (file) => {
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
  const urlOf = async (name: string): Promise<string> => (await program.line(`${name}: http://`)).slice(name.length + 2);
  const [url, admin] = [await urlOf("http"), await urlOf("admin")];
  await program.line("task-ended shop/loadVisits");
  expect(await fetchText(url)).toBe("Visit 1 of /\n");
  expect(await fetchText(url)).toBe("Visit 2 of /\n");
  expect(await fetchText(`${admin}/ready`)).toBe("Ready\n");
  expect(JSON.parse(await fetchText(`${admin}/health`)).status).toBe("healthy");
  expect(await fetchText(`${admin}/metrics`)).toContain('allstop_tasks_running{task="shop/http"} 1\n');
  expect(await fetchText(`${admin}/`)).toContain("shop/heartbeat");
  program.send(signal);
  expect(await program.end()).toBe(0);
  expect(program.stderr).toBe("");
  const [log, text] = partition(program.lines);
  expect(log.map((line) => line.replace(/elapsed: \d+/, "elapsed: N").replace(/:\d+$/, ":N"))).toEqual([
    "task-started shop/admin { manager: 'shop', kind: 'background' }",
    "task-started shop/health { manager: 'shop', kind: 'background' }",
    "task-started shop/os-signal { manager: 'shop', kind: 'main' }",
    "task-started shop/loadVisits { manager: 'shop', kind: 'ephemeral' }",
    "task-started shop/http { manager: 'shop', kind: 'main' }",
    "task-started shop/heartbeat { manager: 'shop', kind: 'main' }",
    "http: http://127.0.0.1:N",
    "admin: http://127.0.0.1:N",
    "health-changed visits healthy { from: 'starting' }",
    "task-ended shop/loadVisits returned { manager: 'shop', kind: 'ephemeral', elapsed: N }",
    "task-ended shop/os-signal returned { manager: 'shop', kind: 'main', elapsed: N }",
    "stopping shop { reason: 'AbortError: Stopped by shop/os-signal', pending: [ 'shop/admin', 'shop/health', 'shop/http', 'shop/heartbeat' ] }",
    "task-ended shop/health returned { manager: 'shop', kind: 'background', elapsed: N }",
    "task-ended shop/heartbeat cancelled { manager: 'shop', kind: 'main', elapsed: N }",
    "http-drained shop/http { requests: 0, destroyed: 0, elapsed: N }",
    "task-ended shop/http returned { manager: 'shop', kind: 'main', elapsed: N }",
    "http-drained shop/admin { requests: 0, destroyed: 0, elapsed: N }",
    "task-ended shop/admin returned { manager: 'shop', kind: 'background', elapsed: N }",
    "Saved the visits of 1 pages",
    "cleanup-ended saveVisits { manager: 'shop', elapsed: N }",
    "stopped shop { failures: [], elapsed: N }",
  ]);
  // Who ran when, in a picture.
  for (const task of ["admin", "health", "os-signal", "loadVisits", "http", "heartbeat"]) {
    expect(text.join("\n")).toMatch(new RegExp(`^shop/${task} +[^ ]`, "m"));
  }
});

test("the daemon starts, tells its status, reloads and stops, each with its exit code", async () => {
  const folder = mkdtempSync(join(tmpdir(), "allstop-"));
  const port = await unusedPort();
  const url = `http://127.0.0.1:${port}`;
  const command = async (name: string): Promise<[end: unknown, output: string]> => {
    const program = new Program(`examples/${daemon}`, [name], { STATE_DIRECTORY: folder, PORT: `${port}` });
    return [await program.end(), `${program.lines.join("\n")}${program.stderr}`];
  };
  expect(await command("start")).toEqual([0, ""]);
  const [, first] = await command("status");
  const pid = /\d+/.exec(first)?.[0];
  expect([first, await fetchText(url)]).toEqual([`Process ${pid} is running`, `Hello from ${pid}\n`]);
  expect(await command("reload")).toEqual([0, ""]);
  const [, second] = await command("status");
  expect(await fetchText(url)).toBe(`Hello from ${/\d+/.exec(second)?.[0]}\n`);
  expect(second).not.toBe(first);
  expect(await command("stop")).toEqual([0, ""]);
  expect(await command("status")).toEqual([3, "It is not running"]);
  expect(readdirSync(folder)).toEqual(["hello.log"]);
  rmSync(folder, { recursive: true });
});

/** What was logged, and what came after the end. */
function partition(lines: readonly string[]): [string[], string[]] {
  const end = lines.findIndex((line) => line.startsWith("stopped shop ")) + 1;
  return [lines.slice(0, end), lines.slice(end)];
}
