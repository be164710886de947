/*
 * A program of a user, which uses all that allstop/group exports. It is compiled, never run.
 */
import { type Failure, Manager, type ManagerOptions, type Task } from "allstop";
import { type GroupOptions, GroupTask } from "allstop/group";

const options: GroupOptions = { shutdownTimeout: 10_000, cleanupTimeout: 1_000, limit: 4, onEvent: console.log };

// They are those of a manager, but for its name and its parent.
export const ofManager: Omit<ManagerOptions, "name" | "signal"> = options;

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults: Task = new GroupTask("group", () => {}, {
  shutdownTimeout: undefined,
  cleanupTimeout: undefined,
  limit: undefined,
  onEvent: undefined,
});

export const withErrors = [
  // @ts-expect-error It is named by its first argument.
  new GroupTask("group", () => {}, { name: "group" }),
  // @ts-expect-error Its parent is the group it runs in.
  new GroupTask("group", () => {}, { signal: AbortSignal.abort() }),
];

export async function main(): Promise<void> {
  const manager = new Manager();
  const orders = new GroupTask("orders", fill, options);
  manager.run(orders, new GroupTask("outer", (outer) => outer.run(new GroupTask("inner", (inner) => inner.run()))));
  manager.run(new GroupTask("later", async (group) => group.run(async () => {})));
  const run: Promise<void> = orders.run(manager.signal);
  await run.catch(() => manager.wait());
  const failures: readonly Failure[] = orders.failures;
  console.log(orders.name.toUpperCase(), ...failures.map(({ source }) => source));
}

function fill(manager: Manager): void {
  manager.cleanup(() => {});
}
