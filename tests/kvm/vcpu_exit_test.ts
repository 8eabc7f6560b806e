import { deepEqual, equal } from "node:assert/strict";
import { kvm_run } from "../../kvm/kvm_structures.ts";
import { Structure } from "../../kvm/structure.ts";
import { decodeExit, describeExit, exitError } from "../../kvm/vcpu_exit.ts";

function window(): { bytes: Uint8Array<ArrayBuffer>; run: Structure<typeof kvm_run> } {
  const bytes = new Uint8Array(8192);
  return { bytes, run: new Structure(kvm_run, bytes) };
}

Deno.test("decodeExit() takes the data from where the kernel says when a port was written", () => {
  const { bytes, run } = window();
  run.assign({ exit_reason: 2, "io.direction": 1, "io.size": 2, "io.port": 0x3f8, "io.count": 2 });
  run.set("io.data_offset", 4096n);
  bytes.set([1, 2, 3, 4, 5], 4096);
  deepEqual(decodeExit(bytes), {
    kind: "io",
    direction: "out",
    port: 0x3f8,
    size: 2,
    count: 2,
    data: Uint8Array.of(1, 2, 3, 4),
  });
});

Deno.test("decodeExit() takes as many bytes as the access had when it was MMIO", () => {
  const { bytes, run } = window();
  run.assign({ exit_reason: 6, "mmio.phys_addr": 0xfee00000n, "mmio.len": 2, "mmio.is_write": 1 });
  run.get("mmio.data").set([7, 8, 9]);
  deepEqual(decodeExit(bytes), {
    kind: "mmio",
    address: 0xfee00000n,
    isWrite: true,
    data: Uint8Array.of(7, 8),
  });
});

Deno.test("decodeExit() keeps what KVM and the hardware say when the guest cannot run", () => {
  const { bytes, run } = window();
  run.assign({ exit_reason: 9, "fail_entry.hardware_entry_failure_reason": 0x80000021n });
  deepEqual(decodeExit(bytes), { kind: "failEntry", hardwareReason: 0x80000021n, cpu: 0 });
  run.assign({ exit_reason: 17, "internal.suberror": 1, "internal.ndata": 0xffffffff });
  const exit = decodeExit(bytes);
  equal(exit.kind === "internalError" && exit.data.length, 16);
  equal(
    describeExit(exit),
    "KVM failed: it cannot emulate an instruction (KVM_EXIT_INTERNAL_ERROR, 17)",
  );
});

Deno.test("exitError() gives number and meaning when nobody has use for the exit", () => {
  const known = exitError("Cannot go on", { kind: "other", reason: 24 });
  equal(known.code, "failed");
  equal(
    known.message,
    "Cannot go on: the guest asked for a shutdown or reset (KVM_EXIT_SYSTEM_EVENT, 24)",
  );
  const { bytes, run } = window();
  run.set("exit_reason", 999);
  equal(describeExit(decodeExit(bytes)), "no reason that is known here (exit reason, 999)");
});
