/**
 * The source's QEMU is gone: when the copy over there is the only one, and what is still owed to it then.
 */

import assert from "node:assert/strict";
import { CipherRegistry, defaultRegistry } from "../../ciphers/registry.ts";
import { FRAME_DATA, writeFrameHeader } from "../../migration/frame.ts";
import { FRAME_HEADER_BYTES, MAX_TRIES, RECORD_HEADER_BYTES } from "../../migration/limits.ts";
import { readRecordHeader, writeRecordHeader } from "../../migration/record.ts";
import { failingSuite } from "../support/failing_suite.ts";
import type { Fault, Unit } from "../support/fault_injector.ts";
import {
  everyClass,
  migrate,
  SimulatedMigration,
  type SimulatedMigrationOptions,
  usualLimits,
} from "../support/simulated_migration.ts";

// Opened here: a library that a test opens would count as its leak.
const inner = defaultRegistry().get("aes-256-gcm");

/** A record whose frame has so many bytes. */
function isRecord({ direction, bytes }: Unit, options: { from: number; to?: number }): boolean {
  const { from, to = Infinity } = options;
  return direction === "there" && bytes[0] === FRAME_DATA && from < bytes.length &&
    bytes.length < to;
}

function damage({ bytes }: Unit): Fault {
  return { kind: "flip", byte: bytes.length - 1, bit: 0 };
}

for (const state of ["loading", "loaded"] as const) {
  Deno.test(`Source.run() gives up when its VM ran again and then was killed, the destination at ${state}`, async () => {
    const { source, destination, states, run } = await migrate({
      pageCounts: [6],
      source: { liveRounds: 1 },
      destinationEntered: (entered, run) => {
        if (entered !== state) return;
        run.sourceVm.cancelByOthers();
        run.killSource();
      },
    });
    const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
    assert.equal(source.outcome, "aborted", story);
    assert.equal(source.sourceState, "gone", story);
    assert.ok(!states.source.includes("released"), story);
    assert.equal(destination.destinationState, "discarded", story);
    assert.equal(run.world.destinationRan, false, story);
  });
}

for (const cut of [false, true]) {
  const how = cut ? "and cut off, " : "";
  Deno.test(`Source.run() mends what was damaged before it hands over a VM that was killed ${how}on the way out`, async () => {
    let stopped = false;
    let damaged = false;
    let answers = 0;
    await using run = new SimulatedMigration({
      pageCounts: [40],
      seed: 5,
      source: { liveRounds: 2 },
      sourceEntered: (state, run) => {
        if (state === "stopping") stopped = true;
        if (state === "finishing" && cut) void run.clock.sleep(1).then(() => run.injector.cut());
      },
      fault: (unit) => {
        if (stopped && !damaged && isRecord(unit, { from: 4096 })) {
          damaged = true;
          return damage(unit);
        }
        const reported = run.notes.some((text) => text.includes("damaged"));
        // MISTAKE arrives, and then nothing for a while: meanwhile somebody gives up.
        if (unit.direction !== "back" || !reported || ++answers !== 2) return undefined;
        void run.clock.sleep(20).then(() => {
          run.stopSource.abort();
          run.killSource();
        });
        return { kind: "delay", ms: 100 };
      },
    });
    const { source, destination } = await run.run();
    const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
    assert.equal(source.outcome, "completed", story);
    assert.equal(destination.outcome, "completed", story);
    assert.equal(source.mistakes.detected, 1, story);
    assert.ok(source.mistakes.repaired > 0, story);
    assert.equal(source.reconnects, cut ? 1 : 0, story);
  });
}

/** The device state is one record, of a size that no other has. */
const oneState = { pageCounts: [6], seed: 5, source: { liveRounds: 1, stateBytes: 1_500 } };

function isState(unit: Unit): boolean {
  return isRecord(unit, { from: 1_500, to: 1_700 });
}

Deno.test("Source.run() goes on sending a piece that is damaged more often than it is tried, its QEMU gone", async () => {
  let damages = 0;
  await using run = new SimulatedMigration({
    ...oneState,
    fault: (unit) => {
      if (!isState(unit) || damages === 2 * MAX_TRIES) return undefined;
      if (damages++ === 0) run.killSource();
      return damage(unit);
    },
  });
  const { source, destination } = await run.run();
  const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
  assert.equal(source.outcome, "completed", story);
  assert.equal(destination.outcome, "completed", story);
  assert.equal(source.mistakes.detected, 2 * MAX_TRIES, story);
});

Deno.test("Source.run() waits for no administrator once its QEMU is gone", async () => {
  let damages = 0;
  await using run = new SimulatedMigration({
    ...oneState,
    sourceOptions: {
      askTamper: () => {
        run.killSource();
        return new Promise(() => {});
      },
    },
    fault: (unit) => isState(unit) && damages++ <= MAX_TRIES ? damage(unit) : undefined,
  });
  const { source, destination } = await run.run();
  const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
  assert.equal(source.outcome, "completed", story);
  assert.equal(destination.outcome, "completed", story);
});

Deno.test("Source.run() ends with the outcome unknown when the repairs cost more than the budget, its QEMU gone", async () => {
  let killed = false;
  await using run = new SimulatedMigration({
    ...oneState,
    limits: { repairBudgetBytes: 10 * 4096 },
    fault: (unit) => {
      if (!isState(unit)) return undefined;
      if (!killed) run.killSource();
      killed = true;
      return damage(unit);
    },
  });
  const { source } = await run.run();
  assert.equal(source.outcome, "unknown", source.error?.message);
  assert.equal(run.world.destinationRan, false);
});

/** A record of 49 bytes in the place of `record`: whoever counts frames counts less for it. */
function forged(record: Uint8Array): Uint8Array {
  const header = readRecordHeader(
    new DataView(record.buffer, record.byteOffset),
    FRAME_HEADER_BYTES,
  )!;
  const bodyLength = 17;
  const frame = new Uint8Array(FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + bodyLength).fill(0xa5);
  const view = new DataView(frame.buffer);
  writeFrameHeader(view, 0, FRAME_DATA, RECORD_HEADER_BYTES + bodyLength);
  writeRecordHeader(view, FRAME_HEADER_BYTES, { ...header, bodyLength });
  return frame;
}

Deno.test("Source.run() goes on beyond its own count of the budget, its QEMU gone", async () => {
  let held = false;
  let put = false;
  await using run = new SimulatedMigration({
    pageCounts: [300],
    source: { liveRounds: 1 },
    // Less than a full record: over there it counts as a page.
    limits: { maxStopMs: 60_000, windowBytes: 2 ** 23, repairBudgetBytes: 30_000 },
    sourceEntered: (state, run) => {
      if (state === "stopping") void run.clock.sleep(100).then(() => run.killSource());
    },
    fault: (unit): Fault | undefined => {
      if (put || !isRecord(unit, { from: 30_000 })) return undefined;
      if (!held) {
        held = true;
        return { kind: "delay", ms: 1_500 };
      }
      put = run.sourceJournals.states.includes("released");
      return put ? { kind: "inject", frames: [forged(unit.bytes)] } : undefined;
    },
  });
  const { source, destination } = await run.run();
  const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
  assert.ok(put, story);
  assert.equal(source.outcome, "completed", story);
  assert.equal(destination.outcome, "completed", story);
  assert.equal(source.mistakes.detected, 1, story);
});

/** A migration whose source's suite can be lost for good, and its QEMU at once. */
function losing(options: SimulatedMigrationOptions = {}) {
  let lost = false;
  const suite = failingSuite(inner, () => lost);
  const suites = everyClass(suite.id);
  const run = new SimulatedMigration({
    ...oneState,
    registry: new CipherRegistry([suite]),
    suites: { source: suites, destination: suites },
    ...options,
  });
  const lose = () => {
    lost = true;
    run.killSource();
  };
  return { run, lose };
}

Deno.test("Source.run() ends with the outcome unknown when the device state cannot be sealed, its QEMU gone", async () => {
  let stopping = false;
  const suite = failingSuite(inner, () => {
    if (stopping) run.killSource();
    return stopping;
  });
  const suites = everyClass(suite.id);
  await using run: SimulatedMigration = new SimulatedMigration({
    ...oneState,
    registry: new CipherRegistry([suite]),
    suites: { source: suites, destination: suites },
    sourceEntered: (state) => {
      stopping ||= state === "stopping";
    },
  });
  const { source } = await run.run();
  assert.ok(run.sourceJournals.states.includes("released"));
  assert.equal(source.outcome, "unknown", source.error?.message);
  assert.equal(run.world.destinationRan, false);
});

Deno.test("Source.run() ends with the outcome unknown when a piece cannot be sealed again, its QEMU gone", async () => {
  const { run, lose } = losing({
    fault: (unit) => {
      if (!isState(unit)) return undefined;
      lose();
      return damage(unit);
    },
  });
  await using _run = run;
  const { source } = await run.run();
  assert.equal(source.outcome, "unknown", source.error?.message);
  assert.equal(run.world.destinationRan, false);
});

Deno.test("Source.run() ends with the outcome unknown when a piece that waits for the administrator cannot be sealed, its QEMU gone", async () => {
  let damages = 0;
  const { run, lose } = losing({
    sourceOptions: {
      askTamper: () => {
        lose();
        return new Promise(() => {});
      },
    },
    fault: (unit) => isState(unit) && damages++ <= MAX_TRIES ? damage(unit) : undefined,
  });
  await using _run = run;
  const { source } = await run.run();
  assert.equal(source.outcome, "unknown", source.error?.message);
  assert.equal(run.world.destinationRan, false);
});

Deno.test("Source.run() ends with the outcome unknown when marked pages cannot be sealed, its QEMU gone", async () => {
  let stopped = false;
  let damaged = false;
  const { run, lose } = losing({
    pageCounts: [40],
    sourceEntered: (state) => {
      if (state === "stopping") stopped = true;
    },
    sourceOptions: { onTamper: () => lose() },
    fault: (unit) => {
      if (!stopped || damaged || !isRecord(unit, { from: 4096 })) return undefined;
      damaged = true;
      return damage(unit);
    },
  });
  await using _run = run;
  const { source } = await run.run();
  assert.ok(run.sourceJournals.states.includes("released"));
  assert.equal(source.outcome, "unknown", source.error?.message);
  assert.equal(run.world.destinationRan, false);
});

Deno.test("Source.run() ends with the outcome unknown when Ctrl-C led to a QEMU that is gone, and the destination never loads", async () => {
  const loads = Promise.withResolvers<void>();
  await using run = new SimulatedMigration({
    ...oneState,
    // Its disk takes no line. Its agent answers PING meanwhile.
    destinationEntered: (state) => state === "loading" ? loads.promise : undefined,
    sourceEntered: (state, it) => {
      if (state === "finishing") void it.clock.sleep(20).then(() => it.stopSource.abort());
      if (state === "aborting") it.killSource();
    },
  });
  const { sourceEnds, destinationEnds } = run.start();
  const source = await Promise.race([
    sourceEnds,
    run.clock.sleep(2 * usualLimits.reconnectMs).then(() => null),
  ]);
  assert.ok(source !== null, `it waits in ${run.source.state}\n${run.world.log.join("\n")}`);
  assert.equal(source.outcome, "unknown");
  assert.ok(run.sourceJournals.states.includes("released"));
  loads.resolve();
  run.stopDestination.abort();
  await destinationEnds;
});

for (const windowBytes of [2 ** 20, 4096]) {
  for (const seed of [0, 1, 2, 3]) {
    Deno.test(`Source.run() goes forward when its QEMU dies once its last byte is read, window ${windowBytes}, seed ${seed}`, async () => {
      let ended = false;
      await using run = new SimulatedMigration({
        pageCounts: [40],
        seed,
        source: { liveRounds: 1 },
        limits: { windowBytes },
        // The window stays full for a while.
        fault: ({ direction }) =>
          ended && direction === "back" ? { kind: "delay", ms: 200 } : undefined,
        prepare: ({ sourceVm, clock }) => {
          const start = sourceVm.start.bind(sourceVm);
          sourceVm.start = async (live) => {
            const pages = await start(live);
            const next = pages.next.bind(pages);
            pages.next = async (events) => {
              const more = await next(events);
              if (!more) {
                ended = true;
                void clock.sleep(20).then(() => run.killSource());
              }
              return more;
            };
            return pages;
          };
        },
      });
      const { source, destination } = await run.run();
      const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
      assert.equal(source.outcome, "completed", story);
      assert.equal(destination.outcome, "completed", story);
    });
  }
}
