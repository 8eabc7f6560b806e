import assert from "node:assert/strict";
import fc from "fast-check";
import { LineSplitter } from "../../kvm/qmp_lines.ts";

Deno.test("LineSplitter.push() gives the same lines when the bytes are cut anywhere", () => {
  const word = fc.stringMatching(/^[a-z\u00fc\u4e2d]{1,9}$/);
  fc.assert(fc.property(fc.array(word), fc.array(fc.nat(200)), (words, cuts) => {
    const bytes = new TextEncoder().encode(words.map((text) => `${text}\r\n`).join(""));
    const splitter = new LineSplitter(100);
    const ends = cuts.map((cut) => Math.min(cut, bytes.length)).sort((a, b) => a - b);
    const lines: string[] = [];
    let from = 0;
    for (const end of [...ends, bytes.length]) {
      const piece = bytes.slice(from, end);
      lines.push(...splitter.push(piece));
      piece.fill(0); // its memory is the caller's again
      from = end;
    }
    assert.deepEqual(lines, words);
  }));
});

Deno.test("LineSplitter.push() throws when a line is longer than the cap, in one piece or many", () => {
  const one = new LineSplitter(3);
  assert.deepEqual([...one.push(Uint8Array.of(97, 97, 97, 10))], ["aaa"]);
  assert.throws(() => [...one.push(new Uint8Array(4).fill(97))], RangeError);
  const many = new LineSplitter(3);
  assert.deepEqual([...many.push(Uint8Array.of(97, 97))], []);
  assert.throws(() => [...many.push(Uint8Array.of(97, 97, 10))], RangeError);
});
