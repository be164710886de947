/** Lets all that is due in this turn happen: 50 microtasks, which no chain of the library's comes near. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 50; i++) await null;
}
