import stoppable from "stoppable";
import { createApplication, GRACE, listen } from "./application.mjs";

const server = stoppable(createApplication(), GRACE);
process.on("SIGTERM", () => server.stop());
await listen(server);
