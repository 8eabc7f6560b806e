/**
 * The source's end of records: collects pages, seals them in place into the window's slabs.
 *
 * @see PROTOCOL.md section 4
 * @module
 */

import { FRAME_DATA, writeFrameHeader } from "./frame.ts";
import {
  FRAME_HEADER_BYTES,
  MAX_PAGES_PER_RECORD,
  MAX_STREAM_PIECE_BYTES,
  MAX_ZEROS_PER_RECORD,
  PAGE_BYTES,
  RECORD_HEADER_BYTES,
} from "./limits.ts";
import { type PageClass, pageClasses } from "./messages.ts";
import type { MistakeBitmap } from "./mistake_bitmap.ts";
import type { PageClassifier } from "./ports.ts";
import { recordTypes, writeRecordHeader, writeUint64 } from "./record.ts";
import type { BodyContent, BodyWriter } from "./record_bodies.ts";
import type { Rounds } from "./rounds.ts";
import type { SealedWindow } from "./window.ts";

/** Pages of one class and block that wait to be sealed together. */
interface OpenPages {
  readonly pageClass: PageClass;
  block: number;
  count: number;
  /** The plaintext up to the pages: type, block, count, list. */
  readonly head: Uint8Array;
  readonly headView: DataView;
  readonly bytes: Uint8Array[];
}

/** Pages of zeros, likewise. */
interface OpenZeros {
  readonly pageClass: PageClass;
  block: number;
  count: number;
  readonly head: Uint8Array;
  readonly view: DataView;
}

/** Seals one lane. Records are numbered from 1, without a gap, whatever the key. */
export class RecordSealer implements Disposable {
  readonly #bodies: BodyWriter;
  readonly #maxPages: number;
  readonly #window: SealedWindow;
  readonly #rounds: Rounds;
  readonly #mistakes: MistakeBitmap;
  readonly #classifier: PageClassifier | null;
  readonly #lane: number;
  readonly #pages: Readonly<Record<PageClass, OpenPages>>;
  readonly #zeros: Readonly<Record<PageClass, OpenZeros>>;
  #keyNumber = 0;
  #recordsUnderKey = 0;
  #bytesUnderKey = 0;
  #sequence = 0;

  constructor(options: {
    /** What protects the bodies. Ends with this sealer. */
    bodies: BodyWriter;
    window: SealedWindow;
    rounds: Rounds;
    /** Told which record carries each page now. */
    mistakes: MistakeBitmap;
    /** Tells pages apart; without it all are `user`. */
    classifier?: PageClassifier | null;
    lane: number;
  }) {
    this.#bodies = options.bodies;
    this.#maxPages = options.bodies.maxPages;
    this.#window = options.window;
    this.#rounds = options.rounds;
    this.#mistakes = options.mistakes;
    this.#classifier = options.classifier ?? null;
    this.#lane = options.lane;
    this.#pages = perClass(newPages);
    this.#zeros = perClass(newZeros);
  }

  /** The sequence of the last sealed record; 0 before the first. */
  get lastSequence(): number {
    return this.#sequence;
  }

  /** Takes a page; `bytes` must stay valid until the record is sealed (`sealOpen` at the latest). */
  page(block: number, page: number, bytes: Uint8Array): void {
    const open = this.#pages[this.#classifier?.classOf(block, page) ?? "user"];
    if (open.count === this.#maxPages || (open.block !== block && open.count > 0)) {
      this.#sealPages(open);
    }
    open.block = block;
    open.headView.setUint32(3 + 4 * open.count, page);
    open.bytes[open.count++] = bytes;
  }

  /** Takes a page of zeros. */
  zero(block: number, page: number): void {
    const open = this.#zeros[this.#classifier?.classOf(block, page) ?? "user"];
    if (open.count === MAX_ZEROS_PER_RECORD || (open.block !== block && open.count > 0)) {
      this.#sealZeros(open);
    }
    open.block = block;
    open.view.setUint32(4 + 4 * open.count++, page);
  }

  /** Seals what is open: before the views that `page` was given end, and before a round ends. */
  sealOpen(): void {
    for (const pageClass of pageClasses) {
      if (this.#pages[pageClass].count > 0) this.#sealPages(this.#pages[pageClass]);
      if (this.#zeros[pageClass].count > 0) this.#sealZeros(this.#zeros[pageClass]);
    }
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
    const { bytes } = piece;
    this.#seal({
      pageClass: "kernelData",
      head,
      pieces: [bytes],
      count: 1,
      pieceBytes: bytes.length,
    });
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
    this.#seal({ pageClass: "kernelData", head, pieces: [], count: 0, pieceBytes: 0 });
  }

  /** Wipes the keys. */
  [Symbol.dispose](): void {
    this.#bodies[Symbol.dispose]();
  }

  #sealPages(open: OpenPages): void {
    const { pageClass, head, count } = open;
    const pieceBytes = count * PAGE_BYTES;
    head[0] = recordTypes.pages;
    head[1] = open.block;
    head[2] = count;
    open.count = 0;
    this.#seal({
      pageClass,
      head: head.subarray(0, 3 + 4 * count),
      pieces: open.bytes,
      count,
      pieceBytes,
    });
    this.#mistakes.sealed(open.block, { list: open.headView, at: 3, count }, this.#sequence);
    const round = this.#rounds.current;
    round.pages[pageClass] += count;
    round.bytes += pieceBytes;
  }

  #sealZeros(open: OpenZeros): void {
    const { pageClass, head, count } = open;
    head[0] = recordTypes.zeros;
    head[1] = open.block;
    open.view.setUint16(2, count);
    open.count = 0;
    this.#seal({
      pageClass,
      head: head.subarray(0, 4 + 4 * count),
      pieces: [],
      count: 0,
      pieceBytes: 0,
    });
    this.#mistakes.sealed(open.block, { list: open.view, at: 4, count }, this.#sequence);
    this.#rounds.current.pages.zero += count;
  }

  /** Seals one record at the end of the window. */
  #seal(content: BodyContent): void {
    const { maxPerKey } = this.#bodies;
    const bodyLength = this.#bodies.bodyBytes(content);
    const frameLength = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + bodyLength;
    if (
      this.#recordsUnderKey >= maxPerKey.records ||
      this.#bytesUnderKey + bodyLength > maxPerKey.bytes
    ) {
      this.#nextKey();
    }
    const { bytes, view, usedBytes } = this.#window.reserve(frameLength);
    const header = {
      suite: this.#bodies.suiteOf(content.pageClass),
      lane: this.#lane,
      keyNumber: this.#keyNumber,
      sequence: ++this.#sequence,
      bodyLength,
    };
    writeFrameHeader(view, usedBytes, FRAME_DATA, RECORD_HEADER_BYTES + bodyLength);
    const recordAt = usedBytes + FRAME_HEADER_BYTES;
    writeRecordHeader(view, recordAt, header);
    const record = bytes.subarray(recordAt, usedBytes + frameLength);
    try {
      this.#bodies.write(content, record, header);
    } catch (cause) {
      // Sealed in place: what is left is plaintext, and the slab may be on its way to the wire for what it held before.
      record.fill(0);
      throw cause;
    }
    this.#recordsUnderKey++;
    this.#bytesUnderKey += bodyLength;
    const round = this.#rounds.current;
    round.sealedBytes += frameLength;
    round.keyNumber = this.#keyNumber;
    this.#window.commit(frameLength, header.sequence);
  }

  #nextKey(): void {
    this.#bodies.dropKeys();
    this.#keyNumber++;
    this.#recordsUnderKey = this.#bytesUnderKey = 0;
  }
}

function perClass<T>(make: (pageClass: PageClass) => T): Record<PageClass, T> {
  return {
    user: make("user"),
    kernelText: make("kernelText"),
    kernelData: make("kernelData"),
    unmapped: make("unmapped"),
  };
}

function newPages(pageClass: PageClass): OpenPages {
  const head = new Uint8Array(3 + 4 * MAX_PAGES_PER_RECORD);
  return {
    pageClass,
    block: 0,
    count: 0,
    head,
    headView: new DataView(head.buffer),
    bytes: new Array(MAX_PAGES_PER_RECORD),
  };
}

function newZeros(pageClass: PageClass): OpenZeros {
  const head = new Uint8Array(4 + 4 * MAX_ZEROS_PER_RECORD);
  return { pageClass, block: 0, count: 0, head, view: new DataView(head.buffer) };
}
