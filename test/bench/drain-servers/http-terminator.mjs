import { createHttpTerminator } from "http-terminator";
import { createApplication, GRACE, listen } from "./application.mjs";

const server = createApplication();
const httpTerminator = createHttpTerminator({ server, gracefulTerminationTimeout: GRACE });
process.on("SIGTERM", () => httpTerminator.terminate());
await listen(server);
