import { microtasks } from "./microtasks.ts";

/** Lets all that is due in this turn happen: 50 microtasks, which no chain of the library's comes near. */
export async function settle(): Promise<void> {
  await microtasks(50);
}
