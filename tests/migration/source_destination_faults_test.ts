import assert from "node:assert/strict";
import { CipherRegistry, defaultRegistry } from "../../ciphers/registry.ts";
import { FRAME_DATA, writeFrameHeader } from "../../migration/frame.ts";
import { MAX_TRIES, RECORD_HEADER_BYTES } from "../../migration/limits.ts";
import { readRecordHeader, writeRecordHeader } from "../../migration/record.ts";
import { failingSuite } from "../support/failing_suite.ts";
import type { Direction, Fault, Unit } from "../support/fault_injector.ts";
import { Random } from "../support/random.ts";
import {
  everyClass,
  forEachCase,
  migrate,
  type SimulatedMigration,
  type SimulatedMigrationOptions,
} from "../support/simulated_migration.ts";

// Opened here: a library that a test opens would count as its leak.
const inner = defaultRegistry().get("aes-256-gcm");

/** A migration of some fifteen messages each way. */
const small = { pageCounts: [4], seed: 3, source: { liveRounds: 1 } };

/** A larger one: some hundred messages each way. */
const larger = { pageCounts: [300, 40], seed: 5, source: { liveRounds: 3, setupBytes: 300_000 } };

/** The first messages, before ACCEPT: without them there is no migration yet. */
const OPENING = 2;

/** Every fault but those that need a place inside the message. */
const faults: Record<string, (unit: Unit) => Fault> = {
  "flip in the header": () => ({ kind: "flip", byte: 0, bit: 1 }),
  "flip in the length": ({ bytes }) => ({ kind: "flip", byte: Math.min(7, bytes.length), bit: 3 }),
  "flip in the middle": ({ bytes }) => ({ kind: "flip", byte: bytes.length >> 1, bit: 7 }),
  "flip at the end": ({ bytes }) => ({ kind: "flip", byte: bytes.length - 1, bit: 0 }),
  drop: () => ({ kind: "drop" }),
  duplicate: () => ({ kind: "duplicate" }),
  swap: () => ({ kind: "swap" }),
  "cut at its begin": () => ({ kind: "truncate", bytes: 0 }),
  "cut inside": ({ bytes }) => ({ kind: "truncate", bytes: bytes.length - 1 }),
  "cut after it": () => ({ kind: "cutAfter" }),
  stall: () => ({ kind: "stall" }),
};

/** Does `fault` to one message, over all connections once. */
function once(
  fault: (unit: Unit) => Fault,
  at: (unit: Unit) => boolean,
): (unit: Unit) => Fault | undefined {
  let done = false;
  return (unit) => {
    if (done || !at(unit)) return undefined;
    done = true;
    return fault(unit);
  };
}

for (const direction of ["there", "back"] as const) {
  Deno.test(`Source and Destination complete whatever happens to any one message ${direction}, once they have agreed`, async () => {
    const { run } = await migrate(small);
    const count = run.injector.seen.filter((unit) => unit.direction === direction).length;
    const cases = Object.keys(faults).flatMap((name) =>
      Array.from({ length: count }, (_, index) => ({ name, index }))
    );
    await forEachCase(cases, async ({ name, index }) => {
      const { source, destination, run } = await migrate({
        ...small,
        fault: once(
          faults[name]!,
          (unit) => unit.direction === direction && unit.index === index,
        ),
      });
      const story = `${source.outcome}/${destination.outcome}\n${run.world.log.join("\n")}`;
      if (index >= OPENING) {
        assert.equal(source.outcome, "completed", story);
        assert.equal(destination.outcome, "completed", story);
      } else if (source.outcome !== "completed") {
        assert.ok(["refused", "aborted"].includes(source.outcome), story);
        assert.equal(run.world.source, "running", story);
        assert.equal(run.world.destination, "inmigrate", story);
      }
    });
  });

  Deno.test(`Source and Destination end well when each connection meets the same fault ${direction}`, async () => {
    const cases = Object.keys(faults).flatMap((name) =>
      Array.from({ length: 8 }, (_, index) => ({ name, index }))
    );
    await forEachCase(cases, async ({ name, index }) => {
      const { source, run } = await migrate({
        ...small,
        limits: { reconnectMs: 2_000, maxStopMs: 2_000 },
        fault: (unit) =>
          unit.direction === direction && unit.index === index ? faults[name]!(unit) : undefined,
      });
      if (source.outcome === "completed") return;
      const story = `${source.outcome}\n${run.world.log.join("\n")}`;
      const released = run.sourceJournals.states.includes("released");
      assert.equal(source.outcome === "unknown", released, story);
      if (!released) assert.equal(run.world.source, "running", story);
    });
  });
}

Deno.test("Source and Destination complete when any one message is late", async () => {
  const { run } = await migrate(small);
  const cases = run.injector.seen.map(({ direction, index }) => ({ direction, index }));
  await forEachCase(cases, async ({ direction, index }) => {
    const { source, destination } = await migrate({
      ...small,
      fault: (unit) =>
        unit.direction === direction && unit.index === index
          ? { kind: "delay", ms: 300 }
          : undefined,
    });
    assert.equal(source.outcome, "completed");
    assert.equal(destination.outcome, "completed");
  });
});

Deno.test("Source.run() repairs a damaged record, and both reports tell of it", async () => {
  const { source, destination, run } = await migrate({
    ...small,
    fault: once(
      () => ({ kind: "flip", byte: 40, bit: 2 }),
      ({ direction, index, bytes }) =>
        direction === "there" && index >= OPENING && bytes.length > 4_000,
    ),
  });
  assert.equal(source.outcome, "completed");
  assert.equal(destination.outcome, "completed");
  assert.equal(source.mistakes.detected, 1);
  assert.equal(destination.mistakes.detected, 1);
  assert.equal(source.mistakes.hits.length, 1);
  assert.match(source.mistakes.hits[0]!.what, /^record \d+: .* of block 0/);
  assert.deepEqual(source.verified, destination.verified);
  const last = [...run.sourceJournals.lines.values()][0]!.at(-1)!;
  assert.deepEqual(last["hits"], source.mistakes.hits);
  assert.equal(source.reconnects, 0);
});

/** Damages each record so many times in so many. */
function damageOneIn(n: number, seed: number): NonNullable<SimulatedMigrationOptions["fault"]> {
  const random = new Random(seed);
  return ({ direction, index, bytes }) => {
    if (direction !== "there" || index < OPENING || bytes[0] !== FRAME_DATA) return undefined;
    if (!random.oneIn(n)) return undefined;
    return {
      kind: "flip",
      byte: 8 + RECORD_HEADER_BYTES + random.below(bytes.length - 8 - RECORD_HEADER_BYTES),
      bit: random.below(8),
    };
  };
}

Deno.test("Source and Destination complete with one record in ten, and one in four, damaged", async () => {
  for (const [n, seed] of [[10, 1], [10, 2], [4, 3], [4, 4]] as const) {
    const { source, destination, run } = await migrate({ ...larger, fault: damageOneIn(n, seed) });
    const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
    assert.equal(source.outcome, "completed", story);
    assert.ok(source.mistakes.detected > 0, story);
    assert.equal(source.mistakes.detected, destination.mistakes.detected);
    assert.deepEqual(source.verified, destination.verified);
  }
});

Deno.test("Source and Destination complete or end tampered with one bit flipped in so many bytes, and never hang", async () => {
  const outcomes = new Map<number, Set<string>>();
  const rates = [2_000_000, 200_000, 20_000, 2_000];
  const cases = rates.flatMap((bytesPerFlip) => [1, 2, 3].map((seed) => ({ bytesPerFlip, seed })));
  await forEachCase(cases, async ({ bytesPerFlip, seed }) => {
    const random = new Random(seed);
    let untilFlip = random.below(2 * bytesPerFlip);
    const { source, run } = await migrate({
      ...larger,
      source: { liveRounds: 3 },
      seed,
      limits: { reconnectMs: 20_000, maxStopMs: 60_000 },
      fault: ({ index, bytes }) => {
        if (index < OPENING) return undefined;
        const byte = untilFlip;
        untilFlip -= bytes.length;
        if (untilFlip >= 0) return undefined;
        untilFlip = random.below(2 * bytesPerFlip);
        return { kind: "flip", byte, bit: random.below(8) };
      },
    });
    const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
    assert.ok(["completed", "tampered"].includes(source.outcome), story);
    if (source.outcome === "tampered") assert.equal(run.world.source, "running", story);
    outcomes.set(bytesPerFlip, (outcomes.get(bytesPerFlip) ?? new Set()).add(source.outcome));
  });
  assert.deepEqual([...outcomes.get(2_000_000)!], ["completed"]);
  assert.ok(outcomes.get(2_000)!.has("tampered"));
});

Deno.test("Source and Destination end tampered when one record is damaged once more than it is tried", async () => {
  // Whatever carries the page, also when it stands still.
  const { source, destination, run } = await migrate({
    ...small,
    fault: ({ direction, index, bytes }) =>
      direction === "there" && index >= OPENING && bytes[0] === FRAME_DATA && bytes.length > 4_000
        ? { kind: "flip", byte: 50, bit: 0 }
        : undefined,
  });
  const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
  assert.equal(source.outcome, "tampered", story);
  assert.equal(destination.outcome, "tampered", story);
  assert.match(source.error?.message ?? "", /damaged 4 times/);
  assert.equal(run.world.source, "running");
  assert.equal(source.destinationState, "discarded");
  assert.equal(run.world.destination, "gone");
});

Deno.test("Source and Destination end tampered when the damage costs more than the budget", async () => {
  for (const side of ["source", "destination"] as const) {
    const { source, destination, run } = await migrate({
      ...larger,
      source: { liveRounds: 3 },
      ...(side === "source" ? { limits: { repairBudgetBytes: 10 * 4096 } } : {}),
      ...(side === "destination" ? { repairBudgetBytes: 10 * 4096 } : {}),
      fault: damageOneIn(2, 10),
    });
    const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
    assert.equal(source.outcome, "tampered", story);
    assert.equal(destination.outcome, "tampered", story);
    assert.equal(run.world.source, "running", story);
  }
});

Deno.test("Source asks the administrator when the damage does not end, and goes on or gives up", async () => {
  for (const goOn of [true, false]) {
    const asked: string[] = [];
    let damages = 0;
    const { source, run } = await migrate({
      ...small,
      sourceOptions: {
        askTamper: (text) => {
          asked.push(text);
          return Promise.resolve(goOn);
        },
      },
      fault: ({ direction, index, bytes }) =>
        direction === "there" && index >= OPENING && bytes[0] === FRAME_DATA && damages++ < 6
          ? { kind: "flip", byte: 45, bit: 0 }
          : undefined,
    });
    const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
    assert.equal(source.outcome, goOn ? "completed" : "tampered", story);
    assert.match(asked[0]!, /setup at 0: it was damaged 4 times/);
  }
});

Deno.test("Source gives up when the administrator cannot be asked, and after --max-stop when there is no answer", async () => {
  const all = ({ direction, index, bytes }: Unit): Fault | undefined =>
    direction === "there" && index >= OPENING && bytes[0] === FRAME_DATA && bytes.length > 4_000
      ? { kind: "flip", byte: 45, bit: 0 }
      : undefined;
  const cannot = await migrate({
    ...small,
    sourceOptions: { askTamper: () => Promise.reject(new Error("no terminal")) },
    fault: all,
  });
  assert.equal(cannot.source.outcome, "tampered");
  const silent = await migrate({
    ...small,
    sourceOptions: { askTamper: () => new Promise(() => {}) },
    fault: all,
  });
  assert.equal(silent.source.outcome, "aborted");
  assert.equal(silent.source.error?.code, "timeout");
  assert.equal(silent.run.world.source, "running");
});

for (
  const [how, damages] of [["at once", 1], ["on the administrator's word", 1 + MAX_TRIES]] as const
) {
  Deno.test(`Source gives up, its VM running, when its suite fails where a piece is sealed again ${how}`, async () => {
    let flips = 0;
    // SETUP is the first that is sealed, and nothing else before all of it has arrived.
    const suite = failingSuite(inner, () => flips === damages);
    const suites = everyClass(suite.id);
    const { source, run } = await migrate({
      registry: new CipherRegistry([suite]),
      suites: { source: suites, destination: suites },
      sourceOptions: { askTamper: () => Promise.resolve(true) },
      // A key of a handshake may begin with any byte.
      fault: ({ direction, index, bytes }) => {
        if (direction !== "there" || index < OPENING || bytes[0] !== FRAME_DATA) return undefined;
        flips++;
        return { kind: "flip", byte: bytes.length - 1, bit: 0 };
      },
    });
    const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
    assert.equal(flips, damages, story);
    assert.equal(source.outcome, "aborted", story);
    assert.match(source.error!.message, /Cannot send again what was damaged/, story);
    assert.equal(source.reconnects, 0, story);
    assert.equal(run.world.source, "running", story);
  });
}

Deno.test("Source and Destination complete with the wire cut 1, 3 and 10 times at random bytes, running and stopped", async () => {
  const cases = [1, 3, 10].flatMap((cuts) =>
    [false, true].flatMap((stopped) => [1, 2, 3, 4].map((seed) => ({ cuts, stopped, seed })))
  );
  await forEachCase(cases, async ({ cuts, stopped, seed }) => {
    const random = new Random(seed);
    let left = cuts;
    let run_: SimulatedMigration | null = null;
    const { source, destination, run } = await migrate({
      ...larger,
      seed,
      limits: { reconnectMs: 600_000, maxStopMs: 30_000, windowBytes: 200_000 },
      fault: ({ index, bytes, connection }) => {
        if (left === 0 || (connection === 0 && index < OPENING)) return undefined;
        if (stopped && run_!.world.captured === null) return undefined;
        if (!random.oneIn(stopped ? 3 : 12)) return undefined;
        left--;
        return { kind: "truncate", bytes: random.below(bytes.length + 1) };
      },
      prepare: (run) => {
        run_ = run;
      },
    });
    const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
    assert.equal(source.outcome, "completed", story);
    assert.equal(destination.outcome, "completed", story);
    assert.ok(source.reconnects >= 1 && source.reconnects <= cuts, `${source.reconnects}`);
  });
});
Deno.test("Source joins again when the network is away for 30 s with the VM running, and 2 s with it stopped", async () => {
  for (const [state, awayMs] of [["copying", 30_000], ["finishing", 2_000]] as const) {
    let awayUntilMs = 0;
    const { source, run } = await migrate({
      ...larger,
      source: { ...larger.source, paceMs: 5 },
      limits: { maxStopMs: 30_000 },
      dialFails: (run) => run.clock.now() < awayUntilMs,
      sourceEntered: (entered, run) => {
        if (entered !== state) return;
        awayUntilMs = run.clock.now() + awayMs;
        run.injector.cut();
      },
    });
    const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
    assert.equal(source.outcome, "completed", story);
    assert.equal(source.reconnects, 1);
    if (state === "finishing") assert.ok(source.downtimeMs! >= awayMs, `${source.downtimeMs}`);
  }
});

Deno.test("Source.run() gives up when --reconnect is used up before the release, the VM running", async () => {
  for (const state of ["setup", "copying", "stopping", "finishing"] as const) {
    for (const hangs of [false, true]) {
      let away = false;
      const { source, run } = await migrate({
        ...small,
        limits: { reconnectMs: 3_000, maxStopMs: 60_000 },
        dialFails: () => away && (hangs ? "hangs" : true),
        sourceEntered: (entered, run) => {
          if (entered !== state) return;
          away = true;
          run.injector.cut();
        },
      });
      const story = `${state} ${source.error?.message}\n${run.world.log.join("\n")}`;
      assert.equal(source.outcome, "aborted", story);
      assert.equal(source.error?.code, "cut", story);
      assert.equal(run.world.source, "running", story);
      assert.ok(run.clock.now() < 20_000, story);
    }
  }
});

Deno.test("Source.run() knows no outcome when --reconnect is used up after the release", async () => {
  let away = false;
  const { source, destination, states, run } = await migrate({
    ...small,
    limits: { reconnectMs: 3_000 },
    dialFails: () => away,
    sourceEntered: (state, { injector }) => {
      if (state !== "released") return;
      away = true;
      injector.cut();
    },
  });
  assert.equal(source.outcome, "unknown");
  assert.equal(source.sourceState, "postmigrate");
  assert.equal(source.destinationState, "unknown");
  assert.deepEqual(states.source, ["open", "releasing", "released"]);
  assert.equal(destination.outcome, "unknown");
  assert.equal(run.world.destination, "paused");
  assert.deepEqual(states.destination, ["open", "loaded"]);
});

Deno.test("Source.run() runs the VM again when --max-stop is used up during a cut, though its end of stream was not read", async () => {
  let stoppedAtMs = 0;
  const { source, run } = await migrate({
    pageCounts: [600],
    source: { liveRounds: 1 },
    limits: { windowBytes: 100_000, maxStopMs: 2_000 },
    dialFails: (run) => run.injector.seen.length > 20,
    // The window is full and the network away when the VM stops.
    sourceEntered: (state, { clock, injector, sourceVm }) => {
      if (state !== "copying") return;
      void clock.sleep(20).then(() => injector.cut());
      void clock.sleep(500).then(() => {
        stoppedAtMs = clock.now();
        sourceVm.stop();
      });
    },
  });
  const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
  assert.equal(source.outcome, "aborted", story);
  assert.equal(source.error?.code, "timeout", story);
  assert.equal(run.world.source, "running", story);
  assert.ok(run.sourceVm.ranAgainAtMs! - stoppedAtMs <= 2_000 + 1_000, story);
});

Deno.test("Destination.run() keeps its loaded QEMU, and knows no outcome, when nobody comes any more", async () => {
  let away = false;
  const { source, destination, states, run } = await migrate({
    ...small,
    limits: { reconnectMs: 3_000 },
    dialFails: () => away,
    destinationEntered: (state, { injector }) => {
      if (state !== "loaded") return;
      away = true;
      injector.cut();
    },
  });
  // The source has not heard LOADED: it goes on. `recover` discards the copy.
  assert.equal(source.outcome, "aborted");
  assert.equal(run.world.source, "running");
  assert.equal(destination.outcome, "unknown");
  assert.equal(destination.destinationState, "paused");
  assert.equal(run.world.destination, "paused");
  assert.deepEqual(states.destination, ["open", "loaded"]);
});

Deno.test("Destination.run() completes when the connection is lost for good after RELEASE", async () => {
  let away = false;
  const { source, destination, run } = await migrate({
    ...small,
    limits: { reconnectMs: 3_000 },
    dialFails: () => away,
    destinationEntered: (state, { injector }) => {
      if (state !== "taking") return;
      away = true;
      injector.cut();
    },
  });
  assert.equal(source.outcome, "unknown");
  assert.equal(destination.outcome, "completed");
  assert.equal(run.world.destination, "running");
});

/** A DATA frame of somebody without the key, that has the header which must come next. */
function forged(before: Uint8Array, ahead: number): Uint8Array {
  const header = readRecordHeader(new DataView(before.buffer, before.byteOffset), 8)!;
  const frame = crypto.getRandomValues(new Uint8Array(8 + RECORD_HEADER_BYTES + 60));
  const view = new DataView(frame.buffer);
  writeFrameHeader(view, 0, FRAME_DATA, frame.length - 8);
  writeRecordHeader(view, 8, { ...header, sequence: header.sequence + ahead, bodyLength: 60 });
  return frame;
}

Deno.test("Source and Destination complete when somebody puts in records with the next header, anywhere", async () => {
  const { run } = await migrate(small);
  const there = run.injector.seen.filter(({ direction }) => direction === "there").length;
  const cases = Array.from({ length: there - OPENING }, (_, i) => i + OPENING).flatMap((index) =>
    [1, 3].flatMap((count) => [false, true].map((behind) => ({ index, count, behind })))
  );
  await forEachCase(cases, async ({ index, count, behind }) => {
    let last: Uint8Array | null = null;
    let before = 0;
    const { source, destination, run } = await migrate({
      ...small,
      fault: ({ direction, index: at, bytes, connection }) => {
        if (direction !== "there" || at < OPENING || connection > 0) return undefined;
        const earlier = last;
        const data = bytes[0] === FRAME_DATA;
        if (data) last = bytes.slice();
        if (at !== index) return undefined;
        // Before a record the same header, before anything else the one after the last.
        const model = data ? bytes : earlier;
        if (model === null) return undefined;
        if (data) before++;
        const from = data && !behind ? 0 : 1;
        return {
          kind: "inject",
          behind,
          frames: Array.from({ length: count }, (_, i) => forged(model, from + i)),
        };
      },
    });
    const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
    assert.equal(source.outcome, "completed", story);
    assert.equal(destination.outcome, "completed", story);
    assert.equal(source.mistakes.detected, destination.mistakes.detected, story);
    // After FINISH none is looked at any more.
    if (before > 0) assert.equal(source.mistakes.detected, count, story);
  });
});

Deno.test("Source and Destination end tampered when somebody puts in records without end", async () => {
  const { source, destination, run } = await migrate({
    ...small,
    limits: { repairBudgetBytes: 100 * 4096 },
    fault: ({ direction, index, bytes }) =>
      direction === "there" && index >= OPENING && bytes[0] === FRAME_DATA
        ? { kind: "inject", frames: Array.from({ length: 400 }, (_, i) => forged(bytes, i)) }
        : undefined,
  });
  assert.ok(["tampered", "aborted"].includes(source.outcome));
  assert.equal(run.world.source, "running");
  assert.notEqual(destination.outcome, "completed");
});

for (const direction of ["there", "back"] satisfies Direction[]) {
  Deno.test(`Source and Destination complete when records are put in that go ${direction}, where none may`, async () => {
    const frame = crypto.getRandomValues(new Uint8Array(8 + RECORD_HEADER_BYTES + 60));
    writeFrameHeader(new DataView(frame.buffer), 0, FRAME_DATA, frame.length - 8);
    const { source } = await migrate({
      ...small,
      fault: once(
        () => ({ kind: "inject", frames: [frame] }),
        (unit) => unit.direction === direction && unit.index === 3,
      ),
    });
    assert.equal(source.outcome, "completed");
    assert.equal(source.reconnects, 1);
  });
}
