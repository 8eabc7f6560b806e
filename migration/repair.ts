/**
 * The source's answer to a MISTAKE: looks at its own copy of the record, marks its pages in the mistake
 * bitmap, or sends what is not a page again at once.
 *
 * @see PROTOCOL.md section 5; paper, section 3.1 "Integrity"
 * @module
 */

import { DamagedSequences } from "./damaged_sequences.ts";
import { MigrationError } from "./errors.ts";
import { FRAME_HEADER_BYTES, MAX_KEY_NUMBER_LEAD, MAX_TRIES, MIN_DAMAGE_BYTES } from "./limits.ts";
import type { MistakeBitmap } from "./mistake_bitmap.ts";
import type { RamBlock } from "./ports.ts";
import type { BodyWriter } from "./record_bodies.ts";
import { RecordParser } from "./record_content.ts";
import type { RecordSealer } from "./record_sealer.ts";
import type { SealedWindow } from "./window.ts";

/** What a marked page of zeros costs besides its place in the record. */
const MARK_COST_BYTES = 128;

/** Sequences that frames of somebody else can have used up at once: each cost that side a page of its budget. */
const MAX_SKIPPED = MAX_KEY_NUMBER_LEAD;

/** See the module. One lane. */
export class Repair {
  readonly #bodies: BodyWriter;
  readonly #window: SealedWindow;
  readonly #sealer: RecordSealer;
  readonly #bitmap: MistakeBitmap;
  readonly #parser: RecordParser;
  readonly #damaged: DamagedSequences;
  readonly #pieceDamages = new Map<string, number>();
  /** Pieces that wait for the administrator's word; one that could not be sealed stays. */
  readonly #held: (() => void)[] = [];
  /** Pages that damaged records carried: they count in no total. */
  #lostPages = 0;
  #repairedPages = 0;
  /** Times that one thing was damaged, at most; and what may be without an alarm. */
  #mostDamages = 0;
  #mostDamagedWhat = "";
  #tries = MAX_TRIES;
  #damagedBytes = 0;
  #alarmBytes: number;
  readonly #budgetBytes: number;

  constructor(options: {
    /** What sealed the records. */
    bodies: BodyWriter;
    window: SealedWindow;
    sealer: RecordSealer;
    bitmap: MistakeBitmap;
    blocks: readonly RamBlock[];
    /** What may be damaged at most: beyond it nobody goes on who can go back. */
    budgetBytes: number;
    /** What is repaired unasked. */
    alarmBytes: number;
  }) {
    this.#alarmBytes = options.alarmBytes;
    this.#budgetBytes = options.budgetBytes;
    this.#bodies = options.bodies;
    this.#window = options.window;
    this.#sealer = options.sealer;
    this.#bitmap = options.bitmap;
    this.#parser = new RecordParser(options.blocks);
    // The budget is judged here, with what is marked.
    this.#damaged = new DamagedSequences(Infinity);
  }

  /** Damaged records so far. */
  get mistakes(): number {
    return this.#damaged.count;
  }

  /** Pages sent again so far. */
  get repairedPages(): number {
    return this.#repairedPages;
  }

  /** Pages in records that never opened over there. */
  get lostPages(): number {
    return this.#lostPages;
  }

  /** For FINISH. */
  digest(): { count: number; sha256: string } {
    return this.#damaged.digest();
  }

  /**
   * The paper's alarm: the damage does not end, pages are still damaged when they are sent again. Null while all is
   * within what is repaired unasked.
   */
  get alarm(): MigrationError | null {
    const hint = "somebody or something changes bytes between the two hosts; the VM was not harmed";
    if (this.#mostDamages > this.#tries) {
      return new MigrationError(
        "tampering",
        `Cannot send ${this.#mostDamagedWhat}: it was damaged ${this.#mostDamages} times`,
        { hint },
      );
    }
    if (this.#damagedBytes > this.#alarmBytes) {
      return new MigrationError(
        "tampering",
        `Cannot go on: ${this.mistakes} records were damaged on the way, more than the repair budget permits`,
        { hint },
      );
    }
    return null;
  }

  /** Whether so much is damaged that nobody is asked any more: what is marked lies in memory. */
  get exhausted(): boolean {
    return this.#damagedBytes > this.#budgetBytes;
  }

  /** The administrator said to go on: as much again until the next alarm, within the budget. @throws what a suite does */
  goOn(): void {
    this.#tries = this.#mostDamages + MAX_TRIES;
    this.#alarmBytes = Math.min(this.#alarmBytes + this.#damagedBytes, this.#budgetBytes);
    this.#sealHeld();
  }

  /**
   * Deals with one MISTAKE; the same one again changes nothing. Beyond the budget, too, everything is marked or sent
   * again: {@linkcode alarm} says so to who can still go back. @returns what was hit, in words
   *
   * @throws MigrationError `protocol` when it cannot have been damaged, `vm` when our own copy does not open; and what a
   * suite does
   */
  damaged(sequence: number): string[] {
    if (sequence > this.#sealer.lastSequence) {
      if (sequence - this.#sealer.lastSequence > MAX_SKIPPED) {
        throw new MigrationError(
          "protocol",
          `Cannot repair record ${sequence}: it is far beyond what was sent`,
        );
      }
      // Never sealed: somebody put frames in. They carried nothing, and the numbers only go up.
      for (let skipped = this.#sealer.lastSequence + 1; skipped <= sequence; skipped++) {
        this.#count(skipped, 0);
      }
      this.#sealer.skipTo(sequence);
      return [`record ${sequence}, which was never sent`];
    }
    let frame = this.#window.frame(sequence);
    if (frame === null) {
      // A frame that somebody put in has used up the number of one that is not on the wire yet.
      this.#window.flush();
      frame = this.#window.frame(sequence);
    }
    if (!this.#count(sequence, frame?.length ?? 0)) return [];
    if (frame === null) {
      throw new MigrationError("protocol", `Cannot repair record ${sequence}: it was acknowledged`);
    }
    // Our own copy: what was sealed is all that is left of the page, the VM may have stopped.
    const content = this.#bodies.reopen(frame.subarray(FRAME_HEADER_BYTES));
    return [`record ${sequence}: ${this.#mend(sequence, content)}`];
  }

  /**
   * Seals the marked pages of one damaged record again, as new ones, which go to the wire while the next are sealed: the
   * VM has stopped, and no record is open. @returns false when nothing was left to do
   */
  resend(): boolean {
    if (this.#bitmap.empty) return false;
    const pages = this.#bitmap.resend(this.#sealer);
    this.#sealer.sealOpen();
    this.#bitmap.resent();
    this.#repairedPages += pages;
    return true;
  }

  /** @returns false when it was counted before @throws MigrationError `protocol` */
  #count(sequence: number, frameBytes: number): boolean {
    if (!this.#damaged.add(sequence, frameBytes)) return false;
    this.#damagedBytes += Math.max(MIN_DAMAGE_BYTES, frameBytes);
    // Over there each counts as a page at least, and the one that passes the budget is the last.
    if (this.mistakes <= this.#budgetBytes / MIN_DAMAGE_BYTES + 1) return true;
    throw new MigrationError(
      "protocol",
      `Cannot repair record ${sequence}: the destination goes on beyond the repair budget`,
    );
  }

  #mend(sequence: number, plaintext: Uint8Array): string {
    const record = this.#parser.parse(plaintext);
    switch (record.type) {
      case "pages":
        this.#mark(sequence, record);
        return `${record.pages.length} pages of block ${record.block} from page ${
          record.pages[0]
        } on`;
      case "zeros":
        // Small on the wire, but each of its pages is remembered here.
        this.#damagedBytes += record.pages.length * MARK_COST_BYTES;
        this.#mark(sequence, { ...record, bytes: null });
        return `${record.pages.length} zero pages of block ${record.block} from page ${
          record.pages[0]
        } on`;
      case "setup":
      case "state":
        this.#again(
          `${record.type} at ${record.offset}`,
          () => this.#sealer.streamPiece(record.type, record),
        );
        return `${
          record.type === "setup" ? "the stream's head" : "the device state"
        } at ${record.offset}`;
      case "round":
        this.#again(`round ${record.round}`, () => this.#sealer.roundAgain(record));
        return `the end of round ${record.round}`;
    }
  }

  /** Seals a piece again at once, or when the administrator says so. */
  #again(what: string, seal: () => void): void {
    const damages = (this.#pieceDamages.get(what) ?? 0) + 1;
    this.#pieceDamages.set(what, damages);
    if (damages > this.#mostDamages) this.#setMost(damages, what);
    this.#held.push(seal);
    if (this.alarm === null) this.#sealHeld();
  }

  #sealHeld(): void {
    for (; this.#held.length > 0; this.#held.shift()) this.#held[0]!();
  }

  #mark(
    sequence: number,
    { block, pages, bytes }: { block: number; pages: Uint32Array; bytes: Uint8Array | null },
  ): void {
    // The parser's list is its own.
    const most = this.#bitmap.damaged({ sequence, block, pages: pages.slice(), bytes });
    this.#lostPages += pages.length;
    if (most.damages <= this.#mostDamages) return;
    this.#setMost(most.damages, `page ${most.page} of block ${block}`);
  }

  #setMost(damages: number, what: string): void {
    this.#mostDamages = damages;
    this.#mostDamagedWhat = what;
  }
}
