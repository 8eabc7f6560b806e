/**
 * The window of sealed records: every record stays here, byte for byte as sealed, until the destination
 * has acknowledged it. Records are sealed in place into slabs of about 1 MiB, which are written to the
 * connection whole; a slab is used again once its last record is acknowledged, the hottest first.
 *
 * @module
 */

import { FRAME_HEADER_BYTES, MAX_DATA_FRAME_BYTES, WINDOW_RECORD_COST_BYTES } from "./limits.ts";

/** Four records of the largest size. */
const SLAB_BYTES = 4 * (FRAME_HEADER_BYTES + MAX_DATA_FRAME_BYTES);

/** Slabs that any window may use. */
const MIN_SLABS = 16;

/** Consecutive frames in one buffer. */
export interface Slab {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  usedBytes: number;
  records: number;
  lastSequence: number;
}

/** See the module. */
export class SealedWindow {
  readonly #capacityBytes: number;
  /** Slabs go out before they are full: memory may be twice the window, and no more. */
  readonly #maxSlabs: number;
  readonly #free: Slab[] = [];
  readonly #sent: Slab[] = [];
  #filling: Slab | null = null;
  #heldBytes = 0;
  #lastSentSequence = 0;
  #onSlab: (slab: Slab) => void;

  /** `onSlab` is called, in order, with each slab that is ready for the wire. */
  constructor(capacityBytes: number, onSlab: (slab: Slab) => void) {
    this.#capacityBytes = capacityBytes;
    this.#maxSlabs = Math.max(MIN_SLABS, Math.floor((2 * capacityBytes) / SLAB_BYTES));
    this.#onSlab = onSlab;
  }

  /** Whether the source must wait for acknowledgements before it reads more from the VM. */
  get full(): boolean {
    if (this.#heldBytes === 0) return false;
    return this.#heldBytes >= this.#capacityBytes || this.#sent.length >= this.#maxSlabs;
  }

  /** Whether every record was sent and acknowledged. */
  get empty(): boolean {
    return this.#sent.length === 0 && this.#filling === null;
  }

  /** The sequence of the last record handed to `onSlab`. */
  get lastSentSequence(): number {
    return this.#lastSentSequence;
  }

  /** A slab with at least `bytes` free after its `usedBytes`. */
  reserve(bytes: number): Slab {
    if (this.#filling !== null && this.#filling.usedBytes + bytes > SLAB_BYTES) this.flush();
    return this.#filling ??= this.#free.pop() ?? newSlab();
  }

  /** Counts a record of `bytes` that was sealed at the end of the reserved slab. */
  commit(bytes: number, sequence: number): void {
    const slab = this.#filling!;
    slab.usedBytes += bytes;
    slab.records++;
    slab.lastSequence = sequence;
    this.#heldBytes += bytes + WINDOW_RECORD_COST_BYTES;
  }

  /** Hands the slab that is being filled to the wire, if it holds anything. */
  flush(): void {
    const slab = this.#filling;
    if (slab === null || slab.records === 0) return;
    this.#filling = null;
    this.#sent.push(slab);
    this.#lastSentSequence = slab.lastSequence;
    this.#onSlab(slab);
  }

  /** The DATA frame of a record that is still held, header included; null when it is not. */
  frame(sequence: number): Uint8Array | null {
    for (const slab of this.#sent) {
      if (sequence > slab.lastSequence) continue;
      const first = slab.lastSequence - slab.records + 1;
      if (sequence < first) return null;
      const { at, length } = frameAt(slab, sequence - first);
      return slab.bytes.subarray(at, at + length);
    }
    return null;
  }

  /** The frames from `sequence` on that were handed to the wire, byte for byte as sealed, in as few pieces as possible. */
  framesFrom(sequence: number): { bytes: Uint8Array; lastSequence: number }[] {
    return this.#sent.filter((slab) => slab.lastSequence >= sequence).map((slab) => {
      const first = slab.lastSequence - slab.records + 1;
      const { at } = sequence <= first ? { at: 0 } : frameAt(slab, sequence - first);
      return { bytes: slab.bytes.subarray(at, slab.usedBytes), lastSequence: slab.lastSequence };
    });
  }

  /** Everything up to `sequence` was processed over there: its slabs are free again. */
  acknowledge(sequence: number): void {
    while (this.#sent.length > 0 && this.#sent[0]!.lastSequence <= sequence) {
      const slab = this.#sent.shift()!;
      this.#heldBytes -= slab.usedBytes + slab.records * WINDOW_RECORD_COST_BYTES;
      slab.usedBytes = slab.records = slab.lastSequence = 0;
      this.#free.push(slab);
    }
  }
}

/** Where the `index`-th frame of a slab lies. */
function frameAt(slab: Slab, index: number): { at: number; length: number } {
  let at = 0;
  for (let i = 0;; i++) {
    const length = FRAME_HEADER_BYTES + slab.view.getUint32(at + 4);
    if (i === index) return { at, length };
    at += length;
  }
}

function newSlab(): Slab {
  const bytes = new Uint8Array(SLAB_BYTES);
  return { bytes, view: new DataView(bytes.buffer), usedBytes: 0, records: 0, lastSequence: 0 };
}
