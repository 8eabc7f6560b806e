import assert from "node:assert/strict";
import { join } from "node:path";
import { appendRan, journalProcess, parseJournal, readJournals } from "../../cli/journal_reader.ts";
import { FileJournalStore } from "../../cli/journal_store.ts";
import type { SourceJournalState, VmProcess } from "../../migration/ports.ts";
import { TempDir } from "../support/temp_dir.ts";

const qemu: VmProcess = { pid: 42, startTime: "1000", bootId: "boot-a" };
const time = "2026-01-01T00:00:00.000Z";

function idOf(digit: string): string {
  return digit.repeat(32);
}

async function journal(
  directory: string,
  about: { id: string; process?: VmProcess; states?: SourceJournalState[] },
): Promise<void> {
  const store = new FileJournalStore(directory);
  using file = await store.create(about.id, "source", {
    state: "open",
    time,
    qemu: about.process ?? qemu,
  });
  for (const state of about.states ?? []) await file.append({ state, time });
}

async function lastStates(directory: string): Promise<Record<string, string | undefined>> {
  const journals = await readJournals(directory);
  return Object.fromEntries(journals.map(({ id, entries }) => [id[0], entries.at(-1)?.state]));
}

Deno.test("readJournals() gives nothing, and makes nothing, when there is no directory", async () => {
  await using temp = await TempDir.make();
  assert.deepEqual(await readJournals(join(temp.path, "migrations")), []);
  assert.deepEqual([...Deno.readDirSync(temp.path)], []);
});

Deno.test("readJournals() uses the last whole line of a journal that was cut at any byte", () => {
  const whole = `{"state":"open","time":"${time}"}\n{"state":"releasing","time":"${time}"}\n`;
  const firstLine = whole.indexOf("\n") + 1;
  for (let length = 1; length <= whole.length; length++) {
    const { entries, damage } = parseJournal(whole.slice(0, length), "source");
    const isCut = length !== firstLine && length !== whole.length;
    assert.equal(damage !== null, isCut, `length ${length}`);
    const expected = length < firstLine ? undefined : length < whole.length ? "open" : "releasing";
    assert.equal(entries.at(-1)?.state, expected, `length ${length}`);
  }
});

Deno.test("parseJournal() takes no state of the other side, no time that is none, and no other JSON", () => {
  for (
    const line of [
      `{"state":"loaded","time":"${time}"}`,
      `{"state":"open","time":"soon"}`,
      `{"state":"open"}`,
      "null",
      "[]",
      "",
      "\0\0\0\0",
    ]
  ) {
    const { entries, damage } = parseJournal(`${line}\n`, "source");
    assert.deepEqual(entries, [], line);
    assert.equal(damage, "line 1 is damaged", line);
  }
  assert.equal(parseJournal("", "source").damage, "it is empty");
});

Deno.test("readJournals() reports a journal that is too large, and reads the others", async () => {
  await using temp = await TempDir.make();
  await journal(temp.path, { id: idOf("a") });
  await Deno.writeTextFile(
    join(temp.path, `${idOf("b")}.source.jsonl`),
    " ".repeat(1024 * 1024 + 1),
  );
  await Deno.writeTextFile(join(temp.path, "notes.txt"), "not a journal");
  const journals = await readJournals(temp.path);
  assert.deepEqual(journals.map(({ id }) => id), [idOf("b"), idOf("a")]);
  assert.match(journals[0]!.damage!, /1048577 bytes/);
  assert.deepEqual(journalProcess(journals[1]!), qemu);
});

Deno.test("appendRan() marks every older source journal of the same QEMU but those that are done", async () => {
  await using temp = await TempDir.make();
  await journal(temp.path, { id: idOf("1") });
  await journal(temp.path, { id: idOf("2"), states: ["releasing"] });
  await journal(temp.path, { id: idOf("3"), states: ["releasing", "released"] });
  await journal(temp.path, { id: idOf("4"), states: ["aborted"] });
  await journal(temp.path, { id: idOf("5"), states: ["releasing", "released", "done"] });
  await journal(temp.path, { id: idOf("6"), states: ["ran"] });
  const ids = await appendRan(temp.path, { process: qemu, time: new Date(time) });
  assert.deepEqual(ids.sort(), ["1", "2", "3", "4"].map(idOf));
  assert.deepEqual(await lastStates(temp.path), {
    1: "ran",
    2: "ran",
    3: "ran",
    4: "ran",
    5: "done",
    6: "ran",
  });
});

Deno.test("appendRan() leaves other QEMUs and the destination's journals alone", async () => {
  await using temp = await TempDir.make();
  await journal(temp.path, { id: idOf("1"), process: { ...qemu, pid: 43 } });
  await journal(temp.path, { id: idOf("2"), process: { ...qemu, startTime: "1001" } });
  await journal(temp.path, { id: idOf("3"), process: { ...qemu, bootId: "boot-b" } });
  const store = new FileJournalStore(temp.path);
  const destination = await store.create(idOf("4"), "destination", { state: "open", time, qemu });
  destination.close();
  assert.deepEqual(await appendRan(temp.path, { process: qemu, time: new Date(time) }), []);
  assert.deepEqual(await lastStates(temp.path), { 1: "open", 2: "open", 3: "open", 4: "open" });
});

Deno.test("appendRan() does not let its line join one that was cut off", async () => {
  await using temp = await TempDir.make();
  await journal(temp.path, { id: idOf("1") });
  const path = join(temp.path, `${idOf("1")}.source.jsonl`);
  await Deno.writeTextFile(path, '{"state":"relea', { append: true });
  await appendRan(temp.path, { process: qemu, time: new Date(time) });
  const [read] = await readJournals(temp.path);
  assert.deepEqual(read?.entries.map(({ state }) => state), ["open", "ran"]);
  assert.equal(read?.damage, "line 2 is damaged");
});
