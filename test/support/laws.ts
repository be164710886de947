import { readFileSync } from "node:fs";

/** The laws, in order, as the titles of laws.test.ts put them together. */
export function laws(): string[] {
  const source = readFileSync(new URL("../laws.test.ts", import.meta.url), "utf8");
  const texts: string[] = [];
  for (const [, title = ""] of source.matchAll(/^ {2}test\((".*"|'.*'), (?:async )?\(\)/gm)) {
    const [, number = "", sentence = ""] = /^.(\d+)\. (.*).$/.exec(title) ?? [];
    const before = texts[Number(number) - 1];
    texts[Number(number) - 1] = before === undefined ? sentence : `${before} ${sentence}`;
  }
  return texts;
}
