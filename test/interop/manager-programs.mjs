/*
 * Random programs for a Manager: what is done from outside, and what tasks, hooks and observers do. And how one of them
 * reads, printed as its steps.
 */
import fc from "fast-check";

export const KINDS = { main: "run", ephemeral: "runEphemeral", background: "runBackground" };

/** One of these arbitraries, as often as its weight says; it shrinks to the first. */
function oneOf(...pairs) {
  return fc.oneof({ withCrossShrink: true }, ...pairs.map(([weight, arbitrary]) => ({ weight, arbitrary })));
}

function few(arbitrary, maxLength, minLength = 0) {
  return fc.array(arbitrary, { minLength, maxLength, size: "max" });
}

function does(act, details = {}) {
  return fc.record({ does: fc.constant(act), ...details });
}

const rarely = fc.constantFrom(false, false, false, false, true);

const who = fc.nat(6);

const kind = fc.constantFrom("main", "ephemeral", "ephemeral", "background");

const reason = fc.constantFrom("none", "an error", "the common error", "a string", "null", "an AbortError");

/** How a promise does not resolve. */
const rejection = fc.constantFrom(
  "fails",
  "fails with the common error",
  "panics",
  "panics with undefined",
  "rejects with the reason",
  "rejects with a bare AbortError",
  "rejects with an AbortError for the reason",
  "rejects with an AbortError for something else",
);

const ending = oneOf([1, fc.constant("returns")], [1, rejection]);

/** What comes of a call: it waits until it is ended by another, or ends at once, also in one of these other ways. */
function fate(...others) {
  return oneOf([8, fc.constant("waits")], [4, ending], [1, fc.constantFrom(...others)]);
}

/** Something that is done; tasks and hooks do such things, too, which are simpler the deeper they stand. */
function actArbitrary(depth) {
  const acts = depth === 0 ? fc.constant([]) : oneOf([3, fc.constant([])], [1, few(actArbitrary(depth - 1), 2)]);
  /** `first` is done when it is run, `whenTold` when its signal aborts, which it then follows, or not. */
  const task = fc.record({
    naming: fc.constantFrom("named object", "function", "class", "object", "nameless"),
    first: acts,
    then: fate("throws", "panics at once", "returns no promise"),
    whenTold: acts,
    told: oneOf([3, ending], [1, fc.constant("ignores it")]),
    isTwice: rarely,
  });
  const endsHook = does("end a hook", { who, how: ending });
  const hook = fc.record({
    naming: fc.constantFrom("function", "nameless"),
    first: oneOf([4, acts], [1, few(endsHook, 1)]),
    then: fate("returns nothing", "throws", "panics at once"),
    isTwice: rarely,
  });
  const tasks = oneOf([6, few(task, 3, 1)], [1, fc.constant([])]);
  return oneOf(
    [8, does("wait")],
    [2, does("stop", { reason })],
    [2, does("abort the parent", { reason })],
    [1, does("dispose")],
    [30, does("end a task", { who, how: ending })],
    [40, does("run", { kind, tasks })],
    [20, does("register a hook", { hook })],
    [1, does("run what is no task", { kind, tasks })],
    [1, does("register what is no hook")],
    ...(depth > 0 ? [[20, endsHook]] : []),
  );
}

const time = does("let time pass", { milliseconds: fc.constantFrom(1, 9, 10, 4_999, 5_000, 15_000, 19_999, 20_000) });

/** A step is the last one of its turn, or the next one follows before anything is heard of. */
const step = fc.record({ act: oneOf([9, actArbitrary(2)], [1, time]), isTurn: rarely.map((isRare) => !isRare) });

const timeout = fc.constantFrom(undefined, undefined, 0, 10, Infinity, 2 ** 31);

const observer = fc.record({
  manner: fc.constantFrom("quiet", "throws", "rejects"),
  acts: few(fc.record({ at: fc.nat(20), act: actArbitrary(1) }), 3),
});

/** A manager, what is done from outside, one after the other, and what is done when it tells something. */
export const program = fc.record({
  name: fc.constantFrom("", "group"),
  limit: fc.constantFrom(undefined, 1, 2, 3),
  shutdownTimeout: timeout,
  cleanupTimeout: timeout,
  parent: oneOf([10, fc.constant("none")], [20, fc.constant("waits")], [1, fc.constant("has aborted")]),
  observer: fc.option(observer, { freq: 8 }),
  /** What is done when the shared signal aborts. */
  whenStopped: oneOf([4, fc.constant([])], [1, few(actArbitrary(1), 2)]),
  /** Whether it is looked at what becomes of `wait()` only when all is over. */
  looksLate: fc.constantFrom(false, false, true),
  steps: few(step, 14),
  /** How what still runs at the end is brought to its end. */
  ending: fc.constantFrom("all end", "time passes"),
});

/** Names all tasks and hooks of a program, in the order in which they are printed. */
export function namesIn(program) {
  const names = new Map();
  const counts = { t: 0, h: 0 };
  const add = (spec, letter) => {
    names.set(spec, `${letter}${++counts[letter]}`);
    for (const act of [...spec.first, ...(spec.whenTold ?? [])]) visit(act);
  };
  const visit = ({ tasks = [], hook }) => {
    for (const task of tasks) add(task, "t");
    if (hook) add(hook, "h");
  };
  for (const act of actsOf(program)) visit(act);
  return names;
}

function actsOf({ observer, whenStopped, steps }) {
  return [...(observer?.acts ?? []).map(({ act }) => act), ...whenStopped, ...steps.map(({ act }) => act)];
}

/** Prints a program as its steps, with what each task and hook does by itself. */
export function print(program, { names, model }) {
  const { name, limit, shutdownTimeout, cleanupTimeout, parent, observer, whenStopped, looksLate, steps } = program;
  const options = Object.entries({ name: name || undefined, limit, shutdownTimeout, cleanupTimeout });
  const given = options.filter(([, value]) => value !== undefined).map((pair) => pair.join(": "));
  const parents = { "none": "", "waits": ", with a parent", "has aborted": ", with a parent that has aborted" };

  function spec({ naming, first, then, whenTold = [], told = "ignores it", isTwice }) {
    const parts = [
      naming === "named object" || naming === "function" ? "" : `(${naming})`,
      isTwice ? "twice" : "",
      first.length ? `first ${acts(first)}` : "",
      then,
      whenTold.length ? `when told ${acts(whenTold)}` : "",
      told === "ignores it" ? "" : `told, ${told}`,
    ];
    return `{ ${parts.filter(Boolean).join("; ")} }`;
  }
  const named = (one) => `${names.get(one)} ${spec(one)}`;
  const acts = (list) => list.map(act).join(", then ");

  function act(one) {
    switch (one.does) {
      case "stop":
        return `stop(${one.reason === "none" ? "" : one.reason})`;
      case "abort the parent":
        return `the parent aborts (${one.reason === "none" ? "" : one.reason})`;
      case "run":
        return `${KINDS[one.kind]}(${one.tasks.map(named).join(", ")})`;
      case "run what is no task":
        return `${KINDS[one.kind]}(${[...one.tasks.map(named), "no task"].join(", ")})`;
      case "register a hook":
        return `cleanup(${named(one.hook)})`;
      case "register what is no hook":
        return "cleanup(no hook)";
      case "end a task":
      case "end a hook":
        return `${model.targets.get(one)?.join(", then ") ?? "nobody"} ${one.how}`;
      case "let time pass":
        return `${one.milliseconds} ms pass`;
      default:
        return `${one.does}()`;
    }
  }

  return [
    `new Manager({ ${given.join(", ")} })${parents[parent]}${looksLate ? ", awaited late" : ""}`.replace("{  }", ""),
    ...(observer ? [`an observer that ${observer.manner === "quiet" ? "is quiet" : observer.manner}`] : []),
    ...(observer?.acts ?? []).map((one) => `  at event ${one.at}: ${act(one.act)}`),
    ...(whenStopped.length ? [`when the shared signal aborts: ${acts(whenStopped)}`] : []),
    ...steps.map((one, index) => `${index + 1}. ${act(one.act)}${one.isTurn ? "" : ", and in the same turn"}`),
    ...(program.ending === "all end" ? [] : [`at last, ${program.ending}`]),
  ].join("\n");
}
