/**
 * Text for stdout and stderr that holds nobody up: a reader that stops reading, a full disk, a terminal that has
 * gone away must not keep a VM standing still. Text waits in a queue, is written while other things happen, and
 * is lost where it cannot be written.
 *
 * @module
 */

/** More than this in the queue, and what may be left out is. */
const CROWDED_BYTES = 64 * 1024;
/** More than this, and everything is: nobody has read for hours. */
const FULL_BYTES = 16 * 1024 * 1024;

/** What text is written to: `Deno.stdout` and `Deno.stderr` have this shape. */
export interface ByteStream {
  /** Writes a prefix of `bytes`; the count written. */
  write(bytes: Uint8Array): Promise<number>;
}

/** What a {@linkcode QueuedWriter} looks like to those who write. */
export interface TextWriter {
  /** Puts text at the end. `mayDrop`: a newer text will say it better. */
  write(text: string, options?: { mayDrop?: boolean }): void;
}

const encoder = new TextEncoder();

/** See the module. */
export class QueuedWriter implements TextWriter {
  readonly #stream: ByteStream;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #writing: Promise<void> | null = null;
  /** Nobody takes anything any more. */
  #broken = false;

  constructor(stream: ByteStream) {
    this.#stream = stream;
  }

  write(text: string, { mayDrop = false }: { mayDrop?: boolean } = {}): void {
    if (this.#broken || this.#queuedBytes > (mayDrop ? CROWDED_BYTES : FULL_BYTES)) return;
    const bytes = encoder.encode(text);
    this.#queue.push(bytes);
    this.#queuedBytes += bytes.length;
    this.#writing ??= this.#run();
  }

  /** Resolves when everything was written, or cannot be. */
  async drained(): Promise<void> {
    while (this.#writing !== null) await this.#writing;
  }

  async #run(): Promise<void> {
    try {
      for (let next; (next = this.#queue.shift()) !== undefined;) {
        for (let rest = next; rest.length > 0;) {
          const count = await this.#stream.write(rest);
          rest = rest.subarray(count);
          this.#queuedBytes -= count;
        }
      }
    } catch {
      // A closed pipe, a full disk, a hung-up terminal: who read it is gone.
      this.#broken = true;
      this.#queue = [];
      this.#queuedBytes = 0;
    } finally {
      this.#writing = null;
    }
  }
}

/** This process's stdout. */
export const stdout: QueuedWriter = new QueuedWriter(Deno.stdout);
/** This process's stderr. */
export const stderr: QueuedWriter = new QueuedWriter(Deno.stderr);

/** Before the process exits: everything that was said is written. */
export async function outputDrained(): Promise<void> {
  await Promise.all([stdout.drained(), stderr.drained()]);
}
