/**
 * The migration stream for a QEMU that takes a VM in, put together again.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import {
  blockEntries,
  type BlockEntry,
  itemTypes,
  PAGE_BYTES,
  ramFlags,
  type StreamBlock,
} from "./stream_format.ts";
import { StreamReader } from "./stream_reader.ts";

const SECTION_HEADER_BYTES = 5;
const WORD_BYTES = 8;
const FOOTER_BYTES = 5;

/** What SETUP tells a writer. */
export interface SetupFacts {
  /** The id that the stream gives to section `ram`. */
  ramSectionId: number;
}

/**
 * Encodes RAM for a destination QEMU. The caller writes, in this order: SETUP as it came, what {@linkcode pages} and
 * {@linkcode zeros} return, what {@linkcode end} returns, STATE as it came.
 *
 * Every record names its block ("continue" is never used), so that sections can be left out or come in any order.
 *
 * ```ts
 * import { StreamWriter } from "./stream_writer.ts";
 *
 * const writer = new StreamWriter({ ramSectionId: 2, blocks: [{ name: "pc.ram", bytes: 1 << 20 }] });
 * const section = writer.pages(0, Uint32Array.of(17), new Uint8Array(4096));
 * console.log(section.length); // 4096, and 33 around it
 * ```
 * @see https://gitlab.com/qemu-project/qemu/-/blob/v7.2.0/migration/ram.c
 */
export class StreamWriter {
  readonly #blocks: readonly BlockEntry[];
  readonly #ramSectionId: number;
  #output = new Uint8Array(0);
  #view = new DataView(this.#output.buffer);
  #length = 0;

  /**
   * Checks SETUP, all of it, with the rules of the reader.
   * @param bytes what precedes the first page, as the other side sent it
   * @param options.blocks the RAM blocks of this side's VM
   * @throws KvmError `stream` when the reader would not take it, or it is not SETUP and nothing but SETUP
   */
  static parseSetup(bytes: Uint8Array, options: { blocks: readonly StreamBlock[] }): SetupFacts {
    const reader = new StreamReader(options);
    let setupBytes = 0;
    let stopped = false;
    const refuse = () => fail("there is more in it than what precedes the first page");
    const events = {
      setup: (piece: Uint8Array) => void (setupBytes += piece.length),
      page: refuse,
      zero: refuse,
      stopped: () => void (stopped = true),
      state: refuse,
      drained: () => {},
    };
    feed(reader, bytes, events);
    const { ramSectionId } = reader;
    if (stopped) refuse();
    if (ramSectionId === null) fail("section ram does not start in it");
    // An end of RAM is read only where an item ends, so this finds out whether the last one is whole.
    feed(reader, new StreamWriter({ ramSectionId, blocks: options.blocks }).end(), events);
    if (!stopped) fail("its last item is cut");
    // What the reader takes out (commands, sections without a page) has no business here.
    if (setupBytes !== bytes.length) refuse();
    return { ramSectionId };
  }

  /** Prepares the records' names. @throws RangeError when a block or the id cannot be in a stream */
  constructor(options: SetupFacts & { blocks: readonly StreamBlock[] }) {
    this.#blocks = blockEntries(options.blocks);
    this.#ramSectionId = options.ramSectionId;
    if (this.#ramSectionId !== this.#ramSectionId >>> 0) {
      throw new RangeError(`Cannot write a migration stream: section id ${this.#ramSectionId}`);
    }
  }

  /**
   * Encodes pages of one block as a section of their own.
   * @param block index of the block
   * @param pages page numbers, in units of 4 KiB
   * @param bytes 4096 bytes for each of `pages`
   * @returns a view, valid until the next call
   * @throws RangeError when the block has no such page, or `bytes` has another length
   */
  pages(block: number, pages: Uint32Array, bytes: Uint8Array): Uint8Array {
    if (bytes.length !== pages.length * PAGE_BYTES) {
      throw new RangeError(`Cannot encode ${pages.length} pages: there are ${bytes.length} bytes`);
    }
    const entry = this.#begin(block, { pages, bodyBytes: PAGE_BYTES });
    for (let i = 0; i < pages.length; i++) {
      this.#word(pages[i] ?? 0, { flags: ramFlags.page, entry });
      this.#output.set(bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES), this.#length);
      this.#length += PAGE_BYTES;
    }
    return this.#finish();
  }

  /**
   * Encodes pages that are all zeros, as {@linkcode pages} does.
   * @throws RangeError when the block has no such page
   */
  zeros(block: number, pages: Uint32Array): Uint8Array {
    const entry = this.#begin(block, { pages, bodyBytes: 1 });
    for (const page of pages) {
      this.#word(page, { flags: ramFlags.zero, entry });
      this.#output[this.#length++] = 0;
    }
    return this.#finish();
  }

  /** Encodes the END section, without pages: what follows it is STATE. */
  end(): Uint8Array {
    this.#reserve(0);
    this.#header(itemTypes.end);
    return this.#finish();
  }

  #begin(block: number, options: { pages: Uint32Array; bodyBytes: number }): BlockEntry {
    const entry = this.#blocks[block];
    if (entry === undefined) {
      throw new RangeError(`Cannot encode pages of RAM block ${block}: there is none`);
    }
    const { pages, bodyBytes } = options;
    for (const page of pages) {
      if (page >= entry.pages) {
        throw new RangeError(
          `Cannot encode page ${page} of RAM block ${block}: it has ${entry.pages}`,
        );
      }
    }
    this.#reserve(pages.length * (WORD_BYTES + entry.prefix.length + bodyBytes));
    this.#header(itemTypes.part);
    return entry;
  }

  #reserve(recordBytes: number): void {
    const bytes = SECTION_HEADER_BYTES + recordBytes + WORD_BYTES + FOOTER_BYTES;
    if (bytes > this.#output.length) {
      this.#output = new Uint8Array(bytes);
      this.#view = new DataView(this.#output.buffer);
    }
    this.#length = 0;
  }

  #header(type: number): void {
    this.#view.setUint8(0, type);
    this.#view.setUint32(1, this.#ramSectionId);
    this.#length = SECTION_HEADER_BYTES;
  }

  #word(page: number, options: { flags: number; entry: BlockEntry }): void {
    const { flags, entry } = options;
    this.#view.setUint32(this.#length, page >>> 20);
    this.#view.setUint32(this.#length + 4, page * PAGE_BYTES | flags);
    this.#output.set(entry.prefix, this.#length + WORD_BYTES);
    this.#length += WORD_BYTES + entry.prefix.length;
  }

  #finish(): Uint8Array {
    this.#view.setUint32(this.#length, 0);
    this.#view.setUint32(this.#length + 4, ramFlags.endOfSection);
    this.#view.setUint8(this.#length + WORD_BYTES, itemTypes.footer);
    this.#view.setUint32(this.#length + WORD_BYTES + 1, this.#ramSectionId);
    return this.#output.subarray(0, this.#length + WORD_BYTES + FOOTER_BYTES);
  }
}

function feed(
  reader: StreamReader,
  bytes: Uint8Array,
  events: Parameters<StreamReader["advance"]>[1],
): void {
  for (let at = 0; at < bytes.length;) {
    const space = reader.space();
    const piece = bytes.subarray(at, at + space.length);
    space.set(piece);
    reader.advance(piece.length, events);
    at += piece.length;
  }
}

function fail(what: string): never {
  throw new KvmError("stream", `Cannot use the setup of a migration stream: ${what}`);
}
