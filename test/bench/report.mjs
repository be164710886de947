/*
 * The one format of what the comparisons found. A topic ends with `await save(result)`, which writes
 * results/<topic>.node<major>.json; run as a program, this turns all of these into results/README.md, with the tables
 * of each version of Node, and one picture per plot, with the versions beside each other.
 *
 * A result: { topic, title, text, tables: [{ title?, header, rows }], remarks?: [string], plots: [{ name, title,
 * x: { title, scale }, y: { title, scale }, series: [{ name, points: [{ x, y, low?, high? }] }] }] }. `text` holds
 * for every version of Node, `remarks` are what the figures of this one say, as "p-map is ahead". A scale is
 * "linear", "log" or "ordinal".
 */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import os from "node:os";
import process from "node:process";
import { pathToFileURL } from "node:url";

const RESULTS = new URL("results/", import.meta.url);

/** The order of the report; other topics come after these. */
const TOPICS = ["comparison", "start", "stop", "limit", "ephemeral", "drain", "exit", "import", "size"];

/** What is installed for the measuring, not to be measured. */
const TOOLS = ["esbuild", "node24", "vega", "vega-lite", "ws"];

/** Colours that can be told apart, also in grey or by the colour-blind; ours is the first. */
const COLOURS = [
  "#d62728",
  "#111111",
  "#8c8c8c",
  "#1f77b4",
  "#17becf",
  "#9467bd",
  "#2ca02c",
  "#ff7f0e",
  "#bcbd22",
  "#e377c2",
  "#8c564b",
  "#5b5bd6",
];

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await report();

/** Writes the result of a topic, with the version of Node, the date and the machine that it is from. */
export async function save(result) {
  const major = process.versions.node.split(".")[0];
  const dated = {
    ...result,
    node: process.versions.node,
    date: new Date().toISOString().slice(0, 10),
    machine: machineClass(),
  };
  await mkdir(RESULTS, { recursive: true });
  await writeFile(new URL(`${result.topic}.node${major}.json`, RESULTS), `${JSON.stringify(dated, undefined, 1)}\n`);
  console.log(sectionOf(dated, "#").join("\n"));
}

/** The value in the middle, or the mean of the two. */
export function median(values) {
  return quantile(values, 0.5);
}

/** The median, and the quartiles between which half of the values lie. */
export function spread(values) {
  return { median: median(values), low: quantile(values, 0.25), high: quantile(values, 0.75) };
}

/** As `1,234`, `12.3` or `0.123`: three digits that count, more only before the point. */
export function figure(value) {
  if (value === undefined || Number.isNaN(value)) return "-";
  const digits = Math.abs(value) >= 1_000 ? Math.ceil(Math.log10(Math.abs(value))) : 3;
  return value.toLocaleString("en-US", { maximumSignificantDigits: Math.min(digits, 21) });
}

/** As `1.23 (1.2-1.31)`: the median and the quartiles; a unit, if there is one, comes at once after the median. */
export function withSpread(values, unit = "") {
  if (!values) return "-";
  return `${figure(values.median)}${unit} (${figure(values.low)}-${figure(values.high)})`;
}

/**
 * How the cost grows with the size: the slope of the line that fits best through the points in log-log. 1 is linear,
 * 2 is quadratic.
 */
export function growthExponent(points) {
  if (points.length < 2) return undefined;
  const logs = points.map(({ x, y }) => [Math.log(x), Math.log(y)]);
  const mean = [0, 1].map((axis) => logs.reduce((sum, log) => sum + log[axis], 0) / logs.length);
  let covariance = 0;
  let variance = 0;
  for (const [x, y] of logs) {
    covariance += (x - mean[0]) * (y - mean[1]);
    variance += (x - mean[0]) ** 2;
  }
  return covariance / variance;
}

function quantile(values, part) {
  const sorted = values.toSorted((a, b) => a - b);
  const position = (sorted.length - 1) * part;
  const below = Math.floor(position);
  const above = Math.ceil(position);
  return sorted[below] + (sorted[above] - sorted[below]) * (position - below);
}

/** The kind of machine, not which one. */
function machineClass() {
  const cpus = os.cpus();
  const model = cpus[0]?.model.trim() || "an unnamed CPU";
  const memory = Math.round(os.totalmem() / 2 ** 30);
  return `${cpus.length} cores of ${model}, ${memory} GiB, ${os.type()} ${os.arch()}`;
}

/** Makes results/README.md and the pictures of all that has been saved. */
async function report() {
  const files = (await readdir(RESULTS)).filter((file) => /\.node\d+\.json$/.test(file));
  if (!files.length) throw new Error("Nothing has been measured yet");
  const texts = await Promise.all(files.map((file) => readFile(new URL(file, RESULTS), "utf8")));
  const results = texts.map((text) => JSON.parse(text)).sort((one, other) => majorOf(one) - majorOf(other));
  const lines = await head(results);
  for (const topic of [...new Set(results.map((result) => result.topic))].sort(byOrder)) {
    const versions = results.filter((result) => result.topic === topic);
    lines.push(`## ${versions[0].title}`, "", versions.at(-1).text, "");
    for (const name of new Set(versions.flatMap(({ plots = [] }) => plots.map((plot) => plot.name)))) {
      const { title } = await draw(name, versions);
      lines.push(`![${title}](${name}.svg)`, "");
    }
    for (const result of versions) lines.push(...sectionOf({ ...result, text: undefined }, "###"));
  }
  await writeFile(new URL("README.md", RESULTS), `${lines.join("\n").trimEnd()}\n`);
}

/** When, where and what has been measured. */
async function head(results) {
  const unique = (values) => [...new Set(values)].sort().join("; ");
  const versions = await Promise.all((await peers()).map(async (name) => `${name} ${await versionOf(name)}`));
  return [
    "# allstop beside its peers",
    "",
    "Written by `npm run bench`; do not edit. Medians, and in brackets the quartiles, between which half of the rounds",
    "lie. The candidates take turns within one run, so that a slow moment hits all of them; a ratio is that of two",
    "neighbours in time.",
    "",
    `- Date: ${unique(results.map(({ date }) => date))}`,
    `- Machine: ${unique(results.map(({ machine }) => machine))}`,
    `- Node: ${unique(results.map(({ node }) => node))}`,
    `- Peers: ${versions.join(", ")}`,
    "",
  ];
}

async function peers() {
  const { devDependencies } = JSON.parse(await readFile(new URL("package.json", import.meta.url), "utf8"));
  return Object.keys(devDependencies).filter((name) => !TOOLS.includes(name));
}

async function versionOf(name) {
  const manifest = new URL(`node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(await readFile(manifest, "utf8")).version;
}

function byOrder(one, other) {
  const place = (topic) => (TOPICS.includes(topic) ? TOPICS.indexOf(topic) : TOPICS.length);
  return place(one) - place(other) || one.localeCompare(other);
}

function majorOf({ node }) {
  return Number(node.split(".")[0]);
}

/** The tables and remarks of one version of Node. */
function sectionOf({ title, text, node, tables, remarks = [] }, mark) {
  const lines = [`${mark} ${text ? `${title}, ` : ""}Node ${node}`, ""];
  if (text) lines.push(text, "");
  for (const table of tables) {
    if (table.title) lines.push(`${table.title}:`, "");
    lines.push(...tableOf(table), "");
  }
  if (remarks.length) lines.push(...remarks.map((remark) => `- ${remark}`), "");
  return lines;
}

function tableOf({ header, rows }) {
  const line = (cells) => `| ${cells.map((cell) => String(cell ?? "-").replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(header), line(header.map((_, index) => (index ? "---:" : "---"))), ...rows.map(line)];
}

/** Draws a plot of all versions of Node that have it. */
async function draw(name, versions) {
  // Only a report needs these, not the measuring, which they would slow down.
  const { compile } = await import("vega-lite");
  const vega = await import("vega");
  const plots = versions.flatMap(({ node, plots = [] }) =>
    plots.filter((plot) => plot.name === name).map((plot) => ({ ...plot, node: `Node ${node}` })),
  );
  const [plot] = plots;
  const view = new vega.View(vega.parse(compile(specification(plot, plots)).spec), { renderer: "none" });
  await writeFile(new URL(`${name}.svg`, RESULTS), `${await view.toSVG()}\n`);
  view.finalize();
  return plot;
}

/** What to draw, in the words of vega-lite. */
function specification({ title, x, y }, plots) {
  const values = plots.flatMap(({ node, series }) =>
    series.flatMap(({ name, points }) => points.map((point) => ({ ...point, node, series: name }))),
  );
  const names = [...new Set(values.map(({ series }) => series))];
  const mark = markOf(x, y);
  const isBar = mark.type === "bar";
  const place = { x: horizontal(x, values), ...(x.scale === "ordinal" && besideEachOther(names)) };
  const color = isBar && names.length === 1 ? oursInColour() : colourOf(names);
  const height = vertical(y, values);
  const layer = [{ mark, encoding: { ...place, color, y: height } }];
  if (values.some(({ low }) => low !== undefined)) {
    layer.push({
      mark: { type: "rule", strokeWidth: 1.6, ...(isBar ? { color: "#333333" } : { opacity: 0.55 }) },
      transform: [{ filter: "isValid(datum.low)" }],
      encoding: { ...place, ...(!isBar && { color }), y: { ...height, field: "low" }, y2: { field: "high" } },
    });
  }
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    title: { text: title, anchor: "middle", fontSize: 14 },
    background: "white",
    padding: 12,
    data: { values },
    facet: { column: { field: "node", title: null, header: { labelFontSize: 13 } } },
    spec: { width: 380, height: 320, layer },
    config: { legend: { labelLimit: 0, symbolType: "circle" }, axis: { labelLimit: 0, titleFontWeight: "normal" } },
  };
}

/** A line for what has an order; else a bar, which has no meaning where its foot, zero, has no place. */
function markOf(x, y) {
  if (x.scale !== "ordinal") return { type: "line", point: { size: 35 }, strokeWidth: 1.6 };
  return y.scale === "log" ? { type: "point", filled: true, size: 60 } : { type: "bar" };
}

function horizontal({ title, scale }, values) {
  const order = [...new Set(values.map((value) => value.x))];
  if (scale === "ordinal") {
    return { field: "x", type: "ordinal", title: title ?? null, sort: order, axis: { labelAngle: -35 } };
  }
  const axis = { format: ",~f", ...(scale === "log" && { values: order }) };
  return { field: "x", type: "quantitative", title, scale: { type: scale }, axis };
}

function vertical({ title, scale }, values) {
  const ticks = scale === "log" ? { values: logarithmicTicks(values) } : { tickCount: 6 };
  return { field: "y", type: "quantitative", title, scale: { type: scale }, axis: { format: ",~f", ...ticks } };
}

function besideEachOther(names) {
  return names.length > 1 && { xOffset: { field: "series", sort: names } };
}

function colourOf(names) {
  const range = names.map((_, index) => COLOURS[index % COLOURS.length]);
  return { field: "series", title: null, scale: { domain: names, range }, ...(names.length === 1 && { legend: null }) };
}

/** Of bars that need no colours of their own. */
function oursInColour() {
  return { condition: { test: "indexof(datum.x, 'allstop') >= 0", value: COLOURS[0] }, value: COLOURS[2] };
}

/** 1, 10, 100; where these would be few, also 2 and 5 between them. */
function logarithmicTicks(values) {
  const all = values.flatMap(({ y, low, high }) => [y, low, high]).filter((value) => value > 0);
  const [first, last] = [Math.floor(Math.log10(Math.min(...all))), Math.ceil(Math.log10(Math.max(...all)))];
  const steps = last - first > 3 ? [1] : [1, 2, 5];
  const powers = Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index));
  return powers.flatMap((power) => steps.map((step) => step * power));
}
