/**
 * One thing at a time, in the order in which they were asked for.
 *
 * @module
 */

/** See the module. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Does `work` when what was asked for before is over, however that ended. @returns what it returns @throws likewise */
  run<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return turn;
  }
}
