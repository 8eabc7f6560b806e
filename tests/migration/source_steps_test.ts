import assert from "node:assert/strict";
import { SourceSteps } from "../../migration/source_steps.ts";
import { StopBudget } from "../../migration/stop_budget.ts";
import { HandClock } from "../support/hand_clock.ts";

/** A source whose every step a hook holds for 100 ms. */
function world(released = false) {
  const clock = new HandClock();
  const budget = new StopBudget({ clock, maxStopMs: 500, giveUp: () => assert.fail("used up") });
  const steps = new SourceSteps({
    entered: () => {
      clock.pass(100);
      return Promise.resolve();
    },
    budget,
    released: () => released,
  });
  return { clock, budget, steps };
}

Deno.test("SourceSteps.enter() counts what hooks hold only while the VM is stopped, and not on its way out", async () => {
  const { clock, budget, steps } = world();
  for (const state of ["offering", "starting", "setup", "copying"] as const) {
    await steps.enter(state);
  }
  assert.equal(budget.holdMs, 0);
  budget.begin(clock.now());
  await steps.enter("stopping");
  await steps.enter("finishing");
  assert.equal(budget.holdMs, 200);
  assert.equal(clock.pending, 1);
  await steps.enter("aborting");
  assert.equal(budget.holdMs, 200);
  assert.equal(clock.pending, 0);
  assert.equal(steps.lastState, "finishing");
  await steps.enter("aborted");
  assert.equal(steps.lastState, "finishing");
  assert.equal(steps.state, "aborted");
});

Deno.test("SourceSteps.enter() lets --max-stop end with the release", async () => {
  const { clock, budget, steps } = world(true);
  for (const state of ["offering", "starting", "setup", "copying"] as const) {
    await steps.enter(state);
  }
  budget.begin(clock.now());
  await steps.enter("stopping");
  assert.equal(budget.holdMs, 100);
  assert.equal(clock.pending, 0);
});
