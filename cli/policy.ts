/**
 * `policy check`: whether a policy is right, and what it would do.
 *
 * @module
 */

import { merge, object, or } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { optional, withDefault } from "@optique/core/modifiers";
import { argument, command, constant, option } from "@optique/core/primitives";
import type { PolicyVm } from "../migration/policy_types.ts";
import {
  type CommonOptions,
  commonOptions,
  examples,
  pathValue,
  peerValue,
  valueParser,
} from "./options.ts";
import { pluginsOption } from "./plugin_options.ts";
import { labelsOption, sensitivityValue } from "./policy_options.ts";
import { type Parsed, parseSize, parseUuid } from "./values.ts";

/** A VM that is only told of. */
export type ToldVm = Omit<PolicyVm, "labels">;

/** What `policy check` was told. */
export interface PolicyCheckOptions extends CommonOptions {
  command: "policy check";
  /** The policy's file. */
  file: string;
  vm: ToldVm;
  labels: readonly string[];
  /** A level, in the place of what `select` says. */
  sensitivity: string | undefined;
  /** The destination. */
  peer: string | undefined;
  /** Files with suites of third parties. */
  plugins: readonly string[];
}

const NO_VM: ToldVm = {
  name: null,
  uuid: "00000000-0000-0000-0000-000000000000",
  memoryBytes: 0,
  machine: "",
};

/** A VM as QEMU's options name one: `name=web1,memory=4GiB`. What is not said is empty, or 0. */
export function parseVm(text: string): Parsed<ToldVm> {
  const vm: { -readonly [Key in keyof ToldVm]: ToldVm[Key] } = { ...NO_VM };
  for (const part of text.split(",")) {
    const [key, value] = [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)];
    if (!part.includes("=") || value === "" || value.length > 255) return { ok: false, expected };
    if (key === "name" || key === "machine") vm[key] = value;
    else if (key === "memory") {
      const size = parseSize(value);
      if (!size.ok) return { ok: false, expected: `memory=SIZE with ${size.expected}` };
      vm.memoryBytes = size.value;
    } else if (key === "uuid") {
      const uuid = parseUuid(value);
      if (!uuid.ok) return { ok: false, expected: `uuid=UUID with ${uuid.expected}` };
      vm.uuid = uuid.value;
    } else return { ok: false, expected };
  }
  return { ok: true, value: vm };
}

const expected = "name=NAME, memory=SIZE, uuid=UUID, machine=TYPE, with commas between them";

const vmValue = valueParser(parseVm, {
  metavar: "VM",
  format: () => "none of it known",
  placeholder: NO_VM,
});

/** The parser of `policy`. */
export const policyCommand = command(
  "policy",
  or(
    command(
      "check",
      merge(
        object({
          command: constant("policy check"),
          file: argument(pathValue("FILE"), {
            description: message`A TypeScript file with export default definePolicy({ ... }).`,
            errors: { endOfInput: message`Missing argument \`FILE\`.` },
          }),
          vm: withDefault(
            option("--vm", vmValue, {
              description: message`What the VM would be, such as name=web1,memory=4GiB.`,
            }),
            NO_VM,
          ),
          labels: labelsOption,
          sensitivity: optional(option("--sensitivity", sensitivityValue, {
            description: message`The VM's level, in the place of what the policy selects.`,
          })),
          peer: optional(option("--peer", peerValue, {
            description: message`Where the VM would go.`,
          })),
          plugins: pluginsOption,
        }),
        commonOptions,
      ),
      {
        brief: message`Whether a policy is right, and what it would do with a VM.`,
        footer: examples(
          "sealift policy check scripts/policies/by_label.ts --label pci",
          "sealift policy check bank.ts --vm name=web1,memory=4GiB --label pci --peer host-b",
          "deno check bank.ts",
        ),
      },
    ),
    { errors: { noMatch: message`Missing command.` } },
  ),
  {
    brief: message`What protects which VM, as a file.`,
    footer: examples("sealift policy check scripts/policies/by_label.ts --label pci"),
  },
);

/** Runs it; what it needs is loaded only now. @returns the exit code */
export async function executePolicy(options: PolicyCheckOptions): Promise<number> {
  const { runPolicyCheck } = await import("./policy_run.ts");
  return await runPolicyCheck(options);
}
