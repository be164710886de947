/*
 * A process that wants a PID file. A line of JSON on its standard input says what it does, and it tells what came of it
 * in a line. Told so, it sends itself a signal just before one of its calls of the file system.
 */
import fs, { writeSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { createInterface } from "node:readline";
import { acquirePidFile, AlreadyRunningError } from "../../dist/pid-file.js";

const CALLS = [
  "closeSync",
  "fstatSync",
  "linkSync",
  "lstatSync",
  "openSync",
  "readSync",
  "renameSync",
  "unlinkSync",
  "writeFileSync",
];

let held;

async function acquire({ path, replaces, signal, call }) {
  if (signal) signalAt(call, signal);
  try {
    held = await acquirePidFile(path, { replaces });
    return { won: true };
  } catch (error) {
    return error instanceof AlreadyRunningError ? { running: error.pid } : { error: String(error) };
  }
}

/** Says so before it does it, with a call of its own that is not counted. */
function signalAt(call, signal) {
  for (const name of CALLS) {
    const original = fs[name];
    fs[name] = (...args) => {
      if (--call === 0) {
        writeSync(1, '{"reached":true}\n');
        process.kill(process.pid, signal);
      }
      return original(...args);
    };
  }
  syncBuiltinESMExports();
}

async function release({ signal, call }) {
  if (signal) signalAt(call, signal);
  await held?.release();
  return { released: true };
}

if (process.argv[2]) console.log(JSON.stringify(await acquire({ path: process.argv[2] })));
for await (const line of createInterface(process.stdin)) {
  const command = JSON.parse(line);
  console.log(JSON.stringify(await (command.release ? release(command) : acquire(command))));
}
