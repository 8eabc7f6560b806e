/**
 * Which cipher suites there are, by wire id.
 *
 * @module
 */

import { checkSuite, checkSuiteId } from "./_checks.ts";
import { CipherError } from "./errors.ts";
import { libcrypto, type LibcryptoState } from "./libcrypto.ts";
import { nodeCryptoSuites } from "./node_crypto.ts";
import { paperSuites } from "./paper_suites.ts";
import type { CipherSuite } from "./suite.ts";

/**
 * Suites by wire id, in the order they came.
 *
 * @example
 * ```ts
 * import { nodeCryptoSuites } from "./node_crypto.ts";
 * import { CipherRegistry } from "./registry.ts";
 *
 * const registry = new CipherRegistry(nodeCryptoSuites());
 * console.assert(registry.get("aes-256-gcm").tagBytes === 16);
 * ```
 */
export class CipherRegistry {
  readonly #suites = new Map<string, CipherSuite>();

  /**
   * A registry of its own; {@linkcode builtInRegistry} makes the usual one.
   *
   * @param builtIns suites whose ids are Sealift's own, without a domain
   * @throws {CipherError} as {@linkcode CipherRegistry.register}
   */
  constructor(builtIns: Iterable<CipherSuite> = []) {
    for (const suite of builtIns) this.#add(suite, { needsDomain: false });
  }

  /**
   * Adds a third party's suite. Run the conformance kit over it in your own tests.
   *
   * @throws {CipherError} `invalidSuite` for an id that is not like `example.com/name` or for numbers
   *   that make no safe suite, `duplicateSuite` for an id that is taken
   */
  register(suite: CipherSuite): void {
    this.#add(suite, { needsDomain: true });
  }

  /** The suite of that id. @throws {CipherError} `unknownSuite` */
  get(id: string): CipherSuite {
    const suite = this.#suites.get(id);
    if (suite === undefined) {
      throw new CipherError(
        "unknownSuite",
        `Cannot use suite ${JSON.stringify(id)}: known are ${[...this.#suites.keys()].join(", ")}`,
      );
    }
    return suite;
  }

  /** Whether a suite of that id is registered. */
  has(id: string): boolean {
    return this.#suites.has(id);
  }

  /** Every suite, in the order of registration. */
  list(): CipherSuite[] {
    return [...this.#suites.values()];
  }

  #add(suite: CipherSuite, options: { needsDomain: boolean }): void {
    checkSuiteId(suite.id, options);
    checkSuite(suite);
    if (this.#suites.has(suite.id)) {
      throw new CipherError("duplicateSuite", `Cannot register suite ${suite.id}: it is taken`);
    }
    this.#suites.set(suite.id, suite);
  }
}

/**
 * A new registry with the built-in suites, the sealed ones first, then the paper's: each from libcrypto
 * where that loads and has it, else from `node:crypto`, or our own. `suite.backend` says which; `libcrypto()` says why, when it did not load.
 */
export function builtInRegistry(library: LibcryptoState = libcrypto()): CipherRegistry {
  const fast = library.available ? library.suites : [];
  return new CipherRegistry([
    ...nodeCryptoSuites().map((slow) => fast.find((suite) => suite.id === slow.id) ?? slow),
    ...paperSuites(library),
  ]);
}

let shared: CipherRegistry | undefined;

/** The registry of this process, made at the first call, which opens libcrypto and keeps it open. */
export function defaultRegistry(): CipherRegistry {
  return shared ??= builtInRegistry();
}

/**
 * Adds a third party's suite to the registry of this process.
 *
 * @throws {CipherError} as {@linkcode CipherRegistry.register}
 */
export function registerCipher(suite: CipherSuite): void {
  defaultRegistry().register(suite);
}
