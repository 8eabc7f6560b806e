import assert from "node:assert/strict";
import { SpacedNotes } from "../../migration/spaced_notes.ts";

Deno.test("SpacedNotes.count() tells of the first at once, and of later ones together, once a second", () => {
  let nowMs = 5_000;
  const notes = new SpacedNotes({
    now: () => nowMs,
    date: () => new Date(0),
    timer: () => ({ clear() {} }),
  });
  const after = (ms: number) => {
    nowMs += ms;
    return notes.count();
  };
  assert.deepEqual([0, 1, 500, 498, 1, 1, 999, 3_000].map(after), [1, 0, 0, 0, 4, 0, 2, 1]);
});
