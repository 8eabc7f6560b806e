/**
 * The suites under test: every built-in suite on every backend, opened before any test begins, since the
 * library stays open for the life of the process.
 */

import { gcm } from "@noble/ciphers/aes.js";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import {
  type CipherSuite,
  type ConformanceVector,
  libcrypto,
  nodeCryptoSuites,
  type ReferenceSeal,
  type SealedSuiteId,
} from "../../ciphers/mod.ts";
import aesGcm from "../vectors/aes_gcm.json" with { type: "json" };
import chacha from "../vectors/chacha20_poly1305.json" with { type: "json" };

const library = libcrypto();

/** Why libcrypto's suites are not under test; null when they are. */
export const libcryptoMissing: string | null = library.available ? null : library.reason;

/** Every suite on every backend that this machine has. */
export const suites: CipherSuite[] = [
  ...(library.available ? library.suites : []),
  ...nodeCryptoSuites(),
];

/** Published vectors of a suite. */
export function vectorsOf(suite: CipherSuite): ConformanceVector[] {
  return [...aesGcm.vectors, ...chacha.vectors]
    .filter((vector) => vector.suite === suite.id)
    .map((vector) => ({ ...vector, result: resultOf(vector.result) }));
}

function resultOf(text: string): ConformanceVector["result"] {
  if (text === "valid" || text === "tagMismatch" || text === "nonceLength") return text;
  throw new TypeError(`Cannot read vector: result ${text} is unknown`);
}

/** @noble/ciphers, an implementation that shares no code with either backend. */
export const references: Record<SealedSuiteId, ReferenceSeal> = {
  "aes-256-gcm": (m) => gcm(m.key, m.nonce, m.associatedData).encrypt(m.plaintext),
  "aes-128-gcm": (m) => gcm(m.key, m.nonce, m.associatedData).encrypt(m.plaintext),
  "chacha20-poly1305": (m) =>
    chacha20poly1305(m.key, m.nonce, m.associatedData).encrypt(m.plaintext),
};

/** A suite that counts and obeys: what it does can be replaced per test. */
export function fakeSuite(overrides: Partial<CipherSuite> = {}): CipherSuite {
  return {
    id: "example.com/fake",
    profile: "sealed",
    keyBytes: 32,
    nonceBytes: 12,
    tagBytes: 16,
    maxMessagesPerKey: 1000,
    maxBytesPerKey: 1_000_000,
    backend: "fake",
    createSealer: () => ({
      begin() {},
      update: (from, to) => to.set(from),
      finish() {},
      [Symbol.dispose]() {},
    }),
    createOpener: () => ({
      begin() {},
      update: (from, to) => to.set(from),
      finish: () => true,
      [Symbol.dispose]() {},
    }),
    ...overrides,
  };
}
