import { randomUUID } from "node:crypto";
import { rmSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { brotliCompressSync } from "node:zlib";
import { afterAll } from "vitest";

interface Esbuild {
  build(options: object): Promise<{ outputFiles: { contents: Uint8Array }[] }>;
  buildSync(options: object): unknown;
}

const root = fileURLToPath(new URL("../..", import.meta.url));
// The bundler comes with tsx.
const require = createRequire(createRequire(import.meta.url).resolve("tsx"));
const esbuild: Esbuild = require("esbuild");

/** A user's bundle: what `source` needs of `allstop`, minified, as a module or as a script that makes a global. */
export async function bundle(source: string, options: object = { format: "esm" }): Promise<Uint8Array> {
  const { outputFiles } = await esbuild.build({
    stdin: {
      contents: source.replace(/"allstop(?:\/(.*))?"/, (_, room = "index") => `"./src/${room}.ts"`),
      resolveDir: root,
      loader: "ts",
    },
    bundle: true,
    minify: true,
    write: false,
    target: "es2022",
    legalComments: "none",
    ...options,
  });
  const contents = outputFiles[0]?.contents;
  if (contents === undefined) throw new Error("Nothing was bundled");
  return contents;
}

/**
 * How many bytes a user's bundle takes up, compressed with brotli; if it is for a battery, without what is counted by
 * itself: the Manager, OsSignalTask (for `main`), HttpServerTask and the page (for `admin`).
 */
export async function bundleSize(source: string): Promise<number> {
  const counted = ["./manager.ts", "./os-signal-task.ts", "./http.ts", "./internal/admin-page.ts"];
  const external = source.includes('"allstop/') ? counted : [];
  return brotliCompressSync(await bundle(source, { format: "esm", platform: "node", external })).length;
}

/** The JavaScript of programs, until the end of the file of tests that started them. */
const compiled = new Map<string, string>();

afterAll(() => {
  for (const file of compiled.values()) rmSync(file);
});

/** Makes one JavaScript file, which starts faster, of each of these programs of `test/`. */
export function compile(...programs: readonly string[]): void {
  const folder = `${root}test/.generated/`;
  const entries = programs.map((program): [string, string] => [randomUUID(), program]);
  esbuild.buildSync({
    entryPoints: Object.fromEntries(entries.map(([name, program]) => [name, `${root}test/${program}`])),
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    keepNames: true,
    platform: "node",
    format: "esm",
    target: "node20",
    tsconfig: `${root}test/tsconfig.json`,
  });
  for (const [name, program] of entries) compiled.set(program, `${folder}${name}.mjs`);
}

/** The path of a program of `test/` in JavaScript. */
export function compiledPath(program: string): string {
  if (!compiled.has(program)) compile(program);
  return compiled.get(program) as string;
}
