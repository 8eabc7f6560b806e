import { deepEqual, equal, match, ok, rejects, throws } from "node:assert/strict";
import { KvmError } from "../../kvm/errors.ts";
import { addresses } from "../../kvm/micro/layout.ts";
import { MicroVm } from "../../kvm/micro/micro_vm.ts";
import type { WorkloadCheck } from "../../kvm/micro/workload_check.ts";
import { kvmTest } from "../support/kvm.ts";

const MIB = 2 ** 20, PAGE_BYTES = 4096;

function assertSound(checks: readonly WorkloadCheck[]): void {
  for (const { filled, wrongPages, checksumFits } of checks) {
    deepEqual({ filled, wrongPages, checksumFits }, {
      filled: true,
      wrongPages: [],
      checksumFits: true,
    });
  }
}

for (const vcpus of [1, 2]) {
  kvmTest(`MicroVm runs its workload in ring 3 when it has ${vcpus} vCPUs`, async () => {
    using vm = await MicroVm.create({ memoryBytes: 16 * MIB, vcpus });
    vm.boot({ dirtyPagesPerSecond: 20_000, secret: new TextEncoder().encode("hush") });
    vm.start();
    await vm.untilBeats(20);
    vm.stop();
    equal(vm.running, false);
    const checks = vm.check();
    equal(checks.length, vcpus);
    assertSound(checks);
    for (const [cpu, { visits, beats }] of checks.entries()) {
      // The first heartbeat comes before the first page; 100 pages go between two, of all vCPUs together.
      const due = Number(beats - 1n) * 100 / vcpus;
      ok(visits >= due && visits <= due + 100 / vcpus, `${visits} visits, ${beats} beats`);
      const values = vm.beats(cpu).map(({ value }) => value);
      deepEqual(values, values.map((_, i) => i + 1));
      ok(BigInt(values.length) <= beats && beats <= BigInt(values.length) + 1n);
    }
    equal(
      new TextDecoder().decode(vm.memory.subarray(addresses.secret, addresses.secret + 4)),
      "hush",
    );
  });
}

kvmTest("MicroVm.startDirtyLog() misses no page that changed", async () => {
  using vm = await MicroVm.create({ memoryBytes: 8 * MIB });
  vm.boot({ dirtyPagesPerSecond: 10_000 });
  vm.start();
  await vm.untilBeats(2);
  vm.stop();
  const before = vm.memory.slice();
  const [{ log }] = vm.startDirtyLog() as [ReturnType<MicroVm["startDirtyLog"]>[number]];
  vm.start();
  await vm.untilBeats(vm.beats(0).length + 6);
  vm.stop();
  log.read();
  const words = (bytes: Uint8Array<ArrayBuffer>, page: number) =>
    new BigUint64Array(bytes.buffer, page * PAGE_BYTES, PAGE_BYTES / 8);
  let changed = 0;
  for (let page = 0; page < log.pageCount; page++) {
    const now = words(vm.memory, page);
    if (words(before, page).every((word, i) => word === now[i])) continue;
    changed++;
    ok(log.bitmap[page >> 5]! >>> page % 32 & 1, `page ${page} changed unnoticed`);
  }
  // 50 pages a heartbeat, the information page, and no more than the kernel's stack beside.
  ok(changed > 200, `${changed} changed`);
  ok(log.count() <= changed + 2, `${log.count()} dirty, ${changed} changed`);
  vm.stopDirtyLog();
});

for (const vcpus of [1, 2]) {
  kvmTest(
    `MicroVm.loadState() goes on where saveState() stood when it has ${vcpus} vCPUs`,
    async () => {
      using one = await MicroVm.create({ memoryBytes: 8 * MIB, vcpus });
      one.boot({ dirtyPagesPerSecond: 20_000, beatMs: 2 });
      one.start();
      throws(() => one.saveState(), { code: "state" });
      await one.untilBeats(5);
      one.stop();
      const last = Array.from({ length: vcpus }, (_, cpu) => one.beats(cpu).at(-1)!.value);

      using two = await MicroVm.create({ memoryBytes: 8 * MIB, vcpus });
      two.memory.set(one.memory);
      two.loadState(one.saveState());
      deepEqual(two.saveState().length, one.saveState().length);
      two.start();
      await two.untilBeats(5);
      two.stop();
      assertSound(two.check());
      for (const [cpu, value] of last.entries()) {
        const [first] = two.beats(cpu);
        equal(first!.value, value + 1);
      }
      // The copy that was left behind did not go on.
      assertSound(one.check());
    },
  );
}

kvmTest("MicroVm.loadState() refuses what is no state of such a VM", async () => {
  using one = await MicroVm.create({ memoryBytes: 4 * MIB });
  one.boot();
  const state = one.saveState();
  const refuses = (bytes: Uint8Array) =>
    throws(() => one.loadState(bytes), { name: "KvmError", code: "stream" });
  refuses(new Uint8Array(0));
  refuses(new Uint8Array(4096));
  for (let length = 0; length < state.length; length += 97) refuses(state.subarray(0, length));
  refuses(Uint8Array.of(...state, 0));
  using two = await MicroVm.create({ memoryBytes: 4 * MIB, vcpus: 2 });
  throws(() => two.loadState(state), { code: "stream", message: /1 vCPUs, this VM 2/ });
  one.loadState(state);
});

kvmTest("MicroVm tells when the guest's memory is not as it left it", async () => {
  using vm = await MicroVm.create({ memoryBytes: 4 * MIB });
  vm.boot({ dirtyPagesPerSecond: 100_000, workingSetBytes: 16 * PAGE_BYTES });
  vm.start();
  await vm.untilBeats(2);
  vm.stop();
  vm.memory[addresses.workingSet + 5 * PAGE_BYTES]! ^= 1;
  deepEqual(vm.check()[0]?.wrongPages, [addresses.workingSet + 5 * PAGE_BYTES]);
  const failed = Promise.withResolvers<KvmError>();
  vm.onFailure = failed.resolve;
  vm.start();
  match((await failed.promise).message, /exception 6 .*its memory is not as it left it/);
  equal(vm.running, false);
  throws(() => vm.start(), { code: "failed" });
});

kvmTest("MicroVm tells when the guest halts, or shuts down, at once", async () => {
  for (
    const [code, text] of [
      [[0xf4], /the guest halted/],
      // lidt [0], which is nothing but zeros; ud2
      [[0x0f, 0x01, 0x1c, 0x25, 0x00, 0x50, 0, 0, 0x0f, 0x0b], /triple fault/],
    ] as const
  ) {
    using vm = await MicroVm.create({ memoryBytes: 4 * MIB });
    vm.boot();
    vm.memory.set(code, addresses.kernelText);
    vm.start();
    await rejects(
      vm.untilBeats(1),
      (error) => error instanceof KvmError && text.test(error.message),
    );
  }
});

Deno.test("MicroVm.create() refuses a memory or a number of vCPUs that it cannot have", async () => {
  for (const memoryBytes of [0, -2 * MIB, 2 * MIB, 5 * MIB, 4 * MIB + 4096, 4098 * MIB, NaN]) {
    await rejects(MicroVm.create({ memoryBytes }), RangeError);
  }
  for (const vcpus of [0, 3, 1.5]) {
    await rejects(MicroVm.create({ memoryBytes: 4 * MIB, vcpus }), RangeError);
  }
});

kvmTest("MicroVm.boot() refuses what does not fit", async () => {
  using vm = await MicroVm.create({ memoryBytes: 4 * MIB });
  throws(() => vm.boot({ workingSetBytes: 2 * MIB + 4096 }), RangeError);
  throws(() => vm.boot({ workingSetBytes: 100 }), RangeError);
  throws(() => vm.boot({ dirtyPagesPerSecond: -1 }), RangeError);
  throws(() => vm.boot({ secret: new Uint8Array(4097) }), RangeError);
});

kvmTest(
  "MicroVm leaves no descriptor, mapping or thread when a hundred have come and gone",
  async () => {
    const one = async () => {
      using vm = await MicroVm.create({ memoryBytes: 4 * MIB });
      vm.boot({ dirtyPagesPerSecond: 1000 });
      vm.start();
      await vm.untilBeats(1);
    };
    for (let i = 0; i < 5; i++) await one();
    const before = ownResources();
    for (let i = 0; i < 100; i++) await one();
    const after = ownResources();
    equal(after.kvm, before.kvm);
    // The runtime's own come and go; a hundred VMs would have left a hundred.
    for (const name of ["descriptors", "mappings", "threads"] as const) {
      ok(after[name] < before[name] + 50, `${name}: ${before[name]}, then ${after[name]}`);
    }
  },
);

function ownResources() {
  const links = [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${name}`);
    } catch {
      return ""; // the descriptor of the listing itself
    }
  });
  const maps = Deno.readTextFileSync("/proc/self/maps").split("\n");
  return {
    kvm: [...links, ...maps].filter((text) => text.includes("kvm-v")).length,
    descriptors: links.length,
    mappings: maps.length,
    threads: [...Deno.readDirSync("/proc/self/task")].length,
  };
}
