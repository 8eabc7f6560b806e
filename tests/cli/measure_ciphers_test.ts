import assert from "node:assert/strict";
import { nodeCryptoSuites } from "../../ciphers/node_crypto.ts";
import { measureCiphers, MEASURED_RUNS } from "../../cli/measure_ciphers.ts";

const suites = nodeCryptoSuites();

Deno.test("measureCiphers() measures every suite both ways, turn by turn", () => {
  const turns: number[] = [];
  const speeds = measureCiphers(suites.slice(1), (turn) => turns.push(turn));
  assert.equal(speeds.length, 2);
  for (const { sealMBps, openMBps } of speeds) {
    assert.ok(sealMBps > 0 && Number.isFinite(sealMBps));
    assert.ok(openMBps > 0 && Number.isFinite(openMBps));
  }
  assert.deepEqual(turns, Array.from({ length: MEASURED_RUNS + 1 }, (_, turn) => turn));
});

Deno.test("measureCiphers() keeps to what a key may serve", () => {
  const [speed] = measureCiphers([{ ...suites[0]!, maxMessagesPerKey: 1 }]);
  assert.ok(speed !== undefined && speed.sealMBps > 0);
});

Deno.test("measureCiphers() throws when a suite does not open what it sealed", () => {
  const suite = suites[0]!;
  const broken = { ...suite, createOpener: () => suite.createOpener(new Uint8Array(32).fill(1)) };
  assert.throws(() => measureCiphers([broken]), /Cannot measure aes-256-gcm: it opens no message/);
});
