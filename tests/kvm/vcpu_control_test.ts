import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { VcpuControl } from "../../kvm/vcpu_control.ts";

Deno.test("VcpuControl.beats() keeps the last 4096 when there were more", () => {
  const thread = new VcpuControl();
  const owner = new VcpuControl(thread.buffer);
  for (let value = 1; value <= 5000; value++) thread.beat(value);
  equal(owner.beatCount, 5000);
  const beats = owner.beats();
  deepEqual([beats.length, beats[0]?.value, beats.at(-1)?.value], [4096, 905, 5000]);
  ok(beats[0]!.atMs <= beats.at(-1)!.atMs);
  deepEqual(owner.beats(4999).map(({ value }) => value), [5000]);
});

Deno.test("VcpuControl.sleep() does not wait when the owner wants to stop", () => {
  const control = new VcpuControl();
  control.stopping = true;
  control.sleep(3_600_000);
  equal(control.stopping, true);
});

Deno.test("VcpuControl.waitStopped() tells whether the thread is out", () => {
  const control = new VcpuControl();
  control.running = true;
  equal(control.waitStopped(1), false);
  control.running = false;
  equal(control.waitStopped(3_600_000), true);
});

Deno.test("VcpuControl.paceMs keeps fractions of a millisecond", () => {
  const control = new VcpuControl();
  control.paceMs = 2.5;
  equal(control.paceMs, 2.5);
  control.paceMs = 3_600_000;
  equal(control.paceMs, 3_600_000);
  for (const wrong of [-1, NaN, 3_600_001]) throws(() => control.paceMs = wrong, RangeError);
});
