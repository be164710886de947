/*
 * The declarations of the packed package compile for its users: with the oldest and the newest compiler that is
 * promised, and the last one before that was written anew, in both ways to resolve modules, with and - but for what is
 * for Node alone - without the types of Node, and with every file checked; from a module and from CommonJS.
 */
import assert from "node:assert/strict";
import { cp, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript-5.4";
import { entries, install, installed, node22, run, start, temporaryFolder } from "./support.mjs";

const consumer = fileURLToPath(new URL("consumer", import.meta.url));

/** What is for Node alone, and so needs its types. */
const ofNode = ["admin", "child", "daemon", "http", "main", "pid-file", "upgrade"].map((name) => `allstop/${name}`);

const compilers = ["typescript-5.4", "typescript-5.9", "typescript-7"];

/** Those that know that Node can require a module; it can since 22.12. The older one refuses that under `nodenext`. */
const compilersOfRequire = ["typescript-5.9", "typescript-7"];

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

/** For a compiler between two others. */
const someEnvironments = [environments[0], environments[2]];

const options = {
  target: "es2022",
  strict: true,
  exactOptionalPropertyTypes: true,
  noPropertyAccessFromIndexSignature: true,
  noUncheckedIndexedAccess: true,
  noUnusedLocals: true,
  skipLibCheck: false,
  noEmit: true,
};

test("a consumer compiles", async (t) => {
  const { project: without, installedPackage } = await install(t);
  await cp(consumer, join(without, "consumer"), { recursive: true });

  const withNodeTypes = await temporaryFolder(t);
  await cp(without, withNodeTypes, { recursive: true });
  for (const name of ["@types/node", "undici-types"]) {
    await cp(installed(name), join(withNodeTypes, "node_modules", name), { recursive: true });
  }

  for (const compiler of compilers) {
    for (const resolution of resolutions) {
      for (const { name, nodeTypes, libraries } of compiler === "typescript-5.9" ? someEnvironments : environments) {
        await t.test(`with ${compiler}, ${resolution.moduleResolution}, ${name}`, async (t) => {
          const project = nodeTypes ? withNodeTypes : without;
          const files = entries.filter(({ name }) => nodeTypes || !ofNode.includes(name)).map(fileOf);
          await compile(t, compiler, project, files, { ...resolution, ...libraries });
        });
      }
    }
  }

  for (const { name } of entries) {
    const environment = ofNode.includes(name) ? "the types of Node" : "the types of a browser";
    await t.test(`also one that imports nothing but ${name}, with ${environment}`, async (t) => {
      const { nodeTypes, libraries } = environments.find(({ name }) => name === environment);
      const project = nodeTypes ? withNodeTypes : without;
      await writeFile(join(project, "alone.ts"), `export * from "${name}";`);
      await compile(t, "typescript-7", project, ["alone.ts"], { ...resolutions[0], ...libraries });
    });
  }

  const names = entries.map(({ name }) => name);
  const exported = await Promise.all(
    entries.map(async ({ targets }) => Object.keys(await import(join(installedPackage, targets.default)))),
  );
  await writeLines(join(withNodeTypes, "require.cts"), names, (name, index) => [
    `import room${index} = require("${name}");`,
    `console.log(Object.keys(room${index}).join());`,
  ]);
  await writeLines(join(withNodeTypes, "import.cts"), names, (name, index) => [
    `import { ${exported[index].join(", ")} } from "${name}";`,
    `console.log(Object.keys({ ${exported[index].join(", ")} }).join());`,
  ]);
  // All that a compiler can do which says that Node cannot require a module.
  await writeLines(join(withNodeTypes, "later.cts"), names, (name, index) => [
    `export type Room${index} = typeof import("${name}", { with: { "resolution-mode": "import" } });`,
    `export const room${index} = (): Promise<Room${index}> => import("${name}");`,
  ]);
  // The declarations of others have been checked above.
  const inCommonJs = (resolution) => ({ ...resolution, ...environments[0].libraries, skipLibCheck: true });

  for (const compiler of compilersOfRequire) {
    await t.test(`also in CommonJS, which runs, with ${compiler}, nodenext`, async (t) => {
      const outDir = join(withNodeTypes, `built-by-${compiler}`);
      const output = { ...inCommonJs(resolutions[0]), noEmit: false, outDir, rootDir: "." };
      await compile(t, compiler, withNodeTypes, ["require.cts", "import.cts"], output);
      for (const file of ["require.cjs", "import.cjs"]) {
        const printed = await run(t, node22.command, [join(outDir, file)], { cwd: withNodeTypes });
        assert.deepEqual(printed.trim().split("\n"), exported.map(String), file);
      }
    });

    await t.test(`also in CommonJS, with ${compiler}, bundler`, async (t) => {
      const resolution = { module: "preserve", moduleResolution: "bundler" };
      await compile(t, compiler, withNodeTypes, ["require.cts", "import.cts"], inCommonJs(resolution));
    });
  }

  await t.test("but not in CommonJS with typescript-5.4, nodenext, which says that Node cannot", async (t) => {
    await configure(withNodeTypes, ["require.cts", "import.cts"], inCommonJs(resolutions[0]));
    const compiler = [installed("typescript-5.4/bin/tsc")];
    const { stdout } = await start(t, process.execPath, compiler, { cwd: withNodeTypes }).ended;
    const codes = [...stdout.matchAll(/error (TS\d+)/g)].map(([, code]) => code).sort();
    assert.deepEqual(codes, [...names.map(() => "TS1471"), ...names.map(() => "TS1479")], stdout);
  });

  for (const compiler of compilers) {
    await t.test(`also in CommonJS that imports it while it runs, with ${compiler}`, async (t) => {
      await compile(t, compiler, withNodeTypes, ["later.cts"], inCommonJs(resolutions[0]));
    });
  }

  const files = entries.map((entry) => join(without, fileOf(entry)));
  const program = ts.createProgram(files, { module: ts.ModuleKind.NodeNext, types: [] });
  for (const [index, { name }] of entries.entries()) {
    await t.test(`that uses every export of ${name}`, () => {
      const { imported, exported } = useOf(name, files[index], program);
      assert.deepEqual(imported.sort(), exported.sort());
    });
  }
});

/** What uses all that an entry exports. */
function fileOf({ name }) {
  return `consumer/${name === "allstop" ? "index" : basename(name)}.ts`;
}

/** Writes a file with some lines for each entry. */
async function writeLines(file, names, linesFor) {
  await writeFile(file, names.flatMap(linesFor).join("\n"));
}

/** Compiles files of a project, without any error. */
async function compile(t, compiler, project, include, moreOptions) {
  await configure(project, include, moreOptions);
  await run(t, process.execPath, [installed(`${compiler}/bin/tsc`)], { cwd: project });
}

async function configure(project, include, moreOptions) {
  const compilerOptions = { ...options, ...moreOptions };
  await writeFile(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, include }));
}

/** Finds out what a file imports of an entry of the package, and what that exports, types included. */
function useOf(name, file, program) {
  const { statements } = program.getSourceFile(file) ?? assert.fail(`there is no ${file}`);
  const declaration = statements.find((each) => ts.isImportDeclaration(each) && each.moduleSpecifier.text === name);
  assert.ok(declaration, `${file} does not import ${name}`);
  const checker = program.getTypeChecker();
  const module = checker.getSymbolAtLocation(declaration.moduleSpecifier);
  return {
    imported: declaration.importClause.namedBindings.elements.map((element) => element.name.text),
    exported: checker.getExportsOfModule(module).map((symbol) => symbol.name),
  };
}
