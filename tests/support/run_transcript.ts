/**
 * Runs the commands of a transcript and compares what they print.
 *
 * @module
 */

import assert from "node:assert/strict";
import { fillIn, matchLines, parseTranscript } from "./transcript.ts";

const root = new URL("../../", import.meta.url).pathname;

/** Where a transcript's commands run. */
export interface TranscriptWorld {
  /** For messages. */
  name: string;
  /** `$DIR`; the state directory is in it. */
  directory: string;
  /** Further variables: in the output each value reads as its name, `$PORT` for instance. */
  words?: Readonly<Record<string, string>>;
}

/** Fails at the first command that prints something else, or ends with another exit code. */
export async function runTranscript(text: string, world: TranscriptWorld): Promise<void> {
  const steps = parseTranscript(text);
  assert.ok(steps.length > 0);
  const bindings = new Map<string, string>();
  for (const step of steps) {
    const { code, stdout, stderr } = await run(fillIn(step.command, bindings), world);
    try {
      matchLines(stdout, step.stdout, bindings);
      matchLines(stderr, step.stderr, bindings);
      assert.equal(code, step.exitCode, `exit code ${code}; stderr: ${stderr}`);
    } catch (error) {
      const { message } = error as Error;
      throw new Error(`${world.name}:${step.line}: $ ${step.command}\n${message}`, {
        cause: error,
      });
    }
  }
}

/** Runs a command of a transcript in a shell that knows `sealift`. */
async function run(command: string, { directory, words = {} }: TranscriptWorld) {
  const script =
    `sealift() { "$DENO" run -A --no-prompt "$ROOT/cli/migrate.ts" "$@"; }\n${command}`;
  const { code, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-c", script],
    cwd: directory,
    clearEnv: true,
    env: {
      ...words,
      PATH: Deno.env.get("PATH") ?? "",
      DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`,
      DENO: Deno.execPath(),
      ROOT: root,
      DIR: directory,
      HOME: directory,
      SEALIFT_STATE_DIR: `${directory}/state`,
      NO_COLOR: "1",
    },
    stdin: "null",
  }).output();
  // A path in the directory before the directory, a longer port before a shorter one.
  const names = [...Object.entries(words), ["DIR", directory] as const]
    .toSorted(([, a], [, b]) => b.length - a.length);
  const decode = (bytes: Uint8Array) =>
    names.reduce(
      (text, [name, value]) => text.replaceAll(pattern(value), `$$${name}`),
      new TextDecoder().decode(bytes),
    );
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}

/** A value in the output; a number is not part of a longer one. */
function pattern(value: string): RegExp {
  const text = RegExp.escape(value);
  return new RegExp(/^\d+$/.test(value) ? `\\b${text}\\b` : text, "g");
}
