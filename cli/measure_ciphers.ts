/**
 * How fast the suites are on this machine, now: what `ciphers --measure` tells.
 *
 * @module
 */

import { guardOpener, guardSealer } from "../ciphers/guard.ts";
import type { CipherSuite } from "../ciphers/suite.ts";
import { RECORD_HEADER_BYTES } from "../migration/limits.ts";

/** Size of the messages, in bytes. */
export const MEASURED_MESSAGE_BYTES = 65_536;

/** Runs that count, of each suite and direction. */
export const MEASURED_RUNS = 7;

/** All runs together are to take about this long. */
const TOTAL_MS = 3_000;
const LEAST_RUN_MS = 5;
const MOST_RUN_MS = 25;

/** The median of a suite's runs, in units of 10^6 bytes per second. */
export interface CipherSpeed {
  sealMBps: number;
  openMBps: number;
}

/**
 * Seals and opens messages of 64 KiB with every suite in turn, again and again, so that what else the
 * machine does meets all of them; the first turn does not count.
 *
 * @param progress is told the turn that begins, from 0 to {@linkcode MEASURED_RUNS}
 * @returns one for each suite, in their order
 */
export function measureCiphers(
  suites: readonly CipherSuite[],
  progress: (turn: number) => void = () => {},
): CipherSpeed[] {
  const runs = suites.length * 2 * (MEASURED_RUNS + 1);
  const runMs = Math.max(LEAST_RUN_MS, Math.min(MOST_RUN_MS, TOTAL_MS / runs));
  const seals = suites.map((): number[] => []);
  const opens = suites.map((): number[] => []);
  for (let turn = 0; turn <= MEASURED_RUNS; turn++) {
    progress(turn);
    for (const [index, suite] of suites.entries()) {
      const sealMBps = sealRun(suite, runMs);
      const openMBps = openRun(suite, runMs);
      if (turn === 0) continue;
      seals[index]?.push(sealMBps);
      opens[index]?.push(openMBps);
    }
  }
  return suites.map((_, index) => ({
    sealMBps: middle(seals[index] ?? []),
    openMBps: middle(opens[index] ?? []),
  }));
}

function sealRun(suite: CipherSuite, runMs: number): number {
  using sealer = guardSealer(suite, new Uint8Array(suite.keyBytes));
  const { nonce, header, view, tag } = message(suite);
  return megabytesPerSecond(suite, runMs, () => {
    increment(nonce);
    sealer.begin(nonce, header);
    sealer.update(view, view);
    sealer.finish(tag);
  });
}

/** Opens one message into another place, so that it can be opened again. */
function openRun(suite: CipherSuite, runMs: number): number {
  const key = new Uint8Array(suite.keyBytes);
  const { nonce, header, view, tag } = message(suite);
  {
    using sealer = guardSealer(suite, key);
    sealer.begin(nonce, header);
    sealer.update(view, view);
    sealer.finish(tag);
  }
  using opener = guardOpener(suite, key);
  const opened = new Uint8Array(view.length);
  return megabytesPerSecond(suite, runMs, () => {
    opener.begin(nonce, header, tag);
    opener.update(view, opened);
    if (!opener.finish()) throw new Error(`Cannot measure ${suite.id}: it opens no message`);
  });
}

function message(suite: CipherSuite) {
  return {
    nonce: new Uint8Array(suite.nonceBytes),
    header: new Uint8Array(RECORD_HEADER_BYTES),
    // Written to: memory that nobody has touched yet is read at another speed.
    view: new Uint8Array(MEASURED_MESSAGE_BYTES).fill(7),
    tag: new Uint8Array(suite.tagBytes),
  };
}

/** Once at least; ends before the key is used up. */
function megabytesPerSecond(suite: CipherSuite, runMs: number, once: () => void): number {
  const most = Math.min(suite.maxMessagesPerKey, suite.maxBytesPerKey / MEASURED_MESSAGE_BYTES);
  const startedAtMs = performance.now();
  let count = 0;
  let elapsedMs = 0;
  do {
    once();
    count++;
    elapsedMs = performance.now() - startedAtMs;
  } while (elapsedMs < runMs && count + 1 <= most);
  return count * MEASURED_MESSAGE_BYTES / 1e3 / elapsedMs;
}

/** The next nonce: big-endian, as a record's sequence is. */
function increment(nonce: Uint8Array): void {
  for (let i = nonce.length - 1; i >= 0; i--) {
    nonce[i] = (nonce[i]! + 1) & 0xff;
    if (nonce[i] !== 0) return;
  }
}

/** Of an odd number of values. */
function middle(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >>> 1] ?? NaN;
}
