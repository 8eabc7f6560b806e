/**
 * Reads the steps of the model of the switchover, and what its comments call them.
 *
 * @module
 */

/** The two machines. */
export const sides = ["source", "destination"] as const;
/** One of {@linkcode sides}. */
export type Side = typeof sides[number];

/** Steps as the code names them, `finishing -> releasing`; a state whose process ends there, `done ends`. */
export type Steps = Record<Side, Set<string>>;

/** What the model says of itself, and what is wrong with that. */
export interface ModelSteps {
  /** Steps between different states of the code. */
  steps: Steps;
  /** States that the model has. */
  states: Record<Side, Set<string>>;
  /** Options whose comments do not say what their code does. */
  faults: string[];
}

/** The variable that holds a machine's state, what sets it, and the values that end a process. */
const machines = {
  source: {
    variable: "sa",
    prefix: "S_",
    targets: [/\bsa = (\w+)/g, /\bsEnds\((\w+)\)/g],
    ended: ["DEAD", "S_DONE"],
  },
  destination: {
    variable: "da",
    prefix: "D_",
    targets: [/\bda = (\w+)/g],
    ended: ["DEAD"],
  },
} as const;

/** Reads the model's text. */
export function readModel(text: string): ModelSteps {
  const names = new Map<string, { side: Side; state: string }>();
  const states: Record<Side, Set<string>> = { source: new Set(), destination: new Set() };
  for (
    const [, name, side, state] of text.matchAll(
      /^#define (\w+)\s+\d+\s+\/\* (source|destination): (\w+) \*\/$/gm,
    )
  ) {
    names.set(name!, { side: side as Side, state: state! });
    states[side as Side].add(state!);
  }
  const steps: Steps = { source: new Set(), destination: new Set() };
  const faults: string[] = [];
  const body = text.slice(text.indexOf("active proctype"));
  for (const option of withAllRules(body).split(/^:: /m).slice(1)) readOption(option);
  return { steps, states, faults };

  function readOption(option: string): void {
    const code = option.replaceAll(/\/\*[\s\S]*?\*\//g, " ")
      .replaceAll("dEnds()", "da = DEAD").replaceAll("dDiscard()", "da = D_QUIT");
    const exempt = /\/\* (recover|crash) \*\//.exec(option)?.[1];
    for (const side of sides) {
      const said = stepsSaid(option, side);
      const done = exempt === undefined ? stepsDone(code, side) : new Set<string>();
      // An end may be called by any of the machine's last states.
      const matches = said.size === done.size &&
        [...done].every((step) => said.has(step) || [...said].some((other) => isEnd(step, other)));
      if (!matches) {
        faults.push(`${side}: {${[...said]}} is said, {${[...done]}} is done in:: ${option}`);
      }
      for (const step of said) steps[side].add(step);
    }
    // The guard tells: it asks for a process that is recover, or that there is none.
    const recovers = /(?<!!)\b[sd]Rec\b|S_REC|S_WIPE|rec2|D_UNKN|D_RTAK|[sd]a == DEAD/.test(code);
    if (exempt === "recover" && !recovers) faults.push(`not recover's:: ${option}`);
    if (exempt === "crash" && !/\bcrash\b/.test(code)) faults.push(`not a crash:: ${option}`);
  }

  /** Steps of the code of an option: from each state of its guard to each that it sets. `state -> ?` for an end. */
  function stepsDone(code: string, side: Side): Set<string> {
    const machine = machines[side];
    const [guard = ""] = code.split("->");
    const from = Array.from(guard.matchAll(/\b(\w+) == ([SD]_\w+)/g))
      .filter(([, variable]) => variable === machine.variable).map(([, , name]) => name!);
    const to = machine.targets.flatMap((target) =>
      Array.from(code.slice(guard.length).matchAll(target), ([, name]) => name!)
    );
    const done = new Set<string>();
    for (const target of to) {
      if (from.length === 0) faults.push(`${target} is set whatever the state is:: ${code}`);
      for (const start of from) {
        const before = names.get(start);
        if (before === undefined) {
          faults.push(`${start} is nobody's state, and leads to ${target}:: ${code}`);
          continue;
        }
        const ends = (machine.ended as readonly string[]).includes(target);
        const after = ends ? "?" : names.get(target)?.state;
        if (after === undefined) faults.push(`${target} is nobody's state:: ${code}`);
        else if (after !== before.state) done.add(`${before.state} -> ${after}`);
      }
    }
    return done;
  }
}

/** The model without the branches that a switch turns on. */
function withAllRules(text: string): string {
  let hidden = false;
  return text.split("\n").filter((line) => {
    if (/^#ifdef NO_/.test(line)) hidden = true;
    else if (/^#ifndef NO_/.test(line) || /^#endif/.test(line)) hidden = false;
    else if (/^#else/.test(line)) hidden = !hidden;
    else return !hidden;
    return false;
  }).join("\n");
}

/** Steps that an option's comments name. */
function stepsSaid(option: string, side: Side): Set<string> {
  const said = new Set<string>();
  for (const [, list, to] of option.matchAll(commentOf(side))) {
    for (const from of list!.split(", ")) said.add(`${from} ${to}`);
  }
  return said;
}

function commentOf(side: Side): RegExp {
  return new RegExp(`/\\* ${side}: ([\\w, ]+) (-> \\w+|ends) \\*/`, "g");
}

/** Whether `said` may be the name of the end `done`. */
function isEnd(done: string, said: string): boolean {
  const [from, to] = done.split(" -> ");
  if (to !== "?") return false;
  return said === `${from} ends` ||
    ["aborted", "failed", "unknown"].some((end) => said === `${from} -> ${end}`);
}
