import { deepEqual, equal, match, ok, rejects, throws } from "node:assert/strict";
import { DirtyLog } from "../../kvm/dirty_log.ts";
import { KvmError } from "../../kvm/errors.ts";
import { Kvm } from "../../kvm/kvm.ts";
import { describeExit } from "../../kvm/vcpu_exit.ts";
import { VcpuThread } from "../../kvm/vcpu_thread.ts";
import { kvmTest, realModeGuest, startRealMode } from "../support/kvm.ts";

const HLT = 0xf4;
/** jmp to itself */
const LOOP = [0xeb, 0xfe];

kvmTest("Vcpu.run() gives data and answers of ports and MMIO when a guest uses them", () => {
  using kvm = Kvm.open();
  const { vm, vcpu } = realModeGuest(kvm, [
    ...[0xe4, 0x60], // in al, 0x60
    ...[0xa2, 0x00, 0x80], // mov [0x8000], al
    ...[0xa0, 0x01, 0x80], // mov al, [0x8001]
    ...[0xe6, 0x61], // out 0x61, al
    HLT,
  ]);
  using _vm = vm;
  const read = vcpu.run();
  ok(read.kind === "io" && read.direction === "in" && read.port === 0x60 && read.size === 1);
  throws(() => vcpu.answer(Uint8Array.of(1, 2)), { code: "state" });
  vcpu.answer(Uint8Array.of(0x5a));
  deepEqual(vcpu.run(), {
    kind: "mmio",
    address: 0x8000n,
    isWrite: true,
    data: Uint8Array.of(0x5a),
  });
  const mmio = vcpu.run();
  ok(mmio.kind === "mmio" && !mmio.isWrite && mmio.address === 0x8001n);
  vcpu.answer(Uint8Array.of(0xa5));
  const write = vcpu.run();
  ok(write.kind === "io" && write.direction === "out" && write.port === 0x61);
  deepEqual(write.data, Uint8Array.of(0xa5));
  deepEqual(vcpu.run(), { kind: "hlt" });
});

kvmTest("Vcpu.run() says that the guest shut down when it meets a triple fault", () => {
  using kvm = Kvm.open();
  const { vm, vcpu } = realModeGuest(kvm, [0x0f, 0x0b]); // ud2, and no interrupt table
  using _vm = vm;
  const sregs = vcpu.getSregs();
  sregs.get("idt").fill(0);
  vcpu.setSregs(sregs);
  const exit = vcpu.run();
  equal(exit.kind, "shutdown", describeExit(exit));
});

kvmTest("Vcpu.setSregs() refuses a state that no CPU can be in", () => {
  using kvm = Kvm.open();
  const { vm, vcpu } = realModeGuest(kvm, [HLT]);
  using _vm = vm;
  // Paging without protection.
  throws(() => vcpu.setSregs(vcpu.getSregs().assign({ cr0: 1n << 31n })), { code: "system" });
});

kvmTest("Vcpu.getMsr() and setMsr() keep a value, and know which registers there are", () => {
  using kvm = Kvm.open();
  const { vm, vcpu } = realModeGuest(kvm, [HLT]);
  using _vm = vm;
  const IA32_SYSENTER_EIP = 0x176;
  ok(kvm.msrIndices().includes(IA32_SYSENTER_EIP));
  equal(vcpu.setMsr(IA32_SYSENTER_EIP, 0x1234n), true);
  equal(vcpu.getMsr(IA32_SYSENTER_EIP), 0x1234n);
  equal(vcpu.getMsr(0xdeadbeef), null);
});

kvmTest("Vm.setSlot() refuses memory when it is no whole pages, not there, or overlaps", () => {
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  const memory = vm.addMemory({ guestAddress: 0, bytes: 0x2000 });
  throws(() => vm.addMemory({ guestAddress: 0x10000, bytes: 0 }), RangeError);
  throws(() => vm.addMemory({ guestAddress: 0x10800, bytes: 0x1000 }), RangeError);
  throws(
    () => vm.setSlot({ slot: 1, guestAddress: 0x10000, bytes: 0x2000, memory, offset: 0x1000 }),
    RangeError,
  );
  throws(() => vm.addMemory({ guestAddress: 0x1000, bytes: 0x1000 }), {
    code: "system",
    message: /EEXIST/,
  });
});

kvmTest("Vm.setClock() moves the guest's clock", () => {
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  vm.setClock(3_600_000_000_000n);
  const clock = vm.getClock();
  ok(clock >= 3_600_000_000_000n && clock < 7_200_000_000_000n);
});

kvmTest("DirtyLog has exactly the pages written since they were cleared", () => {
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  const memory = vm.addMemory({ guestAddress: 0, bytes: 0x40000 });
  memory.bytes.set([
    ...[0xa2, 0x00, 0x50], // mov [0x5000], al
    ...[0xa2, 0xff, 0x9f], // mov [0x9fff], al
    HLT,
    ...[0xa2, 0x10, 0x90], // mov [0x9010], al
    HLT,
  ], 0x1000);
  const vcpu = vm.createVcpu();
  startRealMode(vcpu);
  throws(() => vm.startDirtyLog(7), { code: "state" });
  const log = vm.startDirtyLog(0);
  equal(log.pageCount, 64);
  equal(vcpu.run().kind, "hlt");
  log.read();
  equal(log.bitmap[0], 1 << 5 | 1 << 9);
  equal(log.count(), 2);
  log.clear(0, 64);
  equal(vcpu.run().kind, "hlt");
  log.read();
  equal(log.bitmap[0], 1 << 9);
  throws(() => log.clear(0, 128), RangeError);
  vm.stopDirtyLog(0);
  throws(() => log.read(), KvmError);
});

kvmTest("DirtyLog.read() keeps what was not copied when KVM forgets it at each reading", () => {
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  const memory = vm.addMemory({ guestAddress: 0x1000, bytes: 0x10000 });
  memory.bytes.set([
    ...[0xa2, 0x00, 0x50], // mov [0x5000], al
    HLT,
    ...[0xa2, 0x10, 0x90], // mov [0x9010], al
    HLT,
  ]);
  vm.setSlot({ slot: 0, guestAddress: 0x1000, bytes: 0x10000, memory, logDirtyPages: true });
  const log = new DirtyLog(vm, { slot: 0, pageCount: 16, manualProtect: false });
  const vcpu = vm.createVcpu();
  startRealMode(vcpu);
  equal(vcpu.run().kind, "hlt");
  log.read();
  equal(log.bitmap[0], 1 << 4);
  equal(vcpu.run().kind, "hlt");
  log.read({ keep: true });
  equal(log.bitmap[0], 1 << 4 | 1 << 8);
  log.read();
  equal(log.bitmap[0], 0);
});

kvmTest(
  "VcpuThread.stop() brings a guest out of an endless loop, and run() lets it go on",
  async () => {
    using kvm = Kvm.open();
    const { vm, vcpu } = realModeGuest(kvm, LOOP);
    using _vm = vm;
    using thread = await VcpuThread.start(vcpu, { beatPort: 0x10 });
    for (let i = 0; i < 3; i++) {
      const out = thread.run();
      throws(() => thread.run(), { code: "state" });
      equal(thread.running, true);
      thread.stop();
      equal(thread.running, false);
      deepEqual(await out, { kind: "interrupted" });
      equal(vcpu.getRegs().get("rip"), 0x1000n);
    }
  },
);

kvmTest(
  "VcpuThread.stop() leaves the guest after its `out` when it stands in a heartbeat",
  async () => {
    using kvm = Kvm.open();
    // inc ax; out 0x10, ax; jmp back
    const { vm, vcpu } = realModeGuest(kvm, [0x40, 0xe7, 0x10, 0xeb, 0xfb]);
    using _vm = vm;
    using thread = await VcpuThread.start(vcpu, { beatPort: 0x10, paceMs: 3_600_000 });
    const out = thread.run();
    while (thread.beatCount < 1) await new Promise((resolve) => setTimeout(resolve, 1));
    thread.stop();
    await out;
    equal(vcpu.getRegs().get("rip"), 0x1003n);
    deepEqual(thread.beats().map(({ value }) => value), [1]);
  },
);

kvmTest(
  "VcpuThread.run() hands out what is no heartbeat, and rejects when KVM_RUN fails",
  async () => {
    using kvm = Kvm.open();
    const { vm, vcpu } = realModeGuest(kvm, [0xe6, 0x42, HLT]);
    using _vm = vm;
    using thread = await VcpuThread.start(vcpu, { beatPort: 0x10 });
    const exit = await thread.run();
    ok(exit.kind === "io" && exit.port === 0x42);
    deepEqual(await thread.run(), { kind: "hlt" });

    using other = kvm.createVm();
    const broken = other.createVcpu();
    // No memory at all, and nothing to start from: KVM says so in one way or the other.
    using brokenThread = await VcpuThread.start(broken, { beatPort: 0x10 });
    const end = await brokenThread.run().catch((error) => error);
    ok(end instanceof KvmError || end.kind !== "interrupted");
  },
);

kvmTest("VcpuThread ends with its guest inside KVM_RUN when it is disposed", async () => {
  using kvm = Kvm.open();
  const { vm, vcpu } = realModeGuest(kvm, LOOP);
  using _vm = vm;
  const thread = await VcpuThread.start(vcpu, { beatPort: 0x10 });
  const out = thread.run();
  thread[Symbol.dispose]();
  deepEqual(await out, { kind: "interrupted" });
  throws(() => thread.run(), { code: "state" });
  thread[Symbol.dispose]();
});

kvmTest("a process that is killed inside KVM_RUN leaves nothing behind", async () => {
  const module = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
  const code = `
    import { Kvm } from ${module("../../kvm/kvm.ts")};
    import { realModeGuest } from ${module("../support/kvm.ts")};
    const { vcpu } = realModeGuest(Kvm.open(), [0xe6, 0x42, 0xeb, 0xfe]);
    vcpu.run();
    console.log("in the loop");
    vcpu.run();
  `;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["eval", code],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  match(new TextDecoder().decode((await reader.read()).value), /in the loop/);
  child.kill("SIGKILL");
  equal((await child.status).signal, "SIGKILL");
  await reader.cancel();
  await rejects(Deno.stat(`/proc/${child.pid}`), Deno.errors.NotFound);
});
