/**
 * What a first-time user needs: the `Manager`, the contract of its tasks, the signals of the operating system, and the
 * errors and events that come out of them.
 *
 * @module
 */
export {
  CleanupError,
  CleanupTimeoutError,
  type Failure,
  ManagerStoppedError,
  PanicError,
  ShutdownTimeoutError,
  StopReason,
  TaskAlreadyStartedError,
} from "./errors.ts";
export { type LifecycleEvent, type Logger, logEvents, type TaskKind, type TaskOutcome } from "./events.ts";
export { Manager, type ManagerOptions } from "./manager.ts";
export { type OsSignalOptions, OsSignalTask } from "./os-signal-task.ts";
export type { Task, TaskLike } from "./task.ts";
