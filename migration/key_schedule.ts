/**
 * The keys of one migration (PROTOCOL.md section 3):
 *
 * ```text
 * migrationSecret = HKDF(salt = h, ikm = sourceRandom || destinationRandom,
 *                        info = "sealift/1 migration" || SHA-256(OFFER) || SHA-256(ACCEPT), 32)
 * join key        = HKDF-Expand(migrationSecret, "sealift/1 join", 32)
 * data key        = HKDF-Expand(migrationSecret, "sealift/1 data" || 0x00 || lane u16 || keyNumber u32
 *                               || suiteIdLength u8 || suiteId, key length of the suite)
 * ```
 *
 * @module
 */

import { sha256 } from "../ciphers/digest.ts";
import { HASH_BYTES, hkdfExpand, hkdfExtract } from "./_hkdf.ts";

const encoder = new TextEncoder();
const migrationLabel = encoder.encode("sealift/1 migration");
const joinLabel = encoder.encode("sealift/1 join");
const dataLabel = encoder.encode("sealift/1 data");

/** Length of both randoms, in bytes. */
export const RANDOM_BYTES = 32;
/** Length of the migration secret and of the join key, in bytes. */
export const SECRET_BYTES = 32;

/** What a migration secret is made of. */
export interface MigrationSecretInputs {
  /** The Noise handshake hash h of the connection that carried OFFER and ACCEPT, 32 bytes. */
  handshakeHash: Uint8Array;
  /** 32 bytes. */
  sourceRandom: Uint8Array;
  /** 32 bytes. */
  destinationRandom: Uint8Array;
  /** OFFER as it was sent, joined from its parts. */
  offerBytes: Uint8Array;
  /** ACCEPT as it was sent, joined from its parts. */
  acceptBytes: Uint8Array;
}

/**
 * Derives the migration secret, 32 bytes. The caller wipes it.
 *
 * @throws {RangeError} when the hash or a random has another length than 32 bytes
 */
export function deriveMigrationSecret(inputs: MigrationSecretInputs): Uint8Array<ArrayBuffer> {
  const { handshakeHash, sourceRandom, destinationRandom } = inputs;
  requireLength("handshake hash", handshakeHash, HASH_BYTES);
  requireLength("source random", sourceRandom, RANDOM_BYTES);
  requireLength("destination random", destinationRandom, RANDOM_BYTES);

  const inputKey = new Uint8Array(2 * RANDOM_BYTES);
  inputKey.set(sourceRandom);
  inputKey.set(destinationRandom, RANDOM_BYTES);

  const info = new Uint8Array(migrationLabel.length + 2 * HASH_BYTES);
  info.set(migrationLabel);
  info.set(sha256(inputs.offerBytes), migrationLabel.length);
  info.set(sha256(inputs.acceptBytes), migrationLabel.length + HASH_BYTES);

  const pseudorandomKey = hkdfExtract(handshakeHash, inputKey);
  const secret = hkdfExpand(pseudorandomKey, info, { length: SECRET_BYTES });
  inputKey.fill(0);
  pseudorandomKey.fill(0);
  return secret;
}

/** Which data key. */
export interface DataKeyName {
  /** u16. */
  lane: number;
  /** u32. */
  keyNumber: number;
  /** Wire id of the suite that the key is for. */
  suiteId: string;
  /** Key length of that suite. */
  keyBytes: number;
}

/**
 * Derives every key of one migration from its secret, synchronously: a round's key is needed between
 * two records.
 *
 * @example
 * ```ts
 * import { KeySchedule } from "./key_schedule.ts";
 *
 * using keys = new KeySchedule(crypto.getRandomValues(new Uint8Array(32)));
 * const key = keys.dataKey({ lane: 0, keyNumber: 1, suiteId: "aes-256-gcm", keyBytes: 32 });
 * console.assert(key.length === 32);
 * ```
 */
export class KeySchedule implements Disposable {
  #secret: Uint8Array | null;

  /**
   * Takes what {@linkcode deriveMigrationSecret} made.
   *
   * @param migrationSecret 32 bytes; copied
   * @throws {RangeError} when it has another length
   */
  constructor(migrationSecret: Uint8Array) {
    requireLength("migration secret", migrationSecret, SECRET_BYTES);
    this.#secret = new Uint8Array(migrationSecret);
  }

  /** The psk of a JOIN, 32 bytes. The caller wipes it. */
  joinKey(): Uint8Array<ArrayBuffer> {
    return hkdfExpand(this.#live(), joinLabel, { length: SECRET_BYTES });
  }

  /**
   * The data key of that name. The caller wipes it.
   *
   * @throws {RangeError} when a number does not fit its field
   */
  dataKey(name: DataKeyName): Uint8Array<ArrayBuffer> {
    requireField("lane", name.lane, 0xffff);
    requireField("key number", name.keyNumber, 0xffff_ffff);
    const suiteId = encoder.encode(name.suiteId);
    requireField("suite id length", suiteId.length, 0xff);

    const fixed = dataLabel.length + 8;
    const info = new Uint8Array(fixed + suiteId.length);
    const view = new DataView(info.buffer);
    info.set(dataLabel);
    // The zero byte after the label is there already.
    view.setUint16(dataLabel.length + 1, name.lane);
    view.setUint32(dataLabel.length + 3, name.keyNumber);
    view.setUint8(dataLabel.length + 7, suiteId.length);
    info.set(suiteId, fixed);
    return hkdfExpand(this.#live(), info, { length: name.keyBytes });
  }

  /** Wipes the secret. */
  [Symbol.dispose](): void {
    this.#secret?.fill(0);
    this.#secret = null;
  }

  #live(): Uint8Array {
    if (this.#secret === null) throw new TypeError("Cannot derive key: the schedule is disposed");
    return this.#secret;
  }
}

function requireLength(what: string, bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) {
    throw new RangeError(`Cannot derive key: ${what} has ${bytes.length} bytes, not ${length}`);
  }
}

function requireField(what: string, value: number, max: number): void {
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw new RangeError(`Cannot derive key: ${what} ${value} is not an integer from 0 to ${max}`);
  }
}
