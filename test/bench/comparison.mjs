/*
 * What allstop and its peers do, and do not: for each question that users ask, and each package, a small experiment
 * (in comparison/), whose outcome is the cell of a table. Where no experiment can tell, there is no question.
 */
import { availableParallelism } from "node:os";
import process from "node:process";
import { GROUP_QUESTIONS } from "./comparison/group-questions.mjs";
import { GROUPS } from "./comparison/groups.mjs";
import { checkMigrating } from "./comparison/migrating.mjs";
import { GROUP_PACKAGE_QUESTIONS, PACKAGE_QUESTIONS } from "./comparison/packages.mjs";
import { SERVICES } from "./comparison/service.mjs";
import { SHUTDOWN_QUESTIONS } from "./comparison/shutdown-questions.mjs";
import { save } from "./report.mjs";

if (!(await checkMigrating())) throw new Error("migrating.md has no program that uses a peer");
const groups = await columns(GROUPS, 1, GROUP_QUESTIONS);
const groupPackages = await columns(
  GROUPS.map(({ name }) => name),
  1,
  GROUP_PACKAGE_QUESTIONS,
);
const services = await columns(SERVICES, availableParallelism(), SHUTDOWN_QUESTIONS);
const servicePackages = await columns(SERVICES, 1, PACKAGE_QUESTIONS);

await save({
  topic: "comparison",
  title: "What they do",
  text: [
    "Each cell is the outcome of an experiment with the package as installed, used as its documentation says",
    '(test/bench/comparison); "-" is a question that does not arise. A "no" may be by design: what runs a queue need',
    "not stop it, what drains a server may leave signals and hooks to you, and to Effect any value is an error. With",
    "one function for the cleanup, the order of its steps, and what follows a failure, are yours to write. Effect has",
    "packages of its own for the parts of a service, which are not compared here. Which requests are lost, and what",
    "all this costs, is in other sections.",
  ].join(" "),
  tables: [
    table("Groups of tasks", groups),
    table("Groups of tasks, as packages", groupPackages),
    table("The shutdown of a service", services),
    table("The shutdown of a service, as packages", servicePackages),
  ],
  remarks: [...ahead(groups), ...ahead(services)],
  plots: [],
});
// What was asked to go on for ever may still do.
process.exit();

/** The answers of all, some of whom are asked at the same time, each one question after the other. */
async function columns(asked, atOnce, questions) {
  const answers = [];
  const turns = asked.entries();
  const ask = async () => {
    for (const [place, each] of turns) {
      const name = each.name ?? each;
      answers[place] = { name, cells: [] };
      for (const [question, experiment] of questions) {
        answers[place].cells.push(await outcome(`${name}, ${question}`, () => experiment(each)));
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, ask));
  return { questions, answers };
}

async function outcome(what, experiment) {
  try {
    return await experiment();
  } catch (error) {
    throw new Error(`The experiment failed: ${what}`, { cause: error });
  }
}

/** What others have, and allstop has not. */
function ahead({ questions, answers: [ours, ...others] }) {
  return questions.flatMap(([question], row) => {
    const names = others.filter(({ cells }) => cells[row] === "yes").map(({ name }) => name);
    return ours.cells[row] === "no" && names.length ? [`Not allstop: ${question}: ${names.join(", ")}.`] : [];
  });
}

function table(title, { questions, answers }) {
  return {
    title,
    header: ["", ...answers.map(({ name }) => name)],
    rows: questions.map(([question], row) => [question, ...answers.map(({ cells }) => cells[row])]),
  };
}
