/**
 * Checks that backends, guard and registry share.
 *
 * @module
 */

import { CRC32_BYTES } from "./crc32.ts";
import { CipherError, type CipherErrorCode } from "./errors.ts";
import type { CipherSuite } from "./suite.ts";

/** Longest piece: OpenSSL counts it in an `int`. */
export const MAX_PIECE_BYTES = 2 ** 31 - 1;

/**
 * Longest message. The suites' own limits lie above: 2^36 - 32 bytes for GCM (NIST SP 800-38D section
 * 5.2.1.1), 2^38 - 64 for ChaCha20-Poly1305 (RFC 8439 section 2.8).
 */
export const MAX_MESSAGE_BYTES = MAX_PIECE_BYTES;

/** An AES block: the longest IV that the lab profile's records have room for. */
const PAPER_NONCE_BYTES = 16;

/** Wire ids have a length octet; this leaves room and stays readable in a report. */
const MAX_ID_LENGTH = 64;
/** Travels in ACCEPT and stands in reports. */
const MAX_BACKEND_LENGTH = 64;
const PRINTABLE_ASCII = /^[\x20-\x7e]+$/;
/** Above the largest record (PROTOCOL.md section 4). */
const LEAST_BYTES_PER_KEY = 2 ** 19;
/** Tag of every sealed suite: a record's size is capped with it (PROTOCOL.md section 4). */
const SEALED_TAG_BYTES = 16;
const NAME = /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/;
const DOMAIN = /^[a-z0-9]+(?:-+[a-z0-9]+)*(?:\.[a-z0-9]+(?:-+[a-z0-9]+)*)+$/;

/** @throws {CipherError} unless `bytes` is `expected` bytes long */
export function checkLength(
  bytes: Uint8Array,
  expected: number,
  options: { code: CipherErrorCode; what: string },
): void {
  if (bytes.length !== expected) {
    throw new CipherError(
      options.code,
      `Cannot use ${options.what}: it has ${bytes.length} bytes instead of ${expected}`,
    );
  }
}

/** @throws {CipherError} unless a suite may be called `id`: `name`, or `example.com/name` */
export function checkSuiteId(id: string, options: { needsDomain: boolean }): void {
  const slash = id.indexOf("/");
  const wellFormed = id.length <= MAX_ID_LENGTH && NAME.test(id.slice(slash + 1)) &&
    (slash < 0 || DOMAIN.test(id.slice(0, slash)));
  if (!wellFormed) {
    throw new CipherError(
      "invalidSuite",
      `Cannot accept suite id ${JSON.stringify(id.slice(0, MAX_ID_LENGTH))}: ` +
        `it is not like "name" or "example.com/name", lower case, at most ${MAX_ID_LENGTH} characters`,
    );
  }
  if (options.needsDomain && slash < 0) {
    throw new CipherError(
      "invalidSuite",
      `Cannot accept suite id "${id}": names without a domain are Sealift's own, use "example.com/${id}"`,
    );
  }
}

/**
 * @throws {CipherError} unless the suite's numbers make sense; one for use (`sealed`) needs a tag of
 *   16 bytes and a nonce that holds the 64-bit sequence (PROTOCOL.md section 4), one of the lab (`paper`)
 *   has the paper's checksum as its tag
 */
export function checkSuite(suite: CipherSuite): void {
  const problem = suiteProblem(suite);
  if (problem !== null) {
    throw new CipherError("invalidSuite", `Cannot accept suite ${suite.id}: ${problem}`);
  }
}

function suiteProblem(suite: CipherSuite): string | null {
  if (suite.profile !== "sealed" && suite.profile !== "paper") return "its profile is unknown";
  const sealed = suite.profile === "sealed";
  const tagBytes = sealed ? SEALED_TAG_BYTES : CRC32_BYTES;
  if (suite.tagBytes !== tagBytes) {
    return `tagBytes is ${suite.tagBytes}, but a ${suite.profile} suite has tags of ${tagBytes} bytes`;
  }
  if (suite.backend.length > MAX_BACKEND_LENGTH || !PRINTABLE_ASCII.test(suite.backend)) {
    return `its backend is not 1 to ${MAX_BACKEND_LENGTH} printable ASCII characters`;
  }
  for (
    const [name, least, most] of [
      ["keyBytes", sealed ? 16 : 0, 255],
      ["nonceBytes", sealed ? 8 : 0, sealed ? 255 : PAPER_NONCE_BYTES],
      ["maxMessagesPerKey", 1, Number.MAX_SAFE_INTEGER],
      // One record, at least, has to go under a key.
      ["maxBytesPerKey", sealed ? LEAST_BYTES_PER_KEY : 1, Number.MAX_SAFE_INTEGER],
    ] as const
  ) {
    const value = suite[name];
    if (!Number.isSafeInteger(value) || value < least || value > most) {
      return `${name} is ${value}, not a whole number from ${least} to ${most}`;
    }
  }
  return null;
}
