import assert from "node:assert/strict";
import { type ByteStream, QueuedWriter } from "../../cli/queued_writer.ts";

/** Takes a few bytes at a time, once it is let. */
class SlowStream implements ByteStream {
  text = "";
  readonly gate = Promise.withResolvers<void>();
  readonly #bytesAtOnce: number;

  constructor(bytesAtOnce: number) {
    this.#bytesAtOnce = bytesAtOnce;
  }

  async write(bytes: Uint8Array): Promise<number> {
    await this.gate.promise;
    const taken = bytes.subarray(0, this.#bytesAtOnce);
    this.text += new TextDecoder("latin1").decode(taken);
    return taken.length;
  }
}

Deno.test("QueuedWriter.write() returns at once, and everything is written in order", async () => {
  const stream = new SlowStream(2);
  const writer = new QueuedWriter(stream);
  writer.write("one ");
  writer.write("two ", { mayDrop: true });
  writer.write("three");
  assert.equal(stream.text, "");
  stream.gate.resolve();
  await writer.drained();
  assert.equal(stream.text, "one two three");
});

Deno.test("QueuedWriter.write() leaves out what may be left out while nobody reads, and bounds the rest", async () => {
  const stream = new SlowStream(65_537);
  const writer = new QueuedWriter(stream);
  writer.write("x".repeat(100_000));
  writer.write("progress", { mayDrop: true });
  writer.write("report");
  for (let i = 0; i < 40; i++) writer.write("y".repeat(1_000_000));
  stream.gate.resolve();
  await writer.drained();
  assert.match(stream.text, /^x{100000}reporty+$/);
  assert.ok(stream.text.length < 20_000_000);
});

Deno.test("QueuedWriter gives up quietly when its reader has gone away or the disk is full", async () => {
  for (const error of [new Deno.errors.BrokenPipe("gone"), new Error("No space left on device")]) {
    let calls = 0;
    const writer = new QueuedWriter({
      write() {
        calls++;
        return Promise.reject(error);
      },
    });
    writer.write("nobody reads this");
    await writer.drained();
    writer.write("nor this");
    await writer.drained();
    assert.equal(calls, 1);
  }
});
