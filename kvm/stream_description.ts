/**
 * Finding the end of a stream whose socket stays open.
 *
 * @module
 */

import { itemTypes, MAX_STATE_BYTES } from "./stream_format.ts";

const FIRST_BYTES = 256 * 1024;
const OPENING = [0x7b, 0x22]; // {"
const CLOSING = 0x7d; // }

/**
 * Looks for the description that ends a stream. Device sections say nothing of their length, so the end is known by
 * its shape: EOF, VMDESCRIPTION, u32 length, and that many bytes of JSON which are the last that came.
 *
 * JSON holds no raw control character. So the description begins at the last byte 06 or, when its own length has
 * one, at most four bytes before: a few places to look at, whatever the devices wrote.
 */
export class DescriptionFinder {
  // Grows in place: address space is taken at once, memory as it is used.
  readonly #buffer = new ArrayBuffer(FIRST_BYTES, { maxByteLength: MAX_STATE_BYTES });
  readonly #held = new Uint8Array(this.#buffer);
  #length = 0;

  /**
   * Takes what came.
   * @param bytes the next bytes; in all at most 64 MiB
   * @returns whether the last of them ends a description
   */
  push(bytes: Uint8Array): boolean {
    const mark = bytes.lastIndexOf(itemTypes.description);
    if (mark > 4) {
      this.#length = 0;
      bytes = bytes.subarray(mark - 5);
    }
    this.#append(bytes);
    return bytes.at(-1) === CLOSING && this.#endsWithDescription();
  }

  #append(bytes: Uint8Array): void {
    const length = this.#length + bytes.length;
    if (length > this.#buffer.byteLength) {
      this.#buffer.resize(Math.min(MAX_STATE_BYTES, Math.max(length, 2 * this.#buffer.byteLength)));
    }
    this.#held.set(bytes, this.#length);
    this.#length = length;
  }

  #endsWithDescription(): boolean {
    const held = this.#held.subarray(0, this.#length);
    const view = new DataView(this.#buffer, 0, this.#length);
    const last = held.lastIndexOf(itemTypes.description);
    for (let at = last; at >= 1 && at >= last - 4; at--) {
      const json = at + 5;
      if (
        held[at - 1] === itemTypes.eof && held[at] === itemTypes.description &&
        held[json] === OPENING[0] && held[json + 1] === OPENING[1] &&
        view.getUint32(at + 1) === this.#length - json && isDescription(held.slice(json))
      ) return true;
    }
    return false;
  }
}

function isDescription(json: Uint8Array): boolean {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(json));
    return typeof value === "object" && value !== null && "devices" in value &&
      Array.isArray(value.devices);
  } catch {
    return false; // a device happened to write something similar
  }
}
