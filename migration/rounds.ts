/**
 * Rounds: a page seen again in the same round means that the VM's dirty bitmap was synced since, so
 * that page opens the next round. Exact, in-stream, and free of races with QMP. The last round begins
 * when the VM stops.
 *
 * @see Paper section 3: Stage 1, iterative pre-copy; PROTOCOL.md section 4
 * @module
 */

import { PAGE_BYTES } from "./limits.ts";
import type { PageClass } from "./messages.ts";
import type { Clock, RamBlock } from "./ports.ts";

/** What one round carried. */
export interface RoundStatistics {
  /** 0 is the first pass over all memory. */
  round: number;
  /** Pages by class; pages that are all zeros count apart. */
  pages: Record<PageClass | "zero", number>;
  /** Guest bytes: pages that are not zero, times 4096. */
  bytes: number;
  /** What they became on the wire, frames included. */
  sealedBytes: number;
  /** From the page that opened it to the one that closed it. */
  durationMs: number;
  /** The key number of the round's last record. */
  keyNumber: number;
  /** Records found damaged. */
  mistakes: number;
}

/** Which pages the current round has carried, and the statistics of all rounds. */
export class Rounds {
  readonly #seen: Uint8Array[];
  readonly #clock: Clock;
  readonly #finished: RoundStatistics[] = [];
  #startedAtMs: number;
  #current: RoundStatistics;
  #ended = false;

  constructor(blocks: readonly RamBlock[], clock: Clock) {
    this.#seen = blocks.map((block) => new Uint8Array(Math.ceil(block.bytes / PAGE_BYTES / 8)));
    this.#clock = clock;
    this.#startedAtMs = clock.now();
    this.#current = emptyRound(0);
  }

  /** The round under way. */
  get current(): RoundStatistics {
    return this.#current;
  }

  /** Whether `page` was already carried in this round; if not, it now was. */
  seenBefore(block: number, page: number): boolean {
    const bitmap = this.#seen[block]!;
    const index = page >>> 3;
    const bit = 1 << (page & 7);
    const byte = bitmap[index]!;
    if ((byte & bit) !== 0) return true;
    bitmap[index] = byte | bit;
    return false;
  }

  /** Closes the round and opens the next. @returns the closed one */
  next(): RoundStatistics {
    const closed = this.#close();
    this.#finished.push(closed);
    for (const bitmap of this.#seen) bitmap.fill(0);
    this.#current = emptyRound(closed.round + 1);
    this.#startedAtMs = this.#clock.now();
    return closed;
  }

  /** Nothing more is carried: the last round's duration stands. */
  end(): void {
    this.#current = this.#close();
    this.#ended = true;
  }

  /** All rounds, the current one last. */
  all(): RoundStatistics[] {
    return [...this.#finished, this.#close()];
  }

  #close(): RoundStatistics {
    if (this.#ended) return { ...this.#current };
    return { ...this.#current, durationMs: this.#clock.now() - this.#startedAtMs };
  }
}

function emptyRound(round: number): RoundStatistics {
  const pages = { user: 0, kernelText: 0, kernelData: 0, unmapped: 0, zero: 0 };
  return { round, pages, bytes: 0, sealedBytes: 0, durationMs: 0, keyNumber: 0, mistakes: 0 };
}
