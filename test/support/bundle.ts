import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { brotliCompressSync } from "node:zlib";

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
 * How many bytes a user's bundle takes up, compressed with brotli; if it is for a battery, without the Manager, and
 * without HttpServerTask and the page in that of an AdminServerTask.
 */
export async function bundleSize(source: string): Promise<number> {
  const external = source.includes('"allstop/') ? ["./manager.ts", "./http.ts", "./internal/admin-page.ts"] : [];
  return brotliCompressSync(await bundle(source, { format: "esm", platform: "node", external })).length;
}

/** Makes one JavaScript file, which starts faster, of a program of `test/`. */
export function compile(program: string): string {
  const outfile = `${root}test/.generated/${randomUUID()}.mjs`;
  esbuild.buildSync({
    entryPoints: [`${root}test/${program}`],
    outfile,
    bundle: true,
    keepNames: true,
    platform: "node",
    format: "esm",
    target: "node20",
    tsconfig: `${root}test/tsconfig.json`,
  });
  return outfile;
}
