import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";

/** A port that is free on loopback, and from below those that a system gives whoever listens at port 0. */
export async function unusedPort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 30_000);
    const server = createServer().listen(port, "127.0.0.1");
    try {
      await once(server, "listening");
      await once(server.close(), "close");
      return port;
    } catch {
      // It is taken.
    }
  }
}
