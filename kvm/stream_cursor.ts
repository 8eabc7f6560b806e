/**
 * A position in bytes that are still arriving.
 *
 * @module
 */

import { KvmError } from "./errors.ts";

/**
 * Thrown by {@linkcode StreamCursor} when an item is cut: not a failure. Whoever began to read the item
 * puts `at` back and tries again when more has come.
 */
export const INCOMPLETE: unique symbol = Symbol("incomplete");

/** Reads big-endian items between `at` and `end` of a fixed buffer. */
export class StreamCursor {
  /** The buffer. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The same memory. */
  readonly view: DataView;
  /** Next byte to be read, as an index in `bytes`. */
  at = 0;
  /** End of what has come, as an index in `bytes`. */
  end = 0;
  /** Offset in the stream of the buffer's first byte. */
  base = 0;
  readonly #decoder = new TextDecoder();

  /** Begins with nothing in a buffer of `bufferBytes`. */
  constructor(bufferBytes: number) {
    this.bytes = new Uint8Array(bufferBytes);
    this.view = new DataView(this.bytes.buffer);
  }

  /** Moves what is left to the front of the buffer. */
  compact(): void {
    if (this.at === 0) return;
    this.bytes.copyWithin(0, this.at, this.end);
    this.base += this.at;
    this.end -= this.at;
    this.at = 0;
  }

  /** Reads one byte. */
  u8(): number {
    return this.view.getUint8(this.#take(1));
  }

  /** Reads two bytes. */
  u16(): number {
    return this.view.getUint16(this.#take(2));
  }

  /** Reads four bytes. */
  u32(): number {
    return this.view.getUint32(this.#take(4));
  }

  /** Reads eight bytes. @throws KvmError `stream` when the value is above 2^53 */
  u64(): number {
    const from = this.#take(8);
    const value = this.view.getUint32(from) * 2 ** 32 + this.view.getUint32(from + 4);
    if (!Number.isSafeInteger(value)) this.fail(`the length ${value} is absurd`, from);
    return value;
  }

  /** Reads `count` bytes of text. */
  text(count: number): string {
    const from = this.#take(count);
    return this.#decoder.decode(this.bytes.subarray(from, from + count));
  }

  /** Reads text behind a length byte. */
  text8(): string {
    return this.text(this.u8());
  }

  /** Reads `count` bytes and forgets them. */
  skip(count: number): void {
    this.#take(count);
  }

  /**
   * Refuses the stream.
   * @param what what is wrong
   * @param at index in the buffer of the item that is
   * @throws KvmError `stream`
   */
  fail(what: string, at: number): never {
    throw new KvmError(
      "stream",
      `Cannot read the migration stream: ${what} (byte ${this.base + at})`,
    );
  }

  #take(count: number): number {
    if (this.end - this.at < count) throw INCOMPLETE;
    const from = this.at;
    this.at += count;
    return from;
  }
}
