/**
 * Refuses bad input, in one grammar: `Cannot <action>: <rule>, got <value>`.
 *
 * @throws {TypeError} Unless it holds; or a `RangeError`, for a value of the right type.
 */
export function check(
  holds: boolean,
  action: string,
  rule: string,
  value: unknown,
  Refusal: ErrorConstructor = TypeError,
): void {
  if (!holds) throw new Refusal(`Cannot ${action}: ${rule}, got ${show(value)}`);
}

/** @throws {TypeError} Unless the value is of this type, as `typeof` tells it. */
export function checkType(action: string, what: string, type: string, value: unknown): void {
  check(typeof value === type, action, `${what} must be of type ${type}`, value);
}

/**
 * @throws {TypeError} Unless the option is a number.
 * @throws {RangeError} If it is negative, or NaN.
 */
export function checkMilliseconds(action: string, option: string, value: number): void {
  checkType(action, option, "number", value);
  check(value >= 0, action, `${option} must be 0 or more milliseconds`, value, RangeError);
}

/**
 * @throws {TypeError} Unless the option is a number.
 * @throws {RangeError} Unless it is a whole number above 0, or `Infinity` (whose remainder is NaN).
 */
export function checkCount(action: string, option: string, value: number): void {
  checkType(action, option, "number", value);
  check(value > 0 && !(value % 1), action, `${option} must be a whole number above 0`, value, RangeError);
}

/**
 * @throws {TypeError} Unless the option is a number.
 * @throws {RangeError} Unless that number is as the rule says.
 */
export function checkNumber(action: string, option: string, value: number, holds: boolean, rule: string): void {
  checkType(action, option, "number", value);
  check(holds, action, `${option} must be ${rule}`, value, RangeError);
}

/** Shows any value in a message, without ever throwing. */
export function show(value: unknown): string {
  try {
    return (value as string)?.at ? JSON.stringify(value) : String(value);
  } catch {
    return typeof value;
  }
}
