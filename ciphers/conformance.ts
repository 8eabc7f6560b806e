/**
 * The conformance kit: what a cipher suite must do to be used by Sealift, as checks that any test runner
 * can run. Authors of suites run it in their own tests.
 *
 * @example The whole test of a third party's suite
 * ```ts
 * import { CipherRegistry, type CipherSuite, conformanceChecks, nodeCryptoSuites } from "./mod.ts";
 *
 * // Yours instead of a suite under another name; mod.ts exports the same names.
 * const suite: CipherSuite = { ...nodeCryptoSuites()[2]!, id: "example.com/mine" };
 * const key = "00".repeat(32), nonce = "00".repeat(12), tag = "4eb972c9a8fb3a1b382bb4d36f5ffad1";
 * const vectors = [
 *   { name: "empty", key, nonce, associatedData: "", plaintext: "", ciphertext: "", tag, result: "valid" },
 * ] as const;
 * for (const { run } of conformanceChecks(suite, { vectors })) run(); // or Deno.test(name, run)
 * new CipherRegistry().register(suite); // registerCipher(suite): in that of the process
 * ```
 *
 * @module
 */

import { checkSuite } from "./_checks.ts";
import {
  copiesTheKey,
  isDeterministic,
  isSynchronous,
  keepsSealersApart,
  mayBeDisposedAnyTime,
  opensEverySize,
  refusesWrongLengths,
  repeatsNoKeystream,
  sealsAlikeWhenSplit,
  sealsManyMessages,
  takesAssociatedData,
  touchesNothingElse,
  worksInPlace,
} from "./_conformance_sealing.ts";
import {
  opensAfterRefusal,
  refusesChangedCiphertext,
  refusesChangedContext,
  refusesChangedTag,
  refusesForgedEmptyMessage,
} from "./_conformance_tampering.ts";
import { assertBytes, expect, fill, open, refuses, seal, SIZES } from "./_conformance_tools.ts";
import type { CipherSuite } from "./suite.ts";

/** One message with its seal, every value in hexadecimal. */
export interface ConformanceVector {
  /** Names it in the check. */
  name: string;
  /** Of the suite's length. */
  key: string;
  /** Of the suite's length, unless `result` is `nonceLength`. */
  nonce: string;
  /** May be empty. */
  associatedData: string;
  /** May be empty; unused when the tag does not match. */
  plaintext: string;
  /** As long as the plaintext. */
  ciphertext: string;
  /** Of the suite's length. */
  tag: string;
  /** `valid`; `tagMismatch`: must not open; `nonceLength`: the suite has nonces of another length and must say so. */
  result: "valid" | "tagMismatch" | "nonceLength";
}

/** Seals in one go by an independent implementation; returns ciphertext and tag, joined. */
export type ReferenceSeal = (message: {
  key: Uint8Array;
  nonce: Uint8Array;
  associatedData: Uint8Array;
  plaintext: Uint8Array;
}) => Uint8Array;

/** What {@linkcode conformanceChecks} may compare with. */
export interface ConformanceOptions {
  /** From the suite's specification. */
  vectors?: Iterable<ConformanceVector>;
  /** An independent implementation. */
  reference?: ReferenceSeal;
}

/** One check. */
export interface ConformanceCheck {
  /** What the suite has to do: `opens what it sealed, at every size`. */
  title: string;
  /** With the suite before it, for a test runner: `aes-256-gcm (node:crypto): opens what it sealed, at every size`. */
  name: string;
  /** Runs it. @throws {CipherError} `nonconforming`, or what the suite itself threw */
  run(): void;
}

/**
 * Every check that applies to the suite; a suite of the paper's profile promises no authenticity, so
 * the checks that damage messages or look for repeated keystream are left out for it.
 */
export function conformanceChecks(
  suite: CipherSuite,
  options: ConformanceOptions = {},
): ConformanceCheck[] {
  const checks: [string, () => void][] = [
    ["has sound metadata", () => checkSuite(suite)],
    ["does its work before it returns", () => isSynchronous(suite)],
    ["opens what it sealed, at every size", () => opensEverySize(suite)],
    ["seals alike however the message is split", () => sealsAlikeWhenSplit(suite)],
    ["seals and opens in place", () => worksInPlace(suite)],
    ["touches nothing beside its views", () => touchesNothingElse(suite)],
    ["takes associated data of every size", () => takesAssociatedData(suite)],
    ["is deterministic", () => isDeterministic(suite)],
    ["copies the key", () => copiesTheKey(suite)],
    ["goes from message to message", () => sealsManyMessages(suite)],
    ["keeps sealers apart", () => keepsSealersApart(suite)],
  ];
  if (suite.profile === "sealed") {
    checks.push(
      ["repeats no keystream", () => repeatsNoKeystream(suite)],
      ["refuses a changed tag", () => refusesChangedTag(suite)],
      ["refuses changed ciphertext", () => refusesChangedCiphertext(suite)],
      ["refuses a changed nonce, key or associated data", () => refusesChangedContext(suite)],
      ["refuses a forged empty message", () => refusesForgedEmptyMessage(suite)],
      ["opens the next message after one it refused", () => opensAfterRefusal(suite)],
    );
  }
  checks.push(
    ["refuses wrong lengths", () => refusesWrongLengths(suite)],
    ["may be disposed in the middle, and twice", () => mayBeDisposedAnyTime(suite)],
  );
  for (const vector of options.vectors ?? []) {
    checks.push([`vector: ${vector.name}`, () => agreesWithVector(suite, vector)]);
  }
  const reference = options.reference;
  if (reference !== undefined) {
    checks.push(["agrees with the reference", () => agreesWithReference(suite, reference)]);
  }
  return checks.map(([title, run]) => ({
    title,
    name: `${suite.id} (${suite.backend}): ${title}`,
    run,
  }));
}

function agreesWithVector(suite: CipherSuite, vector: ConformanceVector): void {
  const bytes = (text: string) => Uint8Array.fromHex(text);
  const message = {
    key: bytes(vector.key),
    nonce: bytes(vector.nonce),
    associatedData: bytes(vector.associatedData),
  };
  const plaintext = bytes(vector.plaintext);
  const sealed = { ...message, ciphertext: bytes(vector.ciphertext), tag: bytes(vector.tag) };
  if (vector.result === "nonceLength") {
    refuses(() => seal(suite, { ...message, plaintext }), "its nonce's length is taken");
    refuses(() => open(suite, sealed), "its nonce's length is taken");
    return;
  }
  const result = open(suite, sealed);
  if (vector.result === "tagMismatch") {
    expect(!result.authentic, "its wrong tag is taken");
    return;
  }
  const ours = seal(suite, { ...message, plaintext });
  assertBytes(ours.ciphertext, sealed.ciphertext, "its ciphertext");
  assertBytes(ours.tag, sealed.tag, "its tag");
  expect(result.authentic, "it does not open");
  assertBytes(result.plaintext, plaintext, "its plaintext");
}

function agreesWithReference(suite: CipherSuite, reference: ReferenceSeal): void {
  for (const size of SIZES) {
    const message = { plaintext: fill(size, { seed: size }), associatedData: fill(size % 50) };
    const { key, nonce, ciphertext, tag } = seal(suite, message);
    const joined = Uint8Array.from([...ciphertext, ...tag]);
    assertBytes(joined, reference({ key, nonce, ...message }), `${size} bytes sealed`);
  }
}
