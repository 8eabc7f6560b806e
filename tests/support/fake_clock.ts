/**
 * Time that passes only while everybody waits for it: whenever nothing else is left to do, the clock is at the next
 * timer. Hours of waiting take milliseconds, and a machine that stands still for a while does not make anything late.
 *
 * @module
 */

import { clearImmediate, setImmediate } from "node:timers";
import type { Clock } from "../../migration/ports.ts";

interface Timer {
  atMs: number;
  callback: () => void;
  /** A test's own, not one of what is tested. */
  sleep: boolean;
}

/** Calls into Web Crypto that are under way on other threads: the only waiting that is not for a clock. */
let underWay = 0;
/** Goes on once there are none. */
const waiting = new Set<() => void>();

for (
  const name of ["digest", "encrypt", "decrypt", "importKey", "exportKey", "deriveBits"] as const
) {
  const method = SubtleCrypto.prototype[name] as (...given: unknown[]) => Promise<unknown>;
  const counted = async function (this: SubtleCrypto, ...given: unknown[]): Promise<unknown> {
    underWay++;
    try {
      return await method.apply(this, given);
    } finally {
      if (--underWay === 0) {
        const goOn = [...waiting];
        waiting.clear();
        for (const arm of goOn) arm();
      }
    }
  };
  Object.defineProperty(SubtleCrypto.prototype, name, { value: counted });
}

/** A clock that runs until it is disposed. */
export class FakeClock implements Clock, Disposable {
  readonly #timers = new Set<Timer>();
  #nowMs = 1_000;
  #turn: ReturnType<typeof setImmediate> | null = null;
  #disposed = false;
  readonly #arm = () => {
    if (this.#disposed || this.#turn !== null || this.#timers.size === 0) return;
    this.#turn = setImmediate(() => {
      this.#turn = null;
      if (underWay > 0) return waiting.add(this.#arm);
      this.#advance();
      this.#arm();
    });
  };

  /** Timers that were neither called nor cleared; sleeps do not count. */
  get pending(): number {
    return [...this.#timers].filter(({ sleep }) => !sleep).length;
  }

  now(): number {
    return this.#nowMs;
  }

  date(): Date {
    return new Date(Date.UTC(2025, 0, 1) + this.#nowMs);
  }

  timer(ms: number, callback: () => void): { clear(): void } {
    const timer = { atMs: this.#nowMs + ms, callback, sleep: false };
    this.#timers.add(timer);
    this.#arm();
    return { clear: () => this.#timers.delete(timer) };
  }

  /** `ms` of work without a turn of the event loop. */
  pass(ms: number): void {
    this.#nowMs += ms;
  }

  /** Resolves `ms` later. */
  sleep(ms: number): Promise<void> {
    return new Promise((callback) => {
      this.#timers.add({ atMs: this.#nowMs + ms, callback, sleep: true });
      this.#arm();
    });
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    waiting.delete(this.#arm);
    if (this.#turn !== null) clearImmediate(this.#turn);
  }

  /** To the next timer, and calls it; of several at one time the first that was set. */
  #advance(): void {
    let next: Timer | null = null;
    for (const timer of this.#timers) if (next === null || timer.atMs < next.atMs) next = timer;
    if (next === null) return;
    this.#timers.delete(next);
    this.#nowMs = Math.max(this.#nowMs, next.atMs);
    next.callback();
  }
}
