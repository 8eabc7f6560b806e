/**
 * The options of commands that a policy has a say in.
 *
 * @module
 */

import { object } from "@optique/core/constructs";
import { type Message, message } from "@optique/core/message";
import { multiple, optional } from "@optique/core/modifiers";
import { option } from "@optique/core/primitives";
import { pathValue, valueParser } from "./options.ts";
import type { Parsed } from "./values.ts";

/** Labels of one VM: each is a word, and all of them go to the policy in one line. */
const MAX_LABELS = 64;

/** What a command with a policy was told. */
export interface PolicyOptions {
  /** The policy's file. */
  policy: string | undefined;
  /** A level of it. */
  sensitivity: string | undefined;
  /** What the operator calls the VM. */
  labels: readonly string[];
}

/** A level's name; whether the policy has it is known once that is loaded. */
export const sensitivityValue = valueParser(parseSensitivity, {
  metavar: "LEVEL",
  format: String,
  placeholder: "level",
});

const labelValue = valueParser(parseLabel, {
  metavar: "LABEL",
  format: String,
  placeholder: "label",
});

/** The parser of `--label`, any number of times. */
export const labelsOption = multiple(
  option("--label", labelValue, {
    description: message`What the VM is called for the policy's select; may be repeated.`,
  }),
  { max: MAX_LABELS },
);

/** The parser of {@linkcode PolicyOptions}; `sensitivity` says what `--sensitivity` means to the command. */
export function policyOptions({ sensitivity }: { sensitivity: Message }) {
  return object("Policy", {
    policy: optional(option("--policy", pathValue("FILE"), {
      description:
        message`What protects which VM: a TypeScript file, which runs without any permission. See sealift policy check.`,
    })),
    sensitivity: optional(
      option("--sensitivity", sensitivityValue, { description: sensitivity }),
    ),
    labels: labelsOption,
  });
}

/** A label: printable, and short enough for a word. */
export function parseLabel(text: string): Parsed<string> {
  if (/^[\p{L}\p{N}._:=/@+-]{1,128}$/u.test(text)) return { ok: true, value: text };
  return { ok: false, expected: "a label: letters, digits, . _ : = / @ + -; at most 128" };
}

/** The name of a level. */
export function parseSensitivity(text: string): Parsed<string> {
  if (/^[A-Za-z][A-Za-z0-9._-]{0,63}$/.test(text)) return { ok: true, value: text };
  return {
    ok: false,
    expected: "a level's name: a letter, then letters, digits, . _ -; at most 64",
  };
}
