import { createLightship } from "lightship";
import { createApplication, GRACE, listen } from "./application.mjs";

const server = createApplication();
const lightship = await createLightship({ shutdownHandlerTimeout: GRACE });
// The examples of its README do not wait for `close`; then it ends the process 1 s later, whatever is in flight.
lightship.registerShutdownHandler(() => new Promise((resolve) => server.close(resolve)));
await listen(server);
lightship.signalReady();
