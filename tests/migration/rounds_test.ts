import assert from "node:assert/strict";
import fc from "fast-check";
import type { Clock } from "../../migration/ports.ts";
import { Rounds } from "../../migration/rounds.ts";

/** A clock that a test sets. */
function handClock(): Clock & { ms: number } {
  return {
    ms: 0,
    now() {
      return this.ms;
    },
    date: () => new Date(0),
    timer: () => ({ clear: () => {} }),
  };
}

const blocks = [{ name: "a", bytes: 100 * 4096 }, { name: "b", bytes: 4096 + 1 }];

Deno.test("Rounds.seenBefore() is true for just the pages of this round", () => {
  fc.assert(fc.property(
    fc.array(fc.tuple(fc.boolean(), fc.nat(99), fc.boolean()), { maxLength: 300 }),
    (steps) => {
      const rounds = new Rounds(blocks, handClock());
      const model = new Set<string>();
      for (const [second, page, ends] of steps) {
        const at: [number, number] = second ? [1, page & 1] : [0, page];
        assert.equal(rounds.seenBefore(...at), model.has(at.join()));
        model.add(at.join());
        if (!ends) continue;
        rounds.next();
        model.clear();
      }
    },
  ));
});

Deno.test("Rounds.next() closes a round with its time and opens one without pages", () => {
  const clock = handClock();
  const rounds = new Rounds(blocks, clock);
  rounds.current.pages.user = 5;
  rounds.current.mistakes = 1;
  clock.ms = 40;
  const closed = rounds.next();
  assert.equal(closed.round, 0);
  assert.equal(closed.durationMs, 40);
  assert.equal(closed.pages.user, 5);
  clock.ms = 45;
  const [first, second] = rounds.all();
  assert.deepEqual(first, closed);
  assert.equal(second?.round, 1);
  assert.equal(second?.durationMs, 5);
  assert.equal(second?.pages.user, 0);
  assert.equal(second?.mistakes, 0);
});
