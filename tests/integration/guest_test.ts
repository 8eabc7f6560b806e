import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { writeBootSector } from "../../cli/guest/boot_sector.ts";
import { GuestError } from "../../cli/guest/guest_error.ts";
import { examineHeartbeats, parseHeartbeats } from "../../cli/guest/heartbeat.ts";
import { guestSecrets } from "../../cli/guest/linux_guest.ts";
import { QemuProcess } from "../../cli/guest/qemu_process.ts";
import {
  changedPages,
  delay,
  qemuTest,
  qmpExecute,
  readGuestMemory,
  savedTestGuest,
  testLoad,
  testMemoryMiB,
  writeGuestMemory,
} from "../support/qemu.ts";

const MIB = 1024 * 1024;

async function waitForBeats(vm: QemuProcess, count: number): Promise<void> {
  const until = performance.now() + 60_000;
  while (vm.heartbeats().length < count) {
    assert.ok(performance.now() < until, `only ${vm.heartbeats().length} beats: ${vm.stderr}`);
    await delay(20);
  }
}

/** Pages that a machine changes in `ms` of its own time, in guest-physical `address` and up. */
async function pagesChangedIn(
  vm: QemuProcess,
  ms: number,
  options: { address: number; lengthBytes: number },
): Promise<number[]> {
  const { address, lengthBytes } = options;
  await qmpExecute(vm, "stop");
  const before = await readGuestMemory(vm, address, lengthBytes);
  await qmpExecute(vm, "cont");
  await delay(ms);
  await qmpExecute(vm, "stop");
  const after = await readGuestMemory(vm, address, lengthBytes);
  await qmpExecute(vm, "cont");
  return changedPages(before, after);
}

qemuTest("QemuProcess beats without a gap in the numbers on a Linux guest", async () => {
  const saved = await savedTestGuest();
  await using vm = await saved.start();
  await waitForBeats(vm, 200);
  const { breaks } = examineHeartbeats(vm.heartbeats());
  assert.deepEqual(breaks, []);
});

qemuTest(
  "the Linux guest's memory holds each secret, and the check of its memory passes",
  async () => {
    const saved = await savedTestGuest();
    await using vm = await saved.start();
    await vm.waitForLine(0, "PASS", 60_000);
    const memory = Buffer.from(await readGuestMemory(vm, 0, testMemoryMiB * MIB));
    for (const secret of Object.values(guestSecrets(testLoad.secretToken))) {
      assert.ok(memory.includes(secret), secret);
    }
    assert.ok(!memory.includes("SEALIFT-HEAP-other"));
    const console = Buffer.concat(vm.serial(0).map(({ bytes }) => bytes)).toString();
    assert.doesNotMatch(console, /BAD|FAIL/);
  },
);

qemuTest("the Linux guest dirties more memory when it is told to", async () => {
  const counts: number[] = [];
  for (const dirtyMiBPerSecond of [1, testLoad.dirtyMiBPerSecond]) {
    const saved = await savedTestGuest({ dirtyMiBPerSecond });
    await using vm = await saved.start();
    await waitForBeats(vm, 10);
    const all = { address: MIB, lengthBytes: (testMemoryMiB - 1) * MIB };
    counts.push((await pagesChangedIn(vm, 600, all)).length);
  }
  const [slow = 0, fast = 0] = counts;
  assert.ok(slow > 0 && fast > 2 * slow, `${slow} and ${fast} pages`);
});

qemuTest(
  "the Linux guest's check says BAD when a page of its working set was changed",
  async () => {
    const saved = await savedTestGuest();
    await using vm = await saved.start();
    await waitForBeats(vm, 10);
    await qmpExecute(vm, "stop");
    const memory = await readGuestMemory(vm, 0, testMemoryMiB * MIB);
    const page = findWorkingSetPage(memory);
    await writeGuestMemory(vm, page + 2000, new Uint8Array([memory[page + 2000]! ^ 1]));
    await qmpExecute(vm, "cont");
    await vm.waitForLine(0, "BAD page", 60_000);
  },
);

qemuTest("a Linux guest that QEMU itself moves loses no beat", async () => {
  const saved = await savedTestGuest();
  await using source = await saved.start({ memory: "memfd" });
  await using destination = await QemuProcess.start({ ...saved.options, incoming: "defer" });
  await waitForBeats(source, 50);
  const uri = `unix:${destination.directory}/migration`;
  await qmpExecute(destination, "migrate-incoming", { uri });
  await qmpExecute(source, "migrate-set-parameters", { "max-bandwidth": 0 });
  await qmpExecute(source, "migrate", { uri });
  await destination.waitForLine(1, "HB", 60_000);
  await waitForBeats(destination, 50);
  const { breaks } = examineHeartbeats(
    parseHeartbeats([...source.serial(1), ...destination.serial(1)]),
  );
  assert.deepEqual(breaks, []);
});

for (const machine of ["q35", "pc"] as const) {
  qemuTest(
    `the boot sector beats and dirties its working set, and only that, on ${machine}`,
    async () => {
      const directory = await Deno.makeTempDir();
      try {
        const bootSector = `${directory}/boot.img`;
        await writeBootSector(bootSector, { dirtyMiBPerSecond: 32, workingSetMiB: 4 });
        await using vm = await QemuProcess.start({ machine, memoryMiB: 64, guest: { bootSector } });
        await waitForBeats(vm, 5);
        const around = { address: MIB, lengthBytes: 8 * MIB };
        const changed = await pagesChangedIn(vm, 500, around);
        assert.ok(changed.length > 100, `${changed.length} pages`);
        // The working set is 2 to 6 MiB; page 0 of what was read is at 1 MiB.
        assert.ok(changed.every((page) => page >= 256 && page < 256 + 1024));
        assert.deepEqual(examineHeartbeats(vm.heartbeats()).breaks, []);
      } finally {
        await Deno.remove(directory, { recursive: true });
      }
    },
  );
}

qemuTest("the boot sector dirties memory above 4 GiB", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const bootSector = `${directory}/boot.img`;
    await writeBootSector(bootSector, { beginMiB: 4096, dirtyMiBPerSecond: 32, workingSetMiB: 2 });
    await using vm = await QemuProcess.start({ memoryMiB: 5 * 1024, guest: { bootSector } });
    await waitForBeats(vm, 5);
    const changed = await pagesChangedIn(vm, 300, { address: 4096 * MIB, lengthBytes: 4 * MIB });
    assert.ok(changed.length > 100 && changed.every((page) => page < 512));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

qemuTest(
  "QemuProcess.start() throws QEMU's own words and leaves nothing when QEMU does not start",
  async () => {
    const directory = await Deno.makeTempDir();
    try {
      const options = {
        memoryMiB: 64,
        machine: "nonesuch",
        guest: { bootSector: "/none" },
        directory,
      };
      await assert.rejects(
        () => QemuProcess.start(options),
        (error: unknown) => error instanceof GuestError && /machine type/.test(error.message),
      );
      assert.deepEqual([...Deno.readDirSync(directory)], []);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
);

/** Offset of a page of the load's working set: its third word is the weighted sum of those after it. */
function findWorkingSetPage(memory: Uint8Array): number {
  const words = new BigUint64Array(memory.buffer);
  for (let page = 0; page < words.length; page += 512) {
    if (words[page]! >= 8192n || words[page + 1]! === 0n || words[page + 2]! === 0n) continue;
    let sum = 0n;
    for (let i = 3; i < 512; i++) sum += words[page + i]! * BigInt(2 * i + 1);
    if (BigInt.asUintN(64, sum) === words[page + 2]!) return page * 8;
  }
  throw new Error("Cannot find the working set");
}
