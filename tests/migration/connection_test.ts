import assert from "node:assert/strict";
import { defaultRegistry } from "../../ciphers/registry.ts";
import { Connection } from "../../migration/connection.ts";
import { FrameReader } from "../../migration/frame.ts";
import { MAX_QUEUED_CONTROL_BYTES } from "../../migration/limits.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { loopbackPair } from "../support/loopback.ts";

// Opened here: a library that a test opens would count as its leak.
defaultRegistry();

/** Both ends of a connection after its handshake. */
function connected(clock: FakeClock): { here: Connection; there: Connection } {
  const [here, there] = loopbackPair();
  const [a, b] = [1, 2].map((byte) => new Uint8Array(32).fill(byte)) as [
    Uint8Array<ArrayBuffer>,
    Uint8Array<ArrayBuffer>,
  ];
  const make = (transport: typeof here, sendKey: typeof a, receiveKey: typeof a) =>
    new Connection({
      transport,
      reader: new FrameReader(transport),
      keys: {
        handshakeHash: new Uint8Array(32),
        sendKey: sendKey.slice(),
        receiveKey: receiveKey.slice(),
      },
      clock,
      onCut: () => {},
    });
  return { here: make(here, a, b), there: make(there, b, a) };
}

const message = { type: "ABORT", code: "vm", text: "x".repeat(300) } as const;

Deno.test("Connection.send() closes the connection to who does not read what it says", async () => {
  using clock = new FakeClock();
  const { here, there } = connected(clock);
  using _there = there;
  const reading = here.nextMessage();
  let sentBytes = 0;
  while (!here.closed && sentBytes <= MAX_QUEUED_CONTROL_BYTES) {
    sentBytes += here.send(message).length;
  }
  assert.ok(here.closed);
  // Frames are somewhat larger than their messages.
  assert.ok(sentBytes > MAX_QUEUED_CONTROL_BYTES / 2, `${sentBytes}`);
  // So whoever serves it gets to its end; who still has something to say does no harm.
  await assert.rejects(reading);
  assert.ok(here.send(message).length > 0);
});

Deno.test("Connection.send() says more than that to who reads it, and whatever records wait before it", async () => {
  using clock = new FakeClock();
  const { here, there } = connected(clock);
  using _here = here;
  using _there = there;
  for (let sentBytes = 0; sentBytes <= 2 * MAX_QUEUED_CONTROL_BYTES;) {
    for (let i = 0; i < 100; i++) sentBytes += here.send(message).length;
    for (let i = 0; i < 100; i++) assert.equal((await there.nextMessage())?.message.type, "ABORT");
    await clock.sleep(1);
  }
  here.outbox.put(new Uint8Array(2 * MAX_QUEUED_CONTROL_BYTES), { data: true });
  here.send(message);
  assert.ok(!here.closed);
});
