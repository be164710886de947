// What is opened first is closed last, also when the block is left early. No failing hook keeps another one from running.
import { CleanupError, Manager } from "allstop";

async function serve(): Promise<void> {
  await using manager = new Manager(); // stop() at the end of the block

  console.log("open the database");
  manager.cleanup(() => console.log("close the database"));

  console.log("open the queue");
  manager.cleanup(() => {
    throw new Error("the queue is gone");
  });

  console.log("open the log");
  manager.cleanup(() => console.log("close the log"));

  manager.runEphemeral(async () => console.log("migrate"));
}

await serve().catch((error: unknown) => {
  if (error instanceof CleanupError) console.log(`${error.message}: ${error.errors}`);
});
