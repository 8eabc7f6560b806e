/**
 * A disk that becomes full in the middle of the switchover, on either side: a step whose line is not on disk is not
 * taken, and the VM goes on at the source (PROTOCOL.md section 7).
 *
 * @module
 */

import assert from "node:assert/strict";
import type { AgentEnd } from "../../cli/demo/agent_process.ts";
import { MigrationHosts } from "../support/migration_hosts.ts";
import { rootTest, SmallDisk } from "../support/small_disk.ts";
import { WatchedVm } from "../support/watched_vm.ts";

/** Lines of either journal are longer than that. */
const NO_LINE_BYTES = 10;

interface Outcome {
  send: AgentEnd;
  receive: AgentEnd;
  source: string;
  destination: string;
  destinationHasRun: boolean;
  journals: { source: string[]; destination: string[] };
}

/** A migration, whose journal on one side has room for `bytes` more from the moment at which that side enters a state. */
async function migrate(
  side: "source" | "destination",
  full: { at: string; bytes: number },
): Promise<Outcome> {
  await using hosts = await MigrationHosts.make();
  const bootSector = await hosts.bootSector({ dirtyMiBPerSecond: 1, workingSetMiB: 2 });
  const vm = { guest: { bootSector }, memoryMiB: 16, memory: "memfd" } as const;
  await using source = await WatchedVm.start(vm);
  await using destination = await WatchedVm.start({ ...vm, incoming: "defer" });
  await source.moreBeats(2);
  const { stateDir } = side === "source" ? hosts.a : hosts.b;
  using disk = SmallDisk.mount(`${stateDir}/migrations`);
  const hold = (here: typeof side) => here === side ? { hold: [full.at] } : {};
  const { agent: receive, port } = await hosts.receive(destination, hold("destination"));
  // The side that stands still is to have all the time it needs.
  const send = hosts.send(source, port, { ...hold("source"), args: ["--max-stop", "60s"] });
  const held = side === "source" ? send : receive;
  assert.notEqual(await held.line("held", full.at), null);
  disk.leaveInJournal(full.bytes);
  await held.go();
  const [sendEnd, receiveEnd] = await Promise.all([send.ended, receive.ended]);
  const id = sendEnd.report?.id;
  return {
    send: sendEnd,
    receive: receiveEnd,
    source: await source.status(),
    destination: await destination.status(),
    destinationHasRun: destination.hasRun,
    journals: {
      source: hosts.journal("source", id),
      destination: hosts.journal("destination", id),
    },
  };
}

/** The VM is back at the source, the side with the full disk says why, and both what to do. */
function checkReturned(outcome: Outcome, fullSide: "send" | "receive"): void {
  const { send, receive, source, destination } = outcome;
  assert.deepEqual([send.code, receive.code], [1, 1], `${send.stderr}${receive.stderr}`);
  assert.deepEqual([source, destination], ["running", "gone"]);
  assert.equal(outcome.destinationHasRun, false);
  assert.equal(send.report?.sourceState, "running");
  assert.match(
    outcome[fullSide].report?.error?.message ?? "",
    /Cannot write journal .*No space left/,
  );
  for (const { report } of [send, receive]) assert.notEqual(report?.error?.hint ?? null, null);
}

rootTest("send aborts before SHUT(0) when it cannot journal releasing", async () => {
  const outcome = await migrate("source", { at: "releasing", bytes: NO_LINE_BYTES });
  checkReturned(outcome, "send");
  assert.ok(!outcome.journals.source.includes("releasing"));
});

rootTest("send takes the VM back when it cannot journal released", async () => {
  const releasing = JSON.stringify({
    ...{ time: new Date().toISOString(), state: "releasing" },
    counters: { dirtySyncCount: 3, normal: 700, duplicate: 3600 },
  });
  const outcome = await migrate("source", { at: "releasing", bytes: releasing.length + 20 });
  checkReturned(outcome, "send");
  assert.equal(outcome.journals.source.at(-1), "releasing");
});

rootTest("receive discards and the VM runs on when it cannot journal loaded", async () => {
  const outcome = await migrate("destination", { at: "loading", bytes: NO_LINE_BYTES });
  checkReturned(outcome, "receive");
  assert.ok(!outcome.journals.destination.includes("loaded"));
});

rootTest("receive gives the VM back when it cannot journal taking", async () => {
  const outcome = await migrate("destination", { at: "loaded", bytes: NO_LINE_BYTES });
  checkReturned(outcome, "receive");
  assert.ok(outcome.journals.destination.includes("loaded"));
  assert.ok(!outcome.journals.destination.includes("taking"));
});

rootTest("receive runs the VM when it cannot journal running", async () => {
  const taking = JSON.stringify({ time: new Date().toISOString(), state: "taking" });
  const outcome = await migrate("destination", { at: "loaded", bytes: taking.length + 20 });
  assert.deepEqual([outcome.send.code, outcome.receive.code], [0, 0], outcome.receive.stderr);
  assert.deepEqual([outcome.source, outcome.destination], ["gone", "running"]);
  assert.equal(outcome.journals.destination.at(-1), "taking");
  assert.match(outcome.receive.stderr, /Cannot write journal .*No space left/);
});
