import { expect, test } from "vitest";
import { parsePrometheus } from "./support/prometheus.ts";

/*
 * The parser of the tests of allstop/metrics: that it reads what is right, and that it can fail.
 */

const HEAD = "# HELP a help\n# TYPE a gauge\n";

test("a page is read as its families, in their order, with HELP, TYPE and samples", () => {
  const page = `${HEAD}a 1\na{x="1",y="2"} -0.5\n# HELP b:c \\\\ and \\n\n# TYPE b:c counter\n`;
  expect([...parsePrometheus(page)]).toEqual([
    [
      "a",
      {
        help: "help",
        type: "gauge",
        samples: [
          { labels: {}, value: 1 },
          { labels: { x: "1", y: "2" }, value: -0.5 },
        ],
      },
    ],
    ["b:c", { help: "\\ and \n", type: "counter", samples: [] }],
  ]);
  expect(parsePrometheus("")).toEqual(new Map());
});

test.each([
  ['\\\\ \\" \\n', '\\ " \n'],
  ["", ""],
  ["},a=b {", "},a=b {"],
  ["\r\t\u2028é😀", "\r\t\u2028é😀"],
  ["\\\\n", "\\n"],
])("the value of a label is read without its escapes: %j", (escaped, value) => {
  const { samples } = parsePrometheus(`${HEAD}a{x="${escaped}"} 1\n`).get("a") ?? {};
  expect(samples).toEqual([{ labels: { x: value }, value: 1 }]);
});

test.each([
  ["0", 0],
  ["+1.5e-7", 1.5e-7],
  ["1e+21", 1e21],
  [".5", 0.5],
  ["5.", 5],
  ["NaN", NaN],
  ["+Inf", Infinity],
  ["-Inf", -Infinity],
])("the value %s is read", (text, value) => {
  expect(parsePrometheus(`${HEAD}a ${text}\n`).get("a")?.samples[0]?.value).toBe(value);
});

test.each([
  ["no newline at the end", 2, "# HELP a help\n# TYPE a gauge"],
  ["nothing but a blank line", 1, "\n"],
  ["a blank line in between", 3, `${HEAD}\na 1\n`],
  ["a comment", 3, `${HEAD}# note\n`],
  ["a sample without a family", 1, "a 1\n"],
  ["a family without HELP", 1, "# TYPE a gauge\na 1\n"],
  ["a HELP without text", 1, "# HELP a \n# TYPE a gauge\n"],
  ["a HELP with an unknown escape", 1, "# HELP a \\t\n# TYPE a gauge\n"],
  ["a HELP with a carriage return", 1, "# HELP a b\r\n# TYPE a gauge\n"],
  ["a HELP of no name", 1, "# HELP 1a help\n# TYPE 1a gauge\n"],
  ["a family without TYPE", 2, "# HELP a help\na 1\n"],
  ["a HELP at the end", 2, "# HELP a help\n"],
  ["TYPE before HELP", 1, "# TYPE a gauge\n# HELP a help\n"],
  ["the TYPE of another", 2, "# HELP a help\n# TYPE b gauge\n"],
  ["an unknown TYPE", 2, "# HELP a help\n# TYPE a number\n"],
  ["a TYPE in capitals", 2, "# HELP a help\n# TYPE a Gauge\n"],
  ["a family in two places", 3, `${HEAD}# HELP a help\n# TYPE a gauge\n`],
  ["a sample of another family", 3, `${HEAD}b 1\n`],
  ["a series twice", 4, `${HEAD}a 1\na 2\n`],
  ["a series twice, with its labels in another order", 4, `${HEAD}a{x="1",y="2"} 1\na{y="2",x="1"} 1\n`],
  ["a label twice", 3, `${HEAD}a{x="1",x="2"} 1\n`],
  ["empty braces", 3, `${HEAD}a{} 1\n`],
  ["a comma at the end of the labels", 3, `${HEAD}a{x="1",} 1\n`],
  ["labels without a comma", 3, `${HEAD}a{x="1"y="2"} 1\n`],
  ["a blank between labels", 3, `${HEAD}a{x="1", y="2"} 1\n`],
  ["a label with a bad name", 3, `${HEAD}a{1x="1"} 1\n`],
  ["a label with a colon", 3, `${HEAD}a{x:y="1"} 1\n`],
  ["a label with a reserved name", 3, `${HEAD}a{__name__="1"} 1\n`],
  ["a label without quotes", 3, `${HEAD}a{x=1} 1\n`],
  ["a quote that is not escaped", 3, `${HEAD}a{x="1"2"} 1\n`],
  ["a backslash that is not escaped", 3, `${HEAD}a{x="\\"} 1\n`],
  ["an unknown escape", 3, `${HEAD}a{x="\\t"} 1\n`],
  ["a newline that is not escaped", 3, `${HEAD}a{x="1\n2"} 1\n`],
  ["no value", 3, `${HEAD}a\n`],
  ["a value that is no number", 3, `${HEAD}a one\n`],
  ["an undefined value", 3, `${HEAD}a undefined\n`],
  ["an infinite value as JavaScript writes it", 3, `${HEAD}a Infinity\n`],
  ["a value in hexadecimal", 3, `${HEAD}a 0x1\n`],
  ["two blanks before the value", 3, `${HEAD}a  1\n`],
  ["a blank at the end", 3, `${HEAD}a 1 \n`],
  ["a time", 3, `${HEAD}a 1 1700000000000\n`],
  ["a carriage return", 3, `${HEAD}a 1\r\n`],
  ["a counter below 0", 3, "# HELP a help\n# TYPE a counter\na -1\n"],
  ["a counter that is not a number", 3, "# HELP a help\n# TYPE a counter\na NaN\n"],
])("a page is refused, with the line, that has %s", (_, line, page) => {
  expect(() => parsePrometheus(page)).toThrow(new RegExp(`^Line ${line}: `));
});
