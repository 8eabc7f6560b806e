/**
 * The guest's heartbeat: what it says about how long a machine stood still, and whether it lost anything.
 *
 * @module
 */

/** What came through a serial port in one read. */
export interface SerialChunk {
  /** Monotonic milliseconds (`performance.now()`) when it was read. */
  atMs: number;
  /** As they came; a line may go on in the next chunk. */
  bytes: Uint8Array;
}

/** A complete line of a serial port. */
export interface SerialLine {
  /** Without its end. */
  text: string;
  /** When its end was read. */
  atMs: number;
}

/** One beat of the guest. */
export interface Heartbeat {
  /** Counts from 0, up by one. */
  n: number;
  /** Monotonic milliseconds on the host. */
  atMs: number;
}

/** Puts lines together that come in pieces. */
export class LineAssembler {
  #rest = "";
  readonly #decoder = new TextDecoder("latin1");

  /** Takes a chunk; returns the lines that it completes. */
  push(chunk: SerialChunk): SerialLine[] {
    const parts = (this.#rest + this.#decoder.decode(chunk.bytes)).split("\n");
    this.#rest = parts.pop() ?? "";
    return parts.map((text) => ({ text: text.replace(/\r$/, ""), atMs: chunk.atMs }));
  }
}

/**
 * The beats in what was captured. For a machine that moved, the source's chunks and then the
 * destination's: a line cut by the move is put together again.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const bytes = (text: string) => new TextEncoder().encode(text);
 * const source = [{ atMs: 0, bytes: bytes("HB 41\nHB 4") }];
 * const destination = [{ atMs: 25, bytes: bytes("2\n") }];
 * assert.deepEqual(parseHeartbeats([...source, ...destination]), [{ n: 41, atMs: 0 }, { n: 42, atMs: 25 }]);
 * ```
 */
export function parseHeartbeats(chunks: Iterable<SerialChunk>): Heartbeat[] {
  const lines = new LineAssembler();
  const beats: Heartbeat[] = [];
  for (const chunk of chunks) {
    for (const { text, atMs } of lines.push(chunk)) {
      const n = /^HB (\d+)$/.exec(text)?.[1];
      if (n !== undefined) beats.push({ n: Number(n), atMs });
    }
  }
  return beats;
}

/** What a series of beats shows. */
export interface HeartbeatReport {
  /** Places where a number is not the one before plus one: beats lost, said twice, or from another life. */
  breaks: { after: number; next: number }[];
  /** The longest time between two beats; 0 for fewer than two. */
  longestGapMs: number;
  /** The number before that gap; null for fewer than two. */
  longestGapAfter: number | null;
}

/** Looks for lost beats and for the longest silence. */
export function examineHeartbeats(beats: readonly Heartbeat[]): HeartbeatReport {
  const report: HeartbeatReport = { breaks: [], longestGapMs: 0, longestGapAfter: null };
  let before: Heartbeat | undefined;
  for (const beat of beats) {
    if (before !== undefined) {
      if (beat.n !== before.n + 1) report.breaks.push({ after: before.n, next: beat.n });
      if (report.longestGapAfter === null || beat.atMs - before.atMs > report.longestGapMs) {
        report.longestGapMs = beat.atMs - before.atMs;
        report.longestGapAfter = before.n;
      }
    }
    before = beat;
  }
  return report;
}
