import { beforeAll } from "vitest";

/** Hands the change that is looked at on to the processes that the tests start. */
beforeAll(() => {
  const { activeMutant } = (globalThis as { __stryker__?: { activeMutant?: string } }).__stryker__ ?? {};
  if (activeMutant !== undefined) process.env["__STRYKER_ACTIVE_MUTANT__"] = activeMutant;
});
