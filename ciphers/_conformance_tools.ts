/**
 * Messages for the conformance kit, sealed and opened through the guard as everywhere else.
 *
 * @module
 */

import { CipherError } from "./errors.ts";
import { guardOpener, guardSealer } from "./guard.ts";
import type { CipherSuite } from "./suite.ts";

/** Around the blocks of ciphers (16, 64), of their fast paths (96, 256, 512) and of a page. */
export const SIZES = [
  ...[0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 128, 129, 255, 256, 257],
  ...[287, 288, 289, 511, 512, 513, 1023, 4095, 4096, 4097, 12_288, 65_537],
];
/** A message to seal; what is absent takes a fixed test value. */
export interface PlainMessage {
  key?: Uint8Array;
  nonce?: Uint8Array;
  associatedData?: Uint8Array;
  plaintext: Uint8Array;
  /** Lengths of the first pieces; the rest is one more. */
  split?: readonly number[];
}

/** A message with its seal. */
export interface SealedMessage {
  key: Uint8Array;
  nonce: Uint8Array;
  associatedData: Uint8Array;
  ciphertext: Uint8Array;
  tag: Uint8Array;
}

/** @throws {CipherError} `nonconforming` when `condition` is false */
export function expect(condition: boolean, problem: string): void {
  if (!condition) throw new CipherError("nonconforming", `Cannot pass suite: ${problem}`);
}

/** @throws {CipherError} `nonconforming` when the bytes differ; says where */
export function assertBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  expect(
    actual.length === expected.length,
    `${what}: ${actual.length} bytes instead of ${expected.length}`,
  );
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  expect(at < 0, `${what}: differs from byte ${at} on`);
}

/** @throws {CipherError} `nonconforming` unless `call` throws */
export function refuses(call: () => unknown, problem: string): void {
  let refused = false;
  try {
    call();
  } catch {
    refused = true;
  }
  expect(refused, problem);
}

/** Bytes that look random and are always the same (xorshift32). */
export function fill(length: number, options: { seed?: number } = {}): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = 0x9e3779b9 ^ (options.seed ?? 0);
  for (let i = 0; i < length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state >>> 11;
  }
  return bytes;
}

/** A copy with one bit changed. */
export function flip(bytes: Uint8Array, bit: number): Uint8Array {
  const changed = bytes.slice();
  changed[bit >> 3]! ^= 1 << (bit & 7);
  return changed;
}

/** The kit's key number `seed`. */
export function testKey(suite: CipherSuite, seed = 0): Uint8Array {
  return fill(suite.keyBytes, { seed: 1000 + seed });
}

/** The nonce of a record: its sequence, big-endian, zeros on the left (PROTOCOL.md section 4). */
export function sequenceNonce(suite: CipherSuite, sequence: number): Uint8Array {
  const nonce = new Uint8Array(suite.nonceBytes);
  for (let i = nonce.length - 1, rest = sequence; i >= 0; i--, rest = Math.floor(rest / 256)) {
    nonce[i] = rest % 256;
  }
  return nonce;
}

/** Seals one message under a sealer of its own. */
export function seal(suite: CipherSuite, message: PlainMessage): SealedMessage {
  const key = message.key ?? testKey(suite);
  const nonce = message.nonce ?? sequenceNonce(suite, 1);
  const associatedData = message.associatedData ?? fill(24);
  const ciphertext = new Uint8Array(message.plaintext.length);
  const tag = new Uint8Array(suite.tagBytes);
  using sealer = guardSealer(suite, key);
  sealer.begin(nonce, associatedData);
  for (const [start, end] of pieces(ciphertext.length, message.split)) {
    sealer.update(message.plaintext.subarray(start, end), ciphertext.subarray(start, end));
  }
  sealer.finish(tag);
  return { key, nonce, associatedData, ciphertext, tag };
}

/** Opens one message under an opener of its own. */
export function open(
  suite: CipherSuite,
  message: SealedMessage & { split?: readonly number[] },
): { authentic: boolean; plaintext: Uint8Array } {
  const plaintext = new Uint8Array(message.ciphertext.length);
  using opener = guardOpener(suite, message.key);
  opener.begin(message.nonce, message.associatedData, message.tag);
  for (const [start, end] of pieces(plaintext.length, message.split)) {
    opener.update(message.ciphertext.subarray(start, end), plaintext.subarray(start, end));
  }
  return { authentic: opener.finish(), plaintext };
}

/** Seals, opens and compares. */
export function roundTrip(suite: CipherSuite, message: PlainMessage): void {
  const { authentic, plaintext } = open(suite, seal(suite, message));
  const what = `${plaintext.length} bytes with ${message.associatedData?.length} beside`;
  expect(authentic, `${what} do not open`);
  assertBytes(plaintext, message.plaintext, what);
}

function* pieces(length: number, split: readonly number[] = []): Iterable<[number, number]> {
  let start = 0;
  for (const size of split) {
    yield [start, start + size];
    start += size;
  }
  yield [start, length];
}
