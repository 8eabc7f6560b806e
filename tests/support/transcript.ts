/**
 * Transcripts: commands of a shell with what they print, as tests.
 *
 * ```text
 * # a comment
 * $ sealift key show | tr a-z A-Z
 * 1| a line on stdout
 * 2| a line on stderr
 * = 2
 * ```
 *
 * `= N` is the exit code, 0 when it is absent. In the commands `$DIR` is a fresh directory; in the output it
 * stands for its path. `<key:a>` stands for some public key: the first one is remembered and must come again,
 * also where a later command names it. `<time>` is a time stamp, `<any>` any text within a line.
 *
 * @module
 */

import assert from "node:assert/strict";

/** One command and what it has to print. */
export interface Step {
  /** Line of the transcript, from 1. */
  line: number;
  command: string;
  stdout: string[];
  stderr: string[];
  exitCode: number;
}

/** The steps of a transcript. @throws when a line is of no known kind */
export function parseTranscript(text: string): Step[] {
  const steps: Step[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (line === "" || line.startsWith("#")) continue;
    const rest = line.slice(2).trimStart();
    const step = steps.at(-1);
    if (line.startsWith("$ ")) {
      steps.push({ line: index + 1, command: rest, stdout: [], stderr: [], exitCode: 0 });
    } else if (step !== undefined && line.startsWith("1|")) {
      step.stdout.push(line.slice(3));
    } else if (step !== undefined && line.startsWith("2|")) {
      step.stderr.push(line.slice(3));
    } else if (step !== undefined && /^= \d+$/.test(line)) {
      step.exitCode = Number(rest);
    } else {
      throw new Error(`Cannot read transcript: line ${index + 1} is of no known kind`);
    }
  }
  return steps;
}

const patterns = {
  time: String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`,
  any: ".*?",
} as const;

const keyPattern = "[A-Za-z0-9+/]{43}=";

/** What a transcript has seen so far: keys by name. */
export type Bindings = Map<string, string>;

/** Puts the known keys into a command. */
export function fillIn(command: string, bindings: Bindings): string {
  return command.replace(/<key:(\w+)>/g, (whole, name: string) => {
    const key = bindings.get(name);
    if (key === undefined) throw new Error(`Cannot run transcript: ${whole} is not known yet`);
    return key;
  });
}

/** Compares lines with what was expected, and remembers new keys. */
export function matchLines(actual: string, expected: string[], bindings: Bindings): void {
  const lines = actual === "" ? [] : actual.replace(/\n$/, "").split("\n");
  const matched = lines.length === expected.length &&
    expected.every((line, index) => matchLine(lines[index] ?? "", line, bindings));
  if (!matched) assert.deepEqual(lines, expected);
}

function matchLine(actual: string, expected: string, bindings: Bindings): boolean {
  const names: string[] = [];
  const source = expected.split(/(<key:\w+>|<time>|<any>)/).map((part, index) => {
    if (index % 2 === 0) return RegExp.escape(part);
    if (part === "<time>") return patterns.time;
    if (part === "<any>") return patterns.any;
    const name = part.slice("<key:".length, -1);
    const known = bindings.get(name);
    if (known !== undefined) return RegExp.escape(known);
    names.push(name);
    return `(${keyPattern})`;
  }).join("");
  const match = new RegExp(`^${source}$`).exec(actual);
  if (match === null) return false;
  names.forEach((name, index) => bindings.set(name, match[index + 1] ?? ""));
  return true;
}
