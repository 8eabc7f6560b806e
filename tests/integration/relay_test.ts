/**
 * An attacker on the wire between two real QEMUs: whatever it does to one frame of the opening, the VM runs on at the
 * source; whatever it does to one after that is repaired, or joined again, and the VM arrives. One copy at most runs, and
 * nothing that was damaged gets into the other VM.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { AgentEnd, AgentProcess } from "../../cli/demo/agent_process.ts";
import { mainBlockName, type QemuOptions } from "../../cli/guest/qemu_arguments.ts";
import { MigrationHosts } from "../support/migration_hosts.ts";
import { qemuTest } from "../support/qemu.ts";
import {
  type Tampering,
  type TamperingAct,
  TamperingRelay,
  type WireName,
} from "../support/tampering_relay.ts";
import { WatchedVm } from "../support/watched_vm.ts";

const PAGE_BYTES = 4096;
const MEMORY_MIB = 16;
/** Below 64 KiB the guest has its stack and the firmware its data: both change while it runs. */
const FIRST_STILL_PAGE = 16;
/** Migrations at once: each is four processes. */
const AT_ONCE = 3;

const flips = ["flip frame header", "flip body", "flip tag"] as const;
const recordFlips = [...flips, "flip record header"] as const;

/** Attacks on what comes before the source has seen ACCEPT. `swap` makes no sense: each side waits for the other. */
const opening: Table = {
  "message 1": ["flip body", "flip tag", "drop", "duplicate", "truncate"],
  "message 2": ["flip body", "flip tag", "drop", "duplicate", "truncate"],
  OFFER: [...flips, "drop", "duplicate", "truncate"],
  ACCEPT: [...flips, "drop", "duplicate", "truncate"],
};

const records: Table = {
  SETUP: [...recordFlips, "drop", "duplicate", "swap", "truncate"],
  PAGES: [...recordFlips, "drop", "duplicate", "swap", "truncate"],
  ZEROS: ["flip body", "drop", "duplicate", "truncate"],
  ROUND: [...recordFlips, "drop", "duplicate", "swap", "truncate"],
  STATE: [...recordFlips, "drop", "duplicate", "swap", "truncate"],
};

const control: Table = {
  ACK: [...flips, "drop", "duplicate", "swap", "truncate"],
  PING: [...flips, "drop", "duplicate", "swap", "truncate"],
  PONG: ["flip body", "drop", "duplicate"],
  FINISH: [...flips, "drop", "duplicate", "swap", "truncate"],
  LOADED: [...flips, "drop", "duplicate", "swap", "truncate"],
  RELEASE: [...flips, "drop", "duplicate", "swap", "truncate"],
  RUNNING: [...flips, "drop", "duplicate", "swap", "truncate"],
  DONE: [...flips, "drop", "duplicate", "truncate"],
};

type Table = Partial<Record<WireName, readonly TamperingAct[]>>;

/** One migration through a relay, and what there is afterwards. */
interface Outcome {
  relay: { trace: readonly string[]; hasTampered: boolean };
  send: AgentEnd;
  receive: AgentEnd;
  /** The receiver still listened when `send` had ended, and was ended by the test. */
  listening: boolean;
  /** Run states now, or `gone`. */
  source: string;
  destination: string;
  /** RESUME events of each VM; and whether FINISH had passed when the destination's came. */
  sourceResumed: number;
  destinationResumed: number;
  journals: { source: string[]; destination: string[] };
  /** Pages of the destination's RAM that are neither as they were nor as the source has them. */
  foreignPages: number[];
}

async function attack(tampering: Tampering | null): Promise<Outcome> {
  await using hosts = await MigrationHosts.make();
  // Nothing is dirtied: what the source's RAM holds when it is compared is what was sent.
  const bootSector = await hosts.bootSector({ dirtyMiBPerSecond: 0, workingSetMiB: 2 });
  const vm: QemuOptions = {
    guest: { bootSector },
    memoryMiB: MEMORY_MIB,
    memory: "file",
    uuid: "6f1c0f4c-2f0e-4b0f-9b1d-2f0a9c3e5d77",
  };
  await using source = await WatchedVm.start(vm);
  await using destination = await WatchedVm.start({ ...vm, incoming: "defer" });
  await source.moreBeats(2);
  const before = await readRam(destination);
  const { agent: receive, port } = await hosts.receive(destination);
  await using relay = new TamperingRelay(port, tampering);
  // The source stands at the brink of SHUT(0) until what comes every 250 ms has come, and one side has noticed.
  const hold = tampering?.frame === "PING" || tampering?.frame === "PONG" ? ["releasing"] : [];
  // The machine is slow with four processes three times over: no budget is to be what ends it.
  const args = ["--max-stop", "60s", "--reconnect", tampering?.frame === "DONE" ? "5s" : "60s"];
  const send = hosts.send(source, relay.port, { hold, args });
  if (hold.length > 0 && await send.line("held") !== null) {
    await Promise.race([relay.ended, send.ended]);
    await send.go();
  }
  const sendEnd = await send.ended;
  const listening = await stillListens(receive);
  if (listening) receive.signal("SIGTERM");
  const receiveEnd = await receive.ended;
  const id = sendEnd.report?.id ?? hosts.lastId("destination");
  const [after, sent] = [await readRam(destination), await readRam(source)];
  return {
    relay: { trace: relay.trace, hasTampered: relay.hasTampered },
    send: sendEnd,
    receive: receiveEnd,
    listening,
    source: await source.status(),
    destination: await destination.status(),
    sourceResumed: resumes(source),
    destinationResumed: resumes(destination),
    journals: {
      source: hosts.journal("source", id),
      destination: hosts.journal("destination", id),
    },
    foreignPages: foreignPages(after, { before, sent }),
  };
}

/** Whether `receive` goes on after a `send` that has ended: nothing was bound, and a note says what came of it. */
async function stillListens(receive: AgentProcess): Promise<boolean> {
  await Promise.race([receive.line("state"), receive.line("note"), receive.ended]);
  return receive.lines.every((line) => line.type === "listening" || line.type === "note");
}

function resumes(vm: WatchedVm): number {
  return vm.events.filter(({ name }) => name === "RESUME").length;
}

function readRam({ process }: WatchedVm): Promise<Buffer> {
  return Deno.readFile(`${process.directory}/${mainBlockName}`).then((bytes) =>
    Buffer.from(bytes.buffer)
  );
}

function foreignPages(ram: Buffer, versions: { before: Buffer; sent: Buffer }): number[] {
  const pages: number[] = [];
  for (let page = FIRST_STILL_PAGE; page * PAGE_BYTES < ram.length; page++) {
    const range = [page * PAGE_BYTES, (page + 1) * PAGE_BYTES] as const;
    const here = ram.subarray(...range);
    if (here.equals(versions.before.subarray(...range))) continue;
    if (!here.equals(versions.sent.subarray(...range))) pages.push(page);
  }
  return pages;
}
/** What holds whatever was done, and whenever. */
function checkAlways(outcome: Outcome): void {
  const { send, receive, source, destination, journals } = outcome;
  assert.ok(outcome.relay.hasTampered, "the attack was not carried out");
  assert.ok(!(source === "running" && destination === "running"), "both run");
  assert.deepEqual(outcome.foreignPages, [], "pages that the source never had");
  assert.notEqual(send.report, null, send.stderr);
  assert.notEqual(receive.report, null, receive.stderr);
  // It runs where its journal says so, and nowhere else.
  assert.equal(destination === "running", journals.destination.includes("taking"));
  assert.equal(outcome.destinationResumed, destination === "running" ? 1 : 0);
}

/** Before SHUT(0): the VM is at the source and runs. */
function checkBefore(outcome: Outcome, codes: readonly number[]): void {
  checkAlways(outcome);
  const { send, receive, source, destination, journals } = outcome;
  assert.equal(source, "running");
  assert.ok(codes.includes(send.code), `send ended with ${send.code}: ${send.stderr}`);
  assert.equal(send.report?.sourceState, "running");
  assert.match(send.report?.error?.message ?? "", /^Cannot /);
  assert.ok(["", "open aborted", "open releasing aborted"].includes(journals.source.join(" ")));
  assert.ok(!journals.destination.includes("taking"));
  if (outcome.listening) {
    assert.equal(destination, "inmigrate");
    assert.deepEqual(journals.destination, []);
  } else if (receive.code === 5) {
    // Loaded, and nobody said what to do with it.
    assert.equal(destination, "paused");
    assert.equal(journals.destination.at(-1), "loaded");
  } else {
    assert.ok([1, 4].includes(receive.code), `receive ended with ${receive.code}`);
    assert.ok(["gone", "inmigrate"].includes(destination), destination);
    if (destination === "gone") assert.equal(journals.destination.at(-1), "discarded");
  }
}

/** After the opening: it is repaired or joined again, and the VM runs at the destination. */
function checkArrived(outcome: Outcome): void {
  checkAlways(outcome);
  const { send, receive, source, destination, journals } = outcome;
  assert.equal(send.code, 0, `send ended with ${send.code}: ${send.stderr}`);
  assert.equal(receive.code, 0, `receive ended with ${receive.code}: ${receive.stderr}`);
  assert.deepEqual([source, destination], ["gone", "running"]);
  assert.equal(outcome.sourceResumed, 0);
  assert.equal(journals.source.join(" "), "open releasing released done");
  assert.equal(journals.destination.join(" "), "open loaded taking running");
}

/** Carries out every attack of a table, a few at a time, and tells of each that went wrong. */
async function attackAll(
  table: Table,
  check: (outcome: Outcome, tampering: Tampering) => void,
): Promise<void> {
  const cases = Object.entries(table).flatMap(([frame, acts]) =>
    acts.map((act) => ({ frame: frame as WireName, act }))
  );
  const failures: string[] = [];
  const queue = cases.values();
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (const tampering of queue) {
      try {
        check(await attack(tampering), tampering);
      } catch (error) {
        failures.push(`${tampering.act} ${tampering.frame}: ${(error as Error).message}`);
      }
    }
  }));
  assert.equal(failures.join("\n"), "");
}

qemuTest("a relay that changes nothing lets a migration through, and sees what it is", async () => {
  const outcome = await attack(null);
  assert.equal(outcome.send.code, 0, outcome.send.stderr);
  assert.equal(outcome.receive.code, 0, outcome.receive.stderr);
  assert.deepEqual([outcome.source, outcome.destination], ["gone", "running"]);
  assert.deepEqual(outcome.foreignPages, []);
  assert.equal(outcome.destinationResumed, 1);
  // Each of these passes once, in this order; PINGs and PONGs may lie between.
  const once = outcome.relay.trace.filter((name) =>
    !/ (ACK|PAGES|ZEROS|ROUND|PING|PONG)$/.test(name)
  );
  const last = once.indexOf("> DONE");
  assert.deepEqual(once.slice(0, last + 1), [
    ...["> message 1", "< message 2", "> OFFER", "< ACCEPT", "> SETUP", "> STATE"],
    ...["> FINISH", "< LOADED", "> RELEASE", "< RUNNING", "> DONE"],
  ]);
  // A destination that has ended before the source's QEMU is dialled once more: it may have missed DONE.
  assert.ok(once.slice(last + 1).every((name) => name === "> message 1"), once.join(", "));
});

qemuTest(
  "send ends with 3 or 1 and receive goes on when the opening is tampered with",
  async () => {
    await attackAll(opening, (outcome, { frame, act }) => {
      // A second one is met after the opening: only that connection ends by it.
      if (act === "duplicate" && (frame === "OFFER" || frame === "ACCEPT")) {
        return checkArrived(outcome);
      }
      checkBefore(outcome, [3, 1]);
      // Until ACCEPT is opened a changed byte and a key that is not allowed look the same. What a changed length
      // promises may be waited for instead.
      if (act === "flip body" || act === "flip tag") assert.equal(outcome.send.code, 3);
      if (act !== "duplicate") assert.ok(outcome.listening);
    });
  },
);

qemuTest(
  "the VM arrives when a record is tampered with: it is repaired or joined again",
  async () => {
    await attackAll(records, (outcome, { frame, act }) => {
      checkArrived(outcome);
      const { mistakes, reconnects } = outcome.send.report!;
      const damaged = act === "flip body" || act === "flip tag";
      if (damaged) assert.equal(mistakes.detected, 1, `${frame}: ${mistakes.detected} mistakes`);
      else assert.ok(reconnects > 0, "it did not join again");
    });
  },
);

qemuTest(
  "the VM arrives when a control message is tampered with: the connection is made anew",
  async () => {
    await attackAll(control, (outcome, { frame }) => {
      checkArrived(outcome);
      // Behind the last words nothing comes that would show it.
      if (frame !== "DONE" && frame !== "RUNNING") {
        assert.ok(outcome.send.report!.reconnects > 0, "it did not join again");
      }
    });
  },
);
