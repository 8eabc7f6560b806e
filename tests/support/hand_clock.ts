/**
 * Time that passes when a test says so, and at no other time.
 *
 * @module
 */

import type { Clock } from "../../migration/ports.ts";

/** A clock that is moved by hand. */
export class HandClock implements Clock {
  readonly #timers = new Set<{ atMs: number; callback: () => void }>();
  #nowMs = 1_000;

  /** Timers that were neither called nor cleared. */
  get pending(): number {
    return this.#timers.size;
  }

  now(): number {
    return this.#nowMs;
  }

  date(): Date {
    return new Date(this.#nowMs);
  }

  timer(ms: number, callback: () => void): { clear(): void } {
    const timer = { atMs: this.#nowMs + ms, callback };
    this.#timers.add(timer);
    return { clear: () => this.#timers.delete(timer) };
  }

  /** `ms` later; calls what is due by then. */
  pass(ms: number): void {
    this.#nowMs += ms;
    const due = [...this.#timers].filter(({ atMs }) => atMs <= this.#nowMs);
    for (const timer of due.sort((a, b) => a.atMs - b.atMs)) {
      if (this.#timers.delete(timer)) timer.callback();
    }
  }
}
