/**
 * Whole migrations between two real QEMUs: every pair of what a VM, a landing and a destination can be, at least once.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { examineHeartbeats, parseHeartbeats } from "../../cli/guest/heartbeat.ts";
import type { QemuOptions } from "../../cli/guest/qemu_arguments.ts";
import { compareRam, GuestRam } from "../support/guest_ram.ts";
import { MigrationHosts } from "../support/migration_hosts.ts";
import { allPairs, hasPair, type Pair, pairwise, type Row } from "../support/pairwise.ts";
import { qemuTest } from "../support/qemu.ts";
import { WatchedVm } from "../support/watched_vm.ts";

const MIB = 1024 * 1024;

// The cheapest value of each comes first.
const factors = {
  landing: ["process", "mapped", "stream"],
  machine: ["q35", "pc"],
  vcpus: [1, 2],
  memoryMiB: [64, 512, 5 * 1024],
  before: ["running", "paused", "prelaunch"],
  memory: ["private", "memfd", "file"],
  destinationPaused: [false, true],
} as const;

/** Nobody but its QEMU can map private memory: what must be refused, below. */
function isExcluded([name, value, other, otherValue]: Pair): boolean {
  return name === "landing" && value === "mapped" && other === "memory" && otherValue === "private";
}

const rows = pairwise(factors, {
  isExcluded,
  // Where zeros need no memory: gigabytes that become resident take most of a minute.
  begin: [
    { memoryMiB: 5 * 1024, landing: "process", memory: "private" },
    { memoryMiB: 5 * 1024, landing: "stream", memory: "private" },
    { memoryMiB: 5 * 1024, landing: "mapped", memory: "memfd" },
    { memoryMiB: 5 * 1024, landing: "mapped", memory: "file" },
  ],
});

Deno.test("pairwise() covers every pair of the matrix but mapped on private memory", () => {
  const pairs = allPairs(factors, () => false);
  const missing = pairs.filter((pair) => !rows.some((row) => hasPair(row, pair)));
  assert.deepEqual(missing, [["landing", "mapped", "memory", "private"]]);
  assert.ok(rows.length < 18, `${rows.length} rows`);
});

for (const row of rows) {
  const { landing, machine, vcpus, memoryMiB, before, memory, destinationPaused } = row;
  const destination = destinationPaused ? "a destination with -S" : "a destination without -S";
  qemuTest(
    `a ${before} VM (${machine}, ${vcpus} vCPU, ${memoryMiB} MiB ${memory}) arrives byte-identical by ${landing} at ${destination}`,
    () => moveAndCompare(row),
  );
}

async function moveAndCompare(row: Row<typeof factors>): Promise<void> {
  const { landing, before, memory } = row;
  await using hosts = await MigrationHosts.make();
  const vm = await vmOf(row, hosts);
  // Looking for zeros, QEMU makes all of a file resident. What the source's memory is makes no difference to an agent.
  const sourceMemory = row.memoryMiB > 4096 ? "private" : memory;
  await using source = await WatchedVm.start({ ...vm, memory: sourceMemory, paused: true });
  const { destinationPaused: paused } = row;
  await using destination = await WatchedVm.start({ ...vm, paused, incoming: "defer" });
  using ram = await GuestRam.open(source, sourceMemory);
  using otherRam = await GuestRam.open(destination, memory);
  const data = fillRam({ ram, otherRam });
  if (before !== "prelaunch") {
    await source.qmp.execute("cont");
    await source.moreBeats(5);
  }
  if (before === "paused") await source.qmp.execute("stop");

  const receiver = await hosts.receive(destination, { args: ["--land", landing] });
  assert.equal(receiver.landing, landing);
  const send = hosts.send(source, receiver.port, {
    hold: ["releasing"],
    args: ["--max-stop", "60s"],
  });
  const held = await send.line("held");
  if (held === null) assert.fail((await send.ended).stderr);

  // Both stand still: the source has stopped, the destination has loaded.
  const stands = await source.status();
  assert.equal(stands, before === "running" ? "finish-migrate" : stands);
  const { differing, comparedBytes } = await compareRam(ram, otherRam);
  assert.deepEqual(differing, [], "pages that differ");
  assert.ok(comparedBytes >= data.length, `only ${comparedBytes} bytes compared`);
  const arrived = Buffer.alloc(data.length);
  otherRam.read(DATA_OFFSET, arrived);
  assert.ok(arrived.equals(data), "what was written at the source is not at the destination");

  await send.go();
  const [sent, received] = await Promise.all([send.ended, receiver.agent.ended]);
  assert.equal(sent.code, 0, sent.stderr);
  assert.equal(received.code, 0, received.stderr);
  assert.equal(sent.report?.landing, landing);
  assert.deepEqual([sent.report?.sourceState, sent.report?.destinationState], ["quit", before]);
  assert.equal(await source.status(), "gone");
  assert.equal(await destination.status(), before);

  if (before !== "running") await destination.qmp.execute("cont");
  await destination.moreBeats(5);
  const beats = parseHeartbeats([...source.process.serial(0), ...destination.process.serial(0)]);
  assert.deepEqual(examineHeartbeats(beats).breaks, []);
  if (before === "prelaunch") assert.equal(beats[0]?.n, 0);
  await hosts.checkClean();
}

async function vmOf(row: Row<typeof factors>, hosts: MigrationHosts): Promise<QemuOptions> {
  const { machine, vcpus, memoryMiB, memory } = row;
  // What the guest dirties lies above the hole below 4 GiB where there is memory.
  const beginMiB = memoryMiB > 4096 ? 4096 : 2;
  return {
    guest: { bootSector: await hosts.bootSector({ beginMiB }) },
    machine,
    vcpus,
    memoryMiB,
    memory,
    name: "matrix",
    uuid: crypto.randomUUID(),
  };
}

const DATA_OFFSET = 16 * MIB;
const DATA_BYTES = MIB;

/**
 * Random data all over the source's RAM, also around where it is split; pages that hold data and then zeros again; and
 * data at the destination, as of an earlier round, where the source has zeros.
 *
 * @returns what is at {@linkcode DATA_OFFSET}
 */
function fillRam({ ram, otherRam }: { ram: GuestRam; otherRam: GuestRam }): Uint8Array {
  const data = randomBytes(DATA_BYTES);
  const splits = [2048, 3072, 4096].map((at) => at * MIB - DATA_BYTES / 2);
  const places = [DATA_OFFSET, ...splits, ram.sizeBytes - 8 * MIB];
  for (const place of places.filter((at) => at < ram.sizeBytes)) {
    ram.write(place, data);
    // These hold data no more, those never did; the destination has some at both.
    ram.write(place + 2 * MIB, data);
    ram.write(place + 2 * MIB, new Uint8Array(DATA_BYTES));
    otherRam.write(place + 2 * MIB, data);
    otherRam.write(place + 4 * MIB, data);
  }
  return data;
}

function randomBytes(count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count; at += 65_536) {
    crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  }
  return bytes;
}

qemuTest("receive refuses mapped on private memory by name", async () => {
  await using hosts = await MigrationHosts.make();
  await using destination = await WatchedVm.start({
    guest: { bootSector: await hosts.bootSector() },
    memoryMiB: 64,
    incoming: "defer",
  });
  const receive = hosts.receiveAnyway(destination, { args: ["--land", "mapped"] });
  const { code, report } = await receive.ended;
  assert.equal(code, 1);
  assert.match(
    report?.error?.message ?? "",
    /^Cannot land by mapped: block m0 is private memory; start QEMU with memory-backend-memfd,share=on$/,
  );
  assert.equal(await destination.status(), "inmigrate");
  await hosts.checkClean();
});

for (const memory of ["private", "memfd"] as const) {
  qemuTest(
    `receive lands by stream on ${memory} memory without the right to write another process's memory, and says why`,
    async () => {
      await using hosts = await MigrationHosts.make();
      const vm: QemuOptions = {
        guest: { bootSector: await hosts.bootSector() },
        memoryMiB: 64,
        memory,
      };
      await using source = await WatchedVm.start(vm);
      await using destination = await WatchedVm.start({ ...vm, incoming: "defer" });
      await source.moreBeats(5);
      // The same user with fewer capabilities than QEMU may not trace it: ptrace(2), access mode checking.
      const wrapper = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
      const receiver = await hosts.receive(destination, { wrapper });
      assert.equal(receiver.landing, "stream");
      const sent = await hosts.send(source, receiver.port).ended;
      const received = await receiver.agent.ended;
      assert.deepEqual([sent.code, received.code], [0, 0], sent.stderr + received.stderr);
      const { landing, notes = [] } = sent.report ?? {};
      assert.equal(landing, "stream");
      assert.match(notes.join("; "), /mapped: .*; process: .*permission denied/);
      await destination.moreBeats(5);
      const beats = parseHeartbeats([
        ...source.process.serial(0),
        ...destination.process.serial(0),
      ]);
      assert.deepEqual(examineHeartbeats(beats).breaks, []);
      await hosts.checkClean();
    },
  );
}
