/** Lets so many microtasks run. */
export async function microtasks(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await null;
}
