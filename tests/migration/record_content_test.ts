import assert from "node:assert/strict";
import fc from "fast-check";
import { MigrationError } from "../../migration/errors.ts";
import {
  MAX_PAGES_PER_RECORD,
  MAX_SETUP_BYTES,
  MAX_STATE_BYTES,
  MAX_STREAM_PIECE_BYTES,
  MAX_ZEROS_PER_RECORD,
  PAGE_BYTES,
} from "../../migration/limits.ts";
import { recordTypes, writeUint64 } from "../../migration/record.ts";
import { type RecordContent, RecordParser } from "../../migration/record_content.ts";

/** The second block ends in the middle of a page. */
const blocks = [
  { name: "a", bytes: 9_000 * PAGE_BYTES },
  { name: "b", bytes: 2 * PAGE_BYTES + 1 },
];
const pageCounts = [9_000, 3];

/** The bytes of what a record holds. */
function plaintextOf(content: RecordContent): Uint8Array {
  switch (content.type) {
    case "pages":
    case "zeros": {
      const zeros = content.type === "zeros";
      const head = zeros ? 4 : 3;
      const body = zeros ? new Uint8Array() : content.bytes;
      const bytes = new Uint8Array(head + 4 * content.pages.length + body.length);
      const view = new DataView(bytes.buffer);
      bytes[0] = recordTypes[content.type];
      bytes[1] = content.block;
      if (zeros) view.setUint16(2, content.pages.length);
      else bytes[2] = content.pages.length;
      content.pages.forEach((page, i) => view.setUint32(head + 4 * i, page));
      bytes.set(body, head + 4 * content.pages.length);
      return bytes;
    }
    case "setup":
    case "state": {
      const bytes = new Uint8Array(9 + content.bytes.length);
      const view = new DataView(bytes.buffer);
      bytes[0] = recordTypes[content.type];
      view.setUint32(1, content.offset);
      view.setUint32(5, content.total);
      bytes.set(content.bytes, 9);
      return bytes;
    }
    case "round": {
      const bytes = new Uint8Array(21);
      const view = new DataView(bytes.buffer);
      bytes[0] = recordTypes.round;
      view.setUint32(1, content.round);
      writeUint64(view, 5, content.pages);
      writeUint64(view, 13, content.zeros);
      return bytes;
    }
  }
}

type PieceContent = Extract<RecordContent, { type: "setup" | "state" }>;

const place = fc.constantFrom(0, 1).chain((block) =>
  fc.tuple(fc.constant(block), fc.nat({ max: pageCounts[block]! - 1 }))
);
const pages = place.chain(([block, page]) =>
  fc.integer({ min: 1, max: MAX_PAGES_PER_RECORD }).map((count): RecordContent => ({
    type: "pages",
    block,
    pages: new Uint32Array(count).fill(page),
    bytes: new Uint8Array(count * PAGE_BYTES).fill(page),
  }))
);
const zeros = place.chain(([block, page]) =>
  fc.integer({ min: 1, max: MAX_ZEROS_PER_RECORD }).map((count): RecordContent => ({
    type: "zeros",
    block,
    pages: new Uint32Array(count).fill(page),
  }))
);
/** One of the pieces that so many bytes are cut into. */
const piece = (type: "setup" | "state", cap: number) =>
  fc.oneof(
    fc.integer({ min: 1, max: cap }),
    // Whose last piece is full, and that are one piece.
    fc.integer({ min: 1, max: cap / MAX_STREAM_PIECE_BYTES }).map((n) =>
      n * MAX_STREAM_PIECE_BYTES
    ),
    fc.integer({ min: 1, max: MAX_STREAM_PIECE_BYTES }),
  ).chain((total) =>
    fc.oneof(
      fc.nat({ max: Math.ceil(total / MAX_STREAM_PIECE_BYTES) - 1 }),
      fc.constant(Math.ceil(total / MAX_STREAM_PIECE_BYTES) - 1),
    ).map((index): PieceContent => {
      const offset = index * MAX_STREAM_PIECE_BYTES;
      const length = Math.min(MAX_STREAM_PIECE_BYTES, total - offset);
      return { type, offset, total, bytes: new Uint8Array(length).fill(index) };
    })
  );
const setup = piece("setup", MAX_SETUP_BYTES);
const state = piece("state", MAX_STATE_BYTES);
const u64 = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const round = fc.record({ round: fc.nat(), pages: u64, zeros: u64 }).map((one): RecordContent => ({
  type: "round",
  ...one,
}));
const content = fc.oneof(
  pages,
  zeros,
  setup,
  state,
  round,
);

Deno.test("RecordParser.parse() gives what a record holds", () => {
  const parser = new RecordParser(blocks);
  fc.assert(
    fc.property(content, (given) => {
      assert.deepEqual(parser.parse(plaintextOf(given)), given);
    }),
    { numRuns: 100 },
  );
});

Deno.test("RecordParser.parse() refuses a record that is a byte too long or too short", () => {
  const parser = new RecordParser(blocks);
  fc.assert(
    fc.property(content, (given) => {
      const plaintext = plaintextOf(given);
      const longer = new Uint8Array(plaintext.length + 1);
      longer.set(plaintext);
      for (const wrong of [longer, plaintext.subarray(0, -1)]) {
        assert.throws(() => parser.parse(wrong), { name: "MigrationError", code: "protocol" });
      }
    }),
    { numRuns: 40 },
  );
});

Deno.test("RecordParser.parse() refuses a piece that another cut would give", () => {
  const parser = new RecordParser(blocks);
  fc.assert(
    fc.property(fc.oneof(setup, state), fc.nat(), fc.nat(), (given, a, b) => {
      const { offset, total, bytes } = given;
      // A part of a piece, from somewhere in it on.
      const from = a % bytes.length;
      const length = 1 + b % (bytes.length - from);
      if (length === bytes.length) return;
      const part = { ...given, offset: offset + from, bytes: bytes.subarray(from, from + length) };
      assert.throws(() => parser.parse(plaintextOf(part)), { code: "protocol" });
      // All of the same bytes, of a larger whole.
      if (bytes.length === MAX_STREAM_PIECE_BYTES) return;
      const more = { ...given, total: total + 1 };
      assert.throws(() => parser.parse(plaintextOf(more)), { code: "protocol" });
    }),
    { numRuns: 200 },
  );
});

Deno.test("RecordParser.parse() refuses pieces beyond the end, without bytes, and of too much", () => {
  const parser = new RecordParser(blocks);
  const full = new Uint8Array(MAX_STREAM_PIECE_BYTES);
  for (const type of ["setup", "state"] as const) {
    const cap = type === "setup" ? MAX_SETUP_BYTES : MAX_STATE_BYTES;
    for (
      const wrong of [
        { offset: 0, total: 0, bytes: new Uint8Array() },
        { offset: MAX_STREAM_PIECE_BYTES, total: MAX_STREAM_PIECE_BYTES, bytes: new Uint8Array() },
        { offset: MAX_STREAM_PIECE_BYTES, total: 10, bytes: new Uint8Array(10) },
        { offset: MAX_STREAM_PIECE_BYTES, total: 10, bytes: full },
        { offset: 0, total: cap + 1, bytes: full },
      ]
    ) {
      assert.throws(() => parser.parse(plaintextOf({ type, ...wrong })), { code: "protocol" });
    }
  }
});

Deno.test("RecordParser.parse() throws nothing but MigrationError, and gives no place outside the VM", () => {
  const parser = new RecordParser(blocks);
  const any = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 40 }),
    fc.tuple(content, fc.nat({ max: 30 }), fc.nat({ max: 255 })).map(([given, at, byte]) => {
      const bytes = plaintextOf(given);
      bytes[at % bytes.length] = byte;
      return bytes;
    }),
  );
  fc.assert(
    fc.property(any, (plaintext) => {
      try {
        const parsed = parser.parse(plaintext);
        if (parsed.type === "pages" || parsed.type === "zeros") {
          for (const page of parsed.pages) assert.ok(page < pageCounts[parsed.block]!);
        } else if (parsed.type !== "round") {
          assert.ok(parsed.offset + parsed.bytes.length <= parsed.total);
          assert.ok(parsed.total <= MAX_STATE_BYTES);
        }
      } catch (error) {
        assert.ok(error instanceof MigrationError && error.code === "protocol", String(error));
      }
    }),
    { numRuns: 400 },
  );
});

Deno.test("RecordParser.parse() lets the last page of a block be one that is not full", () => {
  const parser = new RecordParser(blocks);
  const last = (page: number): RecordContent => ({
    type: "zeros",
    block: 1,
    pages: Uint32Array.of(page),
  });
  assert.equal(parser.parse(plaintextOf(last(2))).type, "zeros");
  assert.throws(() => parser.parse(plaintextOf(last(3))), /page 3 of block 1/);
});
