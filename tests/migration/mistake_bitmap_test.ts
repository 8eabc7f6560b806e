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

/** A damaged record; a page holds `value`, or 0 and on. */
function record(sequence: number, block: number, pages: number[], value: number | null = null) {
  const bytes = value === null ? null : new Uint8Array(pages.length * PAGE);
  pages.forEach((_, i) => bytes?.fill(value! + i, i * PAGE, (i + 1) * PAGE));
  return { sequence, block, pages: Uint32Array.from(pages), bytes };
}

/** What would be sent again of the next record: block, page and its first byte, null for zeros. */
function marked(bitmap: MistakeBitmap): [number, number, number | null][] {
  const pages: [number, number, number | null][] = [];
  const given = bitmap.resend({
    page: (block, page, bytes) => {
      assert.equal(bytes.length, PAGE);
      pages.push([block, page, bytes[0]!]);
    },
    zero: (block, page) => pages.push([block, page, null]),
  });
  assert.equal(given, pages.length);
  return pages;
}

Deno.test("MistakeBitmap.damaged() marks pages until they are sealed again", () => {
  const bitmap = new MistakeBitmap(blocks);
  assert.ok(bitmap.empty);
  sealed(bitmap, 1, [2, 0], 7);
  assert.equal(bitmap.damaged(record(7, 1, [2, 0], 5)).damages, 1);
  assert.ok(!bitmap.empty);
  assert.deepEqual(marked(bitmap), [[1, 2, 5], [1, 0, 6]]);
  sealed(bitmap, 1, [2], 8);
  assert.deepEqual(marked(bitmap), [[1, 0, 6]]);
  sealed(bitmap, 1, [0], 9);
  assert.deepEqual(marked(bitmap), []);
});

Deno.test("MistakeBitmap.damaged() marks nothing when a later record carries the page too", () => {
  const bitmap = new MistakeBitmap(blocks);
  sealed(bitmap, 0, [4, 5], 1);
  sealed(bitmap, 0, [5], 2);
  assert.deepEqual(bitmap.damaged(record(1, 0, [4, 5], 1)), { page: 4, damages: 1 });
  assert.deepEqual(marked(bitmap), [[0, 4, 1]]);
  sealed(bitmap, 0, [4], 3);
  // A record that holds nothing new any more is not kept.
  const later = new MistakeBitmap(blocks);
  sealed(later, 0, [4], 1);
  sealed(later, 0, [4], 2);
  assert.equal(later.damaged(record(1, 0, [4], 1)).damages, 0);
  assert.ok(later.empty);
});

Deno.test("MistakeBitmap.damaged() says which page was damaged most often", () => {
  const bitmap = new MistakeBitmap(blocks);
  sealed(bitmap, 0, [4, 5], 1);
  bitmap.damaged(record(1, 0, [4, 5], 1));
  sealed(bitmap, 0, [5, 6], 2);
  // The newer version may be damaged as well.
  assert.deepEqual(bitmap.damaged(record(2, 0, [5, 6])), { page: 5, damages: 2 });
  assert.deepEqual(marked(bitmap), [[0, 4, 1]]);
  bitmap.resent();
  assert.deepEqual(marked(bitmap), [[0, 5, null], [0, 6, null]]);
});

Deno.test("MistakeBitmap.resend() gives a record, and resent() lets it go", () => {
  const bitmap = new MistakeBitmap(blocks);
  for (const sequence of [1, 2]) {
    sealed(bitmap, 0, [sequence], sequence);
    bitmap.damaged(record(sequence, 0, [sequence], sequence));
  }
  assert.deepEqual(marked(bitmap), [[0, 1, 1]]);
  // Nothing is let go before it is sealed: that may fail.
  assert.deepEqual(marked(bitmap), [[0, 1, 1]]);
  bitmap.resent();
  assert.deepEqual(marked(bitmap), [[0, 2, 2]]);
  bitmap.resent();
  assert.ok(bitmap.empty);
});

Deno.test("MistakeBitmap tells sequences beyond 32 bits apart from those of long ago", () => {
  const bitmap = new MistakeBitmap(blocks);
  const late = 2 ** 32 + 5;
  sealed(bitmap, 0, [0], late);
  assert.equal(bitmap.damaged(record(4, 0, [0])).damages, 0);
  assert.equal(bitmap.damaged(record(late, 0, [0])).damages, 1);
});
