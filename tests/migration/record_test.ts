import assert from "node:assert/strict";
import fc from "fast-check";
import { guardSealer } from "../../ciphers/guard.ts";
import { paperSuites } from "../../ciphers/paper_suites.ts";
import { defaultRegistry } from "../../ciphers/registry.ts";
import type { CipherSuite } from "../../ciphers/suite.ts";
import { MigrationError } from "../../migration/errors.ts";
import { KeySchedule } from "../../migration/key_schedule.ts";
import {
  FRAME_HEADER_BYTES,
  MAX_KEY_NUMBER_LEAD,
  MAX_SETUP_BYTES,
  MAX_STREAM_PIECE_BYTES,
  MAX_ZEROS_PER_RECORD,
  PAGE_BYTES,
  PAGES_PER_RECORD,
  RECORD_HEADER_BYTES,
} from "../../migration/limits.ts";
import type { PageClass } from "../../migration/messages.ts";
import { MistakeBitmap } from "../../migration/mistake_bitmap.ts";
import { PaperBodyWriter } from "../../migration/paper_bodies.ts";
import {
  readRecordHeader,
  readUint64,
  recordTypes,
  SequenceNonce,
  writeRecordHeader,
  writeUint64,
} from "../../migration/record.ts";
import { type OpenedRecord, RecordOpener } from "../../migration/record_opener.ts";
import { RecordSealer } from "../../migration/record_sealer.ts";
import { Rounds } from "../../migration/rounds.ts";
import { SealedBodyReader, SealedBodyWriter } from "../../migration/sealed_bodies.ts";
import { SealedWindow } from "../../migration/window.ts";
import { failingSuite } from "../support/failing_suite.ts";

const registry = defaultRegistry();
const secret = new Uint8Array(32).fill(9);
const blocks = [{ name: "a", bytes: 10_000 * PAGE_BYTES }, { name: "b", bytes: 20 * PAGE_BYTES }];
const suites = [registry.get("aes-256-gcm"), registry.get("chacha20-poly1305")];
const suiteOf: Record<PageClass, number> = { user: 0, kernelText: 1, kernelData: 1, unmapped: 0 };
const lost = { name: "MigrationError", code: "cut" };
const broken = { name: "MigrationError", code: "protocol" };
const clock = { now: () => 0, date: () => new Date(0), timer: () => ({ clear: () => {} }) };

/** A sealer, and the payloads of the DATA frames that it made. */
function sealing() {
  const payloads: Uint8Array[] = [];
  const schedule = new KeySchedule(secret);
  const window = new SealedWindow(2 ** 30, (slab) => {
    for (let at = 0; at < slab.usedBytes;) {
      const length = slab.view.getUint32(at + 4);
      assert.equal(slab.bytes[at], 2);
      at += FRAME_HEADER_BYTES;
      payloads.push(slab.bytes.slice(at, at + length));
      at += length;
    }
  });
  const rounds = new Rounds(blocks, clock);
  const mistakes = new MistakeBitmap(blocks);
  const bodies = new SealedBodyWriter({ schedule, suites, suiteOf });
  const sealer = new RecordSealer({ bodies, window, rounds, mistakes, lane: 0 });
  return {
    sealer,
    rounds,
    payloads: () => {
      window.flush();
      return payloads;
    },
    [Symbol.dispose]: () => {
      sealer[Symbol.dispose]();
      schedule[Symbol.dispose]();
    },
  };
}

function opening(overSuites: readonly CipherSuite[] = suites) {
  const schedule = new KeySchedule(secret);
  const bodies = new SealedBodyReader({ schedule, suites: overSuites });
  const opener = new RecordOpener({ bodies, lane: 0, blocks });
  return {
    opener,
    [Symbol.dispose]: () => {
      opener[Symbol.dispose]();
      schedule[Symbol.dispose]();
    },
  };
}

/** Seals any plaintext under any header: what only somebody with the keys can do. */
function forge(
  plaintext: Uint8Array,
  { sequence = 1, suite = 0, keyNumber = 0 }: {
    sequence?: number;
    suite?: number;
    keyNumber?: number;
  } = {},
): Uint8Array {
  const cipher = suites[suite]!;
  using schedule = new KeySchedule(secret);
  using sealer = guardSealer(
    cipher,
    schedule.dataKey({ lane: 0, keyNumber, suiteId: cipher.id, keyBytes: cipher.keyBytes }),
  );
  const payload = new Uint8Array(RECORD_HEADER_BYTES + plaintext.length + cipher.tagBytes);
  const bodyLength = plaintext.length + cipher.tagBytes;
  writeRecordHeader(new DataView(payload.buffer), 0, {
    suite,
    lane: 0,
    keyNumber,
    sequence,
    bodyLength,
  });
  sealer.begin(
    new SequenceNonce(cipher.nonceBytes).of(sequence),
    payload.subarray(0, RECORD_HEADER_BYTES),
  );
  const tagAt = payload.length - cipher.tagBytes;
  sealer.update(plaintext, payload.subarray(RECORD_HEADER_BYTES, tagAt));
  sealer.finish(payload.subarray(tagAt));
  return payload;
}

function plain(type: number, ...rest: (number | Uint8Array)[]): Uint8Array {
  return Uint8Array.from([
    type,
    ...rest.flatMap((part) => typeof part === "number" ? part : [...part]),
  ]);
}

function u32(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(4 * values.length);
  values.forEach((value, i) => new DataView(bytes.buffer).setUint32(4 * i, value));
  return bytes;
}

function page(fill: number): Uint8Array {
  return new Uint8Array(PAGE_BYTES).fill(fill);
}

/** A copy that outlives the next `open`. */
function kept(record: OpenedRecord): OpenedRecord {
  return structuredClone(record);
}

Deno.test("RecordOpener gives back what RecordSealer was given, in order", () => {
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant("page" as const),
        page: fc.nat(19),
        block: fc.nat(1),
        fill: fc.integer({ min: 1, max: 255 }),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant("zero" as const),
        page: fc.nat(19),
        block: fc.nat(1),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("drained" as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("round" as const) }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150 }), (steps) => {
      using source = sealing();
      using destination = opening();
      // What memory would be if everything went as it was said; a round ends before a page comes again.
      const said = new Map<string, number>();
      const { sealer, rounds } = source;
      for (const one of steps) {
        if (one.kind === "drained") sealer.sealOpen();
        else if (one.kind === "round") {
          sealer.endRound();
          rounds.next();
        } else {
          if (rounds.seenBefore(one.block, one.page)) {
            sealer.endRound();
            rounds.next();
            rounds.seenBefore(one.block, one.page);
          }
          const key = `${one.block}:${one.page}`;
          if (one.kind === "page") sealer.page(one.block, one.page, page(one.fill));
          else sealer.zero(one.block, one.page);
          said.set(key, one.kind === "page" ? one.fill : 0);
        }
      }
      sealer.endRound();
      const got = new Map<string, number>();
      for (const payload of source.payloads()) {
        const record = destination.opener.open(payload);
        if (record.type === "pages") {
          record.pages.forEach((number, i) => {
            const bytes = record.bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
            assert.ok(bytes.every((byte) => byte === bytes[0]));
            got.set(`${record.block}:${number}`, bytes[0]!);
          });
        } else if (record.type === "zeros") {
          record.pages.forEach((number) => got.set(`${record.block}:${number}`, 0));
        } else assert.equal(record.type, "round");
      }
      assert.deepEqual([...got].sort(), [...said].sort());
      assert.equal(destination.opener.nextSequence, sealer.lastSequence + 1);
    }),
    { numRuns: 60 },
  );
});

Deno.test("RecordSealer keeps its key for as many records as PROTOCOL.md section 4 says", () => {
  using source = sealing();
  const bodies = new SealedBodyWriter({ schedule: new KeySchedule(secret), suites, suiteOf });
  assert.equal(bodies.maxPerKey.records, 2 ** 20);
  assert.equal(bodies.maxPerKey.bytes, 64 * 2 ** 30);
  for (let i = 0; i < 200; i++) {
    source.sealer.zero(0, i);
    source.sealer.sealOpen();
  }
  for (const payload of source.payloads()) {
    assert.equal(readRecordHeader(new DataView(payload.buffer), 0)!.keyNumber, 0);
  }
});

Deno.test("RecordSealer fills records up to their caps", () => {
  using source = sealing();
  using destination = opening();
  for (let i = 0; i < PAGES_PER_RECORD + 1; i++) source.sealer.page(0, i, page(i + 1));
  for (let i = 0; i < MAX_ZEROS_PER_RECORD + 1; i++) source.sealer.zero(0, i);
  source.sealer.sealOpen();
  const counts = source.payloads().map((payload) => {
    const record = destination.opener.open(payload);
    assert.ok(record.type === "pages" || record.type === "zeros");
    return record.pages.length;
  });
  assert.deepEqual(counts, [PAGES_PER_RECORD, MAX_ZEROS_PER_RECORD, 1, 1]);
});

Deno.test("RecordSealer.stream() seals SETUP and STATE in pieces by offset", () => {
  using source = sealing();
  using destination = opening();
  const bytes = Uint8Array.from({ length: 2 * MAX_STREAM_PIECE_BYTES + 5 }, (_, i) => i);
  source.sealer.stream("setup", bytes);
  let filled = 0;
  for (const payload of source.payloads()) {
    const record = destination.opener.open(payload);
    assert.ok(record.type === "setup");
    assert.equal(record.offset, filled);
    assert.equal(record.total, bytes.length);
    assert.deepEqual(record.bytes, bytes.subarray(filled, filled + record.bytes.length));
    filled += record.bytes.length;
  }
  assert.equal(filled, bytes.length);
});

Deno.test("RecordSealer numbers records without a gap and rounds with keys of their own", () => {
  using source = sealing();
  const { sealer, rounds } = source;
  for (let round = 0; round < 3; round++) {
    sealer.page(0, 1, page(1));
    sealer.endRound();
    rounds.next();
  }
  const headers = source.payloads().map((payload) =>
    readRecordHeader(new DataView(payload.buffer), 0)!
  );
  assert.deepEqual(headers.map(({ sequence }) => sequence), [1, 2, 3, 4, 5, 6]);
  assert.deepEqual(headers.map(({ keyNumber }) => keyNumber), [0, 0, 1, 1, 2, 2]);
  // Pages by their own class, ROUND by kernelData's.
  assert.deepEqual(headers.map(({ suite }) => suite), [0, 1, 0, 1, 0, 1]);
});

for (const profile of ["sealed", "paper"] as const) {
  Deno.test(`RecordSealer leaves nothing of a page where its suite failed, profile ${profile}`, () => {
    const failing = (suite: CipherSuite) => failingSuite(suite, () => true);
    using schedule = new KeySchedule(secret);
    const window = new SealedWindow(2 ** 30, () => {});
    using sealer = new RecordSealer({
      bodies: profile === "sealed"
        ? new SealedBodyWriter({ schedule, suites: suites.map(failing), suiteOf })
        : new PaperBodyWriter({ suite: failing(paperSuites()[0]!), nowMs: () => 0 }),
      window,
      rounds: new Rounds(blocks, clock),
      mistakes: new MistakeBitmap(blocks),
      lane: 0,
    });
    // Its memory may be waiting to be written for what it held before.
    const { bytes } = window.reserve(1);
    sealer.page(0, 0, new Uint8Array(PAGE_BYTES).fill(0x53));
    assert.throws(() => sealer.sealOpen(), { name: "CipherError" });
    assert.equal(bytes.indexOf(0x53), -1);
  });
}

Deno.test("RecordOpener hands out nothing of a record with any one bit flipped", () => {
  using source = sealing();
  source.sealer.page(0, 3, page(7));
  source.sealer.sealOpen();
  source.sealer.zero(1, 2);
  source.sealer.sealOpen();
  source.sealer.stream("state", new Uint8Array(50).fill(3));
  const records = source.payloads();
  fc.assert(
    fc.property(fc.nat(2), fc.nat(10_000), fc.nat(7), (which, place, bit) => {
      using destination = opening();
      for (const before of records.slice(0, which)) destination.opener.open(before);
      const damaged = records[which]!.slice();
      const at = place % damaged.length;
      damaged[at]! ^= 1 << bit;
      let record: OpenedRecord;
      try {
        record = destination.opener.open(damaged);
      } catch (error) {
        assert.ok(at < RECORD_HEADER_BYTES, `byte ${at} ends the connection`);
        assert.equal((error as { code?: string }).code, "cut");
        // Another connection goes on from here.
        assert.notEqual(destination.opener.open(records[which]!).type, "mistake");
        return;
      }
      assert.deepEqual(record, { type: "mistake" });
      assert.equal(destination.opener.nextSequence, which + 2);
      // What follows opens as if nothing had been.
      const next = records[which + 1];
      if (next !== undefined) assert.notEqual(destination.opener.open(next).type, "mistake");
    }),
    { numRuns: 400 },
  );
});

Deno.test("RecordOpener opens nothing more once its suite has failed or forgeries have used its key up", () => {
  using source = sealing();
  for (let page = 0; page < 3; page++) {
    source.sealer.page(0, page, new Uint8Array(PAGE_BYTES).fill(page));
    source.sealer.sealOpen();
  }
  const [first, second, third] = source.payloads();
  const few = suites.map((suite) => ({ ...suite, maxMessagesPerKey: 2 }));
  using destination = opening(few);
  const { opener } = destination;
  assert.equal(opener.open(first!).type, "pages");
  const forged = second!.slice();
  forged[forged.length - 1]! ^= 1;
  assert.deepEqual(opener.open(forged), { type: "mistake" });
  for (const payload of [third!, third!]) {
    assert.throws(
      () => opener.open(payload),
      (error) => error instanceof MigrationError && error.code === "vm",
    );
  }
});

Deno.test("RecordOpener takes no part of a record, no record twice and none out of order", () => {
  using source = sealing();
  for (let i = 0; i < 3; i++) {
    source.sealer.page(0, i, page(i));
    source.sealer.sealOpen();
  }
  const [first, second, third] = source.payloads() as [Uint8Array, Uint8Array, Uint8Array];
  for (const wrong of [first, third]) {
    using destination = opening();
    destination.opener.open(first);
    assert.throws(() => destination.opener.open(wrong), lost);
  }
  for (let length = RECORD_HEADER_BYTES + 16; length < second.length; length += 97) {
    using destination = opening();
    destination.opener.open(first);
    assert.throws(() => destination.opener.open(second.subarray(0, length)), lost);
  }
});

Deno.test("RecordOpener advances its key number by a record that opened alone", () => {
  const zeros = plain(recordTypes.zeros, 0, 0, 1, u32(5));
  using destination = opening();
  const { opener } = destination;
  const far = forge(zeros, { keyNumber: MAX_KEY_NUMBER_LEAD });
  assert.equal(opener.open(far.with(30, far[30]! ^ 1)).type, "mistake");
  assert.equal(opener.open(forge(zeros, { sequence: 2, keyNumber: 0 })).type, "zeros");
  assert.equal(opener.open(forge(zeros, { sequence: 3, keyNumber: 7 })).type, "zeros");
  assert.equal(opener.open(forge(zeros, { sequence: 4, keyNumber: 7, suite: 1 })).type, "zeros");
  assert.throws(() => opener.open(forge(zeros, { sequence: 5, keyNumber: 6 })), lost);
  using other = opening();
  assert.throws(
    () => other.opener.open(forge(zeros, { keyNumber: MAX_KEY_NUMBER_LEAD + 1 })),
    lost,
  );
});

const malformed: Record<string, Uint8Array> = {
  "an unknown type": plain(0, 1),
  "type 6": plain(6, new Uint8Array(20)),
  "PAGES without a count": plain(recordTypes.pages, 0),
  "PAGES of no page": plain(recordTypes.pages, 0, 0),
  "PAGES of more than 64": plain(recordTypes.pages, 0, 65, new Uint8Array(65 * 4)),
  "PAGES with a byte too few": plain(recordTypes.pages, 0, 1, u32(1), new Uint8Array(4095)),
  "PAGES with a byte too many": plain(recordTypes.pages, 0, 1, u32(1), new Uint8Array(4097)),
  "PAGES outside their block": plain(recordTypes.pages, 1, 1, u32(20), new Uint8Array(4096)),
  "PAGES of a block that is not": plain(recordTypes.pages, 2, 1, u32(0), new Uint8Array(4096)),
  "ZEROS of no page": plain(recordTypes.zeros, 0, 0, 0),
  "ZEROS with a list too short": plain(recordTypes.zeros, 0, 0, 2, u32(1)),
  "ZEROS outside their block": plain(recordTypes.zeros, 1, 0, 2, u32(1, 2 ** 32 - 1)),
  "SETUP without a byte": plain(recordTypes.setup, u32(0, 10)),
  "SETUP over its total": plain(recordTypes.setup, u32(5, 6), new Uint8Array(2)),
  "SETUP over its cap": plain(recordTypes.setup, u32(0, MAX_SETUP_BYTES + 1), new Uint8Array(2)),
  "STATE whose end wraps": plain(
    recordTypes.state,
    u32(2 ** 32 - 1, 2 ** 32 - 1),
    new Uint8Array(9),
  ),
  "ROUND that is short": plain(recordTypes.round, new Uint8Array(19)),
};

for (const [what, plaintext] of Object.entries(malformed)) {
  Deno.test(`RecordOpener refuses ${what}, though it is sealed`, () => {
    using destination = opening();
    assert.throws(() => destination.opener.open(forge(plaintext)), broken);
    // It was authentic: its sender stays broken on any connection.
    const fine = forge(plain(recordTypes.zeros, 0, 0, 1, u32(5)), { sequence: 2 });
    assert.throws(() => destination.opener.open(fine), broken);
  });
}

Deno.test("RecordOpener lets its views live until the next record", () => {
  using destination = opening();
  const { opener } = destination;
  const first = opener.open(forge(plain(recordTypes.pages, 0, 1, u32(9), page(1))));
  assert.ok(first.type === "pages");
  const copy = kept(first);
  assert.deepEqual(first, copy);
  opener.open(forge(plain(recordTypes.pages, 0, 1, u32(8), page(2)), { sequence: 2 }));
  assert.notDeepEqual(first, copy);
});

Deno.test("readRecordHeader() gives back what writeRecordHeader() wrote, and refuses the rest", () => {
  fc.assert(fc.property(
    fc.nat(255),
    fc.nat(65_535),
    fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    fc.maxSafeNat(),
    fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    (suite, lane, keyNumber, sequence, bodyLength) => {
      const header = { suite, lane, keyNumber, sequence, bodyLength };
      const bytes = new Uint8Array(RECORD_HEADER_BYTES);
      const view = new DataView(bytes.buffer);
      writeRecordHeader(view, 0, header);
      assert.deepEqual(readRecordHeader(view, 0), header);
      for (const at of [1, 20, 21, 22, 23, 8]) {
        const old = bytes[at]!;
        bytes[at] = old | 0x80;
        assert.equal(readRecordHeader(view, 0), null, `byte ${at}`);
        bytes[at] = old;
      }
    },
  ));
});

Deno.test("writeUint64() and SequenceNonce write big-endian, zeros on the left", () => {
  const bytes = new Uint8Array(8);
  writeUint64(new DataView(bytes.buffer), 0, 2 ** 40 + 3);
  assert.deepEqual(bytes, Uint8Array.of(0, 0, 1, 0, 0, 0, 0, 3));
  assert.equal(readUint64(new DataView(bytes.buffer), 0), 2 ** 40 + 3);
  assert.deepEqual(
    new SequenceNonce(12).of(258),
    Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2),
  );
});
