/**
 * The paper's suites, for its lab profile only: `P = <M, CRC-32(M)>`, `C = P XOR stream(v, k)`, "IV and
 * cipher text transmitted" (paper, section 3.1, "Algorithm principle"). The tag is the encoded checksum,
 * the nonce is v. **They authenticate nothing**, associated data neither: the paper binds none.
 *
 * @see docs/paper.md
 * @module
 */

import { checkLength } from "./_checks.ts";
import { crc32, CRC32_BYTES, readCrc32, writeCrc32 } from "./crc32.ts";
import { CipherError } from "./errors.ts";
import type { KeyStream } from "./key_stream.ts";
import { libcrypto, type LibcryptoState } from "./libcrypto.ts";
import { nodeAes256Ctr } from "./node_crypto.ts";
import { MAX_RC4_KEY_BYTES, Rc4 } from "./rc4.ts";
import type { SuiteMetadata } from "./sealed.ts";
import type { CipherSuite, Opener, Sealer } from "./suite.ts";

/** Wire ids of the paper's suites, its own first. */
export const paperSuiteIds = ["rc4-round", "rc4", "aes-256-ctr", "none"] as const;

/** One of {@linkcode paperSuiteIds}. */
export type PaperSuiteId = typeof paperSuiteIds[number];

/**
 * Length of v, in bytes. The paper gives none; WEP's 3 bytes repeat after 64 GiB of pages, which a large
 * VM sends, so v is as long as a record's sequence.
 */
const IV_BYTES = 8;
/** v || k fills RC4's key of 256 bytes = 2048 bits, the exponent of the paper's "2^(2048 n) conversion forms". */
const RC4_KEY_BYTES = MAX_RC4_KEY_BYTES - IV_BYTES;
const AES_256_KEY_BYTES = 32;
const AES_BLOCK_BYTES = 16;

/** The paper names no limit, and IVs are counted: they run out last. */
const common = {
  profile: "paper",
  tagBytes: CRC32_BYTES,
  maxMessagesPerKey: Number.MAX_SAFE_INTEGER,
  maxBytesPerKey: Number.MAX_SAFE_INTEGER,
} as const;

/**
 * Lengths in bytes of the paper's suites.
 *
 * @see {@link https://www.rfc-editor.org/rfc/rfc6229 RFC 6229} for RC4
 * @see {@link https://csrc.nist.gov/pubs/sp/800/38/a/final NIST SP 800-38A section 6.5} for CTR
 */
export const paperSuiteTable = {
  /** The paper's: a new key each round. */
  "rc4-round": { ...common, id: "rc4-round", keyBytes: RC4_KEY_BYTES, nonceBytes: IV_BYTES },
  /** What the paper compares with as "the traditional RC4": one key for the migration. */
  "rc4": { ...common, id: "rc4", keyBytes: RC4_KEY_BYTES, nonceBytes: IV_BYTES },
  /** A sound stream cipher in RC4's place: shows which faults are not RC4's. */
  "aes-256-ctr": {
    ...common,
    id: "aes-256-ctr",
    keyBytes: AES_256_KEY_BYTES,
    nonceBytes: IV_BYTES,
  },
  /** The paper's "Normal": in clear, its checksum too. */
  "none": { ...common, id: "none", keyBytes: 0, nonceBytes: 0 },
} as const satisfies Record<PaperSuiteId, SuiteMetadata>;

/** Whether the suite's key changes with each round (paper, section 3.1); `rc4` keeps one for the migration. */
export function hasKeyPerRound(suite: CipherSuite): boolean {
  return suite.id !== paperSuiteTable.rc4.id;
}

/** The paper's suites in the order of `paperSuiteIds`: AES from libcrypto where it loads, else from `node:crypto`. */
export function paperSuites(library: LibcryptoState = libcrypto()): CipherSuite[] {
  const fast = library.available ? library.aes256Ctr : null;
  const aes = fast ?? nodeAes256Ctr;
  const rc4 = (key: Uint8Array) => new Rc4Stream(key);
  const typescript = "typescript";
  return [
    suiteOf(paperSuiteTable["rc4-round"], { stream: rc4, backend: typescript }),
    suiteOf(paperSuiteTable.rc4, { stream: rc4, backend: typescript }),
    suiteOf(paperSuiteTable["aes-256-ctr"], {
      stream: (key) => new CtrStream(aes(key)),
      backend: library.available && fast !== null ? library.backend : "node:crypto",
    }),
    suiteOf(paperSuiteTable.none, { stream: () => new ClearStream(), backend: typescript }),
  ];
}

function suiteOf(
  metadata: SuiteMetadata,
  { stream, backend }: { stream: (key: Uint8Array) => KeyStream; backend: string },
): CipherSuite {
  const keyed = (key: Uint8Array) => {
    checkLength(key, metadata.keyBytes, { code: "keyLength", what: "key" });
    return stream(key);
  };
  return {
    ...metadata,
    backend,
    createSealer: (key) => new StreamSealer(metadata, keyed(key)),
    createOpener: (key) => new StreamOpener(metadata, keyed(key)),
  };
}

/**
 * RC4(v, k). The paper's figures take "IV and Key" and do not say how: WEP's way, v || k, whose checksum
 * and three steps it takes too (IEEE 802.11-1999, section 8.2.3).
 */
class Rc4Stream implements KeyStream {
  readonly #rc4 = new Rc4();
  /** v || k. */
  readonly #seed = new Uint8Array(MAX_RC4_KEY_BYTES);

  constructor(key: Uint8Array) {
    this.#seed.set(key, IV_BYTES);
  }

  begin(iv: Uint8Array): void {
    this.#seed.set(iv);
    this.#rc4.setKey(this.#seed);
  }

  xor(from: Uint8Array, to: Uint8Array): void {
    this.#rc4.xor(from, to);
  }

  [Symbol.dispose](): void {
    this.#rc4[Symbol.dispose]();
    this.#seed.fill(0);
  }
}

/** Counter blocks v || 0 u64, v || 1, ...: no two messages share one (NIST SP 800-38A appendix B.2, second approach). */
class CtrStream implements KeyStream {
  readonly #aes: KeyStream;
  readonly #counter = new Uint8Array(AES_BLOCK_BYTES);

  constructor(aes: KeyStream) {
    this.#aes = aes;
  }

  begin(iv: Uint8Array): void {
    this.#counter.set(iv);
    this.#aes.begin(this.#counter);
  }

  xor(from: Uint8Array, to: Uint8Array): void {
    this.#aes.xor(from, to);
  }

  [Symbol.dispose](): void {
    this.#aes[Symbol.dispose]();
  }
}

/** A stream of zeros: nothing is hidden. */
class ClearStream implements KeyStream {
  begin(): void {}

  xor(from: Uint8Array, to: Uint8Array): void {
    if (from !== to) to.set(from);
  }

  [Symbol.dispose](): void {}
}

/** The encryption process, steps a to c (paper, section 3.1). */
class StreamSealer implements Sealer {
  readonly #suite: SuiteMetadata;
  readonly #stream: KeyStream;
  #checksum = 0;
  #begun = false;

  constructor(suite: SuiteMetadata, stream: KeyStream) {
    this.#suite = suite;
    this.#stream = stream;
  }

  begin(nonce: Uint8Array): void {
    checkLength(nonce, this.#suite.nonceBytes, { code: "nonceLength", what: "nonce" });
    this.#stream.begin(nonce);
    this.#checksum = 0;
    this.#begun = true;
  }

  update(from: Uint8Array, to: Uint8Array): void {
    checkPiece(this.#begun, from, to);
    // a. C(M), before M is overwritten in place.
    this.#checksum = crc32(from, this.#checksum);
    // b. C = P XOR RC4(v, k): M first,
    this.#stream.xor(from, to);
  }

  finish(tag: Uint8Array): void {
    checkLength(tag, this.#suite.tagBytes, { code: "tagLength", what: "tag" });
    checkBegun(this.#begun);
    this.#begun = false;
    // then C(M), which follows it in P.
    writeCrc32(this.#checksum, tag);
    this.#stream.xor(tag, tag);
  }

  [Symbol.dispose](): void {
    this.#begun = false;
    this.#stream[Symbol.dispose]();
  }
}

/** The decryption process, steps a and b (paper, section 3.1). */
class StreamOpener implements Opener {
  readonly #suite: SuiteMetadata;
  readonly #stream: KeyStream;
  readonly #tag = new Uint8Array(CRC32_BYTES);
  #checksum = 0;
  #begun = false;

  constructor(suite: SuiteMetadata, stream: KeyStream) {
    this.#suite = suite;
    this.#stream = stream;
  }

  begin(nonce: Uint8Array, _associatedData: Uint8Array, tag: Uint8Array): void {
    checkLength(nonce, this.#suite.nonceBytes, { code: "nonceLength", what: "nonce" });
    checkLength(tag, this.#suite.tagBytes, { code: "tagLength", what: "tag" });
    this.#stream.begin(nonce);
    this.#tag.set(tag);
    this.#checksum = 0;
    this.#begun = true;
  }

  update(from: Uint8Array, to: Uint8Array): void {
    checkPiece(this.#begun, from, to);
    // a. "The cipher text make XOR operation with RC4(v,k) getting the plaintext."
    this.#stream.xor(from, to);
    this.#checksum = crc32(to, this.#checksum);
  }

  finish(): boolean {
    checkBegun(this.#begun);
    this.#begun = false;
    // b. "recalculate the checksum C(M)' compared with the received C(M)"
    this.#stream.xor(this.#tag, this.#tag);
    return readCrc32(this.#tag) === this.#checksum;
  }

  [Symbol.dispose](): void {
    this.#begun = false;
    this.#stream[Symbol.dispose]();
  }
}

function checkPiece(begun: boolean, from: Uint8Array, to: Uint8Array): void {
  checkBegun(begun);
  checkLength(to, from.length, { code: "dataLength", what: "piece" });
}

function checkBegun(begun: boolean): void {
  if (!begun) throw new CipherError("order", "Cannot go on: no message was begun");
}
