/**
 * Bodies of the sealed profile: one AEAD call for each record, its header as associated data.
 *
 * @see PROTOCOL.md section 4
 * @module
 */

import { guardOpener, guardSealer } from "../ciphers/guard.ts";
import type { CipherRegistry } from "../ciphers/registry.ts";
import type { CipherSuite, Opener, Sealer } from "../ciphers/suite.ts";
import { MigrationError } from "./errors.ts";
import { messageOf } from "./failure.ts";
import type { KeySchedule } from "./key_schedule.ts";
import {
  MAX_BYTES_PER_KEY,
  MAX_PAGES_PER_RECORD,
  MAX_RECORD_PLAINTEXT_BYTES,
  MAX_RECORDS_PER_KEY,
  PAGES_PER_RECORD,
  RECORD_HEADER_BYTES,
} from "./limits.ts";
import { type PageClass, pageClasses, type SuiteChoice } from "./messages.ts";
import { readRecordHeader, type RecordHeader, SequenceNonce } from "./record.ts";
import type { BodyContent, BodyReader, BodyWriter } from "./record_bodies.ts";

/** Pages of a full record start on a cache line of scratch, and those of one that holds 16, 32 or 48. */
const SCRATCH_PAGES_AT = 320;
/** 3 + 4 * 64 bytes of head before that. */
const SCRATCH_FROM = SCRATCH_PAGES_AT - 3 - 4 * MAX_PAGES_PER_RECORD;

/** The distinct suites of a migration, in the order of their wire index, and which is whose. */
export interface SuiteTable {
  readonly suites: readonly CipherSuite[];
  readonly suiteOf: Readonly<Record<PageClass, number>>;
}

/** The suites that ACCEPT names. @throws {CipherError} `unknownSuite` */
export function suiteTable(choice: SuiteChoice, registry: CipherRegistry): SuiteTable {
  const ids = [...new Set(pageClasses.map((pageClass) => choice[pageClass]))];
  const indexOf = (pageClass: PageClass) => ids.indexOf(choice[pageClass]);
  return {
    suites: ids.map((id) => registry.get(id)),
    suiteOf: {
      user: indexOf("user"),
      kernelText: indexOf("kernelText"),
      kernelData: indexOf("kernelData"),
      unmapped: indexOf("unmapped"),
    },
  };
}

/** One suite of the migration, with the sealer of the current key number once it was needed. */
interface SuiteState {
  readonly suite: CipherSuite;
  readonly nonce: SequenceNonce;
  sealer: Sealer | null;
  /** For records that were damaged on the way, which tend to be many under one key. */
  reopener: { opener: Opener; lane: number; keyNumber: number } | null;
}

/** Seals bodies. See the module. */
export class SealedBodyWriter implements BodyWriter {
  readonly maxPages = PAGES_PER_RECORD;
  readonly maxPerKey: BodyWriter["maxPerKey"];
  readonly #schedule: KeySchedule;
  readonly #suites: SuiteState[];
  readonly #suiteOf: Readonly<Record<PageClass, number>>;

  /** Keys are derived when they are needed; the schedule stays the caller's. */
  constructor(options: SuiteTable & { schedule: KeySchedule }) {
    this.#schedule = options.schedule;
    this.#suiteOf = options.suiteOf;
    this.maxPerKey = {
      records: Math.min(
        MAX_RECORDS_PER_KEY,
        ...options.suites.map((suite) => suite.maxMessagesPerKey),
      ),
      bytes: Math.min(MAX_BYTES_PER_KEY, ...options.suites.map((suite) => suite.maxBytesPerKey)),
    };
    this.#suites = options.suites.map((suite) => ({
      suite,
      nonce: new SequenceNonce(suite.nonceBytes),
      sealer: null,
      reopener: null,
    }));
  }

  suiteOf(pageClass: PageClass): number {
    return this.#suiteOf[pageClass];
  }

  bodyBytes({ pageClass, head, pieceBytes }: BodyContent): number {
    return head.length + pieceBytes + this.#suites[this.#suiteOf[pageClass]]!.suite.tagBytes;
  }

  write(content: BodyContent, record: Uint8Array, header: RecordHeader): void {
    const state = this.#suites[header.suite]!;
    const sealer = state.sealer ??= this.#newSealer(state.suite, header);
    sealer.begin(state.nonce.of(header.sequence), record.subarray(0, RECORD_HEADER_BYTES));
    // Copied first and sealed in place by one call: faster than a call a page, which the list before the
    // pages would leave off the cipher's block boundary.
    const { head, pieces, count } = content;
    record.set(head, RECORD_HEADER_BYTES);
    let at = RECORD_HEADER_BYTES + head.length;
    for (let i = 0; i < count; i++) {
      record.set(pieces[i]!, at);
      at += pieces[i]!.length;
    }
    const body = record.subarray(RECORD_HEADER_BYTES, at);
    sealer.update(body, body);
    sealer.finish(record.subarray(at));
  }

  dropKeys(): void {
    for (const state of this.#suites) {
      state.sealer?.[Symbol.dispose]();
      state.sealer = null;
    }
  }

  reopen(record: Uint8Array): Uint8Array {
    const header = readRecordHeader(new DataView(record.buffer, record.byteOffset), 0)!;
    const state = this.#suites[header.suite]!;
    const { suite } = state;
    const plaintext = new Uint8Array(record.length - RECORD_HEADER_BYTES - suite.tagBytes);
    const nonce = new SequenceNonce(suite.nonceBytes).of(header.sequence);
    const what = `Cannot open our own record ${header.sequence}`;
    let authentic: boolean;
    try {
      const opener = this.#reopener(state, header);
      authentic = open(opener, { record, suite, nonce, to: plaintext });
    } catch (cause) {
      // The page could not be sent again: that must not look like a lost connection.
      throw new MigrationError("vm", `${what}: ${messageOf(cause)}`, { cause });
    }
    if (authentic) return plaintext;
    throw new MigrationError("protocol", `${what}: it changed in memory`);
  }

  /** Wipes the keys. */
  [Symbol.dispose](): void {
    this.dropKeys();
    for (const state of this.#suites) {
      state.reopener?.opener[Symbol.dispose]();
      state.reopener = null;
    }
  }

  #reopener(state: SuiteState, header: RecordHeader): Opener {
    const { lane, keyNumber } = header;
    const kept = state.reopener;
    if (kept?.lane === lane && kept.keyNumber === keyNumber) return kept.opener;
    kept?.opener[Symbol.dispose]();
    state.reopener = null;
    const opener = newOpener(state.suite, this.#schedule, header);
    state.reopener = { opener, lane, keyNumber };
    return opener;
  }

  #newSealer(suite: CipherSuite, header: RecordHeader): Sealer {
    const key = dataKey(suite, this.#schedule, header);
    const sealer = guardSealer(suite, key);
    key.fill(0);
    return sealer;
  }
}

/** Opens bodies. See the module. */
export class SealedBodyReader implements BodyReader {
  readonly isAuthentic = true;
  readonly #schedule: KeySchedule;
  readonly #suites: readonly CipherSuite[];
  readonly #nonces: SequenceNonce[];
  readonly #scratch = new Uint8Array(SCRATCH_PAGES_AT + MAX_RECORD_PLAINTEXT_BYTES);
  /** Openers of the last key number that opened, by suite. */
  #openers: (Opener | undefined)[] = [];
  #keyNumber = 0;

  /** As {@linkcode SealedBodyWriter}. */
  constructor(options: { schedule: KeySchedule; suites: readonly CipherSuite[] }) {
    this.#schedule = options.schedule;
    this.#suites = options.suites;
    this.#nonces = options.suites.map((suite) => new SequenceNonce(suite.nonceBytes));
  }

  fits({ suite, bodyLength }: RecordHeader): boolean {
    const known = this.#suites[suite];
    return known !== undefined && bodyLength > known.tagBytes;
  }

  read(record: Uint8Array, header: RecordHeader): Uint8Array | null {
    const suite = this.#suites[header.suite]!;
    const kept = header.keyNumber === this.#keyNumber ? this.#openers[header.suite] : undefined;
    const opener = kept ?? newOpener(suite, this.#schedule, header);
    const plaintext = this.#scratch.subarray(
      SCRATCH_FROM,
      SCRATCH_FROM + header.bodyLength - suite.tagBytes,
    );
    const nonce = this.#nonces[header.suite]!.of(header.sequence);
    if (!open(opener, { record, suite, nonce, to: plaintext })) {
      plaintext.fill(0);
      if (kept === undefined) opener[Symbol.dispose]();
      return null;
    }
    if (header.keyNumber !== this.#keyNumber) {
      // Only a record that opened advances the key number: a header alone proves nothing.
      this.#dropOpeners();
      this.#keyNumber = header.keyNumber;
    }
    this.#openers[header.suite] = opener;
    return plaintext;
  }

  /** Wipes the keys, and what was opened last. */
  [Symbol.dispose](): void {
    this.#dropOpeners();
    this.#scratch.fill(0);
  }

  #dropOpeners(): void {
    for (const opener of this.#openers) opener?.[Symbol.dispose]();
    this.#openers = [];
  }
}

function open(
  opener: Opener,
  options: { record: Uint8Array; suite: CipherSuite; nonce: Uint8Array; to: Uint8Array },
): boolean {
  const { record, suite, nonce, to } = options;
  const bodyEnd = record.length - suite.tagBytes;
  opener.begin(nonce, record.subarray(0, RECORD_HEADER_BYTES), record.subarray(bodyEnd));
  opener.update(record.subarray(RECORD_HEADER_BYTES, bodyEnd), to);
  return opener.finish();
}

function newOpener(suite: CipherSuite, schedule: KeySchedule, header: RecordHeader): Opener {
  const key = dataKey(suite, schedule, header);
  const opener = guardOpener(suite, key);
  key.fill(0);
  return opener;
}

/** PROTOCOL.md section 3. The caller wipes it. */
function dataKey(
  { id, keyBytes }: CipherSuite,
  schedule: KeySchedule,
  { lane, keyNumber }: RecordHeader,
): Uint8Array {
  return schedule.dataKey({ lane, keyNumber, suiteId: id, keyBytes });
}
