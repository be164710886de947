/*
 * The text format 0.0.4 of Prometheus, as strict as it can be read: what a parser may let pass, this one refuses.
 */

export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface ParsedFamily {
  readonly help: string;
  readonly type: string;
  readonly samples: readonly Sample[];
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const HELP = new RegExp(`^# HELP (${NAME}) ((?:[^\\\\\\r]|\\\\[\\\\n])+)$`, "u");
const TYPE = new RegExp(`^# TYPE (${NAME}) (counter|gauge)$`);
const SAMPLE = new RegExp(`^(${NAME})(?:\\{(.+)\\})? (\\S+)$`, "su");
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^\\"]|\\[\\"n])*)"(,(?=.)|$)/su;
const NUMBER = /^(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|NaN|[+-]Inf)$/i;

/**
 * Reads a page: for each family HELP, TYPE and its samples, in this order and in one place, with neither blanks nor
 * comments in between.
 *
 * @returns The families by their names, in the order of the page.
 * @throws {SyntaxError} With the number and the text of the first line that is not as it must be.
 */
export function parsePrometheus(page: string): Map<string, ParsedFamily> {
  const lines = page.split("\n");
  const fail = (index: number, rule: string): never => {
    throw new SyntaxError(`Line ${index + 1}: ${rule}: ${JSON.stringify(lines[index])}`);
  };
  if (lines.at(-1) !== "") fail(lines.length - 1, "the last line must end with a newline");

  const families = new Map<string, ParsedFamily>();
  for (let at = 0; at < lines.length - 1; ) {
    const [, name = "", help = ""] = HELP.exec(lines[at]!) ?? fail(at, "a family must begin with its HELP");
    if (families.has(name)) fail(at, "a family must be in one place");
    const [, typed, type = ""] = TYPE.exec(lines[++at] ?? "") ?? fail(at, "a HELP must be followed by its TYPE");
    if (typed !== name) fail(at, "a TYPE must be that of the HELP before it");
    const samples = new Map<string, Sample>();
    for (at++; at < lines.length - 1 && !lines[at]!.startsWith("#"); at++) {
      const [, of, text, value = ""] = SAMPLE.exec(lines[at]!) ?? fail(at, "it must be a sample");
      if (of !== name) fail(at, "a sample must be in its family");
      if (!NUMBER.test(value)) fail(at, "a value must be a number");
      const number = numberOf(value);
      if (type === "counter" && !(number >= 0)) fail(at, "a counter must be 0 or more");
      const labels = labelsOf(text) ?? fail(at, "labels must be well-formed");
      const key = JSON.stringify(Object.entries(labels).sort());
      if (samples.has(key)) fail(at, "a series must be there once");
      samples.set(key, { labels, value: number });
    }
    families.set(name, { help: unescape(help), type, samples: [...samples.values()] });
  }
  return families;
}

function numberOf(value: string): number {
  return Number(value.replace(/inf$/i, "Infinity").replace(/nan/i, "NaN"));
}

/** Reads what is between the braces; gives nothing if it is not as it must be. */
function labelsOf(text: string | undefined): Record<string, string> | undefined {
  const labels = new Map<string, string>();
  for (let rest = text ?? ""; rest; ) {
    const [label = "", name = "", value = ""] = LABEL.exec(rest) ?? [];
    if (!label || name.startsWith("__") || labels.has(name)) return undefined;
    labels.set(name, unescape(value));
    rest = rest.slice(label.length);
  }
  return Object.fromEntries(labels);
}

function unescape(text: string): string {
  return text.replace(/\\(.)/gs, (_, character: string) => (character === "n" ? "\n" : character));
}
