/**
 * The pages inside a `ram` section.
 *
 * @module
 */

import type { StreamCursor } from "./stream_cursor.ts";
import {
  blockEntries,
  PAGE_BYTES,
  ramFlags,
  type StreamBlock,
  type StreamEvents,
} from "./stream_format.ts";
import { failFlags } from "./stream_setup.ts";

const WORD_BYTES = 8;
const FLAGS = PAGE_BYTES - 1;
const PAGES_PER_HIGH_WORD = 2 ** 32 / PAGE_BYTES;
const PAGE_CONTINUED = ramFlags.page | ramFlags.continue;
const ZERO_CONTINUED = ramFlags.zero | ramFlags.continue;

/** Reads the records of RAM sections and hands their pages out. */
export class RecordReader {
  readonly #cursor: StreamCursor;
  readonly #blocks: readonly StreamBlock[];
  readonly #indexes: ReadonlyMap<string, number>;
  readonly #pageCounts: readonly number[];
  /** Block of the last record that had a name: "continue" means it, across sections too. */
  #block = -1;

  /** Reads at `cursor`, which it moves. @throws RangeError when a block cannot be in a stream */
  constructor(cursor: StreamCursor, blocks: readonly StreamBlock[]) {
    this.#cursor = cursor;
    this.#blocks = blocks;
    this.#indexes = new Map(blocks.map((block, index) => [block.name, index]));
    this.#pageCounts = blockEntries(blocks).map((entry) => entry.pages);
  }

  /**
   * Reads as many records as it can. A page that continues its block costs one word, one comparison and one view.
   * @returns `end` behind the end of the section, `cut` at a record that is not all there, `more` when to call again
   * @throws KvmError `stream` when a record is malformed or not supported
   */
  read(events: StreamEvents): "more" | "cut" | "end" {
    const cursor: StreamCursor = this.#cursor;
    const { bytes, view, end } = cursor;
    const block = this.#block;
    const pageCount = this.#pageCounts[block] ?? 0;
    let at = cursor.at;
    while (end - at >= WORD_BYTES) {
      const low = view.getUint32(at + 4);
      const flags = low & FLAGS;
      if (flags === PAGE_CONTINUED) {
        const body = at + WORD_BYTES;
        if (end - body < PAGE_BYTES) break;
        const page = view.getUint32(at) * PAGES_PER_HIGH_WORD + (low >>> 12);
        if (page >= pageCount) this.#failPage(page, { block, at });
        at = body + PAGE_BYTES;
        events.page(block, page, bytes.subarray(body, at));
      } else if (flags === ZERO_CONTINUED) {
        const fill = at + WORD_BYTES;
        if (fill >= end) break;
        const page = view.getUint32(at) * PAGES_PER_HIGH_WORD + (low >>> 12);
        if (page >= pageCount) this.#failPage(page, { block, at });
        if (bytes[fill] !== 0) cursor.fail("a zero page with another fill", fill);
        at = fill + 1;
        events.zero(block, page);
      } else {
        // Alone in its call: a cut puts the cursor back to where the call began.
        if (at === cursor.at) return this.#readOther(events);
        cursor.at = at;
        return "more";
      }
    }
    cursor.at = at;
    return "cut";
  }

  /** A record that names its block, or the end of the section. */
  #readOther(events: StreamEvents): "more" | "cut" | "end" {
    const cursor: StreamCursor = this.#cursor;
    const from = cursor.at;
    const high = cursor.u32();
    const low = cursor.u32();
    const flags = low & FLAGS;
    if (flags === ramFlags.endOfSection) {
      if (high !== 0 || low !== flags) cursor.fail("an end of section with an offset", from);
      return "end";
    }
    if (flags !== ramFlags.page && flags !== ramFlags.zero) {
      failFlags(cursor, flags, { at: from, due: "a page" });
    }
    const name = cursor.text8();
    const block = this.#indexes.get(name);
    if (block === undefined) {
      return cursor.fail(`a page of RAM block ${JSON.stringify(name)}, which is unknown`, from);
    }
    const page = high * PAGES_PER_HIGH_WORD + (low >>> 12);
    if (page >= (this.#pageCounts[block] ?? 0)) this.#failPage(page, { block, at: from });
    if (flags === ramFlags.page) {
      const body = cursor.at;
      cursor.skip(PAGE_BYTES);
      events.page(block, page, cursor.bytes.subarray(body, cursor.at));
    } else {
      const fill = cursor.at;
      if (cursor.u8() !== 0) cursor.fail("a zero page with another fill", fill);
      events.zero(block, page);
    }
    this.#block = block;
    return "more";
  }

  #failPage(page: number, options: { block: number; at: number }): never {
    const name = this.#blocks[options.block]?.name;
    const what = name === undefined
      ? "a page that continues no block"
      : `page ${page} of RAM block ${JSON.stringify(name)}, which is shorter`;
    this.#cursor.fail(what, options.at);
  }
}
