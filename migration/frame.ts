/**
 * Frames: what a connection carries after its handshake (PROTOCOL.md section 2).
 *
 * ```text
 * kind u8, 0 u8, 0 u16, length u32, then `length` bytes
 *   1 CONTROL  one Noise transport message
 *   2 DATA     one record
 * ```
 *
 * @module
 */

import { MigrationError } from "./errors.ts";
import {
  FRAME_HEADER_BYTES,
  MAX_CONTROL_FRAME_BYTES,
  MAX_DATA_FRAME_BYTES,
  RECORD_HEADER_BYTES,
  TAG_BYTES,
} from "./limits.ts";
import type { Transport } from "./ports.ts";

/** Frame kinds, by their wire value. */
export const FRAME_CONTROL = 1;
/** See {@linkcode FRAME_CONTROL}. */
export const FRAME_DATA = 2;

/** One whole frame. Both views are valid until the next `fill`. */
export interface Frame {
  kind: number;
  /** The 8 header bytes: associated data of a CONTROL frame. */
  header: Uint8Array;
  payload: Uint8Array;
}

/** Writes a frame header at `offset`. */
export function writeFrameHeader(
  view: DataView,
  offset: number,
  kind: number,
  length: number,
): void {
  view.setUint32(offset, kind << 24);
  view.setUint32(offset + 4, length);
}

/** Room for a few full records: the carried rest is at most a quarter of what is read. */
const BUFFER_BYTES = 2 * 1024 * 1024;

/** What a handshake and most control messages need: nobody has proven a key yet. */
const FIRST_BUFFER_BYTES = 16 * 1024;

/**
 * Takes frames off a transport through one buffer, which grows once, when it is full; only the incomplete rest of it is ever moved.
 * Lengths are checked as soon as the header is there, before the payload is waited for.
 */
export class FrameReader {
  readonly #transport: Transport;
  #buffer = new Uint8Array(FIRST_BUFFER_BYTES);
  #view = new DataView(this.#buffer.buffer);
  #start = 0;
  #end = 0;
  /** Bytes that came so far. */
  readBytes = 0;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Bytes read and not yet handed out. */
  get bufferedBytes(): number {
    return this.#end - this.#start;
  }

  /** Reads once. @returns false at the end of the stream */
  async fill(): Promise<boolean> {
    if (this.#start === this.#end) this.#start = this.#end = 0;
    else if (this.#buffer.length - this.#start < FRAME_HEADER_BYTES + MAX_DATA_FRAME_BYTES) {
      this.#makeRoom();
    }
    const count = await this.#transport.read(this.#buffer.subarray(this.#end));
    if (count === null || count === 0) return false;
    this.#end += count;
    this.readBytes += count;
    return true;
  }

  /** Moves the rest to the front, of a larger buffer where this one is full of it. */
  #makeRoom(): void {
    const rest = this.#buffer.subarray(this.#start, this.#end);
    if (rest.length === this.#buffer.length) {
      this.#buffer = new Uint8Array(BUFFER_BYTES);
      this.#view = new DataView(this.#buffer.buffer);
    }
    this.#buffer.set(rest);
    this.#start = 0;
    this.#end = rest.length;
  }

  /** Exactly `length` bytes from before the first frame: a handshake message. @returns null at the end of the stream */
  async exactly(length: number): Promise<Uint8Array | null> {
    while (this.bufferedBytes < length) if (!await this.fill()) return null;
    const bytes = this.#buffer.slice(this.#start, this.#start + length);
    this.#start += length;
    return bytes;
  }

  /** The next whole frame, or null until more is read. @throws MigrationError `cut` when framing is lost */
  next(): Frame | null {
    const available = this.#end - this.#start;
    if (available < FRAME_HEADER_BYTES) return null;
    const word = this.#view.getUint32(this.#start);
    const kind = word >>> 24;
    const length = this.#view.getUint32(this.#start + 4);
    if ((word & 0xffffff) !== 0 || (kind !== FRAME_CONTROL && kind !== FRAME_DATA)) {
      throw new MigrationError(
        "cut",
        "Cannot read a frame: its header is not one of this protocol",
      );
    }
    const least = kind === FRAME_CONTROL ? TAG_BYTES : RECORD_HEADER_BYTES + TAG_BYTES;
    const most = kind === FRAME_CONTROL ? MAX_CONTROL_FRAME_BYTES : MAX_DATA_FRAME_BYTES;
    if (length < least || length > most) {
      throw new MigrationError(
        "cut",
        `Cannot read a frame: its length ${length} is outside ${least} to ${most}`,
      );
    }
    if (available < FRAME_HEADER_BYTES + length) return null;
    const payloadStart = this.#start + FRAME_HEADER_BYTES;
    this.#start = payloadStart + length;
    return {
      kind,
      header: this.#buffer.subarray(payloadStart - FRAME_HEADER_BYTES, payloadStart),
      payload: this.#buffer.subarray(payloadStart, this.#start),
    };
  }
}
