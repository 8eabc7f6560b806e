import assert from "node:assert/strict";
import { defaultRegistry } from "../../ciphers/registry.ts";
import { DestinationLink } from "../../migration/destination_link.ts";
import { KeySchedule } from "../../migration/key_schedule.ts";
import { RecordOpener } from "../../migration/record_opener.ts";
import { SealedBodyReader } from "../../migration/sealed_bodies.ts";
import { connected } from "../support/connected.ts";
import { FakeClock } from "../support/fake_clock.ts";

// Opens libcrypto, which outlives a test.
const suites = [defaultRegistry().get("aes-256-gcm")];

Deno.test("DestinationLink takes nobody in once it is disposed, a JOIN under way among them", async () => {
  using clock = new FakeClock();
  using schedule = new KeySchedule(new Uint8Array(32));
  const told: string[] = [];
  const link = new DestinationLink({
    opener: new RecordOpener({
      bodies: new SealedBodyReader({ schedule, suites }),
      lane: 0,
      blocks: [{ name: "a", bytes: 4096 }],
    }),
    budgetBytes: 2 ** 20,
    reconnectMs: 10_000,
    clock,
    events: {
      onRecord: () => void told.push("record"),
      onMessage: ({ type }) => void told.push(type),
      onMistake: () => void told.push("mistake"),
      onCut: () => {
        told.push("cut");
        return true;
      },
      onJoined: () => void told.push("joined"),
      onFault: () => void told.push("fault"),
      onLost: () => void told.push("lost"),
    },
  });
  const [here, there] = connected(clock);
  const served = link.serve(here);
  const [next, nextThere] = connected(clock);
  const joining = link.join(next, {
    type: "RESUME",
    attempt: 1,
    lanes: [{ lane: 0, sequence: 0 }],
  });
  // Another migration gets the place, while the JOIN waits until nothing is landing.
  link[Symbol.dispose]();
  await clock.sleep(20_000);
  await Promise.all([served, joining]);
  assert.deepEqual(told, []);
  assert.ok(next.closed);
  assert.equal(clock.pending, 0);
  there[Symbol.dispose]();
  nextThere[Symbol.dispose]();
});
