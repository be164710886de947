import closeWithGrace from "close-with-grace";
import { createApplication, GRACE, listen } from "./application.mjs";

const server = createApplication();
closeWithGrace({ delay: GRACE }, async () => {
  await new Promise((resolve) => server.close(resolve));
});
await listen(server);
