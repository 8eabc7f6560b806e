/**
 * Ciphers: what seals pages, and how to bring your own.
 *
 * A {@linkcode CipherSuite} is metadata (wire id, profile, lengths, limits) and makes a *synchronous,
 * incremental* {@linkcode Sealer} and {@linkcode Opener}: `begin`, an `update` per page, `finish`. A page
 * goes from QEMU's stream into a sealed record without another copy, and no promise stands between.
 *
 * Nothing calls a suite directly. {@linkcode guardSealer} and {@linkcode guardOpener} wrap it once and
 * for all: exact lengths, order of calls, nonces that only grow (they are record sequences), messages
 * and bytes per key, and an end to everything after a failure. What a suite has to get right itself is
 * what only it can: the cipher. {@linkcode conformanceChecks} tests that.
 *
 * The built-in suites come from OpenSSL's libcrypto through FFI where it loads, else from `node:crypto`:
 * the same bytes, at another speed. `suite.backend` says which; {@linkcode libcrypto} says why.
 *
 * ```mermaid
 * sequenceDiagram
 *   participant S as source
 *   participant D as destination
 *   Note over S: begin(nonce = sequence, associatedData = header)
 *   Note over S: update(page, body) for each page
 *   Note over S: finish(tag)
 *   S->>D: header, body, tag
 *   Note over D: begin(nonce, header, tag)
 *   Note over D: update(body, scratch)
 *   Note over D: finish() is true: land the pages; false: a mistake
 * ```
 *
 * @example Sealing a page
 * ```ts
 * import { guardOpener, guardSealer, nodeCryptoSuites } from "./mod.ts";
 *
 * const suite = nodeCryptoSuites()[0]!; // usually: defaultRegistry().get("aes-256-gcm")
 * const key = crypto.getRandomValues(new Uint8Array(suite.keyBytes));
 * const nonce = new Uint8Array(suite.nonceBytes), header = new Uint8Array(24);
 * const page = new Uint8Array(4096).fill(7), body = new Uint8Array(4096);
 * const tag = new Uint8Array(suite.tagBytes);
 *
 * using sealer = guardSealer(suite, key);
 * sealer.begin(nonce, header);
 * sealer.update(page, body);
 * sealer.finish(tag);
 *
 * using opener = guardOpener(suite, key);
 * opener.begin(nonce, header, tag);
 * opener.update(body, body);
 * console.assert(opener.finish() && body[0] === 7);
 * ```
 *
 * A third party's suite has an id with a domain, `example.com/name`: `registerCipher(suite)`.
 *
 * @module
 */

export type { CipherSuite, Opener, Sealer, SuiteProfile } from "./suite.ts";
export { CipherError, type CipherErrorCode, cipherErrorCodes } from "./errors.ts";
export {
  defaultSuiteId,
  type SealedSuiteId,
  sealedSuiteIds,
  sealedSuites,
  type SuiteMetadata,
} from "./sealed.ts";
export { libcrypto, type LibcryptoState, openLibcrypto } from "./libcrypto.ts";
export { nodeCryptoSuites } from "./node_crypto.ts";
export type { KeyStream } from "./key_stream.ts";
export {
  hasKeyPerRound,
  type PaperSuiteId,
  paperSuiteIds,
  paperSuites,
  paperSuiteTable,
} from "./paper_suites.ts";
export { guardOpener, guardSealer } from "./guard.ts";
export { builtInRegistry, CipherRegistry, defaultRegistry, registerCipher } from "./registry.ts";
export {
  type ConformanceCheck,
  conformanceChecks,
  type ConformanceOptions,
  type ConformanceVector,
  type ReferenceSeal,
} from "./conformance.ts";
