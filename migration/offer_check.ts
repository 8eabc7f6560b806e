/**
 * Whether what a source offers fits the destination's own VM (PROTOCOL.md section 3): so that two
 * migrations are never cross-connected, and QEMU never meets a stream it would choke on.
 *
 * @module
 */

import type { OfferMessage, RefuseMessage } from "./messages.ts";
import type { VmFacts } from "./ports.ts";

/** A UUID nobody set. */
const NO_UUID = "00000000-0000-0000-0000-000000000000";

/** Capabilities that must be the same on both sides, since they change the stream. */
const STREAM_CAPABILITIES = ["validate-uuid"] as const;

/** Null when it fits, with warnings; else the refusal. */
export function checkOffer(
  offer: OfferMessage,
  { facts, vmId }: { facts: VmFacts; vmId: string | undefined },
): { refusal: RefuseMessage } | { refusal: null; warnings: string[] } {
  const warnings: string[] = [];
  const own = vmId ?? null;
  if ((offer.vmId === null) !== (own === null)) {
    return refuse(
      "--vm-id is given on one side only",
      "give the same --vm-id on both sides, or on neither",
    );
  }
  if (offer.vmId !== own) {
    return refuse(
      `the source moves VM ${offer.vmId}, this side waits for ${own}`,
      "give the same --vm-id on both sides",
    );
  }
  if (own === null && offer.uuid !== facts.uuid) {
    return refuse(
      `the source's VM has uuid ${offer.uuid}, the one that waits here ${facts.uuid}`,
      "start both QEMUs with the same -uuid, or give the same --vm-id on both sides",
    );
  }
  if (own === null && offer.uuid === NO_UUID) {
    warnings.push("neither QEMU has a -uuid: nothing but its shape tells this VM from another");
  }
  if (offer.machine !== facts.machine) {
    return refuse(
      `the source's machine is ${offer.machine}, the one that waits here ${facts.machine}`,
      `start the destination's QEMU with -machine ${offer.machine}`,
    );
  }
  const ownBlocks = new Map(facts.blocks.map((block) => [block.name, block.bytes]));
  for (const { name, bytes } of offer.blocks) {
    const ownBytes = ownBlocks.get(name);
    if (ownBytes === undefined) {
      return refuse(`the source has a memory block ${name}, this side has none`, SAME_COMMAND_LINE);
    }
    // QEMU resizes these ROM blocks while it loads; every other length must be the same.
    if (ownBytes !== bytes && !name.startsWith("/rom@")) {
      return refuse(
        `memory block ${name} has ${bytes} bytes at the source and ${ownBytes} here`,
        SAME_COMMAND_LINE,
      );
    }
  }
  const offered = new Set(offer.blocks.map((block) => block.name));
  if (offered.size !== offer.blocks.length) {
    return refuse("the source lists a memory block twice", SAME_COMMAND_LINE);
  }
  const extra = facts.blocks.map((block) => block.name).filter((name) => !offered.has(name));
  if (extra.length > 0) {
    return refuse(
      `this side has memory blocks that the source lacks: ${extra.join(", ")}`,
      SAME_COMMAND_LINE,
    );
  }
  for (const capability of STREAM_CAPABILITIES) {
    if (offer.capabilities.includes(capability) !== facts.capabilities.includes(capability)) {
      return refuse(
        `migration capability ${capability} is on at one side only`,
        "set it on both QEMUs, or on neither",
      );
    }
  }
  if (offer.qemuVersion !== facts.qemuVersion) {
    warnings.push(
      `QEMU ${offer.qemuVersion} at the source, ${facts.qemuVersion} at the destination`,
    );
  }
  return { refusal: null, warnings };
}

const SAME_COMMAND_LINE =
  "start both QEMUs with the same -m, -machine, memory backends and devices";

function refuse(text: string, hint: string): { refusal: RefuseMessage } {
  return { refusal: { type: "REFUSE", code: "vm", text, hint } };
}
