import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { compile } from "./support/bundle.ts";
import { laws } from "./support/laws.ts";
import { Program } from "./support/program.ts";

interface Fence {
  name: string;
  code: string;
  /** The lines that it says it prints. */
  output: string[];
  /** Whether their order is told, too. */
  ordered: boolean;
}

const root = fileURLToPath(new URL("..", import.meta.url));
const generated = `${root}test/.generated/docs`;
const readme = readFileSync(`${root}README.md`, "utf8");
const migrating = readFileSync(`${root}test/examples/migrating.md`, "utf8");
const sources = readdirSync(`${root}src`, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));

/** The lines that `// prints` says are printed, where it is. */
function printsOf(code: string): string[] {
  return Array.from(code.matchAll(/\/\/ prints (.*)$/gm), ([, line = ""]) => line);
}

/** The programs of a page, each of which is followed by what it prints, or says it as the examples of comments do. */
function pageFences(page: string, text: string): Fence[] {
  const fences = Array.from(text.matchAll(/^```ts\n([^]*?)^```\n(?:[^`]*^```text\n([^]*?)^```)?/gm));
  return fences.map(([, code = "", output = ""], i) => ({
    name: `${page}-${i + 1}`,
    code,
    output: output ? output.split("\n").slice(0, -1) : printsOf(code),
    ordered: output > "",
  }));
}

/** The examples of the doc comments. */
function exampleFences(file: string): Fence[] {
  const source = readFileSync(`${root}src/${file}`, "utf8");
  const fences = Array.from(source.matchAll(/^ *\* @example .*\n *\* ```ts\n([^]*?)^ *\* ```$/gm));
  return fences.map(([, comment = ""], i) => {
    const code = comment.replace(/^ *\* ?/gm, "");
    return { name: `${file.replace(/\W/g, "-")}-${i + 1}`, code, output: printsOf(code), ordered: false };
  });
}

const pages = { readme, migrating };
const fences = [
  ...Object.entries(pages).flatMap(([page, text]) => pageFences(page, text)),
  ...sources.flatMap(exampleFences),
];

beforeAll(() => {
  rmSync(generated, { recursive: true, force: true });
  mkdirSync(generated, { recursive: true });
  writeFileSync(`${generated}/tsconfig.json`, JSON.stringify({ extends: "../../tsconfig.json", include: ["*.ts"] }));
  for (const { name, code } of fences) {
    // Another suite may run on this machine.
    writeFileSync(`${generated}/${name}.ts`, code.replaceAll("/tmp/", `${generated}/`));
  }
  compile(...fences.map(({ name }) => `.generated/docs/${name}.ts`));
});

test("every ts block is found", () => {
  const count = (text: string): number => text.split("```ts\n").length - 1;
  for (const [page, text] of Object.entries(pages)) expect(pageFences(page, text).length).toBe(count(text));
  for (const file of sources) expect(exampleFences(file).length).toBe(count(readFileSync(`${root}src/${file}`, "utf8")));
  for (const { name, output } of fences) expect([name, output.length]).not.toEqual([name, 0]);
});

test("every ts block compiles", () => {
  const compiler = `${root}node_modules/typescript/bin/tsc`;
  const { stdout, status } = spawnSync(process.execPath, [compiler, "--project", generated], { encoding: "utf8" });
  expect([status, stdout]).toEqual([0, ""]);
});

describe("a ts block prints what it says", () => {
  // Times differ from run to run.
  const timeless = (line: string): string => line.replace(/elapsed: \d+/, "elapsed: N");

  test.each(fences)("$name", async ({ name, code, output, ordered }) => {
    const program = new Program(`.generated/docs/${name}.ts`);
    if (code.includes("// ends on Ctrl-C")) {
      await program.line("task-started worker");
      program.send("SIGINT");
    }
    const end = await program.end();
    expect([end, program.stderr]).toEqual([0, ""]);
    const [printed, said] = [program.lines.map(timeless), output.map(timeless)];
    if (ordered) expect(printed).toEqual(said);
    else expect([...printed].sort()).toEqual([...said].sort());
  });
});

test("the README's guarantees are the titles of the laws' tests", () => {
  const section = readme.slice(readme.indexOf("## Guarantees"), readme.indexOf("## When to use it"));
  const items = Array.from(section.matchAll(/^(\d+)\. (?:\*\*\w+\.\*\* )?([^]*?)(?=^\d+\. |^$)/gm), ([, number = "", text = ""]) => {
    return `${number}. ${text.replace(/\s+/g, " ").trim()}`;
  });
  expect(items).toEqual(laws().map((text, i) => `${i + 1}. ${text}`));
  expect(items.length).toBe(17);
});

test("the README's comparison is that of the results", () => {
  const results = readFileSync(`${root}test/bench/results/comparison.node20.json`, "utf8");
  const { tables }: { tables: { header: string[]; rows: string[][] }[] } = JSON.parse(results);
  const section = readme.slice(readme.indexOf("## When to use it"), readme.indexOf("## Figures"));
  const cells = (line: string): string[] => line.replaceAll("`", "").split("|").slice(1, -1).map((cell) => cell.trim());
  let count = 0;
  for (const [, table = ""] of section.matchAll(/((?:^\|.*\n)+)/gm)) {
    const [peers = [], , ...rows] = table.trim().split("\n").map(cells);
    for (const row of rows) {
      const isAsked = ([question]: string[]): boolean => question === row[0];
      const { header = [], rows: answers = [] } = tables.find((each) => each.rows.some(isAsked)) ?? {};
      const said = peers.slice(1).map((peer) => answers.find(isAsked)?.[header.indexOf(peer)]);
      expect(row).toEqual([row[0], ...said]);
      count++;
    }
  }
  expect(count).toBe(6);
});

test("the README's figures are those of the results", () => {
  type Table = { header: string[]; rows: string[][] };
  const tablesOf = (topic: string, node: number): Table[] =>
    JSON.parse(readFileSync(`${root}test/bench/results/${topic}.node${node}.json`, "utf8")).tables;
  const figure = (topic: string, node: number, candidate: RegExp): string => {
    const [{ header, rows } = { header: [], rows: [] }] = tablesOf(topic, node);
    return rows.find(([name = ""]) => candidate.test(name))?.[header.indexOf("100,000")]?.split(" ")[0] ?? "";
  };
  const candidates = [/^allstop/, /^floor/, /^p-limit/, /^p-queue/, /^effect\b/];
  const section = readme.slice(readme.indexOf("## Figures"), readme.indexOf("## At a glance"));
  const rows = Array.from(section.matchAll(/^\| (\w.*) \|$/gm), ([, cells = ""]) => cells.split(" | "));
  expect(rows.map(([what]) => what)).toEqual([
    "start and settle a task",
    "stop a task that listens",
    "a job, at most 16 at once",
  ]);
  for (const [i, topic] of ["start", "stop", "limit"].entries()) {
    const found = candidates.map((candidate) => [20, 24].map((node) => figure(topic, node, candidate)).join(" / "));
    expect(rows[i]?.slice(1)).toEqual(found.map((cell) => (cell === " / " ? "-" : cell)));
  }
  const drains = [20, 24].map((node) => tablesOf("drain", node)[0]?.rows[0]?.slice(1).map(Number) ?? []);
  expect(drains.map(([ours, ...peers]) => [ours, peers.length])).toEqual([[12, 7], [12, 7]]);
  const [on20, on24] = drains.map(([, ...peers]) => Math.max(...peers));
  const best = `the best of seven peers in ${on20} of them on Node 20, in ${on24} on Node 24`;
  expect(section.replace(/\s+/g, " ")).toContain(best);
});

test("the README names only commands and files that are there", () => {
  const { scripts } = JSON.parse(readFileSync(`${root}package.json`, "utf8"));
  for (const [, script = ""] of readme.matchAll(/npm run (\w+)/g)) expect(Object.keys(scripts)).toContain(script);
  for (const [, file = ""] of readme.matchAll(/[`(](test\/[\w./-]+\.\w+)[`)]/g)) expect(existsSync(`${root}${file}`)).toBe(true);
  expect(readme).toContain("npm ci && npm start");
  expect(readme).toContain("npm cit");
  expect(readme.split("\n").length).toBeLessThan(400);
});

describe("the files for deploying", () => {
  const read = (file: string): string => readFileSync(`${root}test/examples/deploy/${file}`, "utf8").replace(/^\s*#.*\n/gm, "");

  test("Kubernetes gives the default timeouts time, and needs no preStop hook", () => {
    const manifest = read("kubernetes.yaml");
    expect(Number(/terminationGracePeriodSeconds: (\d+)/.exec(manifest)?.[1])).toBeGreaterThan(20 + 5);
    expect(manifest).not.toContain("preStop");
    expect(manifest).toContain('command: ["node"');
  });

  test("systemd waits for the daemon, follows its PID file, and reloads by an upgrade", () => {
    const unit = read("shop.service");
    const lines = ["Type=forking", "PIDFile=/run/shop/shop.pid", "ExecReload=/bin/kill -HUP $MAINPID", "KillMode=mixed"];
    expect(unit.split("\n")).toEqual(expect.arrayContaining(lines));
    expect(Number(/TimeoutStopSec=(\d+)/.exec(unit)?.[1])).toBeGreaterThan(20 + 5);
    expect(unit).toMatch(/^ExecStart=\/usr\/bin\/node .* start$/m);
  });

  test("Docker starts node itself, without a shell or npm in between", () => {
    const [, entry = ""] = /^ENTRYPOINT (.*)$/m.exec(read("Dockerfile")) ?? [];
    expect(JSON.parse(entry)[0]).toBe("node");
    expect(read("Dockerfile")).not.toMatch(/^CMD|npm start/m);
  });
});
