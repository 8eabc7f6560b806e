/**
 * The fast backend: OpenSSL 3's libcrypto through FFI. The library is opened at the first use and kept
 * for the life of the process.
 *
 * One `EVP_CIPHER_CTX` per sealer or opener: the key schedule is set up once, a message sets the IV
 * only, and a piece is one fast call without an allocation.
 *
 * @see {@link https://docs.openssl.org/3.0/man3/EVP_EncryptInit/ EVP_EncryptInit(3)}
 * @module
 */

import { checkLength, MAX_PIECE_BYTES } from "./_checks.ts";
import {
  EVP_CTRL_AEAD_GET_TAG,
  EVP_CTRL_AEAD_SET_IVLEN,
  EVP_CTRL_AEAD_SET_TAG,
  type LibcryptoSymbols,
  libcryptoSymbols,
  OPENSSL_FULL_VERSION_STRING,
} from "./_libcrypto_symbols.ts";
import { CipherError } from "./errors.ts";
import type { KeyStream } from "./key_stream.ts";
import { type SealedSuiteId, sealedSuiteIds, sealedSuites, type SuiteMetadata } from "./sealed.ts";
import type { CipherSuite, Opener, Sealer } from "./suite.ts";

/** FFI takes no shared memory by type; a view of it works all the same. */
type Bytes = Uint8Array<ArrayBuffer>;

/** The library's names of the suites, NUL-terminated. */
const algorithmNames = {
  "aes-256-gcm": "AES-256-GCM\0",
  "aes-128-gcm": "AES-128-GCM\0",
  "chacha20-poly1305": "ChaCha20-Poly1305\0",
} as const satisfies Record<SealedSuiteId, string>;

/** What opening the library came to. */
export type LibcryptoState =
  | {
    available: true;
    /** For instance `libcrypto 3.0.17`. */
    backend: string;
    /** Those built-in suites that this library has: one in FIPS mode lacks ChaCha20-Poly1305. */
    suites: readonly CipherSuite[];
    /** AES-256 in CTR mode, for the paper's suite; IVs are whole initial counter blocks. Null when this library lacks it. */
    aes256Ctr: ((key: Uint8Array) => KeyStream) | null;
    /** SHA-256. */
    sha256: (message: Uint8Array) => Uint8Array<ArrayBuffer>;
    /** HMAC with SHA-256. */
    hmacSha256: (key: Uint8Array, message: Uint8Array) => Uint8Array<ArrayBuffer>;
  }
  | {
    available: false;
    /** `denied`: no `--allow-ffi`; `missing`: it does not load; `incompatible`: it is not OpenSSL 3. */
    reason: "denied" | "missing" | "incompatible";
    cause: Error;
  };

let opened: LibcryptoState | undefined;

/** The machine's `libcrypto.so.3`, opened at the first call. */
export function libcrypto(): LibcryptoState {
  return opened ??= openLibcrypto("libcrypto.so.3");
}

/** Opens the libcrypto at `path`; {@linkcode libcrypto} is what to use, except to name another library. */
export function openLibcrypto(path: string): LibcryptoState {
  let symbols: LibcryptoSymbols;
  try {
    symbols = Deno.dlopen(path, libcryptoSymbols).symbols;
  } catch (thrown) {
    const cause = thrown instanceof Error ? thrown : new Error(String(thrown));
    const denied = cause instanceof Deno.errors.NotCapable;
    // Deno names the symbol when the library was there and lacks one.
    const incompatible = cause.message.startsWith("Failed to register symbol");
    const reason = denied ? "denied" : incompatible ? "incompatible" : "missing";
    return { available: false, reason, cause };
  }
  // SAFETY: returns a static, NUL-terminated string, or NULL for an unknown number.
  const version = symbols.OpenSSL_version(OPENSSL_FULL_VERSION_STRING);
  const text = version === null ? "" : Deno.UnsafePointerView.getCString(version);
  const backend = `libcrypto ${text}`;
  const suites: CipherSuite[] = [];
  for (const id of sealedSuiteIds) {
    const cipher = fetch(symbols, algorithmNames[id]);
    if (cipher !== null) suites.push(suiteOf(sealedSuites[id], { symbols, cipher, backend }));
  }
  const ctr = fetch(symbols, "AES-256-CTR\0");
  const aes256Ctr = ctr === null
    ? null
    : (key: Uint8Array) => new LibcryptoCtr({ symbols, cipher: ctr, backend }, { key });
  return { available: true, backend, suites, aes256Ctr, ...digests(symbols) };
}

/** One-shot functions: nothing is kept between calls. */
function digests(symbols: LibcryptoSymbols) {
  const algorithm = encode("SHA256\0");
  const hmac = encode("HMAC\0");
  return {
    sha256(message: Uint8Array): Bytes {
      const digest = new Uint8Array(32);
      // SAFETY: names are NUL-terminated, a NULL context and NULL properties are the default ones; `digest` has the
      // algorithm's length, and its length is not asked for.
      const done = symbols.EVP_Q_digest(
        null,
        algorithm,
        null,
        message as Bytes,
        BigInt(message.length),
        digest,
        null,
      );
      if (done !== 1) throw refused(symbols, "compute SHA-256");
      return digest;
    },
    hmacSha256(givenKey: Uint8Array, message: Uint8Array): Bytes {
      const mac = new Uint8Array(32);
      // An empty view is a NULL pointer, which would mean "no key". RFC 2104 section 2 pads with zeros: one is the same.
      const key = givenKey.length === 0 ? new Uint8Array(1) : givenKey;
      // SAFETY: as above; the key is read during the call only.
      const out = symbols.EVP_Q_mac(
        null,
        hmac,
        null,
        algorithm,
        null,
        key as Bytes,
        BigInt(key.length),
        message as Bytes,
        BigInt(message.length),
        mac,
        BigInt(mac.length),
        null,
      );
      if (out === null) throw refused(symbols, "compute HMAC");
      return mac;
    },
  };
}

function refused(symbols: LibcryptoSymbols, what: string): CipherError {
  const cause = takeErrors(symbols);
  return new CipherError("suiteFailed", `Cannot ${what}: libcrypto refused`, { cause });
}

/** The library's cipher of that NUL-terminated name; null when it has none. It lives as long as the library: it is never freed. */
function fetch(symbols: LibcryptoSymbols, name: string): Deno.PointerObject | null {
  // SAFETY: a NULL context is the default one; the name is NUL-terminated and read during the call only.
  return symbols.EVP_CIPHER_fetch(null, encode(name), null);
}

/** An algorithm of an opened library. */
interface Algorithm {
  symbols: LibcryptoSymbols;
  cipher: Deno.PointerObject;
  backend: string;
}

function suiteOf(metadata: SuiteMetadata, algorithm: Algorithm): CipherSuite {
  return {
    ...metadata,
    backend: algorithm.backend,
    createSealer: (key) => new LibcryptoSealer(metadata, algorithm, { key }),
    createOpener: (key) => new LibcryptoOpener(metadata, algorithm, { key }),
  };
}

/** A cipher context: owns the `EVP_CIPHER_CTX`, and with it the only copy of the key. */
class Context implements Disposable {
  readonly #suite: ContextSuite;
  readonly #symbols: LibcryptoSymbols;
  /** Receives each call's output length; one for all of them. */
  readonly #outLength = new Int32Array(1);
  /** Stands in for `out` at the end of a message, where these modes write nothing. */
  readonly #rest = new Uint8Array(32);
  #pointer: Deno.PointerObject | null;

  constructor(suite: ContextSuite, algorithm: Algorithm, options: ContextOptions) {
    checkLength(options.key, suite.keyBytes, { code: "keyLength", what: "key" });
    this.#suite = suite;
    this.#symbols = algorithm.symbols;
    // SAFETY: takes nothing; ours until `EVP_CIPHER_CTX_free` in dispose.
    this.#pointer = this.#symbols.EVP_CIPHER_CTX_new();
    if (this.#pointer === null) throw this.#failure("create cipher context");
    // SAFETY: fresh context; the key has the cipher's length and is copied during the call.
    const keyed = this.#symbols.EVP_CipherInit_ex(
      this.#pointer,
      algorithm.cipher,
      null,
      options.key as Bytes,
      null,
      options.encrypt ? 1 : 0,
    );
    // A mode without a tag has one length of IV.
    // SAFETY: takes a number only, the pointer is unused.
    const sized = keyed === 1 && (suite.tagBytes === 0 || this.#symbols.EVP_CIPHER_CTX_ctrl(
          this.#pointer,
          EVP_CTRL_AEAD_SET_IVLEN,
          suite.nonceBytes,
          null,
        ) === 1);
    if (!sized) {
      const failure = this.#failure("set up cipher context");
      this[Symbol.dispose]();
      throw failure;
    }
  }

  /** Starts a message; the key schedule stays. */
  begin(nonce: Uint8Array): void {
    checkLength(nonce, this.#suite.nonceBytes, { code: "nonceLength", what: "nonce" });
    // SAFETY: live context with its key; the nonce has the length set in the constructor and is copied.
    // -1 leaves the direction as it is.
    const done = this.#symbols.EVP_CipherInit_ex(
      this.#live(),
      null,
      null,
      null,
      nonce as Bytes,
      -1,
    );
    if (done !== 1) throw this.#failure("begin message");
  }

  associate(data: Uint8Array): void {
    checkPiece(data);
    if (data.length === 0) return;
    // SAFETY: live context; out = NULL says associated data, `in` is read for its own length.
    const done = this.#symbols.EVP_CipherUpdate(
      this.#live(),
      null,
      this.#outLength,
      data as Bytes,
      data.length,
    );
    if (done !== 1) throw this.#failure("take associated data");
  }

  update(from: Uint8Array, to: Uint8Array): void {
    const length = from.length;
    if (length !== to.length) {
      throw new CipherError(
        "dataLength",
        `Cannot use piece: ${length} bytes go to a view of ${to.length}`,
      );
    }
    checkPiece(from);
    // An empty view may reach the library as NULL, which would say associated data.
    if (length === 0) return;
    // SAFETY: live context; both views have `length` bytes, and these modes write as many as they read.
    const done = this.#symbols.EVP_CipherUpdate(
      this.#live(),
      to as Bytes,
      this.#outLength,
      from as Bytes,
      length,
    );
    if (done !== 1 || this.#outLength[0] !== length) throw this.#failure("use piece");
  }

  /** Ends a message; false is the opener's word for a tag that does not match. */
  finish(): boolean {
    // SAFETY: live context; `rest` is a block long, more than these modes ever write here.
    return this.#symbols.EVP_CipherFinal_ex(this.#live(), this.#rest, this.#outLength) === 1;
  }

  /** `EVP_CTRL_AEAD_GET_TAG` writes the tag, `EVP_CTRL_AEAD_SET_TAG` copies it. */
  tag(type: number, tag: Uint8Array): void {
    checkLength(tag, this.#suite.tagBytes, { code: "tagLength", what: "tag" });
    // SAFETY: live context; the library reads or writes exactly `tag.length` bytes.
    const done = this.#symbols.EVP_CIPHER_CTX_ctrl(this.#live(), type, tag.length, tag as Bytes);
    if (done !== 1) throw this.#failure("use tag");
  }

  [Symbol.dispose](): void {
    // SAFETY: NULL is allowed; wipes the key schedule, and the pointer is forgotten right here.
    this.#symbols.EVP_CIPHER_CTX_free(this.#pointer);
    this.#pointer = null;
  }

  /** The context; throws when it is gone, since the library would follow the NULL. */
  #live(): Deno.PointerObject {
    if (this.#pointer === null) {
      throw new CipherError("disposed", `Cannot use ${this.#suite.id}: it was disposed`);
    }
    return this.#pointer;
  }

  #failure(what: string): CipherError {
    return refused(this.#symbols, what);
  }
}

/** What a context has to know of its suite. */
type ContextSuite = Pick<SuiteMetadata, "id" | "keyBytes" | "nonceBytes" | "tagBytes">;

interface ContextOptions {
  key: Uint8Array;
  encrypt: boolean;
}

/** AES-256 in CTR mode: encryption and decryption are the same XOR. */
class LibcryptoCtr implements KeyStream {
  readonly #context: Context;

  constructor(algorithm: Algorithm, options: { key: Uint8Array }) {
    const suite = { id: "aes-256-ctr", keyBytes: 32, nonceBytes: 16, tagBytes: 0 };
    this.#context = new Context(suite, algorithm, { key: options.key, encrypt: true });
  }

  begin(iv: Uint8Array): void {
    this.#context.begin(iv);
  }

  xor(from: Uint8Array, to: Uint8Array): void {
    this.#context.update(from, to);
  }

  [Symbol.dispose](): void {
    this.#context[Symbol.dispose]();
  }
}

class LibcryptoSealer implements Sealer {
  readonly #context: Context;

  constructor(suite: SuiteMetadata, algorithm: Algorithm, options: { key: Uint8Array }) {
    this.#context = new Context(suite, algorithm, { key: options.key, encrypt: true });
  }

  begin(nonce: Uint8Array, associatedData: Uint8Array): void {
    this.#context.begin(nonce);
    this.#context.associate(associatedData);
  }

  update(from: Uint8Array, to: Uint8Array): void {
    this.#context.update(from, to);
  }

  finish(tag: Uint8Array): void {
    if (!this.#context.finish()) {
      throw new CipherError("suiteFailed", "Cannot finish message: libcrypto refused");
    }
    this.#context.tag(EVP_CTRL_AEAD_GET_TAG, tag);
  }

  [Symbol.dispose](): void {
    this.#context[Symbol.dispose]();
  }
}

class LibcryptoOpener implements Opener {
  readonly #context: Context;

  constructor(suite: SuiteMetadata, algorithm: Algorithm, options: { key: Uint8Array }) {
    this.#context = new Context(suite, algorithm, { key: options.key, encrypt: false });
  }

  begin(nonce: Uint8Array, associatedData: Uint8Array, tag: Uint8Array): void {
    this.#context.begin(nonce);
    this.#context.tag(EVP_CTRL_AEAD_SET_TAG, tag);
    this.#context.associate(associatedData);
  }

  update(from: Uint8Array, to: Uint8Array): void {
    this.#context.update(from, to);
  }

  /** NIST SP 800-38D section 7.2 step 8, RFC 8439 section 2.8: the tag is compared in constant time inside. */
  finish(): boolean {
    return this.#context.finish();
  }

  [Symbol.dispose](): void {
    this.#context[Symbol.dispose]();
  }
}

/** What the library says of its last failure, the newest first; empties its queue. */
function takeErrors(symbols: LibcryptoSymbols): Error | undefined {
  const text = new Uint8Array(256);
  let error: Error | undefined;
  // SAFETY: takes nothing; returns and removes the oldest error of this thread.
  for (let code; (code = symbols.ERR_get_error()) !== 0n;) {
    // SAFETY: writes at most `text.length` bytes, NUL included.
    symbols.ERR_error_string_n(code, text, BigInt(text.length));
    error = new Error(decode(text.subarray(0, text.indexOf(0))), { cause: error });
  }
  return error;
}

function checkPiece(bytes: Uint8Array): void {
  if (bytes.length > MAX_PIECE_BYTES) {
    throw new CipherError(
      "dataLength",
      `Cannot use piece: ${bytes.length} bytes are more than ${MAX_PIECE_BYTES}`,
    );
  }
}

function encode(text: string): Bytes {
  return new TextEncoder().encode(text);
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
