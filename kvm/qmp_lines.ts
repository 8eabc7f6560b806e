/**
 * Lines out of a byte stream, with a cap on the length of one.
 *
 * @module
 */

const LINE_FEED = 0x0a;

/** Cuts a byte stream into lines; a line may come in any number of pieces. */
export class LineSplitter {
  readonly #maxBytes: number;
  #pieces: Uint8Array[] = [];
  #pendingBytes = 0;

  /** @param maxBytes longest line, without its end */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * The lines that end in `bytes`, without their ends and without empty ones. `bytes` may be reused afterwards.
   *
   * @throws {RangeError} when a line is longer than the cap
   */
  *push(bytes: Uint8Array): Generator<string> {
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(LINE_FEED, start);
      const piece = bytes.subarray(start, end < 0 ? bytes.length : end);
      if (this.#pendingBytes + piece.length > this.#maxBytes) {
        throw new RangeError(`Cannot read a line: it is longer than ${this.#maxBytes} bytes`);
      }
      if (end < 0) {
        if (piece.length > 0) this.#pieces.push(piece.slice());
        this.#pendingBytes += piece.length;
        return;
      }
      const line = this.#take(piece).trim();
      if (line !== "") yield line;
      start = end + 1;
    }
  }

  #take(last: Uint8Array): string {
    const decoder = new TextDecoder();
    let text = "";
    for (const piece of this.#pieces) text += decoder.decode(piece, { stream: true });
    this.#pieces = [];
    this.#pendingBytes = 0;
    return text + decoder.decode(last);
  }
}
