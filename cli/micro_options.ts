/**
 * The flags of a micro-VM, which lives in the agent's own process.
 *
 * @module
 */

import { object } from "@optique/core/constructs";
import { type Message, message } from "@optique/core/message";
import { optional, withDefault } from "@optique/core/modifiers";
import { flag, option } from "@optique/core/primitives";
import type { Parser } from "@optique/core/parser";
import { countValue, durationValue, rateValue, valueParser } from "./options.ts";
import { parseMicroMemory } from "./values.ts";

/** What has to be the same at both ends. */
export interface MicroShape {
  micro: true;
  memoryMiB: number;
  vcpus: number;
}

/** A micro-VM that leaves. */
export interface MicroGuest extends MicroShape {
  /** Bytes per second that it changes. */
  dirtyRate: number;
}

/** One that arrives. */
export interface MicroPlace extends MicroShape {
  /** How long it runs here before the command ends; until Ctrl-C when undefined. */
  runForMs: number | undefined;
}

/** Memory of a micro-VM unless somebody asks for another, in MiB. */
export const DEFAULT_MICRO_MEMORY_MIB = 64;
/** What it changes unless somebody asks for another rate, in bytes per second. */
export const DEFAULT_MICRO_DIRTY_RATE = 16 * 2 ** 20;

function shape(description: Message) {
  return {
    micro: flag("--micro", { description }),
    memoryMiB: withDefault(
      option(
        "--memory",
        valueParser(parseMicroMemory, { metavar: "MIB", format: String, placeholder: 4 }),
        { description: message`The micro-VM's memory in MiB; the same at both ends.` },
      ),
      DEFAULT_MICRO_MEMORY_MIB,
    ),
    vcpus: withDefault(
      option("--vcpus", countValue({ min: 1, max: 2, metavar: "N" }), {
        description: message`Its vCPUs; the same at both ends.`,
      }),
      1,
    ),
  };
}

/** The parser of {@linkcode MicroGuest}. */
export function microGuestOptions(description: Message): Parser<"sync", MicroGuest, unknown> {
  return object("Micro-VM", {
    ...shape(description),
    dirtyRate: withDefault(
      option("--dirty-rate", rateValue, {
        description: message`How fast it writes to its memory, such as 50MiB/s.`,
      }),
      DEFAULT_MICRO_DIRTY_RATE,
      { message: message`16MiB/s` },
    ),
  });
}

/** The parser of {@linkcode MicroPlace}. */
export function microPlaceOptions(description: Message): Parser<"sync", MicroPlace, unknown> {
  return object("Micro-VM", {
    ...shape(description),
    runForMs: optional(option("--run-for", durationValue, {
      description: message`How long it runs here (default: until Ctrl-C).`,
    })),
  });
}
