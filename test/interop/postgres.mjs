/*
 * A PostgreSQL server of one's own: in a temporary folder, behind a unix socket there, and gone after the test.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chown, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import pg from "pg";
import { run, start } from "./support.mjs";

const debian = "/usr/lib/postgresql";

/** Makes an empty database without a server, which is started and killed as the test likes. */
export async function createDatabase(t) {
  const programs = await findPrograms();
  const owner = await findOwner();
  const folder = await mkdtemp(join(tmpdir(), "allstop-"));
  let server;
  t.after(async () => {
    // An immediate shutdown, without which its shared memory would stay.
    server?.kill("SIGQUIT");
    await server?.ended;
    await rm(folder, { recursive: true, force: true });
  });
  if (owner.uid !== undefined) await chown(folder, owner.uid, owner.gid);
  const data = join(folder, "data");
  const inFolder = { cwd: folder, ...owner };
  const options = ["--username=shop", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"];
  await run(t, join(programs, "initdb"), [`--pgdata=${data}`, ...options], inFolder);

  return {
    /** The variables by which a client finds it. */
    env: { PGHOST: folder, PGPORT: "5432", PGUSER: "shop", PGDATABASE: "postgres" },

    /** Starts the server, and waits until it answers. */
    async start() {
      // No TCP; and nothing here switches the machine off, which is what syncing is for.
      const settings = ["listen_addresses=", `unix_socket_directories=${folder}`, "fsync=off"];
      const args = ["-D", data, ...settings.flatMap((setting) => ["-c", setting])];
      server = start(t, join(programs, "postgres"), args, inFolder);
      await server.printed("database system is ready to accept connections", "stderr");
    },

    /** A client of the server, which may be killed. */
    async connect() {
      const client = new pg.Client({ host: folder, port: 5432, user: "shop", database: "postgres" });
      client.on("error", () => {});
      await client.connect();
      return client;
    },

    /** Kills the server, and waits until the last of its processes is gone: each has its standard error. */
    async kill() {
      server.kill("SIGKILL");
      assert.equal((await server.ended).signal, "SIGKILL");
    },

    /** Ends the server, which it does once the last client has left. */
    async stop() {
      server.kill("SIGTERM");
      const { code, stderr } = await server.ended;
      assert.equal(code, 0, stderr);
    },
  };
}

async function findPrograms() {
  const versions = existsSync(debian) ? await readdir(debian) : [];
  versions.sort((one, other) => other - one);
  const folders = [...process.env.PATH.split(delimiter), ...versions.map((version) => join(debian, version, "bin"))];
  const found = folders.find((folder) => ["initdb", "postgres"].every((program) => existsSync(join(folder, program))));
  assert.ok(found, "There is no PostgreSQL server: as root, `apt-get install postgresql`, which .ci/run does");
  return found;
}

/** The server refuses to be root's. */
async function findOwner() {
  if (process.getuid() !== 0) return {};
  const [, uid, gid] = /^nobody:[^:]*:(\d+):(\d+):/m.exec(await readFile("/etc/passwd", "utf8"));
  return { uid: Number(uid), gid: Number(gid) };
}
