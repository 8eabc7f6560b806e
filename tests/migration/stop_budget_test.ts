import assert from "node:assert/strict";
import { StopBudget } from "../../migration/stop_budget.ts";
import { HandClock } from "../support/hand_clock.ts";

function world() {
  const clock = new HandClock();
  const reasons: string[] = [];
  const budget = new StopBudget({
    clock,
    maxStopMs: 500,
    giveUp: ({ code }) => reasons.push(code),
  });
  return { clock, reasons, budget };
}

Deno.test("StopBudget.begin() counts from the moment at which the VM stopped", () => {
  const { clock, reasons, budget } = world();
  assert.equal(budget.stoppedAtMs, null);
  budget.begin(clock.now() - 100);
  assert.equal(budget.stoppedAtMs, 900);
  clock.pass(399);
  assert.deepEqual(reasons, []);
  clock.pass(1);
  assert.deepEqual(reasons, ["timeout"]);
});

Deno.test("StopBudget.begin() gives up at once when nothing is left", () => {
  const { clock, reasons, budget } = world();
  budget.begin(0);
  clock.pass(0);
  assert.deepEqual(reasons, ["timeout"]);
});

Deno.test("StopBudget.end() leaves no timer", () => {
  const { clock, reasons, budget } = world();
  budget.end();
  budget.begin(clock.now());
  budget.end();
  assert.equal(clock.pending, 0);
  assert.equal(budget.pause(), null);
  clock.pass(1_000);
  assert.deepEqual(reasons, []);
});

Deno.test("StopBudget.pause() counts what a hook holds as holdMs, and nothing that no hook held", () => {
  const { clock, reasons, budget } = world();
  assert.equal(budget.pause(), null);
  budget.begin(clock.now());
  clock.pass(300);
  const held = budget.pause();
  clock.pass(10_000);
  held!({ held: true, goOn: true });
  assert.equal(budget.holdMs, 10_000);
  clock.pass(100);
  budget.pause()!({ held: false, goOn: true });
  assert.equal(budget.holdMs, 10_000);
  clock.pass(99);
  assert.deepEqual(reasons, []);
  clock.pass(1);
  assert.deepEqual(reasons, ["timeout"]);
});

Deno.test("StopBudget.pause() lets a hook's time be counted though the budget is not any more", () => {
  const { clock, reasons, budget } = world();
  budget.begin(clock.now());
  const over = budget.pause();
  clock.pass(2_000);
  over!({ held: true, goOn: false });
  assert.equal(budget.holdMs, 2_000);
  assert.equal(clock.pending, 0);
  assert.equal(budget.pause(), null);
  assert.deepEqual(reasons, []);
});

Deno.test("StopBudget gives up again behind a hook when it was used up before", () => {
  const { clock, reasons, budget } = world();
  budget.begin(clock.now());
  clock.pass(500);
  budget.pause()!({ held: false, goOn: true });
  clock.pass(0);
  assert.deepEqual(reasons, ["timeout", "timeout"]);
});
