import { HttpServerTask } from "../../../dist/http.js";
import { runMain } from "../../../dist/main.js";
import { createApplication, GRACE, tellPort } from "./application.mjs";

await runMain(async (manager) => {
  const server = createApplication();
  const http = new HttpServerTask(server, { host: "127.0.0.1", drainTimeout: GRACE });
  manager.run(http);
  await http.ready();
  tellPort(server);
});
