import assert from "node:assert/strict";
import { FRAME_CONTROL, FRAME_DATA, writeFrameHeader } from "../../migration/frame.ts";
import { MAX_QUEUED_CONTROL_BYTES } from "../../migration/limits.ts";
import type { AcceptMessage, Message } from "../../migration/messages.ts";
import type { MigrationResult } from "../../migration/result.ts";
import {
  offerOf,
  scriptedDestination,
  type ScriptedSource,
  scriptedSource,
} from "../support/scripted_peers.ts";
import { SimulatedMigration, usualLimits } from "../support/simulated_migration.ts";

/** What a destination makes of a source that says these things, once it has its ACCEPT. */
async function destinationAfter(
  says: (source: ScriptedSource, run: SimulatedMigration) => void | Promise<void>,
): Promise<{ result: MigrationResult; run: SimulatedMigration; received: string[] }> {
  await using run = new SimulatedMigration({ pageCounts: [4] });
  const ends = run.destination.run();
  using source = await scriptedSource(run);
  await says(source, run);
  await source.closed();
  if (run.destination.id === null) run.stopDestination.abort();
  const result = await ends;
  run.destinationVm.agentExits();
  assert.equal(run.clock.pending, 0);
  assert.equal(run.world.destinationRan, false);
  return { result, run, received: source.received };
}

const wrongs: Record<string, (source: ScriptedSource, run: SimulatedMigration) => void> = {
  "a page before SETUP is whole": (source) => {
    source.sealer.page(0, 0, new Uint8Array(4096));
    source.flush();
  },
  "SETUP twice": (source) => {
    for (let i = 0; i < 2; i++) source.sealer.stream("setup", new Uint8Array(10));
    source.flush();
  },
  "STATE twice": (source) => {
    source.everything();
    source.sealer.stream("state", new Uint8Array(10));
    source.flush();
  },
  "FINISH before STATE": (source) => {
    source.sealer.stream("setup", new Uint8Array(10));
    source.flush();
    source.finish({ pages: 0 });
  },
  "FINISH with another count of pages": (source) => {
    source.everything();
    source.finish({ pages: 2 });
  },
  "FINISH with another count of records": (source) => {
    source.everything();
    source.finish({ records: 3 });
  },
  "FINISH with a damaged record that was not": (source) => {
    source.everything();
    source.finish({ damaged: { count: 1, sha256: "0".repeat(64) } });
  },
  "RELEASE before LOADED": (source) => {
    source.everything();
    source.connection.send({ type: "RELEASE" });
    source.finish();
  },
  "a message that only a destination says": (source) => {
    source.everything();
    source.connection.send({ type: "LOADED", pages: 1, records: 1 });
  },
  "a second OFFER": (source, run) => {
    source.everything();
    source.connection.send(offerOf(run));
  },
};

/** What somebody on the way could have done: another connection may put it right, if one comes. */
const unproven: Record<string, (source: ScriptedSource, run: SimulatedMigration) => void> = {
  "FINISH with another last sequence": (source) => {
    source.everything();
    source.finish({ sequence: 9 });
  },
  "PING that counts a record which never came": (source) => {
    source.everything();
    source.connection.send({
      type: "PING",
      nonce: 0,
      lanes: [{ lane: 0, sequence: source.sealer.lastSequence + 1 }],
    });
  },
  "a frame that is too long": (source) => {
    source.everything();
    const header = new Uint8Array(8);
    writeFrameHeader(new DataView(header.buffer), 0, FRAME_DATA, 2 ** 31);
    source.connection.outbox.put(header);
  },
  "a CONTROL frame that does not open": (source) => {
    source.everything();
    const frame = new Uint8Array(8 + 40);
    writeFrameHeader(new DataView(frame.buffer), 0, FRAME_CONTROL, 40);
    source.connection.outbox.put(frame);
  },
};

for (const [what, says] of Object.entries(unproven)) {
  Deno.test(`Destination waits for another connection at ${what}, then discards its copy`, async () => {
    const { result, run } = await destinationAfter(says);
    assert.equal(result.outcome, "aborted");
    assert.equal(result.error?.code, "cut");
    assert.ok(run.clock.now() > usualLimits.reconnectMs);
    assert.equal(run.world.destination, "gone");
  });
}

for (const [what, says] of Object.entries(wrongs)) {
  Deno.test(`Destination ends the migration at ${what}, and discards its copy`, async () => {
    const { result, run } = await destinationAfter(says);
    assert.equal(result.outcome, "aborted");
    assert.equal(result.error?.code, "protocol");
    assert.ok(["gone", "inmigrate"].includes(run.world.destination));
    assert.ok(!run.destinationJournals.states.includes("loaded"));
  });
}

Deno.test("Destination ends a migration that has loaded, keeping its copy, at a record after FINISH", async () => {
  const { result, run } = await destinationAfter(async (source, run) => {
    source.everything();
    source.finish();
    while (run.destination.state !== "loaded") await run.clock.sleep(20);
    source.sealer.page(0, 1, new Uint8Array(4096));
    source.flush();
  });
  assert.equal(result.outcome, "unknown");
  assert.equal(run.world.destination, "paused");
});

for (const type of ["RELEASE", "DISCARD", "DONE"] as const) {
  Deno.test(`Destination listens on, unharmed, when ${type} is all that a source says`, async () => {
    const { result, run } = await destinationAfter((source) => {
      source.connection.send({ type });
    });
    assert.equal(result.error?.code, "interrupted");
    assert.equal(result.lastState, "listening");
    assert.equal(run.world.destination, "inmigrate");
    assert.deepEqual(run.destinationJournals.states, []);
  });
}

Deno.test("Destination cuts off a source that asks and reads no answers, and listens on", async () => {
  await using run = new SimulatedMigration({ pageCounts: [4] });
  const destinationEnds = run.destination.run();
  const end = run.loopback.dial();
  using greedy = await scriptedSource(run, { end });
  // A PONG is larger than this.
  const messages = MAX_QUEUED_CONTROL_BYTES / 30;
  end.stalled = new Promise(() => {});
  let asked = 0;
  while (asked < messages && !run.notes.some((text) => text.includes("is lost"))) {
    greedy.connection.send({ type: "PING", nonce: asked, lanes: [{ lane: 0, sequence: 0 }] });
    if (++asked % 500 !== 0) continue;
    await greedy.connection.outbox.drained();
    await run.clock.sleep(1);
  }
  assert.ok(asked < messages, "it is answered without end");
  const source = await run.source.run();
  assert.equal(source.outcome, "completed");
  assert.equal((await destinationEnds).outcome, "completed");
});

Deno.test("Destination takes a VM after a source that said RELEASE and FINISH to no purpose", async () => {
  await using run = new SimulatedMigration({});
  const destinationEnds = run.destination.run();
  for (const says of ["RELEASE", "FINISH"] as const) {
    using early = await scriptedSource(run);
    if (says === "FINISH") early.finish();
    else early.connection.send({ type: "RELEASE" });
    await early.closed();
  }
  const source = await run.source.run();
  assert.equal(source.outcome, "completed");
  assert.equal((await destinationEnds).outcome, "completed");
  assert.deepEqual(run.world.violations, []);
});

/** What a source makes of a destination that says these things after its ACCEPT. */
async function sourceAfter(
  says: Message[],
  changes: Partial<AcceptMessage> = {},
): Promise<{ result: MigrationResult; run: SimulatedMigration }> {
  await using run = new SimulatedMigration({ pageCounts: [4] });
  const ends = run.source.run();
  const { connection } = await scriptedDestination(run, changes);
  for (const message of says) connection.send(message);
  const drain = (async () => {
    while (await connection.nextFrame() !== null);
  })().catch(() => {});
  const result = await ends;
  await run.sourceVm.agentExits();
  connection[Symbol.dispose]();
  await drain;
  assert.equal(run.clock.pending, 0);
  assert.deepEqual(run.world.violations, []);
  return { result, run };
}

const earlies: Record<string, Message> = {
  "LOADED before FINISH": { type: "LOADED", pages: 4, records: 4 },
  "RUNNING before RELEASE": {
    type: "RUNNING",
    sinceResumeUs: 0,
    cpuMs: { agent: 0, qemu: null },
  },
  "ACK of a record that was never sent": { type: "ACK", lane: 0, sequence: 1_000_000 },
  "ACK of another lane": { type: "ACK", lane: 1, sequence: 0 },
  "MISTAKE in a record that was never sent": { type: "MISTAKE", lane: 0, sequence: 1_000_000 },
  "a message that only a source says": { type: "RELEASE" },
};

for (const [what, message] of Object.entries(earlies)) {
  Deno.test(`Source ends the migration at ${what}, and its VM runs on`, async () => {
    const { result, run } = await sourceAfter([message]);
    assert.equal(result.outcome, "aborted");
    assert.equal(result.error?.code, "protocol");
    assert.equal(run.world.source, "running");
    assert.ok(!run.sourceJournals.states.includes("releasing"));
  });
}

const suite = "chacha20-poly1305";
const accepts: Record<string, Partial<AcceptMessage>> = {
  "a suite that was not offered": {
    suites: { user: suite, kernelText: suite, kernelData: suite, unmapped: suite },
  },
  "another --max-stop": { limits: { ...usualLimits, maxStopMs: 60_000 } },
  "a larger repair budget": {
    limits: { ...usualLimits, repairBudgetBytes: usualLimits.repairBudgetBytes + 1 },
  },
};

for (const [what, changes] of Object.entries(accepts)) {
  Deno.test(`Source takes no ACCEPT with ${what}`, async () => {
    const { result, run } = await sourceAfter([], changes);
    assert.equal(result.outcome, "aborted");
    assert.equal(result.error?.code, "protocol");
    assert.deepEqual(run.sourceJournals.states, []);
    assert.deepEqual(run.sourceVm.live, []);
  });
}

Deno.test("Source gives up on a destination that does not answer its offer", async () => {
  await using run = new SimulatedMigration({
    fault: ({ direction, index }) =>
      direction === "back" && index === 1 ? { kind: "stall" } : undefined,
  });
  const { source } = await run.run();
  assert.equal(source.outcome, "aborted");
  assert.equal(source.error?.code, "timeout");
});
