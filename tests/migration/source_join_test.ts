/**
 * What a source makes of connections that do not come about, once its migration is open.
 */

import assert from "node:assert/strict";
import { MigrationError } from "../../migration/errors.ts";
import { connect, JOIN, NO_PSK, OPEN, OTHER_PROFILE, RECOVER } from "../../migration/opening.ts";
import type { SourceState } from "../../migration/states.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { type LoopbackEnd, loopbackPair } from "../support/loopback.ts";
import { identities, SimulatedMigration } from "../support/simulated_migration.ts";

const small = { pageCounts: [40], seed: 5, source: { liveRounds: 2 } };

/** As the command's dial does it. */
function unreachable(): never {
  throw new MigrationError("vm", "Cannot reach host-b:7900: network is unreachable");
}

for (const at of ["copying", "finishing", "released"] satisfies SourceState[]) {
  Deno.test(`Source joins again after dials that were refused, cut off at ${at}`, async () => {
    let refusals = 0;
    await using run = new SimulatedMigration({
      ...small,
      sourceEntered: (state, run) => {
        if (state !== at) return;
        refusals = 3;
        run.injector.cut();
      },
      dialFails: () => refusals > 0 && refusals-- > 0 ? unreachable() : false,
    });
    const { source, destination } = await run.run();
    assert.equal(source.outcome, "completed", source.error?.message);
    assert.equal(destination.outcome, "completed", destination.error?.message);
    assert.equal(refusals, 0);
    assert.equal(source.reconnects, 1);
  });

  Deno.test(`Source joins again when 48 bytes that prove nothing answer a JOIN at ${at}`, async () => {
    let forged = 0;
    await using run = new SimulatedMigration({
      ...small,
      sourceEntered: (state, run) => state === at ? run.injector.cut() : undefined,
      fault: ({ direction, index, connection }) => {
        if (connection !== 1 || direction !== "back" || index !== 0) return undefined;
        forged++;
        return { kind: "inject", frames: [OTHER_PROFILE] };
      },
    });
    const { source, destination } = await run.run();
    assert.equal(forged, 1);
    assert.equal(source.outcome, "completed", source.error?.message);
    assert.equal(destination.outcome, "completed", destination.error?.message);
    assert.equal(source.reconnects, 1);
  });
}

Deno.test("Source still takes those 48 bytes for another profile when they answer its OPEN", async () => {
  await using run = new SimulatedMigration({
    ...small,
    fault: ({ direction, index }) =>
      direction === "back" && index === 0 ? { kind: "inject", frames: [OTHER_PROFILE] } : undefined,
  });
  const { source } = await run.run();
  assert.equal(source.outcome, "refused");
  assert.match(source.error?.hint ?? "", /--profile/);
  assert.equal(run.world.source, "running");
});

Deno.test("connect() takes those 48 bytes for what they say at OPEN alone", async () => {
  for (
    const [kind, code] of [[OPEN, "refused"], [JOIN, "handshake"], [RECOVER, "handshake"]] as const
  ) {
    using clock = new FakeClock();
    const [here, there] = loopbackPair();
    await there.write(OTHER_PROFILE);
    await assert.rejects(
      connect(here, {
        identity: identities.source,
        remotePublic: identities.destination.publicKey,
        migrationId: new Uint8Array(16),
        kind,
        psk: NO_PSK,
        clock,
        onCut: () => {},
      }),
      { code },
    );
    for (const end of [here, there]) if (!end.closed) end.close();
  }
});

for (const [at, outcome] of [["copying", "aborted"], ["released", "unknown"]] as const) {
  Deno.test(`Source dials on until --reconnect is used up while every dial is refused, cut off at ${at}`, async () => {
    const reconnectMs = 20_000;
    let away = false;
    let cutAtMs = 0;
    let dials = 0;
    await using run = new SimulatedMigration({
      ...small,
      limits: { reconnectMs, maxStopMs: 60_000 },
      sourceEntered: (state, run) => {
        if (state !== at) return;
        away = true;
        cutAtMs = run.clock.now();
        run.injector.cut();
      },
      dialFails: () => {
        if (!away) return false;
        dials++;
        return unreachable();
      },
    });
    const { sourceEnds, destinationEnds } = run.start();
    const source = await Promise.race([sourceEnds, run.tooLong()]);
    assert.equal(source.outcome, outcome, source.error?.message);
    assert.match(source.error?.message ?? "", /connection to the destination is lost/);
    assert.ok(run.clock.now() - cutAtMs >= reconnectMs);
    assert.ok(dials >= reconnectMs / 2_000, `${dials}`);
    assert.equal(run.world.source, at === "copying" ? "running" : "postmigrate");
    run.stopDestination.abort();
    await Promise.race([destinationEnds, run.tooLong()]);
    assert.deepEqual(run.world.violations, []);
  });
}

Deno.test("Source closes its connection when its journal cannot be created", async () => {
  await using run = new SimulatedMigration({
    pageCounts: [4],
    sourceDiskFails: (append) => append === 0,
  });
  const dialled: LoopbackEnd[] = [];
  const dial = run.injector.dial.bind(run.injector);
  run.injector.dial = () => {
    const end = dial();
    dialled.push(end);
    return end;
  };
  const { sourceEnds, destinationEnds } = run.start();
  const source = await Promise.race([sourceEnds, run.tooLong()]);
  assert.match(source.error?.message ?? "", /no space left/);
  assert.deepEqual(dialled.map(({ closed }) => closed), [true]);
  assert.equal(run.world.source, "running");
  run.stopDestination.abort();
  await Promise.race([destinationEnds, run.tooLong()]);
  assert.equal(run.clock.pending, 0);
});
