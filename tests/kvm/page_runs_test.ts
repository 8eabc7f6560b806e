import assert from "node:assert/strict";
import fc from "fast-check";
import { KvmError } from "../../kvm/errors.ts";
import {
  checkPages,
  forEachPiece,
  forEachRun,
  PageEraser,
  type PageRun,
  PIECE_PAGES,
} from "../../kvm/page_runs.ts";

function runsOf(pages: number[], blockPages = 2 ** 32): [PageRun, number][] {
  const runs: [PageRun, number][] = [];
  forEachRun(Uint32Array.from(pages), blockPages, (run, index) => runs.push([run, index]));
  return runs;
}

Deno.test("forEachRun() merges neighbours that ascend, and only those", () => {
  assert.deepEqual(runsOf([]), []);
  assert.deepEqual(runsOf([7, 8, 9, 11, 10, 9, 9]), [
    [{ first: 7, count: 3 }, 0],
    [{ first: 11, count: 1 }, 3],
    [{ first: 10, count: 1 }, 4],
    [{ first: 9, count: 1 }, 5],
    [{ first: 9, count: 1 }, 6],
  ]);
  assert.deepEqual(runsOf([0xffff_fffe, 0xffff_ffff, 0]), [
    [{ first: 0xffff_fffe, count: 2 }, 0],
    [{ first: 0, count: 1 }, 2],
  ]);
});

Deno.test("forEachRun() gives back the list, in order, for any list", () => {
  fc.assert(fc.property(fc.array(fc.nat(12)), (pages) => {
    const seen: number[] = [];
    for (const [{ first, count }, index] of runsOf(pages)) {
      assert.equal(index, seen.length);
      for (let i = 0; i < count; i++) seen.push(first + i);
    }
    assert.deepEqual(seen, pages);
  }));
});

Deno.test("forEachRun() refuses a page that the block does not have", () => {
  assert.equal(runsOf([14, 15], 16).length, 1);
  const outside = (error: unknown) =>
    error instanceof KvmError && error.code === "landing" &&
    /page 16: .* 16 pages/.test(error.message);
  assert.throws(() => runsOf([14, 15, 16], 16), outside);
});

Deno.test("forEachPiece() covers a run in pieces of the largest size and a rest", () => {
  const pieces: PageRun[] = [];
  forEachPiece({ first: 5, count: 2 * PIECE_PAGES + 1 }, (piece) => pieces.push(piece));
  assert.deepEqual(pieces, [
    { first: 5, count: PIECE_PAGES },
    { first: 5 + PIECE_PAGES, count: PIECE_PAGES },
    { first: 5 + 2 * PIECE_PAGES, count: 1 },
  ]);
});

Deno.test("checkPages() refuses bytes that are not one page for each number", () => {
  checkPages(Uint32Array.of(1, 2), new Uint8Array(8192));
  assert.throws(() => checkPages(Uint32Array.of(1, 2), new Uint8Array(8191)), RangeError);
  assert.throws(() => checkPages(Uint32Array.of(1), new Uint8Array(8192)), RangeError);
});

Deno.test("PageEraser.erase() zeroes what is not zero, and writes to nothing else", () => {
  const memory = new Uint8Array(200 * 4096);
  // The first and last byte of a page, and pages on both sides of a piece's end.
  const last = 10 + PIECE_PAGES - 1;
  const dirty = [{ page: 10, at: 0 }, { page: 12, at: 7 }, { page: 13, at: 4095 }, {
    page: last,
    at: 4095,
  }, { page: last + 1, at: 2048 }];
  for (const { page, at } of dirty) memory[page * 4096 + at] = 1;
  memory[9 * 4096 + 4095] = 2;
  memory[150 * 4096] = 3;
  const written: [number, number][] = [];
  new PageEraser().erase({ first: 10, count: 140 }, {
    read: (first, into) => into.set(memory.subarray(first * 4096, first * 4096 + into.length)),
    write: (first, bytes) => {
      written.push([first, bytes.length / 4096]);
      memory.set(bytes, first * 4096);
    },
  });
  assert.deepEqual(written, [[10, 1], [12, 2], [last, 1], [last + 1, 1]]);
  assert.ok(memory.subarray(10 * 4096, 150 * 4096).every((byte) => byte === 0));
  assert.equal(memory[9 * 4096 + 4095], 2);
  assert.equal(memory[150 * 4096], 3);
});
