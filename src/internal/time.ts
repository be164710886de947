/** The longest delay that `setTimeout` takes. A longer one would pass after 1 ms. */
const LONGEST_DELAY = 2 ** 31 - 1;

export type Timer = ReturnType<typeof setTimeout>;

/** Calls back once after so many milliseconds, or never, if that is more than `setTimeout` takes: it is no limit. */
export function startTimer(milliseconds: number, onPassed: () => void): Timer {
  return milliseconds > LONGEST_DELAY ? keepAlive() : setTimeout(onPassed, milliseconds);
}

/** Keeps the process alive until `clearTimeout`, as neither a pending promise nor a signal listener does. */
export function keepAlive(): Timer {
  return setInterval(() => {}, LONGEST_DELAY);
}
