import type { Task, TaskLike } from "../task.ts";
import { check } from "./check.ts";

/** @throws {TypeError} Unless it is a function, or an object with a method `run`. */
export function checkTask(action: string, task: TaskLike): void {
  const isTask = typeof task === "function" || typeof task?.run === "function";
  check(isTask, action, "it must be a function or have a run method", task);
}

/** Names a task: by its own `name`, else by its class, else as the caller says. */
export function taskName(task: Task["run"] | Pick<Task, "name">, fallback: string): string {
  // An object without a prototype has no constructor, whatever its type says.
  return task.name || (typeof task === "object" && task.constructor !== Object && task.constructor?.name) || fallback;
}

/**
 * Calls a task.
 *
 * @throws Whatever it throws instead of returning a promise.
 * @throws {TypeError} If it returns anything else.
 */
export function callTask(task: TaskLike, name: string, signal: AbortSignal): PromiseLike<unknown> {
  const promise = typeof task === "function" ? task(signal) : task.run(signal);
  check(typeof promise?.then === "function", `run ${name}`, "it must return a promise", promise);
  return promise;
}
