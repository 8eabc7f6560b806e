/**
 * The mistake bitmap: pages that were damaged on the way, to be sent again in the last round, as
 * (dirty bitmap OR mistake bitmap) (paper, section 3.1 "Integrity" and Fig. 9, step 5).
 *
 * A page damaged early would often be sent again for nothing, since the VM rewrites it meanwhile. So the
 * mark waits for the last round, and a newer version that is sealed before then takes it away. What the
 * page held is kept, up to a budget: the VM may have stopped, and its stream does not go back.
 *
 * Order alone decides which version of a page wins: each page knows the sequence of the last record that
 * carried it, and is marked while that is a damaged one. So a mark costs no bit of its own, and sealing a
 * page takes it away by the way.
 *
 * @see PROTOCOL.md section 5
 * @module
 */

import { PAGE_BYTES } from "./limits.ts";
import type { RamBlock } from "./ports.ts";

/** A damaged record of pages. */
export interface DamagedPages {
  sequence: number;
  block: number;
  pages: Uint32Array;
  /** 4096 bytes for each page, in their order; null for pages of zeros. */
  bytes: Uint8Array | null;
}

/** Who takes pages that are sent again. */
export interface PageTaker {
  page(block: number, page: number, bytes: Uint8Array): void;
  zero(block: number, page: number): void;
}

/** See the module. */
export class MistakeBitmap {
  /** Sequence of the last record that carried each page, modulo 2^32; 0 for none. */
  readonly #lastSequence: Uint32Array[];
  /** Records that were damaged and not sent again yet. */
  readonly #damaged: DamagedPages[] = [];
  /** How often each page was. */
  readonly #damages = new Map<number, number>();

  constructor(blocks: readonly RamBlock[]) {
    this.#lastSequence = blocks.map((block) =>
      new Uint32Array(Math.ceil(block.bytes / PAGE_BYTES))
    );
  }

  /**
   * Record `sequence` carries these pages now: a mark of theirs is of an older version.
   *
   * @param pages `count` page numbers as u32, big-endian, from `at` on: the record's own list
   */
  sealed(
    block: number,
    pages: { list: DataView; at: number; count: number },
    sequence: number,
  ): void {
    const { list, at, count } = pages;
    const last = this.#lastSequence[block]!;
    for (let i = 0; i < count; i++) last[list.getUint32(at + 4 * i)] = sequence;
  }

  /**
   * A record was damaged: marks its pages, but for those that a later record carries too. It is kept as it is.
   *
   * @returns the page of it that was damaged most often, and how often
   */
  damaged(record: DamagedPages): { page: number; damages: number } {
    const { block, pages } = record;
    const most = { page: 0, damages: 0 };
    for (let i = 0; i < pages.length; i++) {
      if (!this.#isMarked(record, i)) continue;
      const page = pages[i]!;
      const key = keyOf(block, page);
      const damages = (this.#damages.get(key) ?? 0) + 1;
      this.#damages.set(key, damages);
      if (damages <= most.damages) continue;
      most.page = page;
      most.damages = damages;
    }
    if (most.damages > 0) this.#damaged.push(record);
    return most;
  }

  /** Whether no record waits any more. */
  get empty(): boolean {
    return this.#damaged.length === 0;
  }

  /** Hands out what is marked of the record that was damaged first. @returns how many pages */
  resend(to: PageTaker): number {
    const record = this.#damaged[0]!;
    const { block, pages, bytes } = record;
    let resent = 0;
    for (let i = 0; i < pages.length; i++) {
      if (!this.#isMarked(record, i)) continue;
      if (bytes === null) to.zero(block, pages[i]!);
      else to.page(block, pages[i]!, bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES));
      resent++;
    }
    return resent;
  }

  /** What {@linkcode resend} handed out is sealed. */
  resent(): void {
    this.#damaged.shift();
  }

  #isMarked({ sequence, block, pages }: DamagedPages, index: number): boolean {
    return this.#lastSequence[block]![pages[index]!] === sequence >>> 0;
  }
}

/** Exact in a double: 8 bits of block, 32 bits of page. */
function keyOf(block: number, page: number): number {
  return block * 2 ** 32 + page;
}
