import assert from "node:assert/strict";
import fc from "fast-check";
import { WINDOW_RECORD_COST_BYTES } from "../../migration/limits.ts";
import { SealedWindow, type Slab } from "../../migration/window.ts";

/** Seals a record of `bytes` bytes, all of them `sequence`. */
function put(window: SealedWindow, sequence: number, bytes: number): void {
  const slab = window.reserve(bytes);
  slab.bytes.fill(sequence, slab.usedBytes, slab.usedBytes + bytes);
  window.commit(bytes, sequence);
}

Deno.test("SealedWindow.full says when the sealed bytes and their cost reach its capacity", () => {
  const window = new SealedWindow(3 * (1_000 + WINDOW_RECORD_COST_BYTES), () => {});
  for (const sequence of [1, 2]) {
    put(window, sequence, 1_000);
    window.flush();
    assert.ok(!window.full);
  }
  put(window, 3, 1_000);
  window.flush();
  assert.ok(window.full);
  window.acknowledge(1);
  assert.ok(!window.full);
  window.acknowledge(3);
  assert.ok(window.empty);
});

Deno.test("SealedWindow.full is false while nothing is held, whatever the capacity", () => {
  const window = new SealedWindow(0, () => {});
  assert.ok(!window.full);
  put(window, 1, 100);
  assert.ok(window.full);
});

Deno.test("SealedWindow.reserve() never gives a slab whose records are not all acknowledged", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          bytes: fc.integer({ min: 1, max: 200_000 }),
          flush: fc.boolean(),
          lag: fc.nat(9),
        }),
        { maxLength: 60 },
      ),
      (steps) => {
        const held = new Map<Slab, Uint8Array>();
        const window = new SealedWindow(2 ** 20, (slab) => {
          assert.ok(!held.has(slab), "a slab that is still on its way is used again");
          held.set(slab, slab.bytes.slice(0, slab.usedBytes));
        });
        let sequence = 0;
        for (const { bytes, flush, lag } of steps) {
          put(window, ++sequence, bytes);
          if (flush) window.flush();
          const acknowledged = Math.min(sequence - lag, window.lastSentSequence);
          for (const [slab, sealed] of held) {
            assert.deepEqual(slab.bytes.subarray(0, slab.usedBytes), sealed);
            if (slab.lastSequence <= acknowledged) held.delete(slab);
          }
          window.acknowledge(acknowledged);
        }
      },
    ),
    { numRuns: 30 },
  );
});

Deno.test("SealedWindow hands slabs out in order, each sequence once", () => {
  const last: number[] = [];
  const window = new SealedWindow(2 ** 30, (slab) => last.push(slab.lastSequence));
  for (let sequence = 1; sequence <= 40; sequence++) put(window, sequence, 100_000);
  window.flush();
  window.flush();
  assert.deepEqual(last, [...last].sort((a, b) => a - b));
  assert.equal(last.at(-1), 40);
  assert.equal(new Set(last).size, last.length);
});

Deno.test("SealedWindow.full says when slabs that are nearly empty take twice its capacity", () => {
  const window = new SealedWindow(16 * 2 ** 20, () => {});
  const slabs = new Set<Slab>();
  let sequence = 0;
  while (!window.full && sequence < 100) {
    slabs.add(window.reserve(100));
    put(window, ++sequence, 100);
    window.flush();
  }
  const memoryBytes = [...slabs].reduce((sum, slab) => sum + slab.bytes.length, 0);
  assert.ok(memoryBytes > 28 * 2 ** 20 && memoryBytes <= 32 * 2 ** 20, `${memoryBytes}`);
  window.acknowledge(1);
  assert.ok(!window.full);
});
