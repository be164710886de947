import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { bundleSize } from "./support/bundle.ts";

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const rows = Array.from(
  readme.matchAll(/`import (\{.*\}|\* as allstop) from ("allstop.*")` \| ([\d.]+) kB/g),
  ([, names = "", entry = "", size = ""]): [string, string, string] => [names, entry, size],
);

test("the Manager takes at most 2.0 kB, and the whole root at most 3.0 kB", async () => {
  expect(await bundleSize('export { Manager } from "allstop"')).toBeLessThanOrEqual(2_000);
  expect(await bundleSize('export * from "allstop"')).toBeLessThanOrEqual(3_000);
});

test.each([
  ["admin", 2_500],
  ["http", 2_500],
  ["main", 2_500],
  ["child", 2_500],
  ["pid-file", 2_500],
  ["daemon", 2_500],
  ["upgrade", 2_500],
  ["metrics", 1_500],
  ["timeline", 1_500],
  ["repeat", 1_500],
  ["restart", 1_750],
  ["group", 1_500],
  ["health", 2_000],
  ["services", 2_250],
  ["testing", 1_500],
])("allstop/%s takes at most %i bytes, what it shares with others aside", async (room, budget) => {
  expect(await bundleSize(`export * from "allstop/${room}"`)).toBeLessThanOrEqual(budget);
});

test("the README has a size for nineteen imports", () => {
  expect(rows.length).toBe(19);
});

test.each(rows)("the README says the size of %s from %s", async (names, entry, size) => {
  const source = `export ${names.startsWith("*") ? "*" : names} from ${entry}`;
  // One figure after the point, and 10 bytes for the differences between versions of brotli.
  expect(Math.abs((await bundleSize(source)) - Number(size) * 1_000)).toBeLessThanOrEqual(60);
});
