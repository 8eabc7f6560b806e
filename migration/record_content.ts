/**
 * What is inside a record, checked: lengths exact, every block and page one that the VM has.
 *
 * @see PROTOCOL.md section 4
 * @module
 */

import { MigrationError } from "./errors.ts";
import {
  MAX_PAGES_PER_RECORD,
  MAX_SETUP_BYTES,
  MAX_STATE_BYTES,
  MAX_STREAM_PIECE_BYTES,
  MAX_ZEROS_PER_RECORD,
  PAGE_BYTES,
} from "./limits.ts";
import type { RamBlock } from "./ports.ts";
import { readUint64, recordTypes } from "./record.ts";

/** What a record held. Views are valid until the next one is parsed. */
export type RecordContent =
  | { type: "pages"; block: number; pages: Uint32Array; bytes: Uint8Array }
  | { type: "zeros"; block: number; pages: Uint32Array }
  | { type: "setup" | "state"; offset: number; total: number; bytes: Uint8Array }
  | { type: "round"; round: number; pages: number; zeros: number };

/** Parses plaintexts of one VM. */
export class RecordParser {
  readonly #pageCounts: number[];
  readonly #list = new Uint32Array(MAX_ZEROS_PER_RECORD);

  /** `blocks` are those of the offer: the wire numbers them by their index. */
  constructor(blocks: readonly RamBlock[]) {
    this.#pageCounts = blocks.map((block) => Math.ceil(block.bytes / PAGE_BYTES));
  }

  /** Parses a whole plaintext. @throws MigrationError `protocol`: it was authentic, so its sender is broken */
  parse(plaintext: Uint8Array): RecordContent {
    const view = new DataView(plaintext.buffer, plaintext.byteOffset, plaintext.length);
    const { length } = plaintext;
    const type = view.getUint8(0);
    switch (type) {
      case recordTypes.pages: {
        const count = length < 3 ? 0 : view.getUint8(2);
        if (count < 1 || count > MAX_PAGES_PER_RECORD || length !== 3 + count * (4 + PAGE_BYTES)) {
          break;
        }
        const block = view.getUint8(1);
        const pages = this.#pageList(view, { at: 3, count, block });
        return { type: "pages", block, pages, bytes: plaintext.subarray(3 + 4 * count) };
      }
      case recordTypes.zeros: {
        const count = length < 4 ? 0 : view.getUint16(2);
        if (count < 1 || count > MAX_ZEROS_PER_RECORD || length !== 4 + 4 * count) break;
        const block = view.getUint8(1);
        return { type: "zeros", block, pages: this.#pageList(view, { at: 4, count, block }) };
      }
      case recordTypes.setup:
      case recordTypes.state: {
        if (length < 10) break;
        const offset = view.getUint32(1);
        const total = view.getUint32(5);
        const cap = type === recordTypes.setup ? MAX_SETUP_BYTES : MAX_STATE_BYTES;
        const bytes = plaintext.subarray(9);
        // Cut in one way only: else pieces of a byte each would cost the square of their number.
        if (
          total > cap || offset % MAX_STREAM_PIECE_BYTES !== 0 ||
          bytes.length !== Math.min(MAX_STREAM_PIECE_BYTES, total - offset)
        ) break;
        return { type: type === recordTypes.setup ? "setup" : "state", offset, total, bytes };
      }
      case recordTypes.round:
        if (length !== 21) break;
        return {
          type: "round",
          round: view.getUint32(1),
          pages: readUint64(view, 5),
          zeros: readUint64(view, 13),
        };
    }
    throw new MigrationError("protocol", "Cannot read a record: its content breaks the format");
  }

  #pageList(
    view: DataView,
    { at, count, block }: { at: number; count: number; block: number },
  ): Uint32Array {
    const pageCount = this.#pageCounts[block];
    const list = this.#list;
    for (let i = 0; i < count; i++) {
      const page = view.getUint32(at + 4 * i);
      if (pageCount === undefined || page >= pageCount) {
        throw new MigrationError(
          "protocol",
          `Cannot land page ${page} of block ${block}: the VM has none such`,
        );
      }
      list[i] = page;
    }
    return list.subarray(0, count);
  }
}
