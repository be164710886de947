/*
 * What it takes to install a package, and where it runs, from what is installed.
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import vm from "node:vm";
import { build } from "esbuild";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const modules = fileURLToPath(new URL("../node_modules/", import.meta.url));
const require = createRequire(import.meta.url);

/** What would be installed of ours. */
const OWN = ["dist", "src", "README.md", "LICENSE", "package.json"].map((each) => root + each);

/** What a package is called in the tables, if that is not its name. */
const NAMES = { terminus: "@godaddy/terminus" };

/** What comes with the platform. */
const BUILT_IN = /^(Promise|server)\./;

/** In a page of a browser, of what these programs may need. */
const WEB = { AbortController, AbortSignal, clearTimeout, console, DOMException, Event, EventTarget, performance };
const MORE_WEB = { clearInterval, queueMicrotask, setInterval, setTimeout, TextDecoder, TextEncoder, URL };

/** Programs that end with `[1, 2]`, or, where there are no values, with these as what was told. */
const PAGES = {
  allstop: `
    import { Manager } from "${root}dist/index.js";
    export async function run() {
      const told = [];
      const manager = new Manager();
      manager.runEphemeral(async () => told.push(1), async () => told.push(2));
      await manager.wait();
      return told;
    }`,
  "p-limit": `
    import pLimit from "p-limit";
    export const run = () => pLimit(2).map([1, 2], async (value) => value);`,
  "p-queue": `
    import PQueue from "p-queue";
    export const run = () => new PQueue().addAll([async () => 1, async () => 2]);`,
  effect: `
    import { Effect } from "effect";
    export const run = () => Effect.runPromise(Effect.all([1, 2].map(Effect.succeed), { concurrency: 2 }));`,
  effection: `
    import { all, call, run as start } from "effection";
    export const run = () => start(() => all([call(async () => 1), call(async () => 2)]));`,
  "abort-controller-x": `
    import { all } from "abort-controller-x";
    export const run = () => all(new AbortController().signal, () => [Promise.resolve(1), Promise.resolve(2)]);`,
};

export const PACKAGE_QUESTIONS = [
  ["packages that it needs", needs],
  ["installed, with these", installedSize],
  ["its types come with it", types],
  ["require() of it", canBeRequired],
  ["Node, by its package.json", engine],
];

/** In a browser only task groups make sense. */
export const GROUP_PACKAGE_QUESTIONS = [
  ...PACKAGE_QUESTIONS,
  ["runs where there are only the globals of the web", inBrowser],
];

function folderOf(name) {
  return name === "allstop" ? root : `${modules}${NAMES[name] ?? name}/`;
}

function manifestOf(folder) {
  return JSON.parse(readFileSync(`${folder}package.json`, "utf8"));
}

/** The folders of all the packages that the one in this folder needs, each once. */
function dependenciesOf(folder, found = new Set()) {
  for (const name of Object.keys(manifestOf(folder).dependencies ?? {})) {
    const places = [`${folder}node_modules/${name}/`, `${modules}${name}/`];
    const place = places.find((each) => existsSync(`${each}package.json`));
    if (place === undefined) throw new Error(`${name}, which ${folder} needs, is not installed`);
    if (found.has(place)) continue;
    found.add(place);
    dependenciesOf(place, found);
  }
  return found;
}

function needs(name) {
  return BUILT_IN.test(name) ? 0 : dependenciesOf(folderOf(name)).size;
}

function installedSize(name) {
  if (BUILT_IN.test(name)) return "-";
  const folder = folderOf(name);
  const paths = [...(name === "allstop" ? OWN : [folder]), ...dependenciesOf(folder)];
  const size = paths.reduce((sum, path) => sum + sizeOf(path), 0);
  return size < 1e6 ? `${Math.ceil(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

/** In bytes; what is installed within a package is counted by itself. */
function sizeOf(path) {
  if (!statSync(path).isDirectory()) return statSync(path).size;
  const names = readdirSync(path).filter((name) => name !== "node_modules");
  return names.reduce((sum, name) => sum + sizeOf(`${path}/${name}`), 0);
}

function types(name) {
  if (BUILT_IN.test(name)) return "-";
  const folder = folderOf(name);
  const { types, typings, exports, main = "index.js" } = manifestOf(folder);
  const declared = [types, typings, ...leavesOf(exports), main].filter(Boolean);
  const files = declared.map((file) => file.replace(/(\.d)?\.[cm]?[jt]s$/, ".d.ts"));
  return files.some((file) => existsSync(`${folder}${file}`)) ? "yes" : "no";
}

function leavesOf(exports) {
  if (typeof exports === "string") return [exports];
  return Object.values(exports ?? {}).flatMap(leavesOf);
}

function canBeRequired(name) {
  if (BUILT_IN.test(name)) return "-";
  try {
    require(name === "allstop" ? `${root}dist/index.js` : (NAMES[name] ?? name));
    return "yes";
  } catch {
    return "no";
  }
}

function engine(name) {
  return BUILT_IN.test(name) ? "-" : (manifestOf(folderOf(name)).engines?.node ?? "-").replace(/>=\s*/, "from ");
}

async function inBrowser(name) {
  if (BUILT_IN.test(name)) return "yes";
  const { outputFiles } = await build({
    stdin: { contents: PAGES[name], resolveDir: fileURLToPath(new URL(".", import.meta.url)) },
    bundle: true,
    format: "iife",
    globalName: "page",
    platform: "browser",
    // What is imported only on Node does no harm elsewhere; what is imported at once fails there.
    external: ["node:*"],
    write: false,
    logLevel: "silent",
  }).catch(() => ({}));
  if (!outputFiles) return "no";
  const values = await vm.runInNewContext(`${outputFiles[0].text}; page.run()`, { ...WEB, ...MORE_WEB });
  if (values.join() !== "1,2") throw new Error(`${name} gave ${values}`);
  return "yes";
}
