/**
 * The destination's end of records: checks the header against what must come, opens the body into
 * scratch, and hands out what it holds only when the tag was right and every number is inside the VM.
 *
 * @see PROTOCOL.md section 4, "Check, then land"
 * @module
 */

import { MigrationError } from "./errors.ts";
import { messageOf } from "./failure.ts";
import { MAX_KEY_NUMBER_LEAD, RECORD_HEADER_BYTES } from "./limits.ts";
import type { RamBlock } from "./ports.ts";
import { readRecordHeader, type RecordHeader } from "./record.ts";
import type { BodyReader } from "./record_bodies.ts";
import { type RecordContent, RecordParser } from "./record_content.ts";

/** What a record held, views valid until the next `open`; or a body that is not authentic: skipped. */
export type OpenedRecord = RecordContent | { type: "mistake" };

/** Opens one lane, strictly in order. */
export class RecordOpener implements Disposable {
  readonly #bodies: BodyReader;
  readonly #lane: number;
  readonly #parser: RecordParser;
  /** That of the last record that opened. */
  #keyNumber = 0;
  #nextSequence = 1;
  #broken: MigrationError | null = null;

  constructor(options: {
    /** What checks the bodies. Ends with this opener. */
    bodies: BodyReader;
    lane: number;
    blocks: readonly RamBlock[];
  }) {
    this.#bodies = options.bodies;
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
   * @throws MigrationError `vm` when the suite fails, or its key has served all that it may, forged records among them
   */
  open(payload: Uint8Array): OpenedRecord {
    if (this.#broken !== null) throw this.#broken;
    const plaintext = this.#open(payload);
    if (plaintext === null) return { type: "mistake" };
    try {
      return this.#parser.parse(plaintext);
    } catch (error) {
      if (!this.#bodies.isAuthentic) return { type: "mistake" };
      if (error instanceof MigrationError) this.#broken = error;
      throw error;
    }
  }

  /** Wipes the keys. */
  [Symbol.dispose](): void {
    this.#bodies[Symbol.dispose]();
  }

  /** The plaintext; null when it is not authentic. */
  #open(payload: Uint8Array): Uint8Array | null {
    const header = readRecordHeader(
      new DataView(payload.buffer, payload.byteOffset, payload.length),
      0,
    );
    if (
      header === null || header.lane !== this.#lane || header.sequence !== this.#nextSequence ||
      header.bodyLength !== payload.length - RECORD_HEADER_BYTES || !this.#bodies.fits(header) ||
      header.keyNumber < this.#keyNumber || header.keyNumber > this.#keyNumber + MAX_KEY_NUMBER_LEAD
    ) {
      throw new MigrationError(
        "cut",
        `Cannot read record ${this.#nextSequence}: another header was due`,
      );
    }
    this.#nextSequence++;
    const plaintext = this.#read(payload, header);
    if (plaintext !== null) this.#keyNumber = header.keyNumber;
    return plaintext;
  }

  #read(payload: Uint8Array, header: RecordHeader): Uint8Array | null {
    try {
      return this.#bodies.read(payload, header);
    } catch (cause) {
      // Another connection would not help: nothing can be checked any more.
      throw this.#broken = new MigrationError(
        "vm",
        `Cannot open record ${header.sequence}: ${messageOf(cause)}`,
        { cause },
      );
    }
  }
}
