/**
 * Records: the sealed pieces that carry a VM (PROTOCOL.md section 4).
 *
 * ```text
 * header, 24 bytes, in clear, associated data of the body:
 *   suite u8, 0 u8, lane u16, keyNumber u32, sequence u64, bodyLength u32, 0 u32
 * body: AEAD(data key, nonce = sequence, associated data = header, plaintext), tag at its end
 * plaintext: type u8, then
 *   1 PAGES  block u8, count u8 (1..64), count x page number u32, count x 4096 bytes
 *   2 ZEROS  block u8, count u16 (1..8192), count x page number u32
 *   3 SETUP  offset u32, total u32, bytes
 *   4 STATE  offset u32, total u32, bytes
 *   5 ROUND  round u32, pages u64, zero pages u64
 * ```
 *
 * This file has the layout; `record_sealer.ts` and `record_opener.ts` are the two ends.
 *
 * @module
 */

/** Record types, by their wire value. */
export const recordTypes = { pages: 1, zeros: 2, setup: 3, state: 4, round: 5 } as const;

/** A record header, decoded. */
export interface RecordHeader {
  /** Index into the distinct suites of ACCEPT. */
  suite: number;
  lane: number;
  keyNumber: number;
  /** At least 1; a double holds every sequence that 2^53 records reach. */
  sequence: number;
  /** Bytes after the header, tag included. */
  bodyLength: number;
}

/** Writes `header` as 24 bytes at `offset`. */
export function writeRecordHeader(view: DataView, offset: number, header: RecordHeader): void {
  view.setUint32(offset, header.suite << 24 | header.lane);
  view.setUint32(offset + 4, header.keyNumber);
  writeUint64(view, offset + 8, header.sequence);
  view.setUint32(offset + 16, header.bodyLength);
  view.setUint32(offset + 20, 0);
}

/** Reads 24 bytes at `offset`; null when a byte that must be zero is not, or the sequence is past 2^53. */
export function readRecordHeader(view: DataView, offset: number): RecordHeader | null {
  const word = view.getUint32(offset);
  const sequenceHigh = view.getUint32(offset + 8);
  if ((word >>> 16 & 0xff) !== 0 || view.getUint32(offset + 20) !== 0 || sequenceHigh >= 2 ** 21) {
    return null;
  }
  return {
    suite: word >>> 24,
    lane: word & 0xffff,
    keyNumber: view.getUint32(offset + 4),
    sequence: sequenceHigh * 2 ** 32 + view.getUint32(offset + 12),
    bodyLength: view.getUint32(offset + 16),
  };
}

/** Writes an unsigned 64-bit integer below 2^53. */
export function writeUint64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, Math.floor(value / 2 ** 32));
  view.setUint32(offset + 4, value >>> 0);
}

/** Reads an unsigned 64-bit integer as a double, exact below 2^53. */
export function readUint64(view: DataView, offset: number): number {
  return view.getUint32(offset) * 2 ** 32 + view.getUint32(offset + 4);
}

/** Nonces of one suite: zeros, then the sequence as u64, in one buffer that is used again. */
export class SequenceNonce {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(nonceBytes: number) {
    this.bytes = new Uint8Array(nonceBytes);
    this.#view = new DataView(this.bytes.buffer);
  }

  /** @returns the buffer, with `sequence` in its last 8 bytes */
  of(sequence: number): Uint8Array {
    writeUint64(this.#view, this.bytes.length - 8, sequence);
    return this.bytes;
  }
}
