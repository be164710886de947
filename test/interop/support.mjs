/*
 * What the checks share: the runtimes, child processes that do not outlive their test, and the packed package.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, posix, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** The root of the repository. */
export const root = fileURLToPath(new URL("../../", import.meta.url));

const manifest = JSON.parse(await readFile(join(root, "package.json"), "utf8"));

/** Each name by which the package can be imported, and where the package says that it leads. */
export const entries = Object.entries(manifest.exports).map(([subpath, targets]) => ({
  name: posix.join(manifest.name, subpath),
  targets,
}));

/** The folder of something installed for these checks. */
export const installed = (name) => fileURLToPath(new URL(`node_modules/${name}`, import.meta.url));

export const node = { name: "node", command: process.execPath, args: [] };
export const node22 = { name: "node22", command: installed("node22/bin/node"), args: [] };
export const node24 = { name: "node24", command: installed("node24/bin/node"), args: [] };
export const node26 = { name: "node26", command: installed("node26/bin/node"), args: [] };
export const bun = { name: "bun", command: installed("bun/bin/bun.exe"), args: [] };
export const deno = { name: "deno", command: installed("deno/deno"), args: ["run", "--allow-all"] };

/** No colours, and no trace of the runner of these tests, which would change what a child prints. */
const { FORCE_COLOR, NODE_TEST_CONTEXT, ...inherited } = process.env;
const quiet = { ...inherited, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" };

/** Makes an empty folder that is gone after the test. */
export async function temporaryFolder(t) {
  const folder = await mkdtemp(join(tmpdir(), "allstop-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Starts a program, which is killed when it still runs at the end of the test, or after so many milliseconds. */
export function start(t, command, args, { cwd = root, env = {}, timeout = 300_000, uid, gid } = {}) {
  const child = spawn(command, args, {
    cwd,
    env: { ...quiet, ...env },
    uid,
    gid,
    stdio: ["ignore", "pipe", "pipe"],
    timeout,
    killSignal: "SIGKILL",
  });
  t.after(() => child.kill("SIGKILL"));

  const output = { stdout: "", stderr: "" };
  for (const stream of Object.keys(output)) {
    child[stream].setEncoding("utf8").on("data", (text) => (output[stream] += text));
  }
  const ended = once(child, "close").then(([code, signal]) => ({ code, signal, ...output }));

  return {
    /** How it ended, and all that it printed. */
    ended,
    kill: (signal) => child.kill(signal),
    /** Waits for its end, which must come by itself within so many milliseconds. */
    async endsWithin(milliseconds) {
      const late = setTimeout(() => child.kill("SIGKILL"), milliseconds);
      const result = await ended;
      clearTimeout(late);
      return result;
    },
    /** Waits until it has printed this text; returns all that it has printed so far. */
    async printed(text, stream = "stdout") {
      const { promise, resolve } = withResolvers();
      const isPrinted = () => output[stream].includes(text);
      child[stream].on("data", () => isPrinted() && resolve());
      if (!isPrinted()) await Promise.race([promise, ended]);
      assert.ok(isPrinted(), `ended without ${JSON.stringify(text)}:\n${output.stdout}${output.stderr}`);
      return output[stream];
    },
  };
}

/** Runs a program to its end, which must be a success; returns what it printed. */
export async function run(t, command, args, options) {
  const { code, signal, stdout, stderr } = await start(t, command, args, options).ended;
  assert.equal(code ?? signal, 0, `${command} ${args.join(" ")}\n${stdout}${stderr}`);
  return stdout;
}

/**
 * Packs the package, and installs it as the only dependency of an empty project, without asking anybody else for it.
 * Returns the folders of both, and the path of what was packed.
 */
export async function install(t) {
  const project = await temporaryFolder(t);
  await writeFile(join(project, "package.json"), JSON.stringify({ private: true, type: "module" }));
  await run(t, "npm", ["pack", "--pack-destination", project]);
  const [name] = (await readdir(project)).filter((name) => name.endsWith(".tgz"));
  const tarball = join(project, name);
  await run(t, "npm", ["install", "--offline", "--no-audit", "--no-fund", tarball], { cwd: project });
  return { project, installedPackage: join(project, "node_modules", manifest.name), tarball };
}

/** Lists all files in a folder, relative to it, with slashes, sorted. */
export async function listFiles(folder) {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(join(folder, sep).length))
    .map((path) => path.replaceAll(sep, "/"))
    .sort();
}

function withResolvers() {
  let resolve;
  const promise = new Promise((settle) => (resolve = settle));
  return { promise, resolve };
}
