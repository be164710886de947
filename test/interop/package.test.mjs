/*
 * The packed package holds what it should and nothing else, and whatever a file in it points at is there.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join, posix } from "node:path";
import { test } from "node:test";
import { install, listFiles, node22, node24, root, run } from "./support.mjs";

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
    const targets = Object.values(manifest.exports).flatMap((target) => Object.values(target));
    const missing = targets.filter((target) => !files.includes(target.replace("./", "")));
    assert.deepEqual(missing, []);
  });

  await t.test("can be imported by each of its names", async () => {
    for (const subpath of Object.keys(manifest.exports)) {
      const name = posix.join(manifest.name, subpath);
      const program = `console.log(Object.keys(await import(${JSON.stringify(name)})).length > 0)`;
      const printed = await run(t, process.execPath, ["--input-type=module", "--eval", program], { cwd: project });
      assert.equal(printed, "true\n", name);
    }
  });

  for (const { name, command } of [node22, node24]) {
    await t.test(`can be required from CommonJS under ${name}`, async (t) => {
      const program = 'console.log(typeof require("allstop").Manager)';
      assert.equal(await run(t, command, ["--input-type=commonjs", "--eval", program], { cwd: project }), "function\n");
    });
  }

  await t.test("needs no other package", () => {
    const { dependencies, peerDependencies, optionalDependencies } = manifest;
    assert.deepEqual({ ...dependencies, ...peerDependencies, ...optionalDependencies }, {});
  });
});
