/**
 * Whether a stopped guest's memory is what its workload must have left there.
 *
 * @module
 */

import { addresses, information } from "./layout.ts";

const PAGE_BYTES = 4096;
const LAST_WORD = PAGE_BYTES - 8;
/** As in guest.asm. */
const MULTIPLIER = 0x9e3779b97f4a7c15n;

/** What a vCPU's part of the memory says. */
export interface WorkloadCheck {
  /** False while the guest still fills its working set for the first time: then nothing else was checked. */
  filled: boolean;
  /** Pages changed so far, by the guest's own count. */
  visits: bigint;
  /** Heartbeats so far, by the guest's own count. */
  beats: bigint;
  /** Offsets of pages that do not hold what the last visit wrote. */
  wrongPages: number[];
  /** Whether the guest's running checksum is that of the memory. */
  checksumFits: boolean;
}

/**
 * Checks every page of the working set and the running checksum. One page may be half changed: the guest was stopped there.
 *
 * @param memory RAM of a stopped guest
 * @param cpu which vCPU's
 */
export function checkWorkload(memory: Uint8Array<ArrayBuffer>, cpu: number): WorkloadCheck {
  const view = new DataView(memory.buffer, memory.byteOffset, memory.length);
  const word = (offset: number) => view.getBigUint64(addresses.information[cpu]! + offset, true);
  const first = Number(word(information.first)), pages = Number(word(information.pages));
  const visits = word(information.visits);
  const result: WorkloadCheck = {
    filled: word(information.filled) === 1n,
    visits,
    beats: word(information.beats),
    wrongPages: [],
    checksumFits: true,
  };
  if (!result.filled) return result;
  const passes = visits / BigInt(pages), position = Number(visits % BigInt(pages));
  let sum = 0n;
  let half = 0n;
  for (let i = 0; i < pages; i++) {
    const at = first + i * PAGE_BYTES;
    const head = view.getBigUint64(at, true), tail = view.getBigUint64(at + LAST_WORD, true);
    const due = stamp(i < position ? passes + 1n : passes, at);
    if (i === position) {
      const next = stamp(passes + 1n, at);
      half = next - due;
      if ((head !== due && head !== next) || (tail !== not(due) && tail !== not(next))) {
        result.wrongPages.push(at);
      }
    } else if (head !== due || tail !== not(due)) result.wrongPages.push(at);
    sum += due;
  }
  const checksum = word(information.checksum);
  result.checksumFits = checksum === BigInt.asUintN(64, sum) ||
    checksum === BigInt.asUintN(64, sum + half);
  return result;
}

/** What the guest writes to the first word of a page at its visit number `pass`; the last word gets its complement. */
function stamp(pass: bigint, address: number): bigint {
  const value = BigInt.asUintN(
    64,
    ((pass << 32n) + BigInt(Math.floor(address / PAGE_BYTES))) * MULTIPLIER,
  );
  return value ^ value >> 32n;
}

function not(value: bigint): bigint {
  return BigInt.asUintN(64, ~value);
}
