/*
 * The programs of main.test.mjs and of the bench; the first argument says which.
 */
import { once } from "node:events";
import { runMain } from "../../dist/main.js";

const [way, ...args] = process.argv.slice(2);

const ways = {
  /** Until a signal. */
  service: () => runMain((manager) => manager.run(serve)),

  /** Prints more than a pipe takes, and may leave something open. */
  prints: () =>
    runMain(() => {
      process.stdout.write(`${"x".repeat(1_000_000)}\n`);
      process.stderr.write(`${"y".repeat(500_000)}\n`);
      if (args.includes("end")) process.stdout.end("the end\n");
      if (args.includes("leak")) setInterval(() => {}, 1_000);
    }, { exitTimeout: 50 }),

  /** Tells many errors, and of itself writes to a stderr that may be gone. */
  fails: () =>
    runMain(async (manager) => {
      process.on("exit", (code) => process.stdout.write(`exit ${code} after ${errors} errors\n`));
      let errors = 0;
      process.on("uncaughtException", () => errors++ > 100 && process.exit(99));
      manager.cleanup(() => new Promise((resolve) => setTimeout(resolve, 100)));
      manager.run(serve);
      await once(process.stdin.resume(), "end");
      if (args.includes("much")) process.stderr.write(`${"y".repeat(500_000)}\n`);
      for (let i = 0; i < 20; i++) void Promise.reject(new Error(`rejected ${i}`));
      for (let i = 0; i < 20; i++) {
        setTimeout(() => {
          throw new Error(`thrown ${i}`);
        }, i);
      }
      setTimeout(() => console.error("written"), 50);
      setTimeout(() => process.stderr.write("written\n"), 60);
    }),

  /** Is left in the middle by an error of its own module. */
  throws() {
    void runMain((manager) => {
      manager.cleanup(() => console.log("cleaned up"));
      manager.run(serve);
    });
    throw new Error("top level");
  },

  /** Leaves open what the argument says. */
  async leaks() {
    const open = {
      server: async () => (await import("node:net")).createServer().listen(0),
      watcher: async () => (await import("node:fs")).watch("."),
      child: async () => (await import("node:child_process")).spawn("sleep", ["5"]),
      worker: async () => new (await import("node:worker_threads")).Worker("setInterval(() => {}, 9)", { eval: true }),
      stdin: async () => process.stdin.resume(),
      nothing: async () => console.log("all closed"),
    };
    await runMain(open[args[0]], { exitTimeout: 50 });
  },
};

function serve(signal) {
  console.log("ready");
  return once(signal, "abort");
}

await ways[way]();
