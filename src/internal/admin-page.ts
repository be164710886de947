import type { AdminServerOptions } from "../admin.ts";
import { type AdminComponent, type AdminFailure, type AdminTask, type AdminTrace, viewOf } from "./admin-view.ts";

/** How many runs the picture has: the newest ones. */
const ROWS = 200;

/** How wide a bar is at least, as a percentage. */
const NARROWEST = 0.2;

/** What a state says, from worst to best. */
const TONES = ["bad", "warn", "busy", "good", "idle"];

/** Keeps the place of a section that is not there now, so that the others keep theirs when the page is updated. */
const NOTHING = "<section hidden></section>";

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

const STYLE = `
:root { color-scheme: light dark; --text: #1d2430; --soft: #596273; --line: #e2e6ec; --back: #fff; --card: #f7f8fa;
  --good: #137a4b; --warn: #8a4d00; --bad: #b42318; --busy: #2559b5; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ef; --soft: #9aa4b4; --line: #2c3440; --back: #12161c;
  --card: #1a2029; --good: #4cc38a; --warn: #f0a33c; --bad: #ff7b6b; --busy: #7fabff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 0 1rem 3rem; }
header { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem;
  align-items: baseline; padding: 1rem 0 .75rem; background: var(--back); }
header b { font-size: 1.1rem; }
p { margin: 0 0 .5rem; }
header p { margin: 0 0 0 auto; }
h1 { margin: 0; font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { margin: 1.5rem 0 .5rem; font-size: 1.05rem; }
p, thead th, summary, .soft { color: var(--soft); }
table { width: 100%; table-layout: fixed; border-collapse: collapse; background: var(--card); border-radius: .5rem; }
th, td { padding: .35rem .75rem; text-align: left; vertical-align: baseline; overflow-wrap: anywhere; }
tbody tr { border-top: 1px solid var(--line); }
thead th { font-weight: normal; font-size: .85rem; }
thead th:first-child { width: 36%; }
thead th:nth-child(2):not(:last-child) { width: 10rem; }
thead th:nth-child(4) { width: 6rem; }
tbody th { font-weight: 500; }
tbody th, td { white-space: pre-wrap; font-variant-numeric: tabular-nums; }
.good { --tone: var(--good); } .warn { --tone: var(--warn); } .bad { --tone: var(--bad); }
.busy { --tone: var(--busy); } .idle { --tone: var(--soft); }
b { margin-left: -.6rem; padding: .1rem .6rem; border-radius: 1rem; font-weight: normal; white-space: nowrap; }
b::before { content: ""; display: inline-block; width: .6em; height: .6em; margin-right: .45em; border-radius: 50%;
  background: var(--tone); }
.idle, .busy { color: var(--tone); }
.warn { background: color-mix(in srgb, var(--tone) 12%, transparent); color: var(--tone); font-weight: 600; }
.bad { background: var(--tone); color: var(--back); font-weight: 600; }
.bad::before { background: currentColor; }
.failures table { border-left: .25rem solid var(--bad); }
.timeline tr { border: 0; }
.timeline tr > * { padding-block: .1rem; }
.timeline thead th:nth-child(2):not(:last-child) { width: auto; }
.timeline tr > :last-child { width: 6.5rem; text-align: right; }
.timeline td:nth-child(2) { position: relative; padding: 0; }
svg { position: absolute; top: 0; left: .75rem; width: calc(100% - 1.5rem); height: 100%; }
rect { y: calc(50% - .25rem); height: .5rem; fill: var(--tone); }
rect.good, rect.idle { opacity: .7; }
rect.warn { fill: #d97706; }
line { stroke: var(--text); stroke-dasharray: 2 2; }
pre { overflow-x: auto; padding: .75rem; background: var(--card); border-radius: .5rem; font-size: .8rem; }
summary { margin-top: 1rem; cursor: pointer; }
.stale section { filter: grayscale(1); }
@media (max-width: 40rem) {
  thead { display: none; }
  tbody tr, .timeline tbody tr { display: flex; flex-wrap: wrap; gap: 0 1rem; padding: .35rem .75rem; }
  tbody tr > *, .timeline tr > * { padding: 0; }
  tbody th { flex: 1 1 50%; }
  td:empty { display: none; }
  td[data-label]::before { content: attr(data-label) " "; color: var(--soft); }
  .text { order: 1; flex-basis: 100%; }
  .timeline td:nth-child(2) { order: 1; flex-basis: 100%; height: 1rem; }
  svg { left: 0; width: 100%; }
}
`;

/**
 * Shows the program as it is now, every two seconds while somebody looks; or says that it does not answer. What is as
 * before is left as it is, and with it what somebody has opened, selected, or scrolled to.
 */
const SCRIPT = `
function update(shown, fresh) {
  if (shown.nodeName !== fresh.nodeName) return shown.replaceWith(fresh);
  if (shown.nodeValue !== fresh.nodeValue) shown.nodeValue = fresh.nodeValue;
  for (const { name } of [...(shown.attributes ?? [])]) {
    if (name !== "open" && !fresh.hasAttribute(name)) shown.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes ?? []) {
    if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
  const old = [...shown.childNodes];
  for (const child of [...fresh.childNodes]) {
    const former = old.shift();
    if (former) update(former, child);
    else shown.append(child);
  }
  for (const child of old) child.remove();
}
async function refresh() {
  let problem = "not answering";
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) problem = "answers " + answer.status;
    // Without its style, which has a nonce that is not of this page's policy.
    const [main] = /<main>[^]*<\\/main>/.exec(await answer.text());
    update(document.querySelector("main"), new DOMParser().parseFromString(main, "text/html").querySelector("main"));
    document.body.className = "";
  } catch {
    const state = document.querySelector("header b");
    state.textContent = problem;
    state.className = "bad";
    document.body.className = "stale";
  }
  document.title = ["h1", "header b"].map((name) => document.querySelector(name).textContent).join(": ");
}
(async () => {
  for (;;) {
    await new Promise((resolve) => {
      setTimeout(resolve, 2000);
      document.onvisibilitychange = resolve;
    });
    if (!document.hidden) await refresh();
  }
})();
`;

/** Makes the whole page. Its style and script carry the nonce that its Content-Security-Policy asks for. */
export function adminPage(title: string, isStopping: boolean, sources: AdminServerOptions, nonce: string): string {
  const { status, failures, tasks, services, components, timeline, text } = viewOf(isStopping, sources);
  const sections = [
    failures?.length && table("Failures", ["source", "error"], failures.map(failureCells)),
    components && table("Health", ["component", "status", "detail", "for"], componentRows(components)),
    tasks && table("Tasks", ["task", "state", "restarts"], taskRows(tasks, isStopping ? sources.manager?.pending : [])),
    services && table("Services", ["service", "state"], serviceRows(services)),
    timeline?.runs.length && picture(timeline),
    text !== undefined && `<details><summary>Timeline as text</summary><pre>${escape(text)}</pre></details>`,
  ];
  const time = `<time>${new Date().toISOString().replace(/\.\d+/, "")}</time>`;
  const up = durationOf(process.uptime() * 1_000);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}: ${escape(status)}</title>
<style nonce="${nonce}">${STYLE}</style>
</head>
<body>
<main>
<header><h1>${escape(title)}</h1>${badge(status)}<p>up ${up}, at ${time}</p></header>
${sections.map((section) => section || NOTHING).join("\n")}
</main>
<script nonce="${nonce}">${SCRIPT}</script>
</body>
</html>
`;
}

/** What no HTML may have, which is all control characters but white space, becomes a replacement character. */
function escape(text: string): string {
  return text.replace(/[&<>"']|[^\P{Cc}\t\n\r]/gu, (character) => ENTITIES[character] ?? "\ufffd");
}

function failureCells({ source, error }: AdminFailure): string[] {
  return [heading(source), cell(error)];
}

/** During a stop, a task that it waits for has been told. */
function taskRows(tasks: readonly AdminTask[], told: readonly string[] = []): string[][] {
  const seen = tasks.map((task) => {
    const isTold = task.state === "running" && told.includes(task.name);
    return isTold ? { ...task, state: "stopping" } : task;
  });
  return worstFirst(seen, ({ state }) => state).map(({ name, state, restarts }) => [
    heading(name),
    badgeCell(state),
    number(restarts ? String(restarts) : "", "restarts"),
  ]);
}

function serviceRows(services: Readonly<Record<string, string>>): string[][] {
  return worstFirst(Object.entries(services), ([, state]) => state).map(([name, state]) => [
    heading(name),
    badgeCell(state),
  ]);
}

function componentRows(components: Readonly<Record<string, AdminComponent>>): string[][] {
  return worstFirst(Object.entries(components), ([, { status }]) => status).map(
    ([name, { status, detail = "", since }]) => [
      heading(name),
      badgeCell(status),
      cell(detail),
      number(durationOf(Date.now() - since), "for"),
    ],
  );
}

/** What is wrong is to be seen first; all else keeps its order. */
function worstFirst<T>(items: readonly T[], stateOf: (item: T) => string): T[] {
  const rankOf = (item: T): number => TONES.indexOf(toneOf(stateOf(item)));
  return [...items].sort((a, b) => rankOf(a) - rankOf(b));
}

function table(title: string, columns: readonly string[], rows: readonly string[][]): string {
  const none = [[`<td class="soft" colspan="${columns.length}">none</td>`]];
  return section(title, tableOf(columns, rows.length ? rows : none));
}

function section(title: string, content: string): string {
  return `<section class="${title.toLowerCase()}"><h2>${title}</h2>
${content}
</section>`;
}

function tableOf(columns: readonly string[], rows: readonly string[][]): string {
  const head = columns.map((column) => `<th scope="col">${column}</th>`);
  return `<table><thead><tr>${head.join("")}</tr></thead><tbody>
${rows.map((cells) => `<tr>${cells.join("")}</tr>`).join("\n")}
</tbody></table>`;
}

function heading(text: string): string {
  return `<th scope="row">${escape(text)}</th>`;
}

function cell(text: string): string {
  return `<td class="text">${escape(text)}</td>`;
}

/** Where there is no room for headers, the label is in front of it. */
function number(text: string, label: string): string {
  return `<td data-label="${label}">${escape(text)}</td>`;
}

/** A state, with a dot in its colour. */
function badge(state: string): string {
  return `<b class="${toneOf(state)}">${escape(state)}</b>`;
}

function badgeCell(state: string): string {
  return `<td>${badge(state)}</td>`;
}

function toneOf(state: string): string {
  if (/^(unhealthy|failed|given up)$/.test(state)) return "bad";
  if (/^(degraded|restarting|stopping)$/.test(state)) return "warn";
  if (/^(healthy|(still )?running)$/.test(state)) return "good";
  return /^(starting|initializ)/.test(state) ? "busy" : "idle";
}

/**
 * A bar for each run, from left to right in time. The stop is in the middle, with a scale of its own on either side:
 * what holds it up can be seen, however long the program ran before. After it, bars have the colour of a warning.
 */
function picture({ runs, stop = Infinity }: AdminTrace): string {
  // Those that ended last: what still runs is among them, however long ago it began.
  const newest = new Set([...runs].sort((a, b) => b.end - a.end).slice(0, ROWS));
  const shown = runs.filter((run) => newest.has(run));
  const from = Math.min(...shown.map(({ start }) => start), stop);
  const to = Math.max(...shown.map(({ end }) => end), from + 1);
  const isStopped = stop < to;
  const x = (time: number): number => {
    if (!isStopped) return (100 * (time - from)) / (to - from);
    return time < stop ? (50 * (time - from)) / (stop - from) : 50 + (50 * (time - stop)) / (to - stop);
  };
  const bar = (tone: string, start: number, end: number): string => {
    const width = Math.max(x(end) - x(start), NARROWEST);
    const left = Math.min(x(start), 100 - width);
    return `<rect class="${tone}" x="${left.toFixed(2)}%" width="${width.toFixed(2)}%"/>`;
  };
  const line = isStopped ? `<line x1="50%" x2="50%" y1="0" y2="100%"/>` : "";
  const rows = shown.map(({ name, state, start, end }) => {
    const lasted = durationOf(end - start);
    const isLate = end > stop;
    const before = start < stop || !isLate ? bar(toneOf(state), start, Math.min(end, stop)) : "";
    const after = isLate ? bar("warn", Math.max(start, stop), end) : "";
    const said = `<title>${escape(`${name}: ${state}, ${lasted}`)}</title>`;
    return [heading(name), `<td><svg role="img">${said}${before}${after}${line}</svg></td>`, `<td>${lasted}</td>`];
  });
  const scale = isStopped
    ? `${durationOf(stop - from)} until the stop, ${durationOf(to - stop)} after the stop`
    : `${durationOf(to - from)} from left to right`;
  return section("Timeline", `<p>${scale}</p>\n${tableOf(["run", "when", "lasted"], rows)}`);
}

function durationOf(milliseconds: number): string {
  const seconds = milliseconds / 1_000;
  if (seconds < 1) return `${Math.round(milliseconds)} ms`;
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} days`;
}
