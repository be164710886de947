/*
 * The core and the batteries that need nothing of Node's hold on every runtime: their laws, and real signals.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { bun, deno, node, node22, node24, node26, start, temporaryFolder } from "./support.mjs";

const programs = {
  "the laws of the core hold": "laws.portable.mjs",
  "the batteries hold": "batteries.portable.mjs",
};

/** What each of these printed under the first runtime, which it has to print under the others as well. */
const printed = new Map();

for (const { name, command, args } of [node, node22, node24, node26, bun, deno]) {
  test(`under ${name}`, async (t) => {
    const cache = await temporaryFolder(t);
    const startProgram = (t, file, ...rest) => {
      const path = fileURLToPath(new URL(file, import.meta.url));
      return start(t, command, [...args, path, ...rest], { env: { DENO_DIR: cache }, timeout: 20_000 });
    };

    for (const [title, file] of Object.entries(programs)) {
      await t.test(title, async (t) => {
        const program = startProgram(t, file);
        await program.printed(" failed\n");
        // A timer that was left behind, the shortest of which is one of 5 s, would keep it longer.
        const { code, stdout, stderr } = await program.endsWithin(4_000);
        const lines = stdout.trim().split("\n");
        assert.equal(code, 0, stdout + stderr);
        assert.equal(lines.at(-1), `${lines.length - 1} passed, 0 failed`, stdout);
        if (!printed.has(file)) printed.set(file, stdout);
        assert.equal(stdout, printed.get(file));
        t.diagnostic(lines.at(-1));
      });
    }

    for (const behaviour of ["waits for the end", "is told to stop", "would restart it"]) {
      await t.test(`a group whose task never ends, and that ${behaviour}, keeps no program alive`, async (t) => {
        const idle = startProgram(t, "idle.portable.mjs", behaviour);
        await idle.printed("idle\n");
        // The timers that must not are the deadline of its shutdown, of 20 s, and that of its health, of 30 s.
        assert.deepEqual(await idle.endsWithin(4_000), { code: 0, signal: null, stdout: "idle\n", stderr: "" });
      });
    }

    for (const signal of ["SIGTERM", "SIGINT", "SIGQUIT"]) {
      await t.test(`${signal}, repeated, ends a service cleanly`, async (t) => {
        const service = startProgram(t, "os-signal.portable.mjs", "runs");
        await service.printed("ready\n");
        service.kill(signal);
        await service.printed(`got ${signal}\n`);
        service.kill(signal);
        service.kill("SIGUSR2");
        assert.deepEqual(await service.ended, {
          code: 0,
          signal: null,
          stdout: `ready\ngot ${signal}\ncleaned up\nends with 3 listeners\n`,
          stderr: "",
        });
      });
    }

    await t.test("a signal before the task runs is not lost", async (t) => {
      const service = startProgram(t, "os-signal.portable.mjs", "is told before it runs");
      await service.printed("ready\n");
      service.kill("SIGTERM");
      const { code, stdout } = await service.ended;
      assert.equal(code, 0);
      assert.equal(stdout, "ready\ngot SIGTERM\ncleaned up\nends with 3 listeners\n");
    });

    await t.test("a second signal, later, ends a service that hangs in its cleanup", async (t) => {
      const service = startProgram(t, "os-signal.portable.mjs", "hangs in its cleanup");
      await service.printed("ready\n");
      service.kill("SIGTERM");
      await service.printed("listens no more\n");
      service.kill("SIGTERM");
      const { signal, stdout } = await service.ended;
      assert.equal(signal, "SIGTERM");
      assert.equal(stdout, "ready\ngot SIGTERM\nlistens no more\n");
    });

    await t.test("a task that is disposed of leaves a signal its default action", async (t) => {
      const service = startProgram(t, "os-signal.portable.mjs", "is disposed of");
      await service.printed("ready\n");
      service.kill("SIGTERM");
      const { signal, stdout } = await service.ended;
      assert.equal(signal, "SIGTERM");
      assert.equal(stdout, "listeners 0\nready\n");
    });

    await t.test("a stop without a signal leaves no listener", async (t) => {
      const { code, stdout, stderr } = await startProgram(t, "os-signal.portable.mjs", "stops by itself").ended;
      assert.equal(code, 0, stderr);
      assert.equal(stdout, "cleaned up\nends with 0 listeners\n");
    });

    await t.test("a service reloads on SIGHUP, which has its default action again after that task", async (t) => {
      const service = startProgram(t, "signal-trigger.portable.mjs");
      await service.printed("idle\n");
      service.kill("SIGHUP");
      await service.printed("idle again\n");
      service.kill("SIGHUP");
      await service.printed("listeners\n");
      service.kill("SIGHUP");
      assert.deepEqual(await service.ended, {
        code: null,
        signal: "SIGHUP",
        stdout: "idle\nreload 1\nidle again\nreload 2\ncleans up with 0 listeners\n",
        stderr: "",
      });
    });
  });
}
