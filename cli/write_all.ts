/** What text is written to: `Deno.stdout` and `Deno.stderr` have this shape. */
export interface SyncWriter {
  /** Writes a prefix of `bytes`; the count written. */
  writeSync(bytes: Uint8Array): number;
}

const encoder = new TextEncoder();

/**
 * Writes all of `text` at once. A closed pipe is not an error here: whoever read it is gone.
 *
 * @throws what the writer throws otherwise, for instance when the disk is full
 */
export function writeAll(writer: SyncWriter, text: string): void {
  let rest = encoder.encode(text);
  try {
    while (rest.length > 0) rest = rest.subarray(writer.writeSync(rest));
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}
