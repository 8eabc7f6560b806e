/**
 * CONTROL frames: Noise transport messages on one connection (PROTOCOL.md section 2).
 *
 * ```text
 * frame header, 8 bytes, sent in clear, associated data: 1 u8, 0 u8, 0 u16, length u32
 * AEAD(key of this direction, nonce = 0 u32 || counter u64, associated data = header, plaintext)
 * plaintext: part u16 (from 0), parts u16, then a piece of the message
 * ```
 *
 * Every part but the last is full, the last is not empty, and parts come in order with nothing between:
 * a message has one way to be cut.
 *
 * @module
 */

import { guardOpener, guardSealer } from "../ciphers/guard.ts";
import type { CipherSuite, Opener, Sealer } from "../ciphers/suite.ts";
import { AUTHENTICATION_FAILED, MigrationError } from "./errors.ts";
import { FRAME_CONTROL, writeFrameHeader } from "./frame.ts";
import {
  FRAME_HEADER_BYTES,
  MAX_CONTROL_FRAME_BYTES,
  MAX_CONTROL_MESSAGE_BYTES,
  TAG_BYTES,
} from "./limits.ts";

const PART_HEADER_BYTES = 4;
const NONCE_BYTES = 12;
/** Message bytes in a full part. */
const MAX_PIECE_BYTES = MAX_CONTROL_FRAME_BYTES - TAG_BYTES - PART_HEADER_BYTES;
const MAX_PARTS = Math.ceil(MAX_CONTROL_MESSAGE_BYTES / MAX_PIECE_BYTES);

/** What a handshake leaves, and the suite to use it with. */
export interface ControlChannelOptions {
  /** 32 bytes; copied. */
  sendKey: Uint8Array;
  /** 32 bytes; copied. */
  receiveKey: Uint8Array;
  /** `aes-256-gcm`: Noise's AESGCM. */
  suite: CipherSuite;
}

/**
 * Seals and opens the control messages of one connection, synchronously, in order.
 *
 * @example
 * ```ts
 * import { nodeCryptoSuites } from "../ciphers/node_crypto.ts";
 * import { ControlChannel } from "./secure_channel.ts";
 *
 * const suite = nodeCryptoSuites().find(({ id }) => id === "aes-256-gcm")!;
 * const [a, b] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
 * using source = new ControlChannel({ sendKey: a, receiveKey: b, suite });
 * using destination = new ControlChannel({ sendKey: b, receiveKey: a, suite });
 * for (const frame of source.seal(Uint8Array.of(7))) {
 *   const message = destination.open(frame.subarray(0, 8), frame.subarray(8));
 *   console.assert(message?.[0] === 7);
 * }
 * ```
 */
export class ControlChannel implements Disposable {
  readonly #sealer: Sealer;
  readonly #opener: Opener;
  readonly #sendNonce = new Nonce();
  readonly #receiveNonce = new Nonce();
  readonly #scratch = new Uint8Array(MAX_CONTROL_FRAME_BYTES - TAG_BYTES);
  #pieces: Uint8Array[] = [];
  #partCount = 0;
  #failed = false;

  /**
   * Starts both counters at zero.
   *
   * @throws {CipherError} `keyLength` when a key does not fit the suite
   */
  constructor(options: ControlChannelOptions) {
    const { suite } = options;
    if (suite.nonceBytes !== NONCE_BYTES || suite.tagBytes !== TAG_BYTES) {
      throw new TypeError(`Cannot use ${suite.id} for control messages: other nonce or tag length`);
    }
    this.#sealer = guardSealer(suite, options.sendKey);
    this.#opener = guardOpener(suite, options.receiveKey);
  }

  /**
   * Seals one message of 1 to `MAX_CONTROL_MESSAGE_BYTES` bytes.
   *
   * @returns whole frames, headers included, to be sent in this order
   * @throws {RangeError} when it has another length
   */
  seal(message: Uint8Array): Uint8Array<ArrayBuffer>[] {
    if (message.length === 0 || message.length > MAX_CONTROL_MESSAGE_BYTES) {
      throw new RangeError(`Cannot seal message: it has ${message.length} bytes`);
    }
    const count = Math.ceil(message.length / MAX_PIECE_BYTES);
    const frames: Uint8Array<ArrayBuffer>[] = [];
    for (let part = 0; part < count; part++) {
      const start = part * MAX_PIECE_BYTES;
      frames.push(
        this.#sealPart(message.subarray(start, start + MAX_PIECE_BYTES), { part, count }),
      );
    }
    return frames;
  }

  /**
   * Opens one CONTROL frame.
   *
   * @param header the 8 bytes before the payload, as they came
   * @returns the whole message with its last part, else null
   * @throws {MigrationError} `cut` when it does not authenticate: somebody on the way changed it, another connection
   * may go on; `protocol` when its parts do not follow. The channel opens nothing more then
   */
  open(header: Uint8Array, payload: Uint8Array): Uint8Array<ArrayBuffer> | null {
    if (this.#failed) throw new MigrationError("cut", AUTHENTICATION_FAILED);
    // Until this frame has passed every check.
    this.#failed = true;
    const message = this.#join(this.#openPart(header, payload));
    this.#failed = false;
    return message;
  }

  /** Wipes the keys and what was opened. */
  [Symbol.dispose](): void {
    this.#failed = true;
    this.#sealer[Symbol.dispose]();
    this.#opener[Symbol.dispose]();
    this.#scratch.fill(0);
    this.#pieces = [];
  }

  #sealPart(piece: Uint8Array, place: { part: number; count: number }): Uint8Array<ArrayBuffer> {
    const bodyEnd = FRAME_HEADER_BYTES + PART_HEADER_BYTES + piece.length;
    const frame = new Uint8Array(bodyEnd + TAG_BYTES);
    const view = new DataView(frame.buffer);
    writeFrameHeader(view, 0, FRAME_CONTROL, frame.length - FRAME_HEADER_BYTES);
    view.setUint16(FRAME_HEADER_BYTES, place.part);
    view.setUint16(FRAME_HEADER_BYTES + 2, place.count);
    frame.set(piece, FRAME_HEADER_BYTES + PART_HEADER_BYTES);
    const body = frame.subarray(FRAME_HEADER_BYTES, bodyEnd);
    this.#sealer.begin(this.#sendNonce.next(), frame.subarray(0, FRAME_HEADER_BYTES));
    this.#sealer.update(body, body);
    this.#sealer.finish(frame.subarray(bodyEnd));
    return frame;
  }

  /** The plaintext of one frame: a view of the scratch. */
  #openPart(header: Uint8Array, payload: Uint8Array): Uint8Array {
    const length = payload.length - TAG_BYTES;
    if (
      header.length !== FRAME_HEADER_BYTES || length <= PART_HEADER_BYTES ||
      payload.length > MAX_CONTROL_FRAME_BYTES
    ) {
      throw new MigrationError("cut", AUTHENTICATION_FAILED);
    }
    const plaintext = this.#scratch.subarray(0, length);
    this.#opener.begin(this.#receiveNonce.next(), header, payload.subarray(length));
    this.#opener.update(payload.subarray(0, length), plaintext);
    if (!this.#opener.finish()) throw new MigrationError("cut", AUTHENTICATION_FAILED);
    return plaintext;
  }

  #join(plaintext: Uint8Array): Uint8Array<ArrayBuffer> | null {
    const view = new DataView(plaintext.buffer, plaintext.byteOffset, PART_HEADER_BYTES);
    const part = view.getUint16(0);
    const count = view.getUint16(2);
    const piece = plaintext.subarray(PART_HEADER_BYTES);
    const last = part === count - 1;
    const expected = this.#pieces.length;
    if (
      part !== expected || part >= count || count > MAX_PARTS ||
      (part > 0 && count !== this.#partCount) ||
      (!last && piece.length !== MAX_PIECE_BYTES) ||
      part * MAX_PIECE_BYTES + piece.length > MAX_CONTROL_MESSAGE_BYTES
    ) {
      throw new MigrationError("protocol", "Cannot join control message: its parts do not follow");
    }
    this.#partCount = count;
    if (!last) {
      this.#pieces.push(piece.slice());
      return null;
    }
    const message = new Uint8Array(part * MAX_PIECE_BYTES + piece.length);
    this.#pieces.forEach((earlier, index) => message.set(earlier, index * MAX_PIECE_BYTES));
    message.set(piece, part * MAX_PIECE_BYTES);
    this.#pieces = [];
    return message;
  }
}

/** Noise section 12.4: 32 zero bits, then the counter big-endian. A connection never sees 2^53 messages. */
class Nonce {
  readonly #bytes = new Uint8Array(NONCE_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  #counter = 0;

  next(): Uint8Array {
    this.#view.setUint32(4, Math.floor(this.#counter / 2 ** 32));
    this.#view.setUint32(8, this.#counter % 2 ** 32);
    this.#counter++;
    return this.#bytes;
  }
}
