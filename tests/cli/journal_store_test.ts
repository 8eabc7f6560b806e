import assert from "node:assert/strict";
import { join } from "node:path";
import { FileJournal, FileJournalStore, journalPath } from "../../cli/journal_store.ts";
import { MigrationError } from "../../migration/errors.ts";
import type { JournalEntry } from "../../migration/ports.ts";
import { TempDir } from "../support/temp_dir.ts";

const id = "0123456789abcdef0123456789abcdef";
const open: JournalEntry = { state: "open", time: "2026-01-01T00:00:00.000Z" };

function isJournalError(path: string) {
  return (error: unknown) =>
    error instanceof MigrationError && error.code === "journal" && error.message.includes(path);
}

Deno.test("FileJournalStore.create() writes one line a state, mode 0600, in a directory of its own", async () => {
  await using temp = await TempDir.make();
  const directory = join(temp.path, "migrations");
  const store = new FileJournalStore(directory);
  assert.equal(await store.has(id, "source"), false);
  using journal = await store.create(id, "source", open);
  await journal.append({
    state: "done",
    time: "2026-01-01T00:00:01.000Z",
    counters: { normal: 3 },
  });
  assert.equal(
    await Deno.readTextFile(join(directory, `${id}.source.jsonl`)),
    '{"state":"open","time":"2026-01-01T00:00:00.000Z"}\n' +
      '{"state":"done","time":"2026-01-01T00:00:01.000Z","counters":{"normal":3}}\n',
  );
  assert.equal((await Deno.stat(journal.path)).mode! & 0o777, 0o600);
  assert.equal((await Deno.stat(directory)).mode! & 0o777, 0o700);
  assert.equal(await store.has(id, "source"), true);
  assert.equal(await store.has(id, "destination"), false);
});

Deno.test("FileJournalStore.create() never takes over a journal that is there", async () => {
  await using temp = await TempDir.make();
  const store = new FileJournalStore(temp.path);
  const first = await store.create(id, "destination", open);
  first.close();
  const before = await Deno.readTextFile(first.path);
  await assert.rejects(store.create(id, "destination", open), isJournalError(first.path));
  assert.equal(await Deno.readTextFile(first.path), before);
});

Deno.test("FileJournalStore.create() leaves no file when its first line cannot be written", async () => {
  await using temp = await TempDir.make();
  const store = new FileJournalStore(temp.path);
  const circular: JournalEntry = { ...open };
  circular["self"] = circular;
  await assert.rejects(store.create(id, "source", circular), isJournalError(id));
  assert.equal(await store.has(id, "source"), false);
});

Deno.test("FileJournalStore.create() names the path when the directory cannot be made", async () => {
  await using temp = await TempDir.make();
  const file = join(temp.path, "file");
  await Deno.writeTextFile(file, "");
  const store = new FileJournalStore(join(file, "migrations"));
  await assert.rejects(store.create(id, "source", open), isJournalError(file));
});

Deno.test("FileJournalStore.check() leaves nothing, and says where nothing can be written", async () => {
  await using temp = await TempDir.make();
  const directory = join(temp.path, "migrations");
  await new FileJournalStore(directory).check();
  assert.deepEqual([...Deno.readDirSync(directory)], []);
  const file = join(temp.path, "file");
  await Deno.writeTextFile(file, "");
  await assert.rejects(new FileJournalStore(join(file, "x")).check(), isJournalError(file));
});

Deno.test("FileJournal.append() says which journal when the disk is full", async () => {
  // Every write to this device fails with ENOSPC. @see full(4)
  const file = await Deno.open("/dev/full", { write: true });
  using journal = new FileJournal("/dev/full", file);
  await assert.rejects(journal.append(open), isJournalError("/dev/full"));
  await assert.rejects(journal.append(open), isJournalError("/dev/full"));
});

Deno.test("journalPath() refuses an id that could leave the directory", () => {
  for (const bad of ["", "../../etc/passwd", id.toUpperCase(), `${id}0`, `${id}\n`]) {
    assert.throws(() => journalPath("/x", { id: bad, side: "source" }), RangeError);
  }
});
