import assert from "node:assert/strict";
import fc from "fast-check";
import { defaultRegistry } from "../../ciphers/registry.ts";
import type { CipherSuite } from "../../ciphers/suite.ts";
import { KeySchedule } from "../../migration/key_schedule.ts";
import { FRAME_HEADER_BYTES, MAX_TRIES, PAGE_BYTES } from "../../migration/limits.ts";
import { MistakeBitmap } from "../../migration/mistake_bitmap.ts";
import { RecordOpener } from "../../migration/record_opener.ts";
import { RecordSealer } from "../../migration/record_sealer.ts";
import { Repair } from "../../migration/repair.ts";
import { Rounds } from "../../migration/rounds.ts";
import { SealedBodyReader, SealedBodyWriter } from "../../migration/sealed_bodies.ts";
import { SealedWindow } from "../../migration/window.ts";
import { failingSuite } from "../support/failing_suite.ts";

const suites = [defaultRegistry().get("aes-256-gcm")];
const suiteOf = { user: 0, kernelText: 0, kernelData: 0, unmapped: 0 };
const blocks = [{ name: "a", bytes: 6 * PAGE_BYTES }, { name: "b", bytes: 2 * PAGE_BYTES }];
const clock = { now: () => 0, date: () => new Date(0), timer: () => ({ clear: () => {} }) };
const BUDGET_BYTES = 2 ** 24;

/** Both ends of records, and a wire between them that a test damages, cuts and acknowledges as it likes. */
class Wire implements Disposable {
  readonly #schedules = [1, 2].map(() => new KeySchedule(new Uint8Array(32).fill(4)));
  readonly window = new SealedWindow(
    2 ** 30,
    (slab) => this.#send(slab.bytes.subarray(0, slab.usedBytes)),
  );
  readonly rounds = new Rounds(blocks, clock);
  readonly bitmap = new MistakeBitmap(blocks);
  readonly sealer: RecordSealer;
  readonly repair: Repair;
  readonly opener: RecordOpener;
  /** What the destination holds: one byte for each page. */
  readonly memory = blocks.map(({ bytes }) => new Uint8Array(bytes / PAGE_BYTES));
  /** Frames on their way. */
  flight: Uint8Array[] = [];
  /** MISTAKEs on their way back. */
  mistakes: number[] = [];
  acknowledged = 0;
  /** Sequences of all records that arrived damaged, ascending. */
  readonly #damaged: number[] = [];

  constructor(
    options: { budgetBytes?: number; alarmBytes?: number; suites?: readonly CipherSuite[] } = {},
  ) {
    const { budgetBytes = BUDGET_BYTES, alarmBytes = BUDGET_BYTES } = options;
    const [ours, theirs] = this.#schedules as [KeySchedule, KeySchedule];
    const { window, rounds, bitmap } = this;
    const bodies = new SealedBodyWriter({
      schedule: ours,
      suites: options.suites ?? suites,
      suiteOf,
    });
    this.sealer = new RecordSealer({ bodies, window, rounds, mistakes: bitmap, lane: 0 });
    this.repair = new Repair({
      bodies,
      window,
      sealer: this.sealer,
      bitmap,
      blocks,
      budgetBytes,
      alarmBytes,
    });
    this.opener = new RecordOpener({
      bodies: new SealedBodyReader({ schedule: theirs, suites }),
      lane: 0,
      blocks,
    });
  }

  /** Seals one version of a page: 0 is a page of zeros. */
  write(block: number, page: number, version: number): void {
    if (version === 0) this.sealer.zero(block, page);
    else this.sealer.page(block, page, new Uint8Array(PAGE_BYTES).fill(version));
    this.sealer.sealOpen();
    this.window.flush();
  }

  /** Lets one frame arrive. @returns whether there was one */
  deliver(damaged: boolean): boolean {
    const frame = this.flight.shift();
    if (frame === undefined) return false;
    if (damaged) frame[40]! ^= 1;
    const record = this.opener.open(frame.subarray(FRAME_HEADER_BYTES));
    switch (record.type) {
      case "mistake":
        this.#damaged.push(this.opener.nextSequence - 1);
        this.mistakes.push(this.opener.nextSequence - 1);
        break;
      case "pages":
        record.pages.forEach((page, i) =>
          this.memory[record.block]![page] = record.bytes[i * PAGE_BYTES]!
        );
        break;
      case "zeros":
        record.pages.forEach((page) => this.memory[record.block]![page] = 0);
        break;
      default:
        throw new Error("no such record here");
    }
    return true;
  }

  /** Lets one MISTAKE come back, or what was processed be acknowledged, in that order. */
  answer(): void {
    const sequence = this.mistakes.shift();
    if (sequence !== undefined) {
      this.repair.damaged(sequence);
      this.window.flush();
    } else {
      this.acknowledged = this.opener.nextSequence - 1;
      this.window.acknowledge(this.acknowledged);
    }
  }

  /** A cut: what is on its way either way is lost; JOIN sends frames and MISTAKEs again, also those that were heard. */
  cut(): void {
    this.mistakes = this.#damaged.filter((sequence) => sequence > this.acknowledged);
    this.flight = [];
    for (const { bytes } of this.window.framesFrom(this.opener.nextSequence)) this.#send(bytes);
  }

  #send(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 0; at < bytes.length;) {
      const length = FRAME_HEADER_BYTES + view.getUint32(at + 4);
      this.flight.push(bytes.slice(at, at + length));
      at += length;
    }
  }

  /** Until everything is acknowledged and nothing is marked, as the source does with the VM stopped. */
  mend(damages: () => boolean = () => false): void {
    do {
      this.window.flush();
      while (this.deliver(damages()));
      while (this.mistakes.length > 0 || this.acknowledged < this.sealer.lastSequence) {
        this.answer();
        while (this.deliver(damages()));
      }
    } while (this.repair.resend());
  }

  [Symbol.dispose](): void {
    this.sealer[Symbol.dispose]();
    this.opener[Symbol.dispose]();
    for (const schedule of this.#schedules) schedule[Symbol.dispose]();
  }
}

const step = fc.oneof(
  fc.record({
    kind: fc.constant("write" as const),
    block: fc.nat(1),
    page: fc.nat(1),
    version: fc.nat(255),
  }),
  fc.record({ kind: fc.constant("deliver" as const), damaged: fc.boolean() }),
  fc.record({ kind: fc.constant("answer" as const) }),
  fc.record({ kind: fc.constant("cut" as const) }),
);

Deno.test("Repair never lets an older version of a page win, in whatever order versions, damages, cuts and acknowledgements come", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), fc.array(fc.boolean()), (steps, later) => {
      using wire = new Wire();
      // The reference: what was written last.
      const truth = blocks.map(({ bytes }) => new Uint8Array(bytes / PAGE_BYTES));
      for (const one of steps) {
        switch (one.kind) {
          case "write":
            truth[one.block]![one.page] = one.version;
            wire.write(one.block, one.page, one.version);
            break;
          case "deliver":
            wire.deliver(one.damaged);
            break;
          case "answer":
            wire.answer();
            break;
          case "cut":
            wire.cut();
        }
      }
      const damages = [...later];
      wire.mend(() => damages.pop() ?? false);
      assert.deepEqual(wire.memory, truth);
      assert.ok(wire.bitmap.empty);
    }),
    { numRuns: 600, seed: 11 },
  );
});

Deno.test("Repair.damaged() leaves alone a page that a later record carries, and repairs the rest of the record", () => {
  using wire = new Wire();
  for (const page of [0, 1]) wire.sealer.page(0, page, new Uint8Array(PAGE_BYTES).fill(1));
  wire.sealer.sealOpen();
  wire.write(0, 1, 2);
  wire.deliver(true);
  wire.answer();
  assert.ok(!wire.bitmap.empty);
  wire.mend();
  assert.deepEqual([...wire.memory[0]!.subarray(0, 2)], [1, 2]);
  assert.equal(wire.repair.mistakes, 1);
  assert.equal(wire.repair.repairedPages, 1);
  assert.equal(wire.repair.lostPages, 2);
});

Deno.test("Repair.damaged() counts a MISTAKE once, and never seals under a sequence twice", () => {
  using wire = new Wire();
  wire.write(0, 0, 7);
  wire.deliver(true);
  assert.equal(wire.repair.damaged(1).length, 1);
  assert.deepEqual(wire.repair.damaged(1), []);
  wire.mistakes = [];
  wire.mend();
  assert.equal(wire.repair.mistakes, 1);
  assert.equal(wire.sealer.lastSequence, 2);
  assert.equal(wire.memory[0]![0], 7);
});

Deno.test("Repair.damaged() skips sequences that were never sealed, and counts each", () => {
  using wire = new Wire();
  wire.write(0, 0, 7);
  wire.mend();
  assert.match(wire.repair.damaged(4)[0]!, /never sent/);
  assert.equal(wire.repair.mistakes, 3);
  wire.write(0, 0, 8);
  assert.equal(wire.sealer.lastSequence, 5);
});

Deno.test("Repair.damaged() refuses a record that was acknowledged, and one far beyond what was sent", () => {
  using wire = new Wire();
  wire.write(0, 0, 7);
  wire.mend();
  const broken = { name: "MigrationError", code: "protocol" };
  assert.throws(() => wire.repair.damaged(1), broken);
  assert.throws(() => wire.repair.damaged(2 ** 40), broken);
});

Deno.test("Repair.alarm is raised when a page is damaged once more than it may be tried, and goOn() allows as much again", () => {
  using wire = new Wire();
  wire.write(0, 0, 7);
  for (let damages = 1; damages <= MAX_TRIES; damages++) {
    wire.deliver(true);
    wire.answer();
    assert.equal(wire.repair.alarm, null);
    wire.repair.resend();
    wire.window.flush();
  }
  wire.deliver(true);
  wire.answer();
  assert.match(wire.repair.alarm!.message, /page 0 of block 0: it was damaged 4 times/);
  wire.repair.goOn();
  assert.equal(wire.repair.alarm, null);
  wire.mend();
  assert.equal(wire.memory[0]![0], 7);
});

Deno.test("Repair holds a piece that was damaged too often until goOn()", () => {
  using wire = new Wire();
  wire.sealer.stream("setup", new Uint8Array(10).fill(3));
  wire.window.flush();
  for (let damages = 0; damages <= MAX_TRIES; damages++) {
    assert.ok(wire.deliver(true));
    wire.answer();
  }
  assert.equal(wire.deliver(false), false);
  wire.repair.goOn();
  wire.window.flush();
  assert.equal(wire.flight.length, 1);
});

Deno.test("Repair.alarm is raised beyond what is repaired unasked, small records counting a page", () => {
  // Each costs what a page of zeros takes to be remembered, besides.
  using wire = new Wire({ alarmBytes: 3 * (4096 + 200) });
  for (let page = 0; page < 4; page++) wire.write(0, page, 0);
  for (let damages = 0; damages < 4; damages++) {
    assert.equal(wire.repair.alarm, null);
    wire.deliver(true);
    wire.answer();
  }
  assert.equal(wire.repair.alarm?.code, "tampering");
});

Deno.test("Repair.exhausted counts what marked pages take, goOn() or not", () => {
  // Two records as both sides count them; a mark costs 128 bytes more.
  using wire = new Wire({ budgetBytes: 2 * 4096 + 600, alarmBytes: 4096 });
  for (let record = 0; record < 2; record++) {
    assert.equal(wire.repair.exhausted, false);
    wire.repair.goOn();
    for (let page = 0; page < 4; page++) wire.sealer.zero(0, page);
    wire.sealer.sealOpen();
    wire.window.flush();
    wire.deliver(true);
    wire.answer();
  }
  assert.equal(wire.repair.exhausted, true);
  wire.repair.goOn();
  assert.equal(wire.repair.exhausted, true);
});

Deno.test("Repair.alarm stays once the budget is passed, and what was damaged is sent again all the same", () => {
  using wire = new Wire({ budgetBytes: 3 * 4096, alarmBytes: 4096 });
  wire.write(0, 0, 7);
  wire.write(0, 1, 8);
  for (let record = 0; record < 2; record++) {
    wire.deliver(true);
    wire.answer();
    wire.repair.goOn();
  }
  assert.ok(!wire.repair.exhausted);
  // Frames that somebody put in count as well, and their numbers are used up.
  const { lastSequence } = wire.sealer;
  wire.repair.damaged(lastSequence + 1);
  assert.equal(wire.sealer.lastSequence, lastSequence + 1);
  wire.repair.goOn();
  assert.equal(wire.repair.alarm?.code, "tampering");
  assert.ok(wire.repair.exhausted);
  while (wire.repair.resend());
  assert.equal(wire.repair.repairedPages, 2);
});

Deno.test("Repair.damaged() refuses more than the destination can find damaged before it gives up", () => {
  using wire = new Wire({ budgetBytes: 2 * 4096 });
  // The third passes its budget.
  for (let sequence = 1; sequence <= 3; sequence++) wire.repair.damaged(sequence);
  const broken = { name: "MigrationError", code: "protocol" };
  assert.throws(() => wire.repair.damaged(4), broken);
  assert.throws(() => wire.repair.damaged(60_000), broken);
  assert.equal(wire.repair.mistakes, 5);
});

Deno.test("Repair keeps a piece that its suite could not seal, and fails again at goOn()", () => {
  let fails = false;
  using wire = new Wire({ suites: suites.map((suite) => failingSuite(suite, () => fails)) });
  wire.sealer.stream("setup", new Uint8Array(10).fill(3));
  wire.window.flush();
  assert.ok(wire.deliver(true));
  fails = true;
  const failed = { name: "CipherError" };
  assert.throws(() => wire.answer(), failed);
  assert.throws(() => wire.repair.goOn(), failed);
  assert.throws(() => wire.repair.goOn(), failed);
});

Deno.test("Repair.digest() is that of the sequences it was told of", () => {
  using wire = new Wire();
  for (let page = 0; page < 3; page++) wire.write(0, page, 0);
  const empty = wire.repair.digest();
  wire.repair.damaged(3);
  wire.repair.damaged(1);
  assert.equal(wire.repair.digest().count, 2);
  assert.notEqual(wire.repair.digest().sha256, empty.sha256);
});
