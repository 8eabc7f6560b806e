/**
 * What the demo proves, and how.
 *
 * @module
 */

import { examineHeartbeats, parseHeartbeats, type SerialChunk } from "../guest/heartbeat.ts";
import type { MigrationReport } from "../report.ts";
import { hashBlocks, locateBlocks } from "../../kvm/guest_memory.ts";
import { QmpClient } from "../../kvm/qmp.ts";
import { readFacts } from "../../kvm/qemu_facts.ts";
import { readProcess } from "../../kvm/process.ts";

/** The proof, as it stands in the report. */
export interface Proof {
  /** No counter value lost or repeated from the source's last beats to the destination's. */
  heartbeatContinues: boolean;
  /** From the source's last beat to the destination's first, as they reached the host; `holdMs` is taken off. */
  heartbeatGapMs: number | null;
  /** Every block that has an address, hashed whole on both sides while both stood still. */
  ramEqual: boolean;
  /** The blocks that were compared. */
  ramBlocks: string[];
  /** Time both sides were held for that: counted in no other figure. */
  holdMs: number;
  /** Times that one of the guest's secrets passed on the wire between the agents. */
  secretsOnWire: number;
  /** The same search over the same guest in clear: see `control`. */
  secretsInPlaintextControl: number;
  /** What went in clear. */
  control: string;
  /** Whether the memory at the destination is what the guest's program must have left there; null for a guest without such a check. */
  workloadSound: boolean | null;
  sourceState: string | null;
  destinationState: string | null;
}

/** SHA-256 of every RAM block of a QEMU that can be found, by name. It must stand still. */
export async function hashRam(qmpPath: string, pid: number): Promise<Map<string, string>> {
  await using qmp = await QmpClient.connect(qmpPath);
  const facts = await readFacts(qmp, readProcess(pid));
  const { blocks } = await locateBlocks(qmp, facts.blocks);
  return await hashBlocks({ pid, blocks: blocks.filter((block) => block !== null) });
}

/** Whether two sets of hashes name the same blocks with the same content; false for none at all. */
export function ramEqual(source: Map<string, string>, destination: Map<string, string>): boolean {
  return source.size > 0 && source.size === destination.size &&
    [...source].every(([name, hash]) => destination.get(name) === hash);
}

/** What the heartbeat shows across the move. */
export function heartbeatProof(
  source: readonly SerialChunk[],
  destination: readonly SerialChunk[],
  holdMs: number,
): Pick<Proof, "heartbeatContinues" | "heartbeatGapMs"> {
  const before = parseHeartbeats(source);
  const all = parseHeartbeats([...source, ...destination]);
  const last = before.at(-1);
  const first = all[before.length];
  if (last === undefined || first === undefined) {
    return { heartbeatContinues: false, heartbeatGapMs: null };
  }
  return {
    heartbeatContinues: examineHeartbeats(all).breaks.length === 0,
    heartbeatGapMs: first.atMs - last.atMs - holdMs,
  };
}

/** What does not hold, in words; empty when everything was proven. */
export function proofFaults(proof: Proof, report: MigrationReport): string[] {
  const faults: string[] = [];
  if (!proof.heartbeatContinues) faults.push("the heartbeat lost or repeated a beat");
  if (!proof.ramEqual) faults.push("the memory differs");
  if (proof.workloadSound === false) faults.push("the memory is not as the guest left it");
  // That they do is what the paper's profile is there to show.
  if (proof.secretsOnWire !== 0 && report.profile === "sealed") {
    faults.push(`a secret passed in clear ${proof.secretsOnWire} times`);
  }
  if (proof.secretsInPlaintextControl === 0) {
    faults.push("the search finds no secret in plaintext either: it proves nothing");
  }
  if (proof.destinationState !== "running") {
    faults.push(`the destination is ${proof.destinationState}`);
  }
  if (proof.sourceState !== "quit") faults.push(`the source is ${proof.sourceState}`);
  if ((report.rounds?.length ?? 0) < 3) {
    faults.push(`only ${report.rounds?.length ?? 0} rounds: no live iteration`);
  }
  return faults;
}

/** The proof for people, a line each. */
export function formatProof(proof: Proof, { profile }: Pick<MigrationReport, "profile">): string[] {
  const gap = proof.heartbeatGapMs === null
    ? ""
    : `, ${proof.heartbeatGapMs.toFixed(0)} ms apart across the move`;
  return [
    "proof",
    `  heartbeat   ${
      proof.heartbeatContinues ? "continues" : "BROKEN"
    }: no counter value lost or repeated${gap}`,
    `  memory      ${proof.ramEqual ? "equal" : "DIFFERENT"}: ${
      proof.ramBlocks.join(", ")
    } hashed on both sides ` +
    `(held ${proof.holdMs.toFixed(0)} ms for it, counted nowhere else)`,
    ...(proof.workloadSound === null ? [] : [
      `  workload    ${
        proof.workloadSound ? "sound" : "BROKEN"
      }: every page and the checksum as the guest's program left them`,
    ]),
    `  wire        ${proof.secretsOnWire} secrets in the ${
      profile === "paper" ? "paper's" : "sealed"
    } migration, ` +
    `${proof.secretsInPlaintextControl} found by the same search in ${proof.control}`,
    `  vm          source ${proof.sourceState}, destination ${proof.destinationState}`,
  ];
}
