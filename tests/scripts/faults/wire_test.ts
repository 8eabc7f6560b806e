import assert from "node:assert/strict";
import { Wire } from "../../../scripts/faults/wire.ts";

/** A wire to a listener, and the bytes of each connection that came through, whole. */
class Far implements AsyncDisposable {
  readonly received: Promise<Uint8Array>[] = [];
  readonly wire: Wire;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #accepting = this.#accept();

  constructor() {
    this.wire = new Wire(this.#listener.addr.port);
  }

  /** Sends over a new connection. */
  async send(bytes: Uint8Array): Promise<void> {
    using conn = await Deno.connect({ hostname: "127.0.0.1", port: this.wire.port });
    try {
      for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
      await conn.closeWrite();
      while (await conn.read(new Uint8Array(64)) !== null);
    } catch {
      // It was cut.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.wire[Symbol.asyncDispose]();
    this.#listener.close();
    await this.#accepting;
    await Promise.all(this.received);
  }

  async #accept(): Promise<void> {
    try {
      for (;;) this.received.push(readAll(await this.#listener.accept()));
    } catch {
      // The listener was closed.
    }
  }
}

async function readAll(conn: Deno.Conn): Promise<Uint8Array> {
  using _open = conn;
  const parts: number[] = [];
  const buffer = new Uint8Array(4096);
  try {
    for (let count; (count = await conn.read(buffer)) !== null;) {
      parts.push(...buffer.subarray(0, count));
    }
  } catch {
    // It was cut.
  }
  return Uint8Array.from(parts);
}

const bytes = Uint8Array.from({ length: 10_000 }, (_, i) => i % 251);
const differing = (a: Uint8Array) => bytes.reduce((sum, byte, i) => sum + Number(byte !== a[i]), 0);

Deno.test("Wire lets everything through, and flips one bit when it is told to", async () => {
  await using far = new Far();
  await far.send(bytes);
  assert.deepEqual(await far.received[0], bytes);
  far.wire.flipNext("to destination");
  await far.send(bytes);
  assert.equal(differing((await far.received[1])!), 1);
  assert.equal(far.wire.flips, 1);
  assert.equal(far.wire.passedBytes, 2 * bytes.length);
});

Deno.test("Wire.flipEvery() flips a bit in so many bytes", async () => {
  await using far = new Far();
  far.wire.flipEvery(1_000, () => 0.5);
  await far.send(bytes);
  assert.equal(differing((await far.received[0])!), far.wire.flips);
  assert.equal(far.wire.flips, 9);
});

Deno.test("Wire.plan() cuts at that byte, and lets nobody through until it is up again", async () => {
  await using far = new Far();
  far.wire.plan([{ atBytes: 2_500, downMs: 60_000 }]);
  await far.send(bytes);
  assert.deepEqual(await far.received[0], bytes.subarray(0, 2_500));
  await far.send(bytes);
  assert.equal(far.received.length, 1);
  assert.equal(far.wire.cuts, 1);
});
