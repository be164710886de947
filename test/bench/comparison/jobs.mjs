/*
 * The same kinds of jobs as each library writes them: async functions for most, effects and generators for two.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Effect } from "effect";
import * as effection from "effection";

/** How long a job that nobody tells to stop goes on, and how long the pauses of jobs are, in milliseconds. */
export const PATIENCE = 150;
export const PAUSE = 10;

/** Jobs that are async functions; those that some libraries give a signal look at it. */
export const functions = {
  returns: (value) => async () => {
    await sleep(PAUSE);
    return value;
  },
  fails: (error) => async () => {
    await sleep(PAUSE);
    throw error;
  },
  /** Waits to be told to stop, and then cleans up. */
  waits: (log, cleanup = { time: PAUSE }) => async (signal) => {
    const told = await sleep(PATIENCE, false, { signal }).catch(() => true);
    if (told) log.push("told");
    await sleep(cleanup.time);
    if (cleanup.error) throw cleanup.error;
    log.push("ended");
  },
  /** Goes on in steps, and looks at no signal. */
  steps: (log) => async () => {
    for (let step = 0; step < PATIENCE / PAUSE; step++) {
      log.push(step);
      await sleep(PAUSE);
    }
  },
  call: (action) => async () => action(),
};

export const effects = {
  returns: (value) => Effect.sleep(PAUSE).pipe(Effect.as(value)),
  fails: (error) => Effect.sleep(PAUSE).pipe(Effect.andThen(Effect.fail(error))),
  waits: (log, cleanup = { time: PAUSE }) => {
    const end = cleanup.error ? Effect.die(cleanup.error) : Effect.sync(() => log.push("ended"));
    return Effect.sleep(PATIENCE).pipe(
      Effect.onInterrupt(() => Effect.sync(() => log.push("told"))),
      Effect.ensuring(Effect.sleep(cleanup.time).pipe(Effect.andThen(end))),
    );
  },
  steps: (log) =>
    Effect.gen(function* () {
      for (let step = 0; step < PATIENCE / PAUSE; step++) {
        log.push(step);
        yield* Effect.sleep(PAUSE);
      }
    }),
  call: (action) => Effect.sync(action),
};

export const operations = {
  *returns(value) {
    yield* effection.sleep(PAUSE);
    return value;
  },
  *fails(error) {
    yield* effection.sleep(PAUSE);
    throw error;
  },
  *waits(log, cleanup = { time: PAUSE }) {
    let isOver = false;
    try {
      yield* effection.sleep(PATIENCE);
      isOver = true;
    } finally {
      if (!isOver) log.push("told");
      yield* effection.sleep(cleanup.time);
      if (cleanup.error) throw cleanup.error;
      log.push("ended");
    }
  },
  *steps(log) {
    for (let step = 0; step < PATIENCE / PAUSE; step++) {
      log.push(step);
      yield* effection.sleep(PAUSE);
    }
  },
  *call(action) {
    return action();
  },
};
