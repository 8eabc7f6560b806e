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
  MAX_SETUP_BYTES,
  MAX_STATE_BYTES,
  MAX_ZEROS_PER_RECORD,
  PAGE_BYTES,
  RECORD_HEADER_BYTES,
} from "./limits.ts";
import type { RamBlock } from "./ports.ts";
import { readRecordHeader, readUint64, recordTypes, SequenceNonce } from "./record.ts";

/** What a record held. Views are valid until the next `open`. */
export type OpenedRecord =
  | { type: "pages"; block: number; pages: Uint32Array; bytes: Uint8Array }
  | { type: "zeros"; block: number; pages: Uint32Array }
  | { type: "setup" | "state"; offset: number; total: number; bytes: Uint8Array }
  | { type: "round"; round: number; pages: number; zeros: number }
  /** The header was what must come, but the body is not authentic: skipped. */
  | { type: "mistake" };

/** Pages start on a cache line of scratch when a record is full of them. */
const SCRATCH_PAGES_AT = 320;

/** Opens one lane, strictly in order. A failed opener stays failed. */
export class RecordOpener implements Disposable {
  readonly #schedule: KeySchedule;
  readonly #suites: readonly CipherSuite[];
  readonly #nonces: SequenceNonce[];
  readonly #lane: number;
  readonly #pageCounts: number[];
  readonly #scratch = new Uint8Array(SCRATCH_PAGES_AT + MAX_RECORD_PLAINTEXT_BYTES);
  readonly #scratchView = new DataView(this.#scratch.buffer);
  readonly #list = new Uint32Array(MAX_ZEROS_PER_RECORD);
  /** Openers of the last key number that opened, by suite. */
  #openers: (Opener | undefined)[] = [];
  #keyNumber = 0;
  #nextSequence = 1;
  #failure: MigrationError | null = null;

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
    this.#pageCounts = options.blocks.map((block) => Math.ceil(block.bytes / PAGE_BYTES));
  }

  /** The sequence that must come next. */
  get nextSequence(): number {
    return this.#nextSequence;
  }

  /** Opens one DATA frame's payload. @throws MigrationError `protocol` when framing is lost: drop the connection */
  open(payload: Uint8Array): OpenedRecord {
    if (this.#failure !== null) throw this.#failure;
    try {
      return this.#open(payload);
    } catch (error) {
      if (error instanceof MigrationError) this.#failure = error;
      throw error;
    }
  }

  /** Wipes the keys. */
  [Symbol.dispose](): void {
    this.#dropOpeners();
    this.#scratch.fill(0);
  }

  #open(payload: Uint8Array): OpenedRecord {
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
        "protocol",
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
      return { type: "mistake" };
    }
    if (header.keyNumber !== this.#keyNumber) {
      // Only a record that opened advances the key number: a header alone proves nothing.
      this.#dropOpeners();
      this.#keyNumber = header.keyNumber;
    }
    this.#openers[header.suite] = opener;
    return this.#parse(from, plaintextBytes);
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

  #parse(from: number, length: number): OpenedRecord {
    const view = this.#scratchView;
    const type = view.getUint8(from);
    switch (type) {
      case recordTypes.pages: {
        const count = length < 3 ? 0 : view.getUint8(from + 2);
        if (count < 1 || count > MAX_PAGES_PER_RECORD || length !== 3 + count * (4 + PAGE_BYTES)) {
          break;
        }
        const block = view.getUint8(from + 1);
        const pages = this.#pageList(from + 3, { count, block });
        const bytesAt = from + 3 + 4 * count;
        return {
          type: "pages",
          block,
          pages,
          bytes: this.#scratch.subarray(bytesAt, from + length),
        };
      }
      case recordTypes.zeros: {
        const count = length < 4 ? 0 : view.getUint16(from + 2);
        if (count < 1 || count > MAX_ZEROS_PER_RECORD || length !== 4 + 4 * count) break;
        const block = view.getUint8(from + 1);
        return { type: "zeros", block, pages: this.#pageList(from + 4, { count, block }) };
      }
      case recordTypes.setup:
      case recordTypes.state: {
        if (length < 10) break;
        const offset = view.getUint32(from + 1);
        const total = view.getUint32(from + 5);
        const cap = type === recordTypes.setup ? MAX_SETUP_BYTES : MAX_STATE_BYTES;
        if (total > cap || offset + length - 9 > total) break;
        const bytes = this.#scratch.subarray(from + 9, from + length);
        return { type: type === recordTypes.setup ? "setup" : "state", offset, total, bytes };
      }
      case recordTypes.round:
        if (length !== 21) break;
        return {
          type: "round",
          round: view.getUint32(from + 1),
          pages: readUint64(view, from + 5),
          zeros: readUint64(view, from + 13),
        };
    }
    throw new MigrationError(
      "protocol",
      `Cannot read record ${this.#nextSequence - 1}: its content breaks the format`,
    );
  }

  #pageList(at: number, { count, block }: { count: number; block: number }): Uint32Array {
    const pageCount = this.#pageCounts[block];
    const list = this.#list;
    for (let i = 0; i < count; i++) {
      const page = this.#scratchView.getUint32(at + 4 * i);
      if (pageCount === undefined || page >= pageCount) {
        throw new MigrationError(
          "protocol",
          `Cannot land page ${page} of block ${block}: the VM has none such`,
        );
      }
      list[i] = page;
    }
    return list.subarray(0, count);
  }

  #dropOpeners(): void {
    for (const opener of this.#openers) opener?.[Symbol.dispose]();
    this.#openers = [];
  }
}
