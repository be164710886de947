/*
 * The programs of test/examples/migrating.md that use peers: each must print what its comments say, so that nobody is
 * told to leave something that works in another way than it is said to.
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const page = new URL("../../examples/migrating.md", import.meta.url);

/** Where their packages are found. */
const cwd = fileURLToPath(new URL(".", import.meta.url));

/** Runs them one after the other, and gives how many there are. */
export async function checkMigrating() {
  const programs = Array.from(readFileSync(page, "utf8").matchAll(/^```js\n([^]*?)^```$/gm), ([, code]) => code);
  for (const code of programs) {
    const said = Array.from(code.matchAll(/\/\/ prints (.*)$/gm), ([, line]) => line);
    const args = ["--input-type=module", "--eval", code];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd, timeout: 10_000 });
    // The comments are where the lines are printed, not in the order in which they are.
    if (!said.length || stdout.split("\n").slice(0, -1).sort().join("\n") !== said.sort().join("\n")) {
      throw new Error(`A program of migrating.md printed\n${stdout}and not\n${said.join("\n")}`);
    }
  }
  return programs.length;
}
