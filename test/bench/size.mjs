/*
 * What imports add to a bundle: minified by esbuild, compressed by brotli at its highest level. The modules of Node are
 * not in it. Fails if a size of allstop is not what the README says.
 */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { brotliCompressSync } from "node:zlib";
import { build } from "esbuild";
import { save } from "./report.mjs";

/** How far the README may be off: what it rounds, and what versions of brotli differ by, in bytes. */
const TOLERANCE = 60;

/** What the README counts by itself, where an entry needs it. */
const COUNTED = ["./manager.js", "./os-signal-task.js", "./http.js", "./internal/admin-page.js"];

/** What a user may choose between, for one purpose each. */
const PURPOSES = [
  {
    purpose: "run tasks as one group, or some at once",
    imports: [
      'export { Manager } from "allstop"',
      'export * from "abort-controller-x"',
      'export { default } from "p-limit"',
      'export { default } from "p-map"',
      'export { default } from "p-queue"',
      'export { all, run, spawn, suspend } from "effection"',
      'export { all, runPromise, tryPromise } from "effect/Effect"',
    ],
  },
  {
    purpose: "run a whole `main()` until a signal",
    imports: [
      'export { runMain } from "allstop/main"',
      'export { default } from "close-with-grace"',
      'export { main, suspend } from "effection"',
    ],
  },
  {
    purpose: "drain an HTTP server",
    imports: [
      'export { HttpServerTask } from "allstop/http"',
      'export { HttpServerTask } from "allstop/http"; export { runMain } from "allstop/main"',
      'export { createHttpTerminator } from "http-terminator"',
      'export { default } from "stoppable"',
      'export { createTerminus } from "@godaddy/terminus"',
      'export { createLightship } from "lightship"',
      'export { default } from "http-graceful-shutdown"',
    ],
  },
  {
    purpose: "have all that there is",
    imports: [
      'export * from "allstop"',
      (await everyEntry()).map((name) => `export * from "${name}"`).join("; "),
      'export * from "effection"',
      'export * from "effect"',
    ],
  },
];

const aliases = Object.fromEntries((await everyEntry()).map((name) => [name, distOf(name)]));
const entries = await Promise.all((await rowsOfReadme()).map(measureEntry));
const wrong = entries.filter(({ said, bytes }) => Math.abs(bytes - said) > TOLERANCE);
if (wrong.length) {
  throw new Error(`The README is wrong: ${wrong.map(({ what, bytes }) => `${what} is ${bytes} bytes`).join("; ")}`);
}
const sources = PURPOSES.flatMap(({ purpose, imports }) => imports.map((source) => ({ purpose, source })));
const compared = await Promise.all(sources.map(async (each) => ({ ...each, bytes: await sizeOf(each.source) })));
await save({
  topic: "size",
  title: "Size of a bundle",
  text: [
    "Minified by esbuild and compressed by brotli, level 11; the modules of Node are not in it. The README",
    "counts the Manager, OsSignalTask, HttpServerTask and the admin page once, by themselves; the last column",
    "has all that an entry needs. The second table has what a user imports for one purpose, with all that this",
    "needs.",
  ].join(" "),
  tables: [
    {
      title: "allstop",
      header: ["import", "README, kB", "bytes", "bytes, with all it needs"],
      rows: entries.map(({ what, said, bytes, whole }) => [
        `\`${what}\``,
        (said / 1_000).toFixed(1),
        grouped(bytes),
        grouped(whole),
      ]),
    },
    {
      title: "Side by side",
      header: ["purpose", "import", "bytes"],
      rows: compared.map(({ purpose, source, bytes }) => [purpose, shownAs(source), grouped(bytes)]),
    },
  ],
  remarks: PURPOSES.flatMap(({ purpose }) => {
    const [ours, ...others] = compared.filter((each) => each.purpose === purpose);
    const smaller = others.filter(({ bytes }) => bytes < ours.bytes).map(({ source }) => packagesOf(source));
    return smaller.length ? [`smaller than allstop, to ${purpose}: ${smaller.join(", ")}`] : [];
  }),
  plots: [
    {
      name: "size",
      title: "Size of a bundle, minified and compressed",
      x: { title: "", scale: "ordinal" },
      y: { title: "bytes", scale: "log" },
      series: PURPOSES.map(({ purpose }) => ({
        name: purpose.replaceAll("`", ""),
        points: compared
          .filter((each) => each.purpose === purpose)
          .map(({ source, bytes }) => ({ x: packagesOf(source), y: bytes })),
      })),
    },
  ],
});

/** Each import of the README's table, with the bytes that it says. */
async function rowsOfReadme() {
  const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
  const rows = readme.matchAll(/`import (\{.*\}|\* as allstop) from ("allstop.*")` \| ([\d.]+) kB/g);
  return Array.from(rows, ([, names, entry, size]) => ({ names, entry, said: Number(size) * 1_000 }));
}

async function measureEntry({ names, entry, said }) {
  const source = `export ${names.startsWith("*") ? "*" : names} from ${entry}`;
  const external = entry.includes("/") ? COUNTED : [];
  return {
    what: `import ${names} from ${entry}`,
    said,
    bytes: await sizeOf(source, external),
    whole: await sizeOf(source),
  };
}

/** @param external - Which modules of allstop are left out. */
async function sizeOf(source, external = []) {
  const { outputFiles } = await build({
    stdin: { contents: source, resolveDir: fileURLToPath(new URL(".", import.meta.url)) },
    alias: aliases,
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    platform: "node",
    target: "es2022",
    legalComments: "none",
    external,
  });
  return brotliCompressSync(outputFiles[0].contents).length;
}

async function everyEntry() {
  const manifest = JSON.parse(await readFile(new URL("../../package.json", import.meta.url), "utf8"));
  return Object.keys(manifest.exports).map((subpath) => `allstop${subpath.slice(1)}`);
}

function distOf(name) {
  return fileURLToPath(new URL(`../../dist/${name.slice("allstop/".length) || "index"}.js`, import.meta.url));
}

function grouped(bytes) {
  return bytes.toLocaleString("en-US");
}

function shownAs(source) {
  const statements = source.split("; ");
  return statements.length > 3 ? `\`export *\` from all ${statements.length} entries of allstop` : `\`${source}\``;
}

function packagesOf(source) {
  const packages = Array.from(source.matchAll(/"(.+?)"/g), ([, name]) => name);
  return packages.length > 3 ? "all of allstop" : packages.join(" + ");
}
