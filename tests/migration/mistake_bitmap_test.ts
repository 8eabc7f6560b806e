import assert from "node:assert/strict";
import { MistakeBitmap } from "../../migration/mistake_bitmap.ts";

const PAGE = 4096;
const blocks = [{ name: "a", bytes: 10 * PAGE }, { name: "b", bytes: 3 * PAGE }];

/** Says that record `sequence` carries these pages. */
function sealed(bitmap: MistakeBitmap, block: number, pages: number[], sequence: number): void {
  const list = new DataView(new ArrayBuffer(3 + 4 * pages.length));
  pages.forEach((page, i) => list.setUint32(3 + 4 * i, page));
  bitmap.sealed(block, { list, at: 3, count: pages.length }, sequence);
}

function bytes(value: number): Uint8Array {
  return new Uint8Array(PAGE).fill(value);
}

Deno.test("MistakeBitmap.damaged() marks a page, and take() gives it back once", () => {
  const bitmap = new MistakeBitmap(blocks);
  sealed(bitmap, 1, [2], 7);
  assert.equal(bitmap.damaged({ block: 1, page: 2, bytes: bytes(5) }, 7), 1);
  assert.equal(bitmap.size, 1);
  assert.deepEqual(bitmap.take(), [{ block: 1, page: 2, bytes: bytes(5) }]);
  assert.equal(bitmap.size, 0);
  assert.deepEqual(bitmap.take(), []);
});

Deno.test("MistakeBitmap.damaged() copies what the page held", () => {
  const bitmap = new MistakeBitmap(blocks);
  sealed(bitmap, 0, [1], 1);
  const held = bytes(1);
  bitmap.damaged({ block: 0, page: 1, bytes: held }, 1);
  held.fill(9);
  assert.deepEqual(bitmap.take()[0]!.bytes, bytes(1));
});

Deno.test("MistakeBitmap.damaged() marks nothing when a later record carries the page too", () => {
  const bitmap = new MistakeBitmap(blocks);
  sealed(bitmap, 0, [4, 5], 1);
  sealed(bitmap, 0, [5], 2);
  assert.equal(bitmap.damaged({ block: 0, page: 5, bytes: bytes(1) }, 1), 0);
  assert.equal(bitmap.damaged({ block: 0, page: 4, bytes: bytes(1) }, 1), 1);
  assert.deepEqual(bitmap.take().map(({ page }) => page), [4]);
});

Deno.test("MistakeBitmap.sealed() takes the mark away: a newer version is on its way", () => {
  const bitmap = new MistakeBitmap(blocks);
  sealed(bitmap, 0, [4], 1);
  bitmap.damaged({ block: 0, page: 4, bytes: bytes(1) }, 1);
  sealed(bitmap, 1, [2], 2);
  assert.equal(bitmap.size, 1);
  sealed(bitmap, 0, [4], 3);
  assert.equal(bitmap.size, 0);
  // That one may be damaged as well.
  assert.equal(bitmap.damaged({ block: 0, page: 4, bytes: null }, 3), 2);
  assert.deepEqual(bitmap.take(), [{ block: 0, page: 4, bytes: null }]);
});

Deno.test("MistakeBitmap.take() gives pages by block and page", () => {
  const bitmap = new MistakeBitmap(blocks);
  sealed(bitmap, 1, [0, 2], 1);
  sealed(bitmap, 0, [9, 1], 2);
  for (const [block, page, sequence] of [[1, 2, 1], [0, 9, 2], [1, 0, 1], [0, 1, 2]] as const) {
    bitmap.damaged({ block, page, bytes: null }, sequence);
  }
  assert.deepEqual(bitmap.take().map(({ block, page }) => [block, page]), [
    [0, 1],
    [0, 9],
    [1, 0],
    [1, 2],
  ]);
});

Deno.test("MistakeBitmap tells sequences beyond 32 bits apart from those of long ago", () => {
  const bitmap = new MistakeBitmap(blocks);
  const late = 2 ** 32 + 5;
  sealed(bitmap, 0, [0], late);
  assert.equal(bitmap.damaged({ block: 0, page: 0, bytes: null }, 4), 0);
  assert.equal(bitmap.damaged({ block: 0, page: 0, bytes: null }, late), 1);
});
