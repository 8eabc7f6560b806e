import assert from "node:assert/strict";
import { Outbox } from "../../migration/outbox.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { type LoopbackEnd, loopbackPair } from "../support/loopback.ts";

async function readAll(from: LoopbackEnd, count: number): Promise<number[]> {
  const bytes: number[] = [];
  const into = new Uint8Array(1_000);
  while (bytes.length < count) {
    const got = await from.read(into);
    assert.ok(got !== null);
    bytes.push(...into.subarray(0, got));
  }
  return bytes;
}

Deno.test("Outbox writes what was put, in order, through a connection that takes a little at a time", async () => {
  using clock = new FakeClock();
  const [here, there] = loopbackPair({ capacityBytes: 7, seed: 5 });
  const outbox = new Outbox(here, { clock, onCut: () => assert.fail("cut") });
  const all = Array.from({ length: 300 }, (_, i) => i & 255);
  for (let at = 0; at < 300; at += 30) outbox.put(Uint8Array.from(all.slice(at, at + 30)));
  assert.ok(!outbox.idle);
  assert.deepEqual(await readAll(there, 300), all);
  await outbox.drained();
  assert.ok(outbox.idle);
  assert.equal(outbox.writtenBytes, 300);
});

Deno.test("Outbox.put() never waits, and close() ends a drain that would", async () => {
  using clock = new FakeClock();
  const [here] = loopbackPair({ capacityBytes: 10 });
  const outbox = new Outbox(here, { clock, onCut: () => assert.fail("cut") });
  outbox.put(new Uint8Array(1_000));
  const drained = outbox.drained();
  outbox.close();
  await drained;
  outbox.put(new Uint8Array(5));
  await outbox.drained();
  here.close();
  await clock.sleep(50);
  assert.ok(outbox.writtenBytes <= 10);
});

Deno.test("Outbox.idle is true once it is closed, also while a write hangs", async () => {
  using clock = new FakeClock();
  const [here] = loopbackPair({ capacityBytes: 10 });
  const outbox = new Outbox(here, { clock, onCut: () => assert.fail("cut") });
  outbox.put(new Uint8Array(1_000), { data: true });
  await clock.sleep(50);
  assert.ok(!outbox.idle);
  outbox.close();
  // Who waits for it otherwise is told at once that it drained, and asks again, for ever.
  await outbox.drained();
  assert.ok(outbox.idle);
  here.close();
});

Deno.test("Outbox says once that the connection is lost", async () => {
  using clock = new FakeClock();
  const [here, there] = loopbackPair();
  const causes: unknown[] = [];
  const outbox = new Outbox(here, { clock, onCut: (cause) => causes.push(cause) });
  there.close();
  outbox.put(new Uint8Array(5));
  outbox.put(new Uint8Array(5));
  await outbox.drained();
  await clock.sleep(50);
  outbox.put(new Uint8Array(5));
  assert.equal(causes.length, 1);
});

Deno.test("Outbox.progressAtMs moves with data alone", async () => {
  using clock = new FakeClock();
  const [here] = loopbackPair();
  const outbox = new Outbox(here, { clock, onCut: () => {} });
  const startedAtMs = outbox.progressAtMs;
  await clock.sleep(100);
  outbox.put(new Uint8Array(5));
  await outbox.drained();
  assert.equal(outbox.progressAtMs, startedAtMs);
  outbox.put(new Uint8Array(5), { data: true });
  await outbox.drained();
  assert.ok(outbox.progressAtMs >= startedAtMs + 100);
});

Deno.test("Outbox.controlBytes counts control messages that wait, and no records", async () => {
  using clock = new FakeClock();
  const [here, there] = loopbackPair({ capacityBytes: 10 });
  const outbox = new Outbox(here, { clock, onCut: () => assert.fail("cut") });
  outbox.put(new Uint8Array(500), { data: true });
  outbox.put(new Uint8Array(30));
  outbox.put(new Uint8Array(20));
  assert.equal(outbox.controlBytes, 50);
  await readAll(there, 550);
  await outbox.drained();
  assert.equal(outbox.controlBytes, 0);
});
