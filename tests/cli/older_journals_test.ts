import assert from "node:assert/strict";
import { join } from "node:path";
import { readJournals } from "../../cli/journal_reader.ts";
import { closeBeforeReceive, closeBeforeSend } from "../../cli/older_journals.ts";
import type { DestinationJournalState, StateBefore, VmProcess } from "../../migration/ports.ts";
import { idOf, qemu, time, writeJournal } from "../support/journal_files.ts";
import { TempDir } from "../support/temp_dir.ts";

const held = { process: qemu, time: new Date(time), before: "running" } as const;

async function lastStates(directory: string): Promise<Record<string, string | undefined>> {
  const journals = await readJournals(directory);
  return Object.fromEntries(journals.map(({ id, entries }) => [id[0], entries.at(-1)?.state]));
}

/** A destination's journal for each list of states, numbered from 1 on. */
async function writeDestinations(
  directory: string,
  states: DestinationJournalState[][],
  process: VmProcess = qemu,
): Promise<void> {
  for (const [index, each] of states.entries()) {
    const id = idOf(String(index + 1));
    await writeJournal(directory, { id, side: "destination", process, states: each });
  }
}

Deno.test("closeBeforeSend() marks every older source journal of the same QEMU but those that are done", async () => {
  await using temp = await TempDir.make();
  await writeJournal(temp.path, { id: idOf("1") });
  await writeJournal(temp.path, { id: idOf("2"), states: ["releasing"] });
  await writeJournal(temp.path, { id: idOf("3"), states: ["releasing", "released"] });
  await writeJournal(temp.path, { id: idOf("4"), states: ["aborted"] });
  await writeJournal(temp.path, { id: idOf("5"), states: ["releasing", "released", "done"] });
  await writeJournal(temp.path, { id: idOf("6"), states: ["ran"] });
  const ids = await closeBeforeSend(temp.path, held);
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

Deno.test("closeBeforeSend() leaves other QEMUs alone", async () => {
  await using temp = await TempDir.make();
  await writeJournal(temp.path, { id: idOf("1"), process: { ...qemu, pid: 43 } });
  await writeJournal(temp.path, { id: idOf("2"), process: { ...qemu, startTime: "1001" } });
  await writeJournal(temp.path, { id: idOf("3"), process: { ...qemu, bootId: "boot-b" } });
  assert.deepEqual(await closeBeforeSend(temp.path, held), []);
  assert.deepEqual(await lastStates(temp.path), { 1: "open", 2: "open", 3: "open" });
});

Deno.test("closeBeforeSend() does not let its line join one that was cut off", async () => {
  await using temp = await TempDir.make();
  await writeJournal(temp.path, { id: idOf("1") });
  const path = join(temp.path, `${idOf("1")}.source.jsonl`);
  await Deno.writeTextFile(path, '{"state":"relea', { append: true });
  await closeBeforeSend(temp.path, held);
  const [read] = await readJournals(temp.path);
  assert.deepEqual(read?.entries.map(({ state }) => state), ["open", "ran"]);
  assert.equal(read?.damage, "line 2 is damaged");
});

Deno.test("closeBeforeSend() says that the VM came here where a destination's journal does not", async () => {
  await using temp = await TempDir.make();
  await writeDestinations(temp.path, [
    ["loaded", "taking"],
    ["discarded"],
    ["loaded", "taking", "running"],
  ]);
  assert.deepEqual(await closeBeforeSend(temp.path, held), [idOf("1")]);
  assert.deepEqual(await lastStates(temp.path), { 1: "running", 2: "discarded", 3: "running" });
  // Whatever the journal missed: it runs here.
  await using running = await TempDir.make();
  await writeDestinations(running.path, [["loaded"], [], ["ranEarly"]]);
  await closeBeforeSend(running.path, held);
  assert.deepEqual(await lastStates(running.path), { 1: "running", 2: "running", 3: "running" });
});

Deno.test("closeBeforeSend() refuses a copy that has not run, was never released, or was reset", async () => {
  const unsettled = [
    [],
    ["loaded"],
    ["loaded", "ranEarly"],
    ["loaded", "taking"],
  ] satisfies DestinationJournalState[][];
  for (const states of unsettled) {
    await using temp = await TempDir.make();
    await writeDestinations(temp.path, [states]);
    for (const [dryRun, before] of [[true, "paused"], [false, "paused"], [false, "prelaunch"]]) {
      const stands = { ...held, before: before as StateBefore };
      await assert.rejects(closeBeforeSend(temp.path, stands, { dryRun: dryRun === true }), {
        name: "MigrationError",
        code: "refused",
        hint: `sealift recover --id ${idOf("1")}`,
      });
    }
    assert.deepEqual(await lastStates(temp.path), { 1: states.at(-1) ?? "open" });
  }
});

Deno.test("closeBeforeSend() refuses a VM that was reset after a migration had stopped it, unless that is settled", async () => {
  const reset = { ...held, before: "prelaunch" } as const;
  await using temp = await TempDir.make();
  await writeJournal(temp.path, { id: idOf("1"), states: ["releasing", "released"] });
  await assert.rejects(closeBeforeSend(temp.path, reset), {
    code: "refused",
    message: /was reset/,
  });
  assert.deepEqual(await lastStates(temp.path), { 1: "released" });
  // `recover` was about to say cont.
  const stopped = JSON.stringify({ state: "aborted", time, stopped: "it is about to go on" });
  const path = join(temp.path, `${idOf("1")}.source.jsonl`);
  await Deno.writeTextFile(path, `${stopped}\n`, { append: true });
  await assert.rejects(closeBeforeSend(temp.path, reset), { code: "refused" });
  assert.deepEqual(await lastStates(temp.path), { 1: "aborted" });
  await using settled = await TempDir.make();
  await writeJournal(settled.path, { id: idOf("1"), states: ["releasing", "released", "aborted"] });
  await writeJournal(settled.path, { id: idOf("2") });
  assert.deepEqual(await closeBeforeSend(settled.path, reset), ["1", "2"].map(idOf));
});

Deno.test("closeBeforeSend() refuses when a journal does not say whose it is, but not when nothing was begun under it", async () => {
  const id = idOf("1");
  const damage: [string, RegExp | null][] = [
    ["\0", /line 1 is damaged/],
    ['{"state":"open","time":"2026-01-01T00:00:00.000Z"}\n', /it names no QEMU/],
    ["", null],
    ['{"state":"op', null],
  ];
  for (const [text, message] of damage) {
    await using temp = await TempDir.make();
    await writeJournal(temp.path, { id, side: "destination", states: ["loaded"] });
    const path = join(temp.path, `${id}.destination.jsonl`);
    const whole = await Deno.readTextFile(path);
    await Deno.writeTextFile(path, text === "\0" ? text + whole.slice(1) : text);
    const closed = closeBeforeSend(temp.path, { ...held, before: "paused" });
    if (message === null) assert.deepEqual(await closed, []);
    else await assert.rejects(closed, { code: "refused", message });
    assert.deepEqual(await closeBeforeReceive(temp.path, held), []);
  }
});

Deno.test("closeBeforeSend() writes nothing for a dry run", async () => {
  await using temp = await TempDir.make();
  await writeJournal(temp.path, { id: idOf("1") });
  assert.deepEqual(await closeBeforeSend(temp.path, held, { dryRun: true }), [idOf("1")]);
  assert.deepEqual(await lastStates(temp.path), { 1: "open" });
});

Deno.test("closeBeforeReceive() discards what was announced to the same QEMU and never came, and nothing else", async () => {
  await using temp = await TempDir.make();
  await writeDestinations(temp.path, [
    [],
    ["loaded"],
    ["loaded", "taking"],
    ["discarded"],
    ["loaded", "taking", "running"],
  ]);
  await writeJournal(temp.path, { id: idOf("6") });
  assert.deepEqual(await closeBeforeReceive(temp.path, held), [idOf("1")]);
  assert.deepEqual(await lastStates(temp.path), {
    1: "discarded",
    2: "loaded",
    3: "taking",
    4: "discarded",
    5: "running",
    6: "open",
  });
  await using other = await TempDir.make();
  await writeDestinations(other.path, [[]], { ...qemu, pid: 43 });
  assert.deepEqual(await closeBeforeReceive(other.path, held), []);
});
