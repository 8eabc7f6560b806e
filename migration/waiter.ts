/**
 * A condition to wait for, and one reason to stop waiting.
 *
 * @module
 */

/** Everything that one machine waits for goes through here, so that one interruption ends any wait. */
export class Waiter {
  #interruption: Error | null = null;
  #changed = Promise.withResolvers<void>();
  #shielded = false;

  /** Something changed: conditions are looked at again. */
  wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  /** Ends every wait with `reason`, now and later; the first reason counts. Behind a shield it only wakes. */
  interrupt(reason: Error): void {
    if (!this.#shielded) this.#interruption ??= reason;
    this.wake();
  }

  /** The point of no return: no interruption is thrown any more, nor taken. */
  shield(): void {
    this.#shielded = true;
    this.#interruption = null;
  }

  get shielded(): boolean {
    return this.#shielded;
  }

  /** @throws the interruption, if there is one */
  check(): void {
    if (this.#interruption !== null) throw this.#interruption;
  }

  /** Resolves with the first value of `condition` that is neither false, null nor undefined. @throws the interruption */
  async until<T>(condition: () => T | false | null | undefined): Promise<T> {
    for (;;) {
      this.check();
      const value = condition();
      if (value !== false && value !== null && value !== undefined) return value;
      await this.#changed.promise;
    }
  }
}
