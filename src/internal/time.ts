/** The longest delay that `setTimeout` takes. A longer one would pass after 1 ms. */
const LONGEST_DELAY = 2 ** 31 - 1;

export type Timer = ReturnType<typeof setTimeout>;

/**
 * Calls back once after so many milliseconds; never if they are more than `setTimeout` takes, which is no limit. Either
 * way the process is kept alive, until `clearTimeout`.
 */
export function startTimer(milliseconds: number, onPassed: () => void): Timer {
  return milliseconds > LONGEST_DELAY ? setInterval(() => {}, LONGEST_DELAY) : setTimeout(onPassed, milliseconds);
}
