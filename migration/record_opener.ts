/**
 * The destination's end of records: checks the header against what must come, opens the body into
 * scratch, and hands out what it holds only when the tag was right and every number is inside the VM.
 *
 * @see PROTOCOL.md section 4, "Check, then land"
 * @module
 */

import { guardOpener } from "../ciphers/guard.ts";
import type { CipherSuite, Opener } from "../ciphers/suite.ts";
import { MigrationError } from "./errors.ts";
import type { KeySchedule } from "./key_schedule.ts";
import {
  MAX_KEY_NUMBER_LEAD,
  MAX_PAGES_PER_RECORD,
  MAX_RECORD_PLAINTEXT_BYTES,
  RECORD_HEADER_BYTES,
} from "./limits.ts";
import type { RamBlock } from "./ports.ts";
import { readRecordHeader, SequenceNonce } from "./record.ts";
import { type RecordContent, RecordParser } from "./record_content.ts";

/** What a record held, views valid until the next `open`; or a body that is not authentic: skipped. */
export type OpenedRecord = RecordContent | { type: "mistake" };

/** Pages start on a cache line of scratch when a record is full of them. */
const SCRATCH_PAGES_AT = 320;

/** Opens one lane, strictly in order. */
export class RecordOpener implements Disposable {
  readonly #schedule: KeySchedule;
  readonly #suites: readonly CipherSuite[];
  readonly #nonces: SequenceNonce[];
  readonly #lane: number;
  readonly #parser: RecordParser;
  readonly #scratch = new Uint8Array(SCRATCH_PAGES_AT + MAX_RECORD_PLAINTEXT_BYTES);
  /** Openers of the last key number that opened, by suite. */
  #openers: (Opener | undefined)[] = [];
  #keyNumber = 0;
  #nextSequence = 1;
  #broken: MigrationError | null = null;

  constructor(options: {
    schedule: KeySchedule;
    suites: readonly CipherSuite[];
    lane: number;
    blocks: readonly RamBlock[];
  }) {
    this.#schedule = options.schedule;
    this.#suites = options.suites;
    this.#nonces = options.suites.map((suite) => new SequenceNonce(suite.nonceBytes));
    this.#lane = options.lane;
    this.#parser = new RecordParser(options.blocks);
  }

  /** The sequence that must come next. */
  get nextSequence(): number {
    return this.#nextSequence;
  }

  /**
   * Opens one DATA frame's payload.
   *
   * @throws MigrationError `cut` when framing is lost: drop the connection, another may go on
   * @throws MigrationError `protocol` when an authentic record breaks the format: its sender is broken
   */
  open(payload: Uint8Array): OpenedRecord {
    if (this.#broken !== null) throw this.#broken;
    const plaintext = this.#open(payload);
    if (plaintext === null) return { type: "mistake" };
    try {
      return this.#parser.parse(plaintext);
    } catch (error) {
      if (error instanceof MigrationError) this.#broken = error;
      throw error;
    }
  }

  /** Wipes the keys. */
  [Symbol.dispose](): void {
    this.#dropOpeners();
    this.#scratch.fill(0);
  }

  /** The plaintext in scratch; null when it is not authentic. */
  #open(payload: Uint8Array): Uint8Array | null {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    const header = readRecordHeader(view, 0);
    const suite = header === null ? undefined : this.#suites[header.suite];
    if (
      header === null || suite === undefined || header.lane !== this.#lane ||
      header.sequence !== this.#nextSequence ||
      header.bodyLength !== payload.length - RECORD_HEADER_BYTES ||
      header.bodyLength <= suite.tagBytes ||
      header.keyNumber < this.#keyNumber || header.keyNumber > this.#keyNumber + MAX_KEY_NUMBER_LEAD
    ) {
      throw new MigrationError(
        "cut",
        `Cannot read record ${this.#nextSequence}: another header was due`,
      );
    }
    this.#nextSequence++;
    const opener = this.#openerFor(header.suite, header.keyNumber);
    const bodyEnd = payload.length - suite.tagBytes;
    const plaintextBytes = bodyEnd - RECORD_HEADER_BYTES;
    // Full PAGES records: 3 + 4 * 64 bytes of head, then pages on a cache line.
    const from = SCRATCH_PAGES_AT - 3 - 4 * MAX_PAGES_PER_RECORD;
    const plaintext = this.#scratch.subarray(from, from + plaintextBytes);
    opener.begin(
      this.#nonces[header.suite]!.of(header.sequence),
      payload.subarray(0, RECORD_HEADER_BYTES),
      payload.subarray(bodyEnd),
    );
    opener.update(payload.subarray(RECORD_HEADER_BYTES, bodyEnd), plaintext);
    if (!opener.finish()) {
      plaintext.fill(0);
      if (this.#openers[header.suite] !== opener) opener[Symbol.dispose]();
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

  #openerFor(suiteIndex: number, keyNumber: number): Opener {
    const kept = keyNumber === this.#keyNumber ? this.#openers[suiteIndex] : undefined;
    if (kept !== undefined) return kept;
    const suite = this.#suites[suiteIndex]!;
    const key = this.#schedule.dataKey({
      lane: this.#lane,
      keyNumber,
      suiteId: suite.id,
      keyBytes: suite.keyBytes,
    });
    const opener = guardOpener(suite, key);
    key.fill(0);
    return opener;
  }

  #dropOpeners(): void {
    for (const opener of this.#openers) opener?.[Symbol.dispose]();
    this.#openers = [];
  }
}
