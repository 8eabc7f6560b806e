import assert from "node:assert/strict";
import { join } from "node:path";
import { journalProcess, parseJournal, readJournals } from "../../cli/journal_reader.ts";
import { idOf, qemu, time, writeJournal } from "../support/journal_files.ts";
import { TempDir } from "../support/temp_dir.ts";

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
  await writeJournal(temp.path, { id: idOf("a") });
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
