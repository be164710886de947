/*
 * The package as it would be published, installed in an empty project: it holds what it should and nothing else,
 * whatever a file in it points at is there, and right, and each of its names can be imported and required.
 */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire, SourceMap } from "node:module";
import { join, posix } from "node:path";
import { test } from "node:test";
import { brotliCompressSync } from "node:zlib";
import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core";
import { publint } from "publint";
import {
  bun,
  deno,
  entries,
  install,
  listFiles,
  node,
  node22,
  node24,
  node26,
  root,
  run,
  temporaryFolder,
} from "./support.mjs";

/**
 * What `attw` says of every package that is ESM alone, and so is no mistake: that resolution of Node 10, which knows no
 * `exports`, finds none of its names, and that from CommonJS a name leads to ESM, which Node 22.12 can require.
 */
const byDesign = [
  { kind: "NoResolution", resolutionKind: "node10" },
  { kind: "CJSResolvesToESM", resolutionKind: "node16-cjs" },
];

/** Words that are not where they were in the source, when another before them is left out, as in `override get`. */
const modifiers = ["class", "declare", "get", "readonly"];

test("the package", async (t) => {
  const { project, installedPackage, tarball } = await install(t);
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

  /** What is built, its source, and which place of that belongs to a place of it. */
  const mapped = async (file) => {
    const payload = JSON.parse(await read(`${file}.map`));
    const map = new SourceMap(payload);
    const source = posix.join(posix.dirname(file), payload.sourceRoot ?? "", payload.sources[0]);
    return {
      lines: (await read(file)).split("\n"),
      source: (await read(source)).split("\n"),
      placeOf(line, column) {
        const entry = map.findEntry(line, column);
        const isExact = entry.generatedLine === line && entry.generatedColumn === column;
        return isExact ? entry : undefined;
      },
    };
  };

  await t.test("has maps in which each name is where the source has it", async () => {
    for (const file of files.filter((file) => file.endsWith(".map"))) {
      const output = file.slice(0, -".map".length);
      const { names, misplaced } = compareNames(await mapped(output), (name) => !modifiers.includes(name));
      assert.deepEqual(misplaced, [], output);
      // Nothing is left of a file of types.
      assert.ok(names > 0 || output === "dist/task.js", output);
    }
  });

  await t.test("has maps by which an editor finds each declaration", async () => {
    const found = [];
    for (const file of files.filter((file) => /^dist\/[\w-]+\.d\.ts$/.test(file))) {
      const { lines, placeOf, source } = await mapped(file);
      for (const [index, line] of lines.entries()) {
        const [, kind, name] = line.match(/^export (?:declare )?(class|const|function|interface|type) (\w+)/) ?? [];
        if (name === undefined) continue;
        const { originalLine } = placeOf(index, line.indexOf(` ${name}`) + 1);
        assert.match(source[originalLine], new RegExp(`^export .*\\b${kind} ${name}\\b`), `${file}: ${line}`);
        found.push(name);
      }
    }
    for (const name of ["Manager", "Task", "StopReason", "HttpServerTask", "backoff"]) assert.ok(found.includes(name));
  });

  for (const { name, command } of [node, node22, node24, node26]) {
    await t.test(`makes ${name} name the line of the source where an error is from`, async (t) => {
      const program = `
        import { Manager } from "allstop";
        try {
          new Manager({ limit: 0 });
        } catch ({ stack }) {
          console.log(stack);
        }`;
      const args = ["--enable-source-maps", "--input-type=module", "--eval", program];
      const stack = await run(t, command, args, { cwd: project });
      const frames = [...stack.matchAll(/node_modules\/allstop\/(.+):(\d+):(\d+)\)?$/gm)];
      const places = frames.map(([, file, line, column]) => [file, Number(line), Number(column)]);
      assert.deepEqual([...new Set(places.map(([file]) => file))], ["src/internal/check.ts", "src/manager.ts"], stack);
      const code = await Promise.all(
        places.map(async ([file, line, column]) => (await read(file)).split("\n")[line - 1].slice(column - 1)),
      );
      // Where an error is made, and, in each frame below it, what was called.
      assert.match(code[0], /^new \w+\(/, stack);
      assert.match(code.at(-1), /^check\w*\(.*limit/, stack);
    });
  }

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
  for (const runtime of [node, node22, node24, node26, bun, deno]) {
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
  // Node 20 can from 20.19 on.
  const requiring = process.features.require_module ? [node] : [];
  for (const runtime of [...requiring, node22, node24, node26, bun, deno]) {
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

  await t.test("is what publint asks for", async () => {
    const { buffer, byteOffset, byteLength } = await readFile(tarball);
    const pack = { tarball: buffer.slice(byteOffset, byteOffset + byteLength) };
    const { messages, pkg } = await publint({ strict: true, pack });
    assert.equal(pkg.name, manifest.name);
    assert.deepEqual(messages, []);
  });

  await t.test("has the right types, as attw sees it, for each of its names", async () => {
    const { types, entrypoints, problems } = await checkPackage(
      createPackageFromTarballData(new Uint8Array(await readFile(tarball))),
    );
    assert.deepEqual(types, { kind: "included" });
    assert.deepEqual(Object.keys(entrypoints).map((subpath) => posix.join(manifest.name, subpath)), names);
    const others = problems.filter(
      (problem) => !byDesign.some((each) => Object.entries(each).every(([key, value]) => problem[key] === value)),
    );
    assert.deepEqual(others, []);
    // None of these rules is one too many.
    assert.equal(problems.length, byDesign.length * names.length);
  });

  const sizes = Array.from(
    (await read("README.md")).matchAll(/`import (\{.*\}|\* as allstop) from "(allstop.*)"` \| ([\d.]+) kB/g),
    ([, what, name, size]) => ({ what: what.startsWith("*") ? "*" : what, name, bytes: Number(size) * 1_000 }),
  );
  await t.test("is, in a bundle, no larger than its README says", async () => {
    assert.deepEqual([...new Set(sizes.map(({ name }) => name))].sort(), names);
    const tooLarge = [];
    for (const { what, name, bytes } of sizes) {
      const size = await bundleSize(project, `export ${what} from "${name}"`, name);
      // One figure after the point, and 10 bytes for the differences between versions of brotli.
      if (size > bytes + 60) tooLarge.push(`${what} from ${name}: ${size} bytes`);
    }
    assert.deepEqual(tooLarge, []);
  });

  await t.test("needs no other package", () => {
    const { dependencies, peerDependencies, optionalDependencies } = manifest;
    assert.deepEqual({ ...dependencies, ...peerDependencies, ...optionalDependencies }, {});
  });
});

/** Which names in a file are mapped to a place in its source where there is another one. */
function compareNames({ lines, source, placeOf }, counts) {
  let names = 0;
  const misplaced = [];
  for (const [index, line] of lines.entries()) {
    for (const { 0: name, index: column } of line.matchAll(/#?[A-Za-z_$][\w$]*/g)) {
      const place = placeOf(index, column);
      if (place === undefined || !counts(name)) continue;
      names++;
      const original = source[place.originalLine]?.slice(place.originalColumn) ?? "nothing";
      if (!original.startsWith(name)) misplaced.push(`${index + 1}:${column + 1} ${name}: ${original.slice(0, 40)}`);
    }
  }
  return { names, misplaced };
}

/** As the sources are measured in test/support/bundle.ts, with the bundler that is installed for that. */
async function bundleSize(resolveDir, contents, name) {
  const tsx = createRequire(join(root, "package.json")).resolve("tsx");
  const { build } = createRequire(tsx)("esbuild");
  const counted = ["./manager.js", "./os-signal-task.js", "./http.js", "./internal/admin-page.js"];
  const { outputFiles } = await build({
    stdin: { contents, resolveDir },
    external: name === "allstop" ? [] : counted,
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    platform: "node",
    target: "es2022",
    legalComments: "none",
  });
  return brotliCompressSync(outputFiles[0].contents).length;
}
