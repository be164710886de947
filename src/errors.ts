import { show } from "./internal/check.ts";

/** An error that {@link Manager.wait} reports, with where it came from. */
export interface Failure {
  /** The full name of the task; `shutdown` for a {@link ShutdownTimeoutError}, `cleanup` for the errors of hooks. */
  readonly source: string;
  readonly error: Error;
}

/**
 * Why a group was told to stop: the `signal.reason` of a {@link Manager} that ended by itself or by a `stop()` without
 * a reason. Its name and code are those of Node's own `AbortError`, so code that knows the one knows the other.
 */
export class StopReason extends Error {
  /** The full name of the task that caused the stop by its end; absent when no task did. */
  declare readonly task?: string;

  constructor(task?: string, cause?: Error) {
    super(task ? `Stopped by ${task}` : "Stopped", cause && { cause });
    if (task) this.task = task;
  }

  override get name(): string {
    return "AbortError";
  }

  get code(): string {
    return "ABORT_ERR";
  }
}

/** Thrown by a {@link Manager} that takes no more tasks or hooks. Its `cause` is the reason of the stop. */
export class ManagerStoppedError extends Error {
  constructor(action: string, reason: unknown) {
    super(`Cannot ${action}: the manager has stopped`, { cause: reason });
  }

  override get name(): string {
    return "ManagerStoppedError";
  }
}

/** A second `run` of a task that runs only once, or only once at a time. */
export class TaskAlreadyStartedError extends Error {
  declare readonly task: string;

  constructor(task: string) {
    super(`Cannot run ${task}: it has already started`);
    this.task = task;
  }

  override get name(): string {
    return "TaskAlreadyStartedError";
  }
}

/** Something that is no `Error` was thrown, or rejected with. Its `cause` is that value. */
export class PanicError extends Error {
  declare readonly cause: unknown;
  /** How the value was found when nobody caught it, such as `unhandledRejection`; absent when a task threw it. */
  declare readonly origin?: string;

  constructor(cause: unknown, origin?: string) {
    super(`Panicked with ${show(cause)}`, { cause });
    if (origin) this.origin = origin;
  }

  override get name(): string {
    return "PanicError";
  }
}

/** The tasks named in `pending` had not ended `shutdownTimeout` milliseconds after the stop. */
export class ShutdownTimeoutError extends Error {
  declare readonly pending: readonly string[];

  constructor(timeout: number, pending: readonly string[]) {
    super(`Shutdown timed out after ${timeout} ms: ${pending}`);
    this.pending = pending;
  }

  override get name(): string {
    return "ShutdownTimeoutError";
  }
}

/** What hooks threw, in the order in which they ran. */
export class CleanupError extends AggregateError {
  declare readonly errors: Error[];

  constructor(errors: readonly Error[]) {
    super(errors, "Cleanup failed");
  }

  override get name(): string {
    return "CleanupError";
  }
}

/** The hooks named in `pending` had not ended when all hooks together had taken `cleanupTimeout` milliseconds. */
export class CleanupTimeoutError extends Error {
  declare readonly pending: readonly string[];

  constructor(timeout: number, pending: readonly string[]) {
    super(`Cleanup timed out after ${timeout} ms: ${pending}`);
    this.pending = pending;
  }

  override get name(): string {
    return "CleanupTimeoutError";
  }
}
