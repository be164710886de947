import type { LifecycleEvent } from "../events.ts";

type EventType = LifecycleEvent["type"];
type Fields<Type extends EventType> = Omit<Extract<LifecycleEvent, { type: Type }>, "type" | "manager">;

/** Tells an observer of events of one manager. */
export type Tell = <Type extends EventType>(type: Type, fields: Fields<Type>) => void;

/** Makes a {@link Tell}. An observer that throws, or returns a promise that rejects, changes nothing. */
export function teller(observer: (event: LifecycleEvent) => unknown, manager: string): Tell {
  return async (type, fields) => {
    try {
      // These are the parts of one event: the type of `fields` follows from `type`.
      await observer({ type, manager, ...fields } as unknown as LifecycleEvent);
    } catch {
      // Whoever watches a group must not be able to bring it down.
    }
  };
}
