/**
 * `inspect`: which memory of a running VM belongs to its processes, which to its kernel, and which to nobody.
 *
 * @module
 */

import { merge, object } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { optional } from "@optique/core/modifiers";
import { command, constant, option } from "@optique/core/primitives";
import { type CommonOptions, commonOptions, examples, pathValue } from "./options.ts";

/** What `inspect` was told. */
export interface InspectOptions extends CommonOptions {
  command: "inspect";
  /** The VM's monitor. */
  qmp: string;
  /** Where the picture goes; none when absent. */
  svg: string | undefined;
}

/** The parser of {@linkcode InspectOptions}. */
export const inspectCommand = command(
  "inspect",
  merge(
    object({
      command: constant("inspect"),
      qmp: option("--qmp", pathValue("PATH"), {
        description: message`QMP socket of the VM, which runs on unchanged.`,
      }),
      svg: optional(option("--svg", pathValue("FILE"), {
        description: message`Draw the class of each piece of memory into this file.`,
      })),
    }),
    commonOptions,
  ),
  {
    brief: message`Which memory of a VM its processes have, and which its kernel.`,
    description:
      message`Reads the page tables of an x86-64 Linux guest from outside. Classes: user (mapped by a process), kernelText (the kernel's code), kernelData (everything else that the kernel maps), unmapped; pages of zeros are counted apart. Where the page tables cannot be read, every page is user.`,
    footer: examples(
      "sealift inspect --qmp /run/vm1.qmp",
      "sealift inspect --qmp /run/vm1.qmp --svg vm1.svg",
      "sealift inspect --qmp /run/vm1.qmp --json",
    ),
  },
);

/** Runs it. @returns the exit code */
export async function executeInspect(options: InspectOptions): Promise<number> {
  const { runInspect } = await import("./inspect_run.ts");
  return await runInspect(options);
}
