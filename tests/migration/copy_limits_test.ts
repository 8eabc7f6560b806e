import assert from "node:assert/strict";
import { CopyLimits } from "../../migration/copy_limits.ts";
import type { LiveSettings } from "../../migration/ports.ts";
import { HandClock } from "../support/hand_clock.ts";

function world({ maxRounds, maxTimeMs }: { maxRounds?: number; maxTimeMs?: number }) {
  const clock = new HandClock();
  const tuned: { settings: LiveSettings; answer: PromiseWithResolvers<void> }[] = [];
  const reasons: string[] = [];
  const state = { copying: true };
  const limits = new CopyLimits({
    clock,
    vm: {
      tune: (settings) => {
        const answer = Promise.withResolvers<void>();
        tuned.push({ settings, answer });
        return answer.promise;
      },
    },
    maxRounds,
    maxTimeMs,
    maxStopMs: 5_000,
    copying: () => state.copying,
    giveUp: ({ message }) => reasons.push(message),
  });
  const close = (round: number, vmStopped = false) => limits.roundClosed({ round }, vmStopped);
  return { clock, tuned, reasons, state, limits, close };
}

/** Whatever hangs on promises that are resolved has happened. */
const settled = () => new Promise((resolve) => setTimeout(resolve));

Deno.test("CopyLimits.roundClosed() allows the longest stop after maxRounds, and gives up a round later", async () => {
  const { tuned, reasons, close } = world({ maxRounds: 2 });
  close(0);
  assert.equal(tuned.length, 0);
  close(1);
  assert.deepEqual(tuned.map(({ settings }) => settings), [{ downtimeLimitMs: 5_000 }]);
  tuned[0]!.answer.resolve();
  await settled();
  assert.deepEqual(reasons, []);
  close(2);
  assert.match(reasons.join(), /^Cannot finish in 2 rounds: .* does not fit into --max-stop$/);
  assert.equal(tuned.length, 1);
});

Deno.test("CopyLimits.roundClosed() counts the round later from the VM's answer, also when that is a refusal", async () => {
  for (const refused of [false, true]) {
    const { tuned, reasons, close } = world({ maxRounds: 2 });
    for (let round = 0; round < 10; round++) {
      close(round);
      await settled();
    }
    assert.equal(tuned.length, 1);
    assert.deepEqual(reasons, []);
    if (refused) tuned[0]!.answer.reject(new Error("QMP is silent"));
    else tuned[0]!.answer.resolve();
    await settled();
    assert.deepEqual(reasons, []);
    close(10);
    assert.equal(reasons.length, 1);
  }
});

Deno.test("CopyLimits.roundClosed() is content with a round that the VM's stop closes", () => {
  const { tuned, reasons, close } = world({ maxRounds: 1 });
  close(0);
  close(1, true);
  assert.equal(tuned.length, 1);
  assert.deepEqual(reasons, []);
});

Deno.test("CopyLimits.roundClosed() has no limit unless it is told one", () => {
  const { tuned, reasons, close } = world({});
  for (let round = 0; round < 100; round++) close(round);
  assert.deepEqual([tuned.length, reasons.length], [0, 0]);
});

Deno.test("CopyLimits.begin() gives up after maxTimeMs, unless the VM has stopped by then", () => {
  for (const copying of [true, false]) {
    const { clock, reasons, state, limits } = world({ maxTimeMs: 2_000 });
    limits.begin(clock.now() - 500);
    clock.pass(1_499);
    assert.deepEqual(reasons, []);
    state.copying = copying;
    clock.pass(1);
    assert.equal(reasons.length, copying ? 1 : 0);
  }
});

Deno.test("CopyLimits.end() leaves no timer", () => {
  const { clock, limits } = world({ maxTimeMs: 2_000 });
  limits.begin(clock.now());
  limits.end();
  assert.equal(clock.pending, 0);
});
