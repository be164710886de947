/*
 * The declarations of the packed package compile for its users: with the oldest and the newest compiler that is
 * promised, in both ways to resolve modules, with and without the types of Node, and with every file checked.
 */
import assert from "node:assert/strict";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { install, installed, run, temporaryFolder } from "./support.mjs";

const consumer = fileURLToPath(new URL("consumer", import.meta.url));

const compilers = ["typescript-5.4", "typescript-7"];

const resolutions = [
  { module: "nodenext", moduleResolution: "nodenext" },
  { module: "esnext", moduleResolution: "bundler" },
];

const environments = [
  { name: "the types of Node", nodeTypes: true, libraries: { lib: ["es2022"], types: ["node"] } },
  { name: "the types of Node and a browser", nodeTypes: true, libraries: { types: ["node"] } },
  { name: "the types of a browser", nodeTypes: false, libraries: { lib: ["es2022", "dom"], types: [] } },
  { name: "the default types", nodeTypes: false, libraries: {} },
];

const options = {
  target: "es2022",
  strict: true,
  exactOptionalPropertyTypes: true,
  noPropertyAccessFromIndexSignature: true,
  noUncheckedIndexedAccess: true,
  skipLibCheck: false,
  noEmit: true,
};

test("a consumer compiles", async (t) => {
  const { project: without } = await install(t);
  await writeFile(join(without, "package.json"), JSON.stringify({ private: true, type: "module" }));
  await cp(consumer, join(without, "consumer"), { recursive: true });

  const withNodeTypes = await temporaryFolder(t);
  await cp(without, withNodeTypes, { recursive: true });
  for (const name of ["@types/node", "undici-types"]) {
    await cp(installed(name), join(withNodeTypes, "node_modules", name), { recursive: true });
  }

  for (const compiler of compilers) {
    for (const resolution of resolutions) {
      for (const { name, nodeTypes, libraries } of environments) {
        await t.test(`with ${compiler}, ${resolution.moduleResolution}, ${name}`, async (t) => {
          const project = nodeTypes ? withNodeTypes : without;
          const compilerOptions = { ...options, ...resolution, ...libraries };
          await writeFile(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["consumer"] }));
          await run(t, process.execPath, [installed(`${compiler}/bin/tsc`)], { cwd: project });
        });
      }
    }
  }

  await t.test("and uses every export", async () => {
    const declared = await readFile(join(without, "node_modules/allstop/dist/index.d.ts"), "utf8");
    const used = await readFile(join(consumer, "index.ts"), "utf8");
    const exported = [...declared.matchAll(/^export (?:type )?\{(.*?)\} from/gms)].flatMap((match) => names(match[1]));
    const imported = names(used.match(/import \{(.*?)\} from "allstop"/s)[1]);
    assert.deepEqual(imported.sort(), exported.sort());
  });
});

/** The names in a list such as `A, type B`. */
function names(list) {
  return list
    .split(",")
    .map((name) => name.replace("type ", "").trim())
    .filter(Boolean);
}
