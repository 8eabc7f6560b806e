/**
 * The built-in suites of the sealed profile: what every backend must agree on.
 *
 * @module
 */

import type { CipherSuite } from "./suite.ts";

/** Wire ids of the built-in sealed suites, the default first. */
export const sealedSuiteIds = ["aes-256-gcm", "aes-128-gcm", "chacha20-poly1305"] as const;

/** One of {@linkcode sealedSuiteIds}. */
export type SealedSuiteId = typeof sealedSuiteIds[number];

/** The suite used when nobody chose one. */
export const defaultSuiteId: SealedSuiteId = "aes-256-gcm";

/** What a built-in suite is, apart from who computes it. */
export type SuiteMetadata = Omit<CipherSuite, "backend" | "createSealer" | "createOpener">;

/** NIST SP 800-38D section 8.3 bounds invocations under a key by 2^32. */
const GCM_MESSAGES = 2 ** 32;
/** RFC 8446 section 5.5 stops AES-GCM after 2^24.5 records of 2^14 bytes; rounded down. */
const GCM_BYTES = 2 ** 38;
/** RFC 8446 section 5.5 sees no limit that a sequence number does not reach first: as GCM, with records of 256 KiB. */
const CHACHA_MESSAGES = 2 ** 32;
const CHACHA_BYTES = 2 ** 50;

/**
 * Lengths in bytes and limits of the built-in suites.
 *
 * @see {@link https://csrc.nist.gov/pubs/sp/800/38/d/final NIST SP 800-38D} for GCM
 * @see {@link https://www.rfc-editor.org/rfc/rfc8439 RFC 8439} for ChaCha20-Poly1305
 */
export const sealedSuites = {
  "aes-256-gcm": {
    id: "aes-256-gcm",
    profile: "sealed",
    keyBytes: 32,
    nonceBytes: 12,
    tagBytes: 16,
    maxMessagesPerKey: GCM_MESSAGES,
    maxBytesPerKey: GCM_BYTES,
  },
  "aes-128-gcm": {
    id: "aes-128-gcm",
    profile: "sealed",
    keyBytes: 16,
    nonceBytes: 12,
    tagBytes: 16,
    maxMessagesPerKey: GCM_MESSAGES,
    maxBytesPerKey: GCM_BYTES,
  },
  "chacha20-poly1305": {
    id: "chacha20-poly1305",
    profile: "sealed",
    keyBytes: 32,
    nonceBytes: 12,
    tagBytes: 16,
    maxMessagesPerKey: CHACHA_MESSAGES,
    maxBytesPerKey: CHACHA_BYTES,
  },
} as const satisfies Record<SealedSuiteId, SuiteMetadata>;
