/**
 * `demo`: a live migration on this machine, of a Linux guest between two QEMUs or of a micro-VM between two processes.
 *
 * @module
 */

import { merge, object } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { optional, withDefault } from "@optique/core/modifiers";
import { command, constant, option } from "@optique/core/primitives";
import { choice } from "@optique/core/valueparser";
import { DEFAULT_MICRO_MEMORY_MIB } from "./micro_options.ts";
import { type CommonOptions, commonOptions, countValue, examples, rateValue } from "./options.ts";
import { cipherOption, type ProtectionOptions, protectionOptions } from "./protection_options.ts";
import { parseMicroMemory } from "./values.ts";

/** Guests that the demo can boot. */
export const demoVms = ["linux", "micro"] as const;
/** One of {@linkcode demoVms}. */
export type DemoVm = typeof demoVms[number];

/** What `demo` was told. */
export interface DemoOptions extends CommonOptions, ProtectionOptions {
  command: "demo";
  vm: DemoVm;
  /** Leave the migrated VM running, and its files in place. */
  keep: boolean;
  /** The guest's own default when undefined. */
  memoryMiB: number | undefined;
  /** Bytes per second that the guest's load dirties; the guest's own default when undefined. */
  dirtyRate: number | undefined;
  /** The suite; undefined leaves it to the policy, or is the profile's default. */
  cipher: string | undefined;
}

/** The parser of {@linkcode DemoOptions}. */
export const demoCommand = command(
  "demo",
  merge(
    object({
      command: constant("demo"),
      vm: withDefault(
        option("--vm", choice(demoVms, { metavar: "VM" }), {
          description: message`The guest; micro needs no QEMU, only /dev/kvm.`,
        }),
        "linux",
      ),
      keep: option("--keep", {
        description: message`Leave the migrated VM running (linux only).`,
      }),
      memoryMiB: optional(
        option("--memory", countValue({ min: 4, max: 1_048_576, metavar: "MIB" }), {
          description: message`The guest's memory in MiB (default: 256; for micro 64).`,
        }),
      ),
      dirtyRate: optional(option("--dirty-rate", rateValue, {
        description: message`How fast the guest writes to its memory, such as 50MiB/s.`,
      })),
      cipher: cipherOption,
    }),
    protectionOptions({
      sensitivity: message`The VM's level, in the place of what the policy's select says.`,
    }),
    commonOptions,
  ),
  {
    brief:
      message`Boot a Linux guest, move it live and sealed between two QEMUs here, prove that it arrived.`,
    footer: examples(
      "sealift demo",
      "sealift demo --memory 1024 --dirty-rate 100MiB/s --json",
      "sealift demo --vm micro",
      "sealift demo --policy scripts/policies/by_label.ts --label pci",
      "sealift demo --profile paper",
    ),
  },
);

/** A demo that can be run. */
export interface DemoPlan extends DemoOptions {
  memoryMiB: number;
}

/** Debian's cloud kernel needs 96 MiB. */
const LEAST_LINUX_MIB = 96;
const DEFAULT_LINUX_MIB = 256;

/** What is to be run. @throws {CliError} `usage` when the guest cannot be had like that */
async function plan(options: DemoOptions): Promise<DemoPlan> {
  const { vm, keep, memoryMiB } = options;
  const { CliError } = await import("./cli_error.ts");
  if (vm === "linux") {
    if (memoryMiB !== undefined && memoryMiB < LEAST_LINUX_MIB) {
      throw new CliError("usage", `Cannot boot a Linux guest of ${memoryMiB} MiB: too little`, {
        hint: `give --memory ${LEAST_LINUX_MIB} or more; --vm micro does with 4`,
      });
    }
    return { ...options, memoryMiB: memoryMiB ?? DEFAULT_LINUX_MIB };
  }
  if (keep) {
    throw new CliError("usage", "Cannot keep a micro-VM: it lives in the demo's own processes", {
      hint: "`sealift receive --micro` keeps one running",
    });
  }
  const parsed = parseMicroMemory(String(memoryMiB ?? DEFAULT_MICRO_MEMORY_MIB));
  if (!parsed.ok) {
    throw new CliError("usage", `Cannot boot a micro-VM of ${memoryMiB} MiB`, {
      hint: `--memory takes ${parsed.expected}`,
    });
  }
  return { ...options, memoryMiB: parsed.value };
}

/** Runs it; what it needs is loaded only now. */
export async function executeDemo(options: DemoOptions): Promise<number> {
  const { runDemo } = await import("./demo_run.ts");
  return await runDemo(await plan(options));
}
