/**
 * `demo`: a live migration of a Linux guest between two QEMUs on this machine.
 *
 * @module
 */

import { merge, object } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { optional, withDefault } from "@optique/core/modifiers";
import { command, constant, option } from "@optique/core/primitives";
import { choice } from "@optique/core/valueparser";
import { type CommonOptions, commonOptions, countValue, examples, rateValue } from "./options.ts";

/** Guests that the demo can boot. */
export const demoVms = ["linux"] as const;
/** One of {@linkcode demoVms}. */
export type DemoVm = typeof demoVms[number];

/** What `demo` was told. */
export interface DemoOptions extends CommonOptions {
  command: "demo";
  vm: DemoVm;
  /** Leave the migrated VM running, and its files in place. */
  keep: boolean;
  memoryMiB: number;
  /** Bytes per second that the guest's load dirties; the guest's own default when undefined. */
  dirtyRate: number | undefined;
}

/** The parser of {@linkcode DemoOptions}. */
export const demoCommand = command(
  "demo",
  merge(
    object({
      command: constant("demo"),
      vm: withDefault(
        option("--vm", choice(demoVms, { metavar: "VM" }), {
          description: message`The guest.`,
        }),
        "linux",
      ),
      keep: option("--keep", {
        description: message`Leave the migrated VM running.`,
      }),
      // Debian's cloud kernel needs 96 MiB.
      memoryMiB: withDefault(
        option("--memory", countValue({ min: 96, max: 1_048_576, metavar: "MIB" }), {
          description: message`The guest's memory in MiB.`,
        }),
        256,
      ),
      dirtyRate: optional(option("--dirty-rate", rateValue, {
        description: message`How fast the guest writes to its memory, such as 50MiB/s.`,
      })),
    }),
    commonOptions,
  ),
  {
    brief:
      message`Boot a Linux guest, move it live and sealed between two QEMUs here, prove that it arrived.`,
    footer: examples("sealift demo", "sealift demo --memory 1024 --dirty-rate 100MiB/s --json"),
  },
);

/** Runs it; what it needs is loaded only now. */
export async function executeDemo(options: DemoOptions): Promise<number> {
  const { runDemo } = await import("./demo_run.ts");
  return await runDemo(options);
}
