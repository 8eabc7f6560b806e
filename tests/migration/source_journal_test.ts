import assert from "node:assert/strict";
import type { JournalEntry } from "../../migration/ports.ts";
import { SourceJournal } from "../../migration/source_journal.ts";
import { HandClock } from "../support/hand_clock.ts";
import { MemoryJournals } from "../support/memory_journal.ts";

const time = new Date(1_000).toISOString();

async function world(fails: (append: number) => boolean = () => false) {
  const lines: JournalEntry[] = [];
  const damage = { mistakes: 0, hits: ["record 3"] };
  const journal = new SourceJournal({ clock: new HandClock(), damage: () => damage });
  const journals = new MemoryJournals({ fails, onLine: (line) => lines.push(line) });
  assert.ok(!journal.begun);
  await journal.begin(journals, { id: "a", facts: { version: 1 } });
  return { lines, damage, journal, journals };
}

Deno.test("SourceJournal has begun with `open`, and is released with `released` and not before", async () => {
  const { lines, journal, journals } = await world();
  assert.ok(journal.begun);
  assert.deepEqual(lines.splice(0), [{ state: "open", time, version: 1 }]);
  await journal.append({ state: "releasing", counters: 1 });
  assert.ok(!journal.released);
  await journal.append({ state: "released", sourceGone: true });
  assert.ok(journal.released);
  assert.deepEqual(lines, [
    { time, state: "releasing", counters: 1 },
    { time, state: "released", sourceGone: true },
  ]);
  journal.close();
  assert.equal(journals.open, 0);
});

Deno.test("SourceJournal.append() is not released by a line that the disk did not take", async () => {
  const { journal } = await world((append) => append > 0);
  await assert.rejects(journal.append({ state: "released" }), { code: "journal" });
  assert.ok(!journal.released);
  // Whoever failed anyway does not fail again.
  await journal.appendAborted();
});

Deno.test("SourceJournal tells in the last line, and only there, what was damaged", async () => {
  for (const state of ["done", "aborted"] as const) {
    const { lines, damage, journal } = await world();
    damage.mistakes = 2;
    await journal.append({ state: "released" });
    await journal.append({ state });
    assert.deepEqual(lines.slice(1), [
      { time, state: "released" },
      { time, mistakes: 2, hits: ["record 3"], state },
    ]);
  }
});

Deno.test("SourceJournal.appendAborted() writes nothing, and throws nothing, where no journal was begun", async () => {
  const journal = new SourceJournal({
    clock: new HandClock(),
    damage: () => ({ mistakes: 0, hits: [] }),
  });
  await journal.appendAborted();
  journal.close();
});
