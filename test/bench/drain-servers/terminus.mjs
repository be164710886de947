import { createTerminus } from "@godaddy/terminus";
import { createApplication, GRACE, listen } from "./application.mjs";

const server = createApplication();
// `useExit0` is what its README recommends for Kubernetes; else the process ends by the signal itself.
createTerminus(server, { timeout: GRACE, useExit0: true });
await listen(server);
