import assert from "node:assert/strict";
import fc from "fast-check";
import { FRAME_CONTROL, FRAME_DATA, FrameReader, writeFrameHeader } from "../../migration/frame.ts";
import {
  FRAME_HEADER_BYTES,
  MAX_CONTROL_FRAME_BYTES,
  MAX_DATA_FRAME_BYTES,
} from "../../migration/limits.ts";
import type { Transport } from "../../migration/ports.ts";

const lost = { name: "MigrationError", code: "cut" };

function frame(kind: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES + payload.length);
  writeFrameHeader(new DataView(bytes.buffer), 0, kind, payload.length);
  bytes.set(payload, FRAME_HEADER_BYTES);
  return bytes;
}

function header(kind: number, length: number): Uint8Array {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES);
  writeFrameHeader(new DataView(bytes.buffer), 0, kind, length);
  return bytes;
}

/** A stream that is read in pieces of the given sizes, over and over. */
function streamOf(bytes: Uint8Array, sizes: readonly number[] = [bytes.length || 1]): Transport {
  let at = 0;
  let turn = 0;
  return {
    read(into) {
      assert.ok(into.length > 0, "no room to read into");
      if (at === bytes.length) return Promise.resolve(null);
      const size = Math.min(sizes[turn++ % sizes.length]!, into.length);
      const piece = bytes.subarray(at, at + size);
      into.set(piece);
      at += piece.length;
      return Promise.resolve(piece.length);
    },
    write: () => Promise.reject(new Error("not for writing")),
    close: () => {},
  };
}

async function readAll(reader: FrameReader): Promise<{ kind: number; payload: Uint8Array }[]> {
  const frames = [];
  do {
    for (let next; (next = reader.next()) !== null;) {
      assert.equal(next.header.length, FRAME_HEADER_BYTES);
      frames.push({ kind: next.kind, payload: next.payload.slice() });
    }
  } while (await reader.fill());
  return frames;
}

const frames = fc.array(
  fc.oneof(
    fc.uint8Array({ minLength: 16, maxLength: 300 })
      .map((payload) => ({ kind: FRAME_CONTROL, payload })),
    fc.uint8Array({ minLength: 40, maxLength: 300 })
      .map((payload) => ({ kind: FRAME_DATA, payload })),
  ),
  { maxLength: 12 },
);

function join(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

Deno.test("FrameReader gives back frames however the stream is cut", async () => {
  await fc.assert(fc.asyncProperty(
    frames,
    fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 5 }),
    async (given, sizes) => {
      const bytes = join(given.map(({ kind, payload }) => frame(kind, payload)));
      assert.deepEqual(await readAll(new FrameReader(streamOf(bytes, sizes))), given);
    },
  ));
});

Deno.test("FrameReader hands out no part of a frame when the stream ends inside it", async () => {
  const bytes = join([
    frame(FRAME_CONTROL, new Uint8Array(20)),
    frame(FRAME_DATA, new Uint8Array(50)),
  ]);
  for (let length = 0; length < bytes.length; length++) {
    const got = await readAll(new FrameReader(streamOf(bytes.subarray(0, length))));
    assert.equal(got.length, length < 28 ? 0 : 1);
  }
});

Deno.test("FrameReader.next() refuses a header as soon as it is there", async () => {
  const wrong = [
    header(0, 100),
    header(3, 100),
    header(FRAME_CONTROL, 15),
    header(FRAME_CONTROL, MAX_CONTROL_FRAME_BYTES + 1),
    header(FRAME_DATA, 39),
    header(FRAME_DATA, MAX_DATA_FRAME_BYTES + 1),
    header(FRAME_DATA, 2 ** 32 - 1),
    ...[1, 2, 3].map((byte) => header(FRAME_DATA, 100).with(byte, 1)),
  ];
  for (const bytes of wrong) {
    const reader = new FrameReader(streamOf(bytes));
    await reader.fill();
    assert.throws(() => reader.next(), lost);
  }
});

Deno.test("FrameReader takes frames of the largest size, many in a row", async () => {
  const large = frame(FRAME_DATA, new Uint8Array(MAX_DATA_FRAME_BYTES).fill(7));
  const bytes = new Uint8Array(12 * large.length);
  for (let i = 0; i < 12; i++) bytes.set(large, i * large.length);
  const got = await readAll(new FrameReader(streamOf(bytes, [1_000_000, 3, 777_777])));
  assert.equal(got.length, 12);
  assert.ok(got.every(({ payload }) => payload.length === MAX_DATA_FRAME_BYTES));
});

Deno.test("FrameReader.exactly() takes what precedes the first frame, and not more", async () => {
  const bytes = join([Uint8Array.of(1, 2, 3), frame(FRAME_CONTROL, new Uint8Array(16))]);
  const reader = new FrameReader(streamOf(bytes, [2]));
  assert.deepEqual(await reader.exactly(3), Uint8Array.of(1, 2, 3));
  assert.equal((await readAll(reader)).length, 1);
  assert.equal(await reader.exactly(1), null);
});
