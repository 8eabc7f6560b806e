/**
 * The mistake bitmap: pages that were damaged on the way, to be sent again in the last round, as
 * (dirty bitmap OR mistake bitmap) (paper, section 3.1 "Integrity" and Fig. 9, step 5).
 *
 * A page damaged early would often be sent again for nothing, since the VM rewrites it meanwhile. So the
 * mark waits for the last round, and a newer version that is sealed before then takes it away. What the
 * page held is kept, up to a budget: the VM may have stopped, and its stream does not go back.
 *
 * Order alone decides which version of a page wins: each page knows the sequence of the last record that
 * carried it, and a mistake in an older record marks nothing.
 *
 * @see PROTOCOL.md section 5
 * @module
 */

import { PAGE_BYTES } from "./limits.ts";
import type { RamBlock } from "./ports.ts";

/** A page that waits to be sent again. */
export interface MarkedPage {
  block: number;
  page: number;
  /** 4096 bytes; null for a page of zeros. */
  bytes: Uint8Array | null;
}

/** See the module. */
export class MistakeBitmap {
  /** Sequence of the last record that carried each page, modulo 2^32; 0 for none. */
  readonly #lastSequence: Uint32Array[];
  readonly #marked = new Map<number, MarkedPage>();
  readonly #damages = new Map<number, number>();

  constructor(blocks: readonly RamBlock[]) {
    this.#lastSequence = blocks.map((block) =>
      new Uint32Array(Math.ceil(block.bytes / PAGE_BYTES))
    );
  }

  /** Pages that are marked. */
  get size(): number {
    return this.#marked.size;
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
    const anyMarked = this.#marked.size > 0;
    for (let i = 0; i < count; i++) {
      const page = list.getUint32(at + 4 * i);
      last[page] = sequence;
      if (anyMarked) this.#marked.delete(keyOf(block, page));
    }
  }

  /**
   * Record `sequence` was damaged, and carried this page: marks it, unless a later record carries it too.
   * `bytes` are copied. @returns how often the page was damaged
   */
  damaged(page: MarkedPage, sequence: number): number {
    if (this.#lastSequence[page.block]![page.page] !== sequence >>> 0) return 0;
    const key = keyOf(page.block, page.page);
    const damages = (this.#damages.get(key) ?? 0) + 1;
    this.#damages.set(key, damages);
    this.#marked.set(key, { ...page, bytes: page.bytes?.slice() ?? null });
    return damages;
  }

  /** Takes all marked pages, by block and page; none is marked then. */
  take(): MarkedPage[] {
    const pages = [...this.#marked.values()].sort((a, b) => a.block - b.block || a.page - b.page);
    this.#marked.clear();
    return pages;
  }
}

/** Exact in a double: 8 bits of block, 32 bits of page. */
function keyOf(block: number, page: number): number {
  return block * 2 ** 32 + page;
}
