/*
 * The packed package holds what it should and nothing else, and whatever a file in it points at is there.
 */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join, posix } from "node:path";
import { test } from "node:test";
import {
  bun,
  deno,
  entries,
  install,
  listFiles,
  node,
  node22,
  node24,
  root,
  run,
  temporaryFolder,
} from "./support.mjs";

test("the package", async (t) => {
  const { project, installedPackage } = await install(t);
  const files = await listFiles(installedPackage);
  const read = (file) => readFile(join(installedPackage, file), "utf8");
  const manifest = JSON.parse(await read("package.json"));

  await t.test("holds the sources, what is built of them, and three files more", async () => {
    const sources = await listFiles(join(root, "src"));
    const built = sources.flatMap((source) => {
      const output = `dist/${source.slice(0, -".ts".length)}`;
      return [`${output}.js`, `${output}.js.map`, `${output}.d.ts`, `${output}.d.ts.map`];
    });
    const expected = [...built, ...sources.map((source) => `src/${source}`), "LICENSE", "README.md", "package.json"];
    // Whether the changelog comes along is for npm to decide.
    const packed = files.filter((file) => file !== "CHANGELOG.md");
    assert.deepEqual(packed, expected.sort());
  });

  await t.test("has a map for everything that is built, and a source for every map", async () => {
    const missing = [];
    for (const file of files.filter((file) => /\.(js|d\.ts)$/.test(file))) {
      const [, link] = (await read(file)).match(/^\/\/# sourceMappingURL=(.+)$/m);
      const map = posix.join(posix.dirname(file), link);
      const { sources, sourceRoot = "" } = JSON.parse(await read(map));
      assert.equal(sources.length, 1, map);
      const source = posix.join(posix.dirname(map), sourceRoot, sources[0]);
      if (!files.includes(source)) missing.push(`${map} -> ${source}`);
    }
    assert.deepEqual(missing, []);
  });

  await t.test("has a file for every target of its exports", () => {
    const targets = entries.flatMap((entry) => Object.values(entry.targets));
    const missing = targets.filter((target) => !files.includes(target.replace("./", "")));
    assert.deepEqual(missing, []);
  });

  const names = entries.map((entry) => entry.name);
  const exported = await Promise.all(
    entries.map(async ({ targets }) => Object.keys(await import(join(installedPackage, targets.default))).join(" ")),
  );
  const printedBy = async (t, { command, args }, program) => {
    const env = { DENO_DIR: await temporaryFolder(t) };
    const printed = await run(t, command, [...args, join(project, program), ...names], { cwd: project, env });
    return printed.trim().split("\n");
  };

  await writeFile(
    join(project, "import.mjs"),
    `for (const name of process.argv.slice(2)) console.log(Object.keys(await import(name)).join(" "));`,
  );
  for (const runtime of [node, node22, node24, bun, deno]) {
    await t.test(`can be imported by each of its names under ${runtime.name}`, async (t) => {
      assert.deepEqual(await printedBy(t, runtime, "import.mjs"), exported);
    });
  }

  await writeFile(
    join(project, "require.cjs"),
    `(async () => {
      for (const name of process.argv.slice(2)) {
        const required = require(name);
        console.log(required === (await import(name)) ? Object.keys(required).join(" ") : name + " is there twice");
      }
    })();`,
  );
  for (const runtime of [node22, node24, bun, deno]) {
    await t.test(`can be required from CommonJS, and is there once, under ${runtime.name}`, async (t) => {
      assert.deepEqual(await printedBy(t, runtime, "require.cjs"), exported);
    });
  }

  await t.test("has no other names", async (t) => {
    const others = files.filter((file) => file.endsWith(".js")).map((file) => posix.join(manifest.name, file));
    const program = `
      for (const name of process.argv.slice(1)) {
        await import(name).then(console.log, (error) => console.log(error.code));
      }`;
    const args = ["--input-type=module", "--eval", program, ...others];
    const printed = await run(t, process.execPath, args, { cwd: project });
    assert.deepEqual(
      printed.trim().split("\n"),
      others.map(() => "ERR_PACKAGE_PATH_NOT_EXPORTED"),
    );
  });

  await t.test("needs no other package", () => {
    const { dependencies, peerDependencies, optionalDependencies } = manifest;
    assert.deepEqual({ ...dependencies, ...peerDependencies, ...optionalDependencies }, {});
  });
});
