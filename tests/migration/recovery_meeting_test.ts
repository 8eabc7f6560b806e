import assert from "node:assert/strict";
import { connect, JOIN, NO_PSK, RECOVER } from "../../migration/opening.ts";
import type { Transport, TransportListener } from "../../migration/ports.ts";
import { Loopback } from "../support/loopback.ts";
import { identities, SimulatedMigration } from "../support/simulated_migration.ts";
import { crashed, recoverSide, silence, unreachable } from "../support/simulated_recovery.ts";

/** A listener whose first `count` connections were reset before they could be accepted. */
function resetting(loopback: Loopback, count: number): TransportListener {
  let left = count;
  return {
    accept: (): Promise<Transport> =>
      left-- > 0 ? Promise.reject(new Error("Socket is not connected")) : loopback.accept(),
    close: () => loopback.close(),
  };
}

Deno.test("recover() that listens meets the other side past connections that were reset", async () => {
  await using run = await crashed({ source: "released" });
  const loopback = new Loopback();
  const there = recoverSide(run, "destination", { meet: { listener: resetting(loopback, 20) } });
  const here = await recoverSide(run, "source", {
    meet: { dial: () => Promise.resolve(loopback.dial()) },
  });
  assert.equal(here.outcome, "completed", here.error?.message);
  assert.equal((await there).outcome, "completed");
  assert.equal(run.world.destination, "running");
  assert.ok(loopback.closed);
  assert.equal(run.clock.pending, 0);
});

Deno.test("recover() that listens with --declare-dead waits its time out past connections that were reset", async () => {
  await using run = await crashed({ source: "released" });
  run.killSource();
  const startedAtMs = run.clock.now();
  const result = await recoverSide(run, "destination", {
    meet: { listener: resetting(new Loopback(), 20) },
    declareDead: true,
  });
  assert.equal(result.outcome, "completed", result.error?.message);
  assert.equal(run.world.destination, "running");
  assert.ok(run.clock.now() - startedAtMs >= 5_000);
  assert.equal(run.clock.pending, 0);
});

Deno.test("recover() that listens does not take a source for dead that dials to join again", async () => {
  const run = new SimulatedMigration({
    pageCounts: [4],
    seed: 3,
    source: { liveRounds: 1 },
    limits: { maxStopMs: 60_000 },
    destinationEntered: (state, run) => {
      if (state === "loaded") run.killDestinationAgent();
    },
  });
  await using _run = run;
  const { sourceEnds } = run.start();
  await Promise.race([run.destinationAgent.died, run.tooLong()]);
  await run.clock.sleep(50);
  run.loopback = new Loopback();
  const result = await recoverSide(run, "destination", {
    meet: { listener: run.loopback },
    declareDead: true,
  });
  assert.equal(result.outcome, "refused", result.error?.message);
  assert.match(
    result.error!.message,
    /its agent dials this side, or somebody who has recorded how it did/,
  );
  assert.equal(run.world.destinationRan, false);
  const source = await Promise.race([sourceEnds, run.tooLong()]);
  assert.equal(source.outcome, "aborted");
  assert.equal(run.world.source, "running");
  assert.deepEqual(run.world.violations, []);
});

Deno.test("recover() that listens takes the other side for dead unless its key dials for this migration", async () => {
  for (
    const [kind, who, ours, outcome] of [
      [JOIN, identities.source, true, "refused"],
      [RECOVER, identities.source, true, "refused"],
      [JOIN, identities.source, false, "completed"],
      [RECOVER, identities.stranger, true, "completed"],
    ] as const
  ) {
    await using run = await crashed({ source: "released" });
    run.killSource();
    const loopback = new Loopback();
    const there = recoverSide(run, "destination", {
      meet: { listener: loopback },
      declareDead: true,
    });
    const id = Uint8Array.from(run.source.id.match(/../g)!, (byte) => parseInt(byte, 16));
    const transport = loopback.dial();
    // It says nothing more than message 1, or no more than the handshake.
    await connect(transport, {
      identity: who,
      remotePublic: identities.destination.publicKey,
      migrationId: ours ? id : new Uint8Array(16),
      clock: run.clock,
      kind,
      psk: NO_PSK,
      onCut: () => {},
    }).catch(() => {});
    assert.equal((await there).outcome, outcome, `${kind} ${outcome}`);
    assert.equal(run.world.destinationRan, outcome === "completed");
    if (!transport.closed) transport.close();
  }
});

Deno.test("recover() does not listen for a destination, nor dial a source, to find out that it is dead", async () => {
  await using run = await crashed({ source: "released" });
  const listens = { meet: silence(), declareDead: true };
  await assert.rejects(recoverSide(run, "source", listens), TypeError);
  await assert.rejects(
    recoverSide(run, "destination", { meet: unreachable, declareDead: true }),
    TypeError,
  );
  assert.equal(run.world.source, "postmigrate");
  assert.equal(run.world.destination, "paused");
});
