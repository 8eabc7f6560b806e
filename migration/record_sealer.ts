/**
 * The source's end of records: collects pages, seals them in place into the window's slabs.
 *
 * @see PROTOCOL.md section 4
 * @module
 */

import { guardSealer } from "../ciphers/guard.ts";
import type { CipherSuite, Sealer } from "../ciphers/suite.ts";
import { FRAME_DATA, writeFrameHeader } from "./frame.ts";
import type { KeySchedule } from "./key_schedule.ts";
import {
  FRAME_HEADER_BYTES,
  MAX_BYTES_PER_KEY,
  MAX_PAGES_PER_RECORD,
  MAX_RECORDS_PER_KEY,
  MAX_STREAM_PIECE_BYTES,
  MAX_ZEROS_PER_RECORD,
  PAGE_BYTES,
  RECORD_HEADER_BYTES,
} from "./limits.ts";
import type { PageClass } from "./messages.ts";
import type { MistakeBitmap } from "./mistake_bitmap.ts";
import { recordTypes, SequenceNonce, writeRecordHeader, writeUint64 } from "./record.ts";
import type { Rounds } from "./rounds.ts";
import type { SealedWindow, Slab } from "./window.ts";

/** One suite of the migration, with the sealer of the current key number once it was needed. */
interface SuiteState {
  readonly suite: CipherSuite;
  readonly nonce: SequenceNonce;
  sealer: Sealer | null;
}

/** Pages of one class and block that wait to be sealed together. */
interface OpenPages {
  block: number;
  count: number;
  /** The plaintext up to the pages: type, block, count, list. */
  readonly head: Uint8Array;
  readonly headView: DataView;
  readonly bytes: Uint8Array[];
}

/** Seals one lane. Records are numbered from 1, without a gap, whatever the key. */
export class RecordSealer implements Disposable {
  readonly #schedule: KeySchedule;
  readonly #window: SealedWindow;
  readonly #rounds: Rounds;
  readonly #mistakes: MistakeBitmap;
  readonly #lane: number;
  readonly #suites: SuiteState[];
  readonly #suiteOf: Record<PageClass, number>;
  readonly #pages: OpenPages;
  readonly #zeros: {
    block: number;
    count: number;
    readonly head: Uint8Array;
    readonly view: DataView;
  };
  #keyNumber = 0;
  #recordsUnderKey = 0;
  #bytesUnderKey = 0;
  #sequence = 0;

  constructor(options: {
    schedule: KeySchedule;
    window: SealedWindow;
    rounds: Rounds;
    /** Told which record carries each page now. */
    mistakes: MistakeBitmap;
    lane: number;
    /** The distinct suites, in the order of their wire index. */
    suites: readonly CipherSuite[];
    /** Wire index of each class's suite. */
    suiteOf: Record<PageClass, number>;
  }) {
    this.#schedule = options.schedule;
    this.#window = options.window;
    this.#rounds = options.rounds;
    this.#mistakes = options.mistakes;
    this.#lane = options.lane;
    this.#suiteOf = options.suiteOf;
    this.#suites = options.suites.map((suite) => ({
      suite,
      nonce: new SequenceNonce(suite.nonceBytes),
      sealer: null,
    }));
    const pagesHead = new Uint8Array(3 + 4 * MAX_PAGES_PER_RECORD);
    this.#pages = {
      block: 0,
      count: 0,
      head: pagesHead,
      headView: new DataView(pagesHead.buffer),
      bytes: new Array(MAX_PAGES_PER_RECORD),
    };
    const zerosHead = new Uint8Array(4 + 4 * MAX_ZEROS_PER_RECORD);
    this.#zeros = { block: 0, count: 0, head: zerosHead, view: new DataView(zerosHead.buffer) };
  }

  /** The sequence of the last sealed record; 0 before the first. */
  get lastSequence(): number {
    return this.#sequence;
  }

  /** Takes a page; `bytes` must stay valid until the record is sealed (`sealOpen` at the latest). */
  page(block: number, page: number, bytes: Uint8Array): void {
    const open = this.#pages;
    if (open.count === MAX_PAGES_PER_RECORD || (open.block !== block && open.count > 0)) {
      this.#sealPages();
    }
    open.block = block;
    open.headView.setUint32(3 + 4 * open.count, page);
    open.bytes[open.count++] = bytes;
  }

  /** Takes a page of zeros. */
  zero(block: number, page: number): void {
    const open = this.#zeros;
    if (open.count === MAX_ZEROS_PER_RECORD || (open.block !== block && open.count > 0)) {
      this.#sealZeros();
    }
    open.block = block;
    open.view.setUint32(4 + 4 * open.count++, page);
  }

  /** Seals what is open: before the views that `page` was given end, and before a round ends. */
  sealOpen(): void {
    if (this.#pages.count > 0) this.#sealPages();
    if (this.#zeros.count > 0) this.#sealZeros();
  }

  /** The sequence after `sequence` comes next: those up to it were used by somebody else's frames. */
  skipTo(sequence: number): void {
    this.#window.flush();
    this.#sequence = Math.max(this.#sequence, sequence);
  }

  /** Seals a whole stream part as SETUP or STATE records. */
  stream(type: "setup" | "state", bytes: Uint8Array): void {
    for (let offset = 0; offset < bytes.length; offset += MAX_STREAM_PIECE_BYTES) {
      const piece = bytes.subarray(offset, offset + MAX_STREAM_PIECE_BYTES);
      this.streamPiece(type, { offset, total: bytes.length, bytes: piece });
    }
  }

  /** Seals one piece of SETUP or STATE. */
  streamPiece(
    type: "setup" | "state",
    piece: { offset: number; total: number; bytes: Uint8Array },
  ): void {
    const head = new Uint8Array(9);
    const view = new DataView(head.buffer);
    view.setUint8(0, recordTypes[type]);
    view.setUint32(1, piece.offset);
    view.setUint32(5, piece.total);
    this.#seal("kernelData", head, [piece.bytes], 1, piece.bytes.length);
  }

  /** Ends the round: seals what is open, then ROUND under the round's own key; the next record has a new key. */
  endRound(): void {
    this.sealOpen();
    const { round, pages } = this.#rounds.current;
    this.roundAgain({
      round,
      pages: pages.user + pages.kernelText + pages.kernelData + pages.unmapped,
      zeros: pages.zero,
    });
    this.#nextKey();
  }

  /** Seals a ROUND record, under the key of now. */
  roundAgain({ round, pages, zeros }: { round: number; pages: number; zeros: number }): void {
    const head = new Uint8Array(21);
    const view = new DataView(head.buffer);
    view.setUint8(0, recordTypes.round);
    view.setUint32(1, round);
    writeUint64(view, 5, pages);
    writeUint64(view, 13, zeros);
    this.#seal("kernelData", head, [], 0, 0);
  }

  /** Wipes the keys. */
  [Symbol.dispose](): void {
    this.#dropSealers();
  }

  #sealPages(): void {
    const open = this.#pages;
    const { head, count } = open;
    head[0] = recordTypes.pages;
    head[1] = open.block;
    head[2] = count;
    open.count = 0;
    this.#seal("user", head.subarray(0, 3 + 4 * count), open.bytes, count, count * PAGE_BYTES);
    this.#mistakes.sealed(open.block, { list: open.headView, at: 3, count }, this.#sequence);
    const round = this.#rounds.current;
    round.pages.user += count;
    round.bytes += count * PAGE_BYTES;
  }

  #sealZeros(): void {
    const open = this.#zeros;
    const { head, count } = open;
    head[0] = recordTypes.zeros;
    head[1] = open.block;
    open.view.setUint16(2, count);
    open.count = 0;
    this.#seal("user", head.subarray(0, 4 + 4 * count), [], 0, 0);
    this.#mistakes.sealed(open.block, { list: open.view, at: 4, count }, this.#sequence);
    this.#rounds.current.pages.zero += count;
  }

  /** Seals `head` and the first `count` of `pieces` as one record at the end of the window. */
  #seal(
    pageClass: PageClass,
    head: Uint8Array,
    pieces: Uint8Array[],
    count: number,
    pieceBytes: number,
  ): void {
    const suiteIndex = this.#suiteOf[pageClass];
    const state = this.#suites[suiteIndex]!;
    const { tagBytes } = state.suite;
    const bodyLength = head.length + pieceBytes + tagBytes;
    const frameLength = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + bodyLength;
    if (
      this.#recordsUnderKey === MAX_RECORDS_PER_KEY ||
      this.#bytesUnderKey + bodyLength > MAX_BYTES_PER_KEY
    ) {
      this.#nextKey();
    }
    const slab: Slab = this.#window.reserve(frameLength);
    const { bytes, view } = slab;
    const headerAt = slab.usedBytes + FRAME_HEADER_BYTES;
    const sequence = ++this.#sequence;
    writeFrameHeader(view, slab.usedBytes, FRAME_DATA, RECORD_HEADER_BYTES + bodyLength);
    writeRecordHeader(view, headerAt, {
      suite: suiteIndex,
      lane: this.#lane,
      keyNumber: this.#keyNumber,
      sequence,
      bodyLength,
    });
    const bodyAt = headerAt + RECORD_HEADER_BYTES;
    const sealer = state.sealer ??= this.#newSealer(state.suite);
    sealer.begin(state.nonce.of(sequence), bytes.subarray(headerAt, bodyAt));
    // Copied first and sealed in place by one call: faster than a call a page, which the list before the
    // pages would leave off the cipher's block boundary.
    bytes.set(head, bodyAt);
    let at = bodyAt + head.length;
    for (let i = 0; i < count; i++) {
      bytes.set(pieces[i]!, at);
      at += pieces[i]!.length;
    }
    const body = bytes.subarray(bodyAt, at);
    sealer.update(body, body);
    sealer.finish(bytes.subarray(at, at + tagBytes));
    this.#recordsUnderKey++;
    this.#bytesUnderKey += bodyLength;
    const round = this.#rounds.current;
    round.sealedBytes += frameLength;
    round.keyNumber = this.#keyNumber;
    this.#window.commit(frameLength, sequence);
  }

  #newSealer(suite: CipherSuite): Sealer {
    const key = this.#schedule.dataKey({
      lane: this.#lane,
      keyNumber: this.#keyNumber,
      suiteId: suite.id,
      keyBytes: suite.keyBytes,
    });
    const sealer = guardSealer(suite, key);
    key.fill(0);
    return sealer;
  }

  #nextKey(): void {
    this.#dropSealers();
    this.#keyNumber++;
    this.#recordsUnderKey = this.#bytesUnderKey = 0;
  }

  #dropSealers(): void {
    for (const state of this.#suites) {
      state.sealer?.[Symbol.dispose]();
      state.sealer = null;
    }
  }
}
