/*
 * How long a cold import takes: of each entry of allstop, and of its peers, each in a process of its own. All take
 * turns. Where they lie is known beforehand; to find, read, compile and run them, and what they need, is not.
 */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { median, save, spread, withSpread } from "./report.mjs";

const TURNS = Number(process.env.TURNS ?? 11);
const WARM_UP = 1;

const PEERS = [
  "effect",
  "effection",
  "abort-controller-x",
  "p-limit",
  "p-map",
  "p-queue",
  "close-with-grace",
  "http-terminator",
  "stoppable",
  "@godaddy/terminus",
  "lightship",
  "http-graceful-shutdown",
];

/** Of allstop; the others are much like these. */
const PLOTTED = ["allstop", "allstop/main", "allstop/http", "allstop/admin"];

const root = new URL("../../", import.meta.url);
const manifest = JSON.parse(await readFile(new URL("package.json", root), "utf8"));
const ours = Object.entries(manifest.exports).map(([subpath, target]) => ({
  name: `allstop${subpath.slice(1)}`,
  url: new URL(target.default, root).href,
}));
const peers = PEERS.map((name) => ({ name, url: import.meta.resolve(name) }));
const floor = { name: "nothing", url: "data:text/javascript,export%20const%20nothing%20%3D%200" };
const all = [floor, ...ours, ...peers];

for (const candidate of all) candidate.times = [];
for (let turn = -WARM_UP; turn < TURNS; turn++) {
  const first = (turn + WARM_UP) % all.length;
  for (const { url, times } of [...all.slice(first), ...all.slice(0, first)]) {
    const time = await timeOf(url);
    if (turn >= 0) times.push(time);
  }
}
const least = median(floor.times);
await save({
  topic: "import",
  title: "Cold import",
  text: [
    "How long the first `import()` of a fresh process takes, less the median of that of a module with one line,",
    "which shows what Node needs for the first module. This includes what Node itself has to load for it, such",
    "as `node:http`, which a server has loaded anyway.",
  ].join(" "),
  tables: [
    { title: "allstop", header: ["import", "milliseconds"], rows: ours.map(rowOf) },
    { title: "Its peers", header: ["import", "milliseconds"], rows: peers.map(rowOf) },
    {
      title: "What was subtracted",
      header: ["import", "milliseconds"],
      rows: [["one line", withSpread(spread(floor.times))]],
    },
  ],
  plots: [
    {
      name: "import",
      title: "Cold import",
      x: { title: "", scale: "ordinal" },
      y: { title: "milliseconds", scale: "log" },
      series: [
        { name: "allstop", points: ours.filter(({ name }) => PLOTTED.includes(name)).map(pointOf) },
        { name: "peers", points: peers.map(pointOf) },
      ],
    },
  ],
});

async function timeOf(url) {
  const source = `
    const startedAt = performance.now();
    const { length } = Object.keys(await import(${JSON.stringify(url)}));
    const time = performance.now() - startedAt;
    if (!length) throw new Error("It exports nothing");
    console.log(time);
    process.exit();`;
  const args = ["--input-type=module", "--eval", source];
  return Number((await promisify(execFile)(process.execPath, args, { timeout: 10_000 })).stdout);
}

function rowOf({ name, times }) {
  return [name, withSpread(spread(times.map((time) => time - least)))];
}

function pointOf({ name, times }) {
  const { median: y, low, high } = spread(times.map((time) => Math.max(time - least, 0.1)));
  return { x: name, y, low, high };
}
