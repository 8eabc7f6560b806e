import assert from "node:assert/strict";
import { FRAME_DATA } from "../../migration/frame.ts";
import { MAX_HALF_OPEN } from "../../migration/limits.ts";
import type { StateBefore } from "../../migration/ports.ts";
import type { FakeClock } from "../support/fake_clock.ts";
import {
  everyClass,
  identities,
  migrate,
  SimulatedMigration,
  type SimulatedMigrationOptions,
} from "../support/simulated_migration.ts";

for (const before of ["running", "paused", "prelaunch"] satisfies StateBefore[]) {
  Deno.test(`Source and Destination move a VM that is ${before}, byte by byte`, async () => {
    const { source, destination, states, run } = await migrate({ before, pageCounts: [70, 3, 8] });
    assert.equal(source.outcome, "completed");
    assert.equal(destination.outcome, "completed");
    assert.equal(run.world.destination, before);
    assert.equal(run.world.source, "gone");
    assert.deepEqual(states.source, ["open", "releasing", "released", "done"]);
    assert.deepEqual(states.destination, ["open", "loaded", "taking", "running"]);
    assert.equal(source.sourceState, "quit");
    assert.equal(source.destinationState, before);
    assert.deepEqual(source.verified, destination.verified);
    assert.equal(source.bytes.wire, destination.bytes.wire);
    assert.equal(source.downtimeMs === null, before !== "running");
    assert.equal(run.destinationVm.announced, before === "running" ? 1 : 0);
    assert.deepEqual(run.destinationVm.setup, run.sourceVm.setup);
  });
}

for (const suite of ["aes-256-gcm", "aes-128-gcm", "chacha20-poly1305"]) {
  Deno.test(`Source and Destination move a VM sealed with ${suite}`, async () => {
    const { source } = await migrate({ suites: { source: everyClass(suite) } });
    assert.equal(source.outcome, "completed");
    assert.equal(source.suites?.user, suite);
  });
}

Deno.test("Source and Destination agree on a suite for each class, in the source's order", async () => {
  const { source, destination } = await migrate({
    suites: {
      source: {
        user: ["chacha20-poly1305", "aes-256-gcm"],
        kernelText: ["aes-128-gcm"],
        kernelData: ["aes-256-gcm"],
        unmapped: ["aes-128-gcm", "chacha20-poly1305"],
      },
      destination: everyClass("aes-256-gcm", "chacha20-poly1305", "aes-128-gcm"),
    },
  });
  assert.equal(source.outcome, "completed");
  assert.deepEqual(source.suites, {
    user: "chacha20-poly1305",
    kernelText: "aes-128-gcm",
    kernelData: "aes-256-gcm",
    unmapped: "aes-128-gcm",
  });
  assert.deepEqual(destination.suites, source.suites);
});

Deno.test("Destination lands each page in its own block of that name, whatever its number", async () => {
  const { source, run } = await migrate({
    pageCounts: [30, 5, 9],
    destination: { blockOrder: [2, 0, 1] },
  });
  assert.equal(source.outcome, "completed");
  assert.equal(run.destinationVm.facts.blocks[2]?.name, "block0");
});

Deno.test("Source and Destination move SETUP and STATE of several records", async () => {
  const { source, run } = await migrate({
    source: { setupBytes: 700_000, stateBytes: 600_000 },
    pageCounts: [5],
  });
  assert.equal(source.outcome, "completed");
  assert.deepEqual(run.destinationVm.setup, run.sourceVm.setup);
});

Deno.test("Source sends no page before all of SETUP is acknowledged", async () => {
  let clock: FakeClock | null = null;
  let ackAtMs = 0;
  let firstPageAtMs = 0;
  const { source } = await migrate({
    pageCounts: [5],
    prepare: (run) => clock = run.clock,
    fault: ({ direction, index, bytes }) => {
      // The first message after ACCEPT is the ACK of SETUP; SETUP is the first record.
      if (direction === "back" && index === 2) {
        ackAtMs = clock!.now();
        return { kind: "delay", ms: 500 };
      }
      if (direction === "there" && index > 2 && bytes[0] === 2) firstPageAtMs ||= clock!.now();
      return undefined;
    },
  });
  assert.equal(source.outcome, "completed");
  assert.ok(ackAtMs > 0 && firstPageAtMs >= ackAtMs + 500, `${ackAtMs} ${firstPageAtMs}`);
});

Deno.test("Source.run() leaves its QEMU in postmigrate with keepSource", async () => {
  const { source, run } = await migrate({ sourceOptions: { keepSource: true } });
  assert.equal(source.outcome, "completed");
  assert.equal(source.sourceState, "postmigrate");
  assert.equal(run.world.source, "postmigrate");
});

Deno.test("Source.run() checks everything and touches nothing on a dry run", async () => {
  const { source, destination, run } = await migrate({ sourceOptions: { dryRun: true } });
  assert.equal(source.outcome, "completed");
  assert.equal(source.landing, "simulated");
  assert.equal(source.sourceState, "running");
  assert.equal(destination.id, null);
  assert.equal(run.destinationVm.probed, 1);
  assert.equal(run.destinationVm.opened, 0);
  assert.deepEqual(run.sourceVm.live, []);
  assert.deepEqual([...run.sourceJournals.states, ...run.destinationJournals.states], []);
  assert.ok(run.notes.includes("Answered a dry run"));
});

const refusals: Record<string, { options: SimulatedMigrationOptions; says: RegExp }> = {
  "another uuid": {
    options: {
      prepare: ({ sourceVm }) => sourceVm.facts.uuid = "00000000-0000-0000-0000-000000000001",
    },
    says: /uuid/,
  },
  "another machine": {
    options: { prepare: ({ sourceVm }) => sourceVm.facts.machine = "pc-i440fx-7.2" },
    says: /machine/,
  },
  "other memory": { options: { source: { pageCounts: [40, 10] } }, says: /memory block block1/ },
  "a VM id on one side": {
    options: { destinationVmId: "00000000-0000-0000-0000-000000000009" },
    says: /one side only/,
  },
  "no suite in common": {
    options: {
      suites: { source: everyClass("aes-128-gcm"), destination: everyClass("aes-256-gcm") },
    },
    says: /no cipher suite/,
  },
  "a landing that does not work": {
    options: { destination: { probeFails: "no rights" } },
    says: /no rights/,
  },
};

for (const [what, { options, says }] of Object.entries(refusals)) {
  Deno.test(`Destination refuses ${what}, and listens on`, async () => {
    const { source, destination, run } = await migrate(options);
    assert.equal(source.outcome, "refused");
    assert.match(source.error?.message ?? "", says);
    assert.equal(source.sourceState, "running");
    assert.equal(run.world.destination, "inmigrate");
    assert.equal(destination.lastState, "listening");
    assert.deepEqual(run.destinationJournals.states, []);
    assert.ok(run.notes.some((note) => note.startsWith("Refused: ")));
  });
}

Deno.test("Destination refuses an id that it has a journal of", async () => {
  const { source } = await migrate({
    prepare: ({ destinationJournals }) => destinationJournals.has = () => Promise.resolve(true),
  });
  assert.equal(source.outcome, "refused");
  assert.match(source.error?.message ?? "", /seen this migration before/);
});

const strangers: Record<string, SimulatedMigrationOptions> = {
  "a source whose key is not allowed": { sourceIdentity: identities.stranger },
  "a source that expects another destination": { peer: identities.stranger.publicKey },
};

for (const [who, options] of Object.entries(strangers)) {
  Deno.test(`Destination drops ${who} without a word`, async () => {
    const { source, run } = await migrate(options);
    assert.equal(source.outcome, "refused");
    assert.equal(source.error?.code, "handshake");
    assert.equal(run.destinationVm.probed, 0);
    assert.ok(!run.injector.seen.some(({ direction }) => direction === "back"));
  });
}

Deno.test("Destination refuses a second source while one is bound", async () => {
  let second: Promise<string> | null = null;
  const { source } = await migrate({
    sourceEntered: (state, run) => {
      if (state !== "copying") return;
      // Its own VM and journal, the same key, the same destination.
      const other = new SimulatedMigration({});
      other.loopback.dial = () => run.loopback.dial();
      second = other.source.run().then(async ({ outcome, error }) => {
        await other[Symbol.asyncDispose]();
        return `${outcome}: ${error?.message}`;
      });
      return second.then(() => {});
    },
  });
  assert.equal(source.outcome, "completed");
  assert.match(await second!, /^refused: .*another migration is under way/);
});

Deno.test("Destination lets a new connection of the same key take the place of one without a record", async () => {
  await using run = new SimulatedMigration({});
  const results = run.destination.run();
  await using lost = new SimulatedMigration({
    // It gets its ACCEPT, and says nothing more.
    fault: ({ direction, index }) =>
      direction === "there" && index === 2 ? { kind: "stall" } : undefined,
  });
  lost.loopback.dial = () => run.loopback.dial();
  const lostResult = lost.source.run();
  while (lost.source.state !== "setup") await run.clock.sleep(20);
  const source = await run.source.run();
  assert.equal(source.outcome, "completed");
  const destination = await results;
  assert.equal(destination.outcome, "completed");
  assert.equal(destination.id, source.id);
  assert.equal((await lostResult).outcome, "aborted");
  assert.equal(lost.world.source, "running");
  assert.deepEqual(run.world.violations, []);
});

Deno.test("Destination goes on listening when a source is lost before its first record", async () => {
  await using run = new SimulatedMigration({});
  const results = run.destination.run();
  for (const index of [1, 2]) {
    await using lost = new SimulatedMigration({
      fault: (unit) =>
        unit.direction === "there" && unit.index === index
          ? { kind: "truncate", bytes: 30 }
          : undefined,
    });
    lost.loopback.dial = () => run.loopback.dial();
    const { outcome } = await lost.source.run();
    assert.notEqual(outcome, "completed");
    assert.equal(lost.world.source, "running");
    assert.equal(run.destination.state, "listening");
  }
  // Every record of this one is damaged: nothing is bound by it either.
  await using damaged = new SimulatedMigration({
    fault: ({ direction, index, bytes }) =>
      direction === "there" && index > 0 && bytes[0] === FRAME_DATA
        ? { kind: "flip", byte: 40, bit: 0 }
        : undefined,
  });
  damaged.loopback.dial = () => run.loopback.dial();
  assert.equal((await damaged.source.run()).outcome, "tampered");
  await run.clock.sleep(50);
  assert.equal(run.destination.state, "listening");
  assert.equal((await run.source.run()).outcome, "completed");
  const destination = await results;
  assert.equal(destination.outcome, "completed");
  assert.equal(destination.mistakes.detected, 0);
  assert.deepEqual(run.world.violations, []);
});

Deno.test("Destination lets a source in past any number of silent connections", async () => {
  await using run = new SimulatedMigration({});
  const silent = Array.from({ length: 3 * MAX_HALF_OPEN }, () => run.loopback.dial());
  const { source, destination } = await run.run();
  assert.equal(source.outcome, "completed");
  assert.equal(destination.outcome, "completed");
  for (const end of silent) {
    assert.equal(await end.read(new Uint8Array(1)), null);
    end.close();
  }
});

Deno.test("Source sends no more than its window and one read while nothing is acknowledged", async () => {
  const windowBytes = 300_000;
  const { source, run } = await migrate({
    pageCounts: [600],
    limits: { windowBytes, reconnectMs: 3_000 },
    source: { liveRounds: 1 },
    // The ACK of SETUP comes back, and then nothing, over no connection.
    fault: ({ direction, index, connection }) =>
      direction === "back" && (index > 2 || connection > 0) ? { kind: "stall" } : undefined,
  });
  assert.equal(source.outcome, "aborted");
  assert.equal(source.error?.code, "cut");
  assert.equal(run.world.source, "running");
  assert.ok(source.bytes.wire > windowBytes / 2, `${source.bytes.wire}`);
  // One read of the simulated VM is 40 pages at most; the offer and PINGs are the rest.
  assert.ok(source.bytes.wire < windowBytes + 40 * 4096 + 10_000, `${source.bytes.wire}`);
});

Deno.test("Source and Destination move a VM through a window smaller than one record", async () => {
  const { source } = await migrate({ pageCounts: [200], limits: { windowBytes: 1 } });
  assert.equal(source.outcome, "completed");
});

Deno.test("Source and Destination take their time while the VM's memory lands slowly", async () => {
  const { source } = await migrate({
    pageCounts: [100],
    destination: { paceMs: 700 },
    limits: { maxStopMs: 60_000, windowBytes: 200_000 },
  });
  assert.equal(source.outcome, "completed");
});

Deno.test("Destination says ACK also while its landing leaves no time for anything else", async () => {
  const { source } = await migrate({
    pageCounts: [300],
    destination: { busyMs: 1500 },
    limits: { maxStopMs: 600_000, windowBytes: 2 ** 24 },
  });
  assert.equal(source.outcome, "completed", source.error?.message);
});

Deno.test("Source.run() counts what a hook holds the stopped VM as holdMs, not as downtime", async () => {
  const { source } = await migrate({
    sourceEntered: (state, run) => state === "finishing" ? run.clock.sleep(6_000) : undefined,
  });
  assert.equal(source.outcome, "completed");
  assert.ok(source.holdMs >= 6_000, `${source.holdMs}`);
  assert.ok(source.downtimeMs! < 6_000, `${source.downtimeMs}`);
});

Deno.test("Source counts the bytes of its opening while its first line is journalled", async () => {
  const counted: number[] = [];
  let migration: SimulatedMigration;
  await migrate({
    prepare: (run) => void (migration = run),
    sourceDiskFails: () => {
      counted.push(migration.source.wireBytes);
      return false;
    },
  });
  assert.ok(counted[0]! > 0, `${counted}`);
  assert.deepEqual(counted, counted.toSorted((a, b) => a - b));
});
