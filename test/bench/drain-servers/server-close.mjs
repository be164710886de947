import { createApplication, listen } from "./application.mjs";

const server = createApplication();
process.on("SIGTERM", () => server.close());
await listen(server);
