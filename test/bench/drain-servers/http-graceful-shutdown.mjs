import gracefulShutdown from "http-graceful-shutdown";
import { createApplication, GRACE, listen } from "./application.mjs";

const server = createApplication();
gracefulShutdown(server, { timeout: GRACE });
await listen(server);
