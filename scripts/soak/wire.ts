/**
 * What the wire does to each frame of a case.
 *
 * @module
 */

import { FRAME_DATA } from "../../migration/frame.ts";
import { FRAME_HEADER_BYTES } from "../../migration/limits.ts";
import type { Fault, Unit } from "../../tests/support/fault_injector.ts";
import { Random } from "../../tests/support/random.ts";
import type { SoakCase } from "./cases.ts";

/** Decides by the frame's place alone: connection, direction, number. */
export function wirePlan(options: SoakCase): (unit: Unit) => Fault | undefined {
  const { fault, everyFrames, wireSeed } = options;
  const damages = fault === "damage" || fault === "damage and cuts";
  const damagesAll = fault === "damage to everything";
  const cuts = fault === "cuts" || fault === "damage and cuts";
  let cutsLeft = options.cuts;
  let connection = 0;
  return ({ direction, index, bytes }) => {
    if (direction === "there" && index === 0) connection++;
    const place = connection * 2 ** 20 + index * 2 + (direction === "there" ? 0 : 1);
    const random = new Random(wireSeed + Math.imul(place, 0x9e3779b1));
    random.below(2);
    if (!random.oneIn(everyFrames)) return undefined;
    const isRecord = index > 0 && bytes[0] === FRAME_DATA;
    if (cuts && cutsLeft > 0 && !random.oneIn(3)) {
      cutsLeft--;
      return random.oneIn(2)
        ? { kind: "cutAfter" }
        : { kind: "truncate", bytes: random.below(bytes.length) };
    }
    const bit = random.below(8);
    if (damagesAll) return { kind: "flip", byte: random.below(bytes.length), bit };
    if (!damages || !isRecord) return undefined;
    // Behind the frame's header: the record's own, what is sealed, and the tag.
    const byte = FRAME_HEADER_BYTES + random.below(bytes.length - FRAME_HEADER_BYTES);
    return { kind: "flip", byte, bit };
  };
}
