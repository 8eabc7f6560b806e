/**
 * Bodies of the lab profile: what stands where the sealed profile has ciphertext and tag. Plaintext, header
 * and all that is done with them are the same.
 *
 * ```text
 * body of PAGES:       timestamp u64, 1 u8, block u8, count u8, count x page number u32,
 *                      count x { user u8 (0 or 1), unit of the page's 4096 bytes }
 * body of all others:  timestamp u64, unit of the whole plaintext, in clear
 * unit:                data || v || encoded checksum, see security.ts
 * ```
 *
 * Header and list of pages have no checksum: the paper has one of the data only.
 *
 * @see PROTOCOL.md section 8, docs/paper.md
 * @module
 */

import { hasKeyPerRound } from "../ciphers/paper_suites.ts";
import type { CipherSuite } from "../ciphers/suite.ts";
import { MigrationError } from "./errors.ts";
import {
  MAX_BYTES_PER_KEY,
  MAX_PAPER_PAGES_PER_RECORD,
  MAX_RECORD_PLAINTEXT_BYTES,
  MAX_RECORDS_PER_KEY,
  PAGE_BYTES,
  PAPER_TIME_WINDOW_MS,
  RECORD_HEADER_BYTES,
} from "./limits.ts";
import { readUint64, type RecordHeader, recordTypes, writeUint64 } from "./record.ts";
import type { BodyContent, BodyReader, BodyWriter } from "./record_bodies.ts";
import { isAcceptable, nextTimestamp } from "./secret_key.ts";
import { SecurityDecoder, SecurityEncoder, unitOverheadBytes } from "./security.ts";

/** Where the plaintext's head starts in a record. */
const HEAD_AT = RECORD_HEADER_BYTES + 8;
/** Type, block and count of a PAGES record. */
const PAGES_HEAD_BYTES = 3;

/** What both ends are told. */
export interface PaperBodyOptions {
  /** One of the paper's profile; the migration has no other. */
  suite: CipherSuite;
  /** The wall clock, in milliseconds since 1970. */
  nowMs: () => number;
}

/** Writes bodies under the keys of the round. See the module. */
export class PaperBodyWriter implements BodyWriter {
  readonly maxPages = MAX_PAPER_PAGES_PER_RECORD;
  readonly maxPerKey = { records: MAX_RECORDS_PER_KEY, bytes: MAX_BYTES_PER_KEY };
  readonly #suite: CipherSuite;
  readonly #nowMs: () => number;
  readonly #overheadBytes: number;
  #encoder: SecurityEncoder | null = null;
  #lastTimestampMs = 0;

  /** A round takes its time with its first record. */
  constructor({ suite, nowMs }: PaperBodyOptions) {
    this.#suite = suite;
    this.#nowMs = nowMs;
    this.#overheadBytes = unitOverheadBytes(suite);
  }

  suiteOf(): number {
    return 0;
  }

  bodyBytes({ head, pieceBytes, count }: BodyContent): number {
    const plaintextBytes = HEAD_AT - RECORD_HEADER_BYTES + head.length + pieceBytes;
    return head[0] === recordTypes.pages
      ? plaintextBytes + count * (1 + this.#overheadBytes)
      : plaintextBytes + this.#overheadBytes;
  }

  /** Pages of class `user` are hidden; all other pages, and what is no page, go in clear. */
  write(content: BodyContent, record: Uint8Array): void {
    const { head, pieces, count } = content;
    const encoder = this.#encoder ??= this.#newEncoder();
    writeUint64(viewOf(record), RECORD_HEADER_BYTES, encoder.timestampMs);
    record.set(head, HEAD_AT);
    let at = HEAD_AT + head.length;
    if (head[0] !== recordTypes.pages) {
      for (let i = 0; i < count; i++) {
        record.set(pieces[i]!, at);
        at += pieces[i]!.length;
      }
      encoder.encode(record.subarray(HEAD_AT), false);
      return;
    }
    const isUser = content.pageClass === "user";
    for (let i = 0; i < count; i++) {
      record[at++] = isUser ? 1 : 0;
      record.set(pieces[i]!, at);
      const unitEnd = at + PAGE_BYTES + this.#overheadBytes;
      encoder.encode(record.subarray(at, unitEnd), isUser);
      at = unitEnd;
    }
  }

  /** A new round, a new time; a suite that keeps its key keeps its time. */
  dropKeys(): void {
    if (hasKeyPerRound(this.#suite)) this[Symbol.dispose]();
  }

  reopen(record: Uint8Array): Uint8Array {
    const suite = this.#suite;
    // Its time may be long past, and is our own.
    using decoder = new SecurityDecoder({ suite, timestampMs: timestampOf(record) });
    const into = new Uint8Array(record.length);
    const plaintext = openBody(decoder, { record, into, overheadBytes: this.#overheadBytes });
    if (plaintext !== null) return plaintext;
    throw new MigrationError("protocol", "Cannot open a record of our own: it changed in memory");
  }

  /** Wipes the keys. */
  [Symbol.dispose](): void {
    this.#encoder?.[Symbol.dispose]();
    this.#encoder = null;
  }

  /** "Secret key function generates the seed secret key, and saves this time as timestamp" (section 3.3, step 2). */
  #newEncoder(): SecurityEncoder {
    const timestampMs = nextTimestamp(this.#nowMs(), this.#lastTimestampMs);
    this.#lastTimestampMs = timestampMs;
    return new SecurityEncoder({ suite: this.#suite, timestampMs });
  }
}

/** Reads bodies. See the module. */
export class PaperBodyReader implements BodyReader {
  /** The list of pages has no checksum. */
  readonly isAuthentic = false;
  readonly #suite: CipherSuite;
  readonly #nowMs: () => number;
  readonly #overheadBytes: number;
  readonly #scratch = new Uint8Array(MAX_RECORD_PLAINTEXT_BYTES);
  /** Under the time of the last record that opened. */
  #decoder: SecurityDecoder | null = null;

  /** Keys follow from each record's time. */
  constructor({ suite, nowMs }: PaperBodyOptions) {
    this.#suite = suite;
    this.#nowMs = nowMs;
    this.#overheadBytes = unitOverheadBytes(suite);
  }

  fits({ suite, bodyLength }: RecordHeader): boolean {
    return suite === 0 && bodyLength > HEAD_AT - RECORD_HEADER_BYTES + this.#overheadBytes;
  }

  /**
   * See {@linkcode BodyReader.read}. A time is judged when it is another than that of the last record that
   * opened, since a round may last longer than the window.
   *
   * @throws MigrationError `tampering` when the time is not acceptable
   */
  read(record: Uint8Array): Uint8Array | null {
    const timestampMs = timestampOf(record);
    const kept = this.#decoder?.timestampMs === timestampMs ? this.#decoder : null;
    if (kept === null) this.#judge(timestampMs);
    const decoder = kept ?? new SecurityDecoder({ suite: this.#suite, timestampMs });
    const into = this.#scratch;
    const plaintext = openBody(decoder, { record, into, overheadBytes: this.#overheadBytes });
    if (plaintext === null) {
      into.fill(0);
      if (kept === null) decoder[Symbol.dispose]();
    } else if (kept === null) {
      // Only a record that opened changes the keys: else one flipped bit of a time would have the true one judged again.
      this.#decoder?.[Symbol.dispose]();
      this.#decoder = decoder;
    }
    return plaintext;
  }

  /** Wipes the keys, and what was opened last. */
  [Symbol.dispose](): void {
    this.#decoder?.[Symbol.dispose]();
    this.#decoder = null;
    this.#scratch.fill(0);
  }

  /** "If time was illegal, destination host would stop migration process and send attacked signals" (section 3.2). */
  #judge(timestampMs: number): void {
    const nowMs = this.#nowMs();
    if (isAcceptable(timestampMs, nowMs)) return;
    const offSeconds = Math.round((timestampMs - nowMs) / 1000);
    throw new MigrationError(
      "tampering",
      `Cannot accept a record: its time is ${offSeconds} s from the clock of this host, ` +
        `${PAPER_TIME_WINDOW_MS / 1000} s are acceptable`,
      { hint: "somebody may be replaying an old migration; or set the clocks of both hosts" },
    );
  }
}

interface Opening {
  record: Uint8Array;
  /** Receives the plaintext; what it has no room for is damage. */
  into: Uint8Array;
  overheadBytes: number;
}

/** The plaintext, a view of `into`; null when a checksum differs or the body breaks the format. */
function openBody(decoder: SecurityDecoder, opening: Opening): Uint8Array | null {
  const isPages = opening.record[HEAD_AT] === recordTypes.pages;
  return isPages ? openPages(decoder, opening) : openClear(decoder, opening);
}

function openPages(decoder: SecurityDecoder, opening: Opening): Uint8Array | null {
  const { record, into, overheadBytes } = opening;
  const count = record[HEAD_AT + 2] ?? 0;
  const headBytes = PAGES_HEAD_BYTES + 4 * count;
  const unitBytes = PAGE_BYTES + overheadBytes;
  const plaintextBytes = headBytes + count * PAGE_BYTES;
  if (
    count < 1 || count > MAX_PAPER_PAGES_PER_RECORD ||
    record.length !== HEAD_AT + headBytes + count * (1 + unitBytes)
  ) return null;
  into.set(record.subarray(HEAD_AT, HEAD_AT + headBytes));
  let from = HEAD_AT + headBytes;
  for (let to = headBytes; to < plaintextBytes; to += PAGE_BYTES) {
    const flag = record[from++]!;
    const opened = flag <= 1 && decoder.decode(record.subarray(from, from + unitBytes), {
      isUser: flag === 1,
      into: into.subarray(to, to + PAGE_BYTES),
    });
    if (!opened) return null;
    from += unitBytes;
  }
  return into.subarray(0, plaintextBytes);
}

function openClear(decoder: SecurityDecoder, opening: Opening): Uint8Array | null {
  const { record, into, overheadBytes } = opening;
  const unit = record.subarray(HEAD_AT);
  const plaintextBytes = unit.length - overheadBytes;
  if (plaintextBytes < 1 || plaintextBytes > into.length) return null;
  const plaintext = into.subarray(0, plaintextBytes);
  return decoder.decode(unit, { isUser: false, into: plaintext }) ? plaintext : null;
}

function timestampOf(record: Uint8Array): number {
  return readUint64(viewOf(record), RECORD_HEADER_BYTES);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
