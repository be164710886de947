import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { bundleSize } from "./support/bundle.ts";

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const rows = Array.from(
  readme.matchAll(/`import (\{.*\}|\* as allstop) from "allstop"` \| ([\d.]+) kB/g),
  ([, names = "", size = ""]): [string, string] => [names, size],
);

test("the Manager takes at most 2.0 kB, and the whole root at most 3.0 kB", async () => {
  expect(await bundleSize('export { Manager } from "allstop"')).toBeLessThanOrEqual(2_000);
  expect(await bundleSize('export * from "allstop"')).toBeLessThanOrEqual(3_000);
});

test("the README has a size for four imports", () => {
  expect(rows.length).toBe(4);
});

test.each(rows)("the README says the size of %s", async (names, size) => {
  const source = `export ${names.startsWith("*") ? "*" : names} from "allstop"`;
  // One figure after the point, and 10 bytes for the differences between versions of brotli.
  expect(Math.abs((await bundleSize(source)) - Number(size) * 1_000)).toBeLessThanOrEqual(60);
});
