import { deepEqual, equal, throws } from "node:assert/strict";
import { kvm_run, kvm_segment, kvm_sregs } from "../../kvm/kvm_structures.ts";
import { Structure } from "../../kvm/structure.ts";

Deno.test("Structure.set() writes little-endian at the field's offset when it has any width", () => {
  const run = new Structure(kvm_run);
  run.set("immediate_exit", 1);
  run.set("io.port", 0x1234);
  run.set("exit_reason", 0xfedcba98);
  run.set("io.data_offset", 0x1122334455667788n);
  deepEqual([...run.bytes.subarray(0, 12)], [0, 1, 0, 0, 0, 0, 0, 0, 0x98, 0xba, 0xdc, 0xfe]);
  deepEqual([...run.bytes.subarray(34, 36)], [0x34, 0x12]);
  deepEqual([run.get("io.port"), run.get("exit_reason")], [0x1234, 0xfedcba98]);
  equal(run.get("io.data_offset"), 0x1122334455667788n);
});

Deno.test("Structure.get() gives a nested structure in place when its type is a length", () => {
  const sregs = new Structure(kvm_sregs);
  new Structure(kvm_segment, sregs.get("ss")).set("selector", 0x2b);
  equal(sregs.bytes[120 + 12], 0x2b);
});

Deno.test("Structure() refuses bytes that are too few, and set() an array of another length", () => {
  throws(() => new Structure(kvm_sregs, new Uint8Array(311)), RangeError);
  const sregs = new Structure(kvm_sregs);
  throws(() => sregs.set("cs", new Uint8Array(23)), RangeError);
});
