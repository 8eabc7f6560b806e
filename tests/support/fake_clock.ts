/**
 * Time that passes a little at each turn of the event loop: seconds of waiting take milliseconds, and a machine
 * that stands still for a while does not make anything late.
 *
 * @module
 */

import type { Clock } from "../../migration/ports.ts";

const STEP_MS = 20;

interface Timer {
  atMs: number;
  callback: () => void;
  /** A test's own, not one of what is tested. */
  sleep: boolean;
}

/** A clock that runs until it is disposed. */
export class FakeClock implements Clock, Disposable {
  readonly #timers = new Set<Timer>();
  #nowMs = 1_000;
  #turn: ReturnType<typeof setTimeout>;

  constructor() {
    const turn = () => {
      this.#advance(STEP_MS);
      this.#turn = setTimeout(turn, 0);
    };
    this.#turn = setTimeout(turn, 0);
  }

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
    return { clear: () => this.#timers.delete(timer) };
  }

  /** Resolves `ms` later. */
  sleep(ms: number): Promise<void> {
    return new Promise((callback) => {
      this.#timers.add({ atMs: this.#nowMs + ms, callback, sleep: true });
    });
  }

  /** `ms` of work without a turn of the event loop. */
  pass(ms: number): void {
    this.#nowMs += ms;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#turn);
  }

  #advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    const due = [...this.#timers].filter(({ atMs }) => atMs <= untilMs)
      .sort((a, b) => a.atMs - b.atMs);
    for (const timer of due) {
      // One that ran before it may have cleared it.
      if (!this.#timers.delete(timer)) continue;
      this.#nowMs = Math.max(this.#nowMs, timer.atMs);
      timer.callback();
    }
    this.#nowMs = untilMs;
  }
}
