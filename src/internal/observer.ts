import type { LifecycleEvent } from "../events.ts";
import { checkType } from "./check.ts";

/** What is told of events, and never throws. */
export type Observer<Event = LifecycleEvent> = (event: Event) => void;

/**
 * Makes an {@link Observer} of the option `onEvent`, whatever that throws or rejects with.
 *
 * @throws {TypeError} If it is no function.
 */
export function observer<Event>(action: string, onEvent: (event: Event) => unknown): Observer<Event>;
export function observer<Event = LifecycleEvent>(
  action: string,
  onEvent: ((event: Event) => unknown) | undefined,
): Observer<Event> | undefined;
export function observer<Event>(
  action: string,
  onEvent: ((event: Event) => unknown) | undefined,
): Observer<Event> | undefined {
  if (onEvent === undefined) return undefined;
  checkType(action, "onEvent", "function", onEvent);
  return async (event) => {
    try {
      await onEvent(event);
    } catch {
      // Whoever watches a group must not be able to bring it down.
    }
  };
}
