import assert from "node:assert/strict";
import fc from "fast-check";
import { paperSuites } from "../../ciphers/mod.ts";
import { MigrationError } from "../../migration/errors.ts";
import {
  FRAME_HEADER_BYTES,
  MAX_PAPER_PAGES_PER_RECORD,
  MAX_RECORD_BODY_BYTES,
  MAX_STREAM_PIECE_BYTES,
  MAX_ZEROS_PER_RECORD,
  PAGE_BYTES,
  PAPER_TIME_WINDOW_MS,
  RECORD_HEADER_BYTES,
} from "../../migration/limits.ts";
import { MistakeBitmap } from "../../migration/mistake_bitmap.ts";
import { PaperBodyReader, PaperBodyWriter } from "../../migration/paper_bodies.ts";
import type { PageClass } from "../../migration/messages.ts";
import type { RecordHeader } from "../../migration/record.ts";
import type { BodyContent } from "../../migration/record_bodies.ts";
import { RecordParser } from "../../migration/record_content.ts";
import { RecordOpener } from "../../migration/record_opener.ts";
import { RecordSealer } from "../../migration/record_sealer.ts";
import { Repair } from "../../migration/repair.ts";
import { Rounds } from "../../migration/rounds.ts";
import { SecurityDecoder } from "../../migration/security.ts";
import { SealedWindow } from "../../migration/window.ts";

const suites = paperSuites();
const suite = suites[0]!;
/** Where the plaintext starts in a record: behind the time. */
const HEAD_AT = RECORD_HEADER_BYTES + 8;
const startMs = Date.UTC(2024, 0, 1);
const blocks = [{ name: "pc.ram", bytes: 2 ** 30 }];

/** A clock that stands until it is moved. */
function clockAt(ms: number): { ms: number; now: () => number } {
  const clock = { ms, now: () => clock.ms };
  return clock;
}

/** PAGES of block 0, page n with text n. */
function pagesOf(texts: string[], pageClass: PageClass = "user"): BodyContent {
  const head = new Uint8Array(3 + 4 * texts.length);
  head.set([1, 0, texts.length]);
  texts.forEach((_, i) => new DataView(head.buffer).setUint32(3 + 4 * i, i));
  const pieces = texts.map((text) => {
    const page = new Uint8Array(PAGE_BYTES).fill(0x2e);
    page.set(new TextEncoder().encode(text), 100);
    return page;
  });
  return contentOf(head, { pieces, pageClass });
}

function contentOf(
  head: Uint8Array,
  { pieces = [], pageClass = "kernelData" }: { pieces?: Uint8Array[]; pageClass?: PageClass } = {},
): BodyContent {
  const pieceBytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
  return { head, pieces, count: pieces.length, pieceBytes, pageClass };
}

/** A whole record; the header is nothing to the paper. */
function write(writer: PaperBodyWriter, content: BodyContent): Uint8Array {
  const record = new Uint8Array(RECORD_HEADER_BYTES + writer.bodyBytes(content));
  writer.write(content, record);
  return record;
}

/** What it held, in a view of its own; null when it was damaged. */
function read(reader: PaperBodyReader, record: Uint8Array): Uint8Array | null {
  const bodyLength = record.length - RECORD_HEADER_BYTES;
  const header: RecordHeader = { suite: 0, lane: 0, keyNumber: 0, sequence: 1, bodyLength };
  return reader.fits(header) ? reader.read(record)?.slice() ?? null : null;
}

function plaintextOf({ head, pieces }: BodyContent): Uint8Array {
  return Uint8Array.from([head, ...pieces].flatMap((bytes) => [...bytes]));
}

function includes(bytes: Uint8Array, text: string): boolean {
  return new TextDecoder("latin1").decode(bytes).includes(text);
}

const others: Record<string, BodyContent> = {
  zeros: contentOf(Uint8Array.of(2, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 9), { pageClass: "user" }),
  setup: contentOf(Uint8Array.of(3, 0, 0, 0, 0, 0, 0, 0, 3), {
    pieces: [Uint8Array.of(1, 2, 3)],
  }),
  state: contentOf(Uint8Array.of(4, 0, 0, 0, 0, 0, 4, 0, 0), {
    pieces: [new Uint8Array(MAX_STREAM_PIECE_BYTES).fill(9)],
  }),
  round: contentOf(Uint8Array.of(5, ...new Uint8Array(20).fill(1))),
};

for (const suite of suites) {
  Deno.test(`PaperBodyReader.read() gives the sealed profile's plaintext back (${suite.id})`, () => {
    const clock = clockAt(startMs);
    using writer = new PaperBodyWriter({ suite, nowMs: clock.now });
    using reader = new PaperBodyReader({ suite, nowMs: clock.now });
    const parser = new RecordParser(blocks);
    for (let round = 0; round < 3; round++) {
      for (const count of [1, 2, writer.maxPages]) {
        const texts = Array.from({ length: count }, (_, i) => `page ${round} ${i}`);
        for (const pageClass of ["user", "kernelText", "kernelData", "unmapped"] as const) {
          const content = pagesOf(texts, pageClass);
          const plaintext = read(reader, write(writer, content))!;
          assert.deepEqual(plaintext, plaintextOf(content));
          assert.equal(parser.parse(plaintext).type, "pages");
        }
      }
      for (const [type, content] of Object.entries(others)) {
        const plaintext = read(reader, write(writer, content))!;
        assert.deepEqual(plaintext, plaintextOf(content));
        assert.equal(parser.parse(plaintext).type, type);
      }
      writer.dropKeys();
      clock.ms += 250;
    }
  });
}

Deno.test("PaperBodyWriter.bodyBytes() fits into the frame of a sealed record, with the longest v too", () => {
  using writer = new PaperBodyWriter({
    suite: { ...suite, nonceBytes: 16 },
    nowMs: () => startMs,
  });
  const largest = [
    pagesOf(new Array(MAX_PAPER_PAGES_PER_RECORD).fill("")),
    contentOf(new Uint8Array(4 + 4 * MAX_ZEROS_PER_RECORD).fill(2)),
    others.state!,
  ];
  for (const content of largest) assert(writer.bodyBytes(content) <= MAX_RECORD_BODY_BYTES);
});

Deno.test("PaperBodyWriter.dropKeys() changes the keys, except for the suite that keeps one", () => {
  const content = pagesOf(["the same page"]);
  const timestampAt = RECORD_HEADER_BYTES;
  for (const suite of suites.filter(({ id }) => id !== "none")) {
    using writer = new PaperBodyWriter({ suite, nowMs: () => startMs });
    const before = write(writer, content);
    writer.dropKeys();
    const after = write(writer, content);
    const times = [before, after].map((record) =>
      Number(new DataView(record.buffer).getBigUint64(timestampAt))
    );
    // Two rounds within one millisecond, still two times.
    assert.deepEqual(times, [startMs, suite.id === "rc4" ? startMs : startMs + 1], suite.id);
    assert.notDeepEqual(before.subarray(timestampAt + 8), after.subarray(timestampAt + 8));
  }
});

Deno.test("PaperBodyReader.read() skips damaged and malformed bodies, and reads the next one", () => {
  const nowMs = () => startMs;
  using writer = new PaperBodyWriter({ suite, nowMs });
  using reader = new PaperBodyReader({ suite, nowMs });
  const bodyAt = RECORD_HEADER_BYTES;
  for (const content of [pagesOf(["one", "two"]), ...Object.values(others)]) {
    const record = write(writer, content);
    const last = record.slice();
    last[record.length - 1]! ^= 1;
    const flag = record.slice();
    // Of pages: neither hidden nor in clear. Of the others: a byte of v.
    flag[content.head[0] === 1 ? bodyAt + 8 + 3 + 8 : record.length - 12] = 2;
    const longer = new Uint8Array(record.length + 1);
    longer.set(record);
    const bad = [
      ...[bodyAt, bodyAt + 8, bodyAt + 9, bodyAt + 21, record.length - 1].map((end) =>
        record.subarray(0, end)
      ),
      ...[longer, last, flag],
    ];
    for (const bytes of bad) {
      assert.equal(read(reader, bytes), null, `${bytes.length} of ${record.length} bytes`);
    }
    assert.deepEqual(read(reader, record), plaintextOf(content));
  }
});

Deno.test("PaperBodyReader.read() takes any bytes for a mistake or an illegal time, nothing else", () => {
  using reader = new PaperBodyReader({ suite, nowMs: () => startMs });
  fc.assert(fc.property(fc.uint8Array({ maxLength: 9000 }), fc.boolean(), (bytes, inTime) => {
    const record = new Uint8Array(RECORD_HEADER_BYTES + 8 + bytes.length);
    record.set(bytes, RECORD_HEADER_BYTES + (inTime ? 8 : 0));
    if (inTime) new DataView(record.buffer).setBigUint64(RECORD_HEADER_BYTES, BigInt(startMs));
    try {
      assert.equal(read(reader, record), null);
    } catch (error) {
      assert(error instanceof MigrationError && error.code === "tampering" && !inTime);
    }
  }));
});

Deno.test("PaperBodyReader.read() stops the migration when a time is outside the window", () => {
  for (const offMs of [PAPER_TIME_WINDOW_MS + 1, -PAPER_TIME_WINDOW_MS - 1]) {
    using writer = new PaperBodyWriter({ suite, nowMs: () => startMs });
    using reader = new PaperBodyReader({ suite, nowMs: () => startMs + offMs });
    const record = write(writer, pagesOf(["late"]));
    assert.throws(() => read(reader, record), {
      code: "tampering",
      message: /60 s are acceptable/,
    });
  }
});

Deno.test("PaperBodyReader.read() judges a time once: a round may last longer than the window", () => {
  const clock = clockAt(startMs);
  using writer = new PaperBodyWriter({ suite, nowMs: clock.now });
  using reader = new PaperBodyReader({ suite, nowMs: clock.now });
  assert.notEqual(read(reader, write(writer, pagesOf(["first"]))), null);
  clock.ms += 2 * PAPER_TIME_WINDOW_MS;
  // A time that was damaged on the way does not replace the round's.
  const damaged = write(writer, pagesOf(["second"]));
  new DataView(damaged.buffer).setBigUint64(RECORD_HEADER_BYTES, BigInt(clock.ms));
  assert.equal(read(reader, damaged), null);
  assert.notEqual(read(reader, write(writer, pagesOf(["third"]))), null);
});

Deno.test("PaperBodyWriter.reopen() opens our own copy whatever its time, and says when it changed", () => {
  const clock = clockAt(startMs);
  using writer = new PaperBodyWriter({ suite, nowMs: clock.now });
  const content = pagesOf(["a copy of the window"]);
  const record = write(writer, content);
  writer.dropKeys();
  clock.ms += 2 * PAPER_TIME_WINDOW_MS;
  assert.deepEqual(writer.reopen(record), plaintextOf(content));
  record[record.length - 1]! ^= 1;
  assert.throws(() => writer.reopen(record), { code: "protocol" });
});

for (const suite of suites) {
  Deno.test(`PaperBodyWriter serves a lane: classes, rounds, a mistake and its repair (${suite.id})`, () => {
    const clock = { now: () => 0, date: () => new Date(startMs), timer: () => ({ clear() {} }) };
    const nowMs = () => clock.date().getTime();
    const payloads: Uint8Array[] = [];
    const window = new SealedWindow(2 ** 24, (slab) => {
      for (let at = 0; at < slab.usedBytes;) {
        const end = at + FRAME_HEADER_BYTES + slab.view.getUint32(at + 4);
        payloads.push(slab.bytes.slice(at + FRAME_HEADER_BYTES, end));
        at = end;
      }
    });
    const bodies = new PaperBodyWriter({ suite, nowMs });
    const bitmap = new MistakeBitmap(blocks);
    // Even pages are the kernel's.
    const classOf = (_: number, page: number) => page % 2 === 0 ? "kernelData" : "user";
    const summary = { addressSpaces: 1, refreshes: 0, lastRefreshMs: 0, failed: 0, why: null };
    using sealer = new RecordSealer({
      bodies,
      window,
      rounds: new Rounds(blocks, clock),
      mistakes: bitmap,
      classifier: { classOf, refresh() {}, refreshIfDue() {}, summary: () => summary },
      lane: 0,
    });
    const budgetBytes = 2 ** 24;
    const limits = { budgetBytes, alarmBytes: budgetBytes };
    const repair = new Repair({ bodies, window, sealer, bitmap, blocks, ...limits });
    using opener = new RecordOpener({
      bodies: new PaperBodyReader({ suite, nowMs }),
      lane: 0,
      blocks,
    });

    const memory = new Map<number, string>();
    const arrive = (damage = (_: Uint8Array) => {}) => {
      window.flush();
      const mistakes: number[] = [];
      for (const payload of payloads.splice(0)) {
        damage(payload);
        const record = opener.open(payload);
        if (record.type === "mistake") mistakes.push(opener.nextSequence - 1);
        if (record.type !== "pages") continue;
        record.pages.forEach((page, i) => {
          const bytes = record.bytes.subarray(i * PAGE_BYTES, i * PAGE_BYTES + 8);
          memory.set(page, new TextDecoder().decode(bytes).trimEnd());
        });
      }
      return mistakes;
    };
    const pages = 150;
    const take = (version: string) => {
      for (let page = 0; page < pages; page++) {
        const bytes = new Uint8Array(PAGE_BYTES).fill(0x20);
        bytes.set(new TextEncoder().encode(`${version}${page}`));
        sealer.page(0, page, bytes);
      }
    };

    sealer.stream("setup", new Uint8Array(100));
    take("a");
    sealer.endRound();
    assert.deepEqual(arrive(), []);
    assert.equal(memory.get(149), "a149");
    take("b");
    sealer.sealOpen();
    const mistakes = arrive((payload) => {
      // One byte of every body with pages.
      if (payload[HEAD_AT] === 1) payload[payload.length - 50]! ^= 1;
    });
    assert.equal(mistakes.length, 4);
    assert.equal(memory.get(149), "a149");
    sealer.endRound();
    for (const mistake of mistakes) repair.damaged(mistake);
    for (const _ of mistakes) assert.equal(repair.resend(), true);
    assert.equal(repair.resend(), false);
    assert.deepEqual(arrive(), []);
    for (let page = 0; page < pages; page++) assert.equal(memory.get(page), `b${page}`);
  });
}

// ---- What the paper promises and this does not give. The sealed profile refuses each of these. ----

Deno.test("attack: a captured record alone is enough to read its user pages", () => {
  using writer = new PaperBodyWriter({ suite, nowMs: () => startMs });
  const captured = write(writer, pagesOf(["centospassword"]));
  assert.equal(includes(captured, "centospassword"), false);
  // Who listens has the time and the generator; the key never travelled, and need not.
  const body = captured.subarray(RECORD_HEADER_BYTES);
  const timestampMs = Number(new DataView(captured.buffer, body.byteOffset).getBigUint64(0));
  using decoder = new SecurityDecoder({ suite, timestampMs });
  const page = new Uint8Array(PAGE_BYTES);
  // Behind timestamp, type, block, count, one page number and the flag.
  const unit = body.subarray(8 + 3 + 4 + 1);
  assert.equal(decoder.decode(unit, { isUser: true, into: page }), true);
  assert(includes(page, "centospassword"));
});

Deno.test("attack: system pages and what is no page are read from the wire", () => {
  using writer = new PaperBodyWriter({ suite, nowMs: () => startMs });
  assert(includes(write(writer, pagesOf(["in a pipe"], "kernelData")), "in a pipe"));
  const registers = new TextEncoder().encode("in a CPU register");
  const head = Uint8Array.of(4, 0, 0, 0, 0, 0, 0, 0, registers.length);
  assert(includes(write(writer, contentOf(head, { pieces: [registers] })), "in a CPU register"));
});

Deno.test("attack: page numbers are changed on the way and pass", () => {
  const nowMs = () => startMs;
  using writer = new PaperBodyWriter({ suite, nowMs });
  using reader = new PaperBodyReader({ suite, nowMs });
  const record = write(writer, pagesOf(["page 0", "page 1"]));
  const list = new DataView(record.buffer, RECORD_HEADER_BYTES + 8 + 3);
  list.setUint32(0, 1);
  list.setUint32(4, 0);
  const landed = new RecordParser(blocks).parse(read(reader, record)!);
  assert(landed.type === "pages");
  assert.deepEqual([...landed.pages], [1, 0]);
  assert(includes(landed.bytes.subarray(0, PAGE_BYTES), "page 0"));
});

Deno.test("attack: a record of an earlier round is taken again inside the window", () => {
  const clock = clockAt(startMs);
  using writer = new PaperBodyWriter({ suite, nowMs: clock.now });
  using reader = new PaperBodyReader({ suite, nowMs: clock.now });
  const old = write(writer, pagesOf(["old version"]));
  assert.notEqual(read(reader, old), null);
  clock.ms += PAPER_TIME_WINDOW_MS / 2;
  writer.dropKeys();
  assert.notEqual(read(reader, write(writer, pagesOf(["new version"]))), null);
  assert(includes(read(reader, old)!, "old version"));
});

Deno.test("attack: whoever has a clock can be the source", () => {
  const nowMs = () => startMs;
  // No secret goes in: neither end ever proved who it is.
  using stranger = new PaperBodyWriter({ suite, nowMs });
  using reader = new PaperBodyReader({ suite, nowMs });
  assert.notEqual(read(reader, write(stranger, pagesOf(["from a stranger"]))), null);
});
