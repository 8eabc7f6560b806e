import { equal, throws } from "node:assert/strict";
import { KvmError } from "../../kvm/errors.ts";
import { libc } from "../../kvm/libc.ts";
import { Mapping } from "../../kvm/mapping.ts";

// Open before any test: the library stays open for the life of the thread.
libc();

Deno.test("Mapping.anonymous() gives zeros at an address that ends with it", () => {
  const mapping = Mapping.anonymous(1 << 20);
  const view = mapping.bytes.subarray(4096);
  equal(mapping.bytes.every((byte) => byte === 0), true);
  const line = mapping.unsafeAddress.toString(16);
  equal(ownMaps().includes(line), true);
  mapping[Symbol.dispose]();
  equal(ownMaps().includes(line), false);
  equal(view.length, 0);
  equal(mapping.bytes.length, 0);
  throws(() => mapping.unsafeAddress, KvmError);
  mapping[Symbol.dispose]();
});

Deno.test("Mapping.anonymous() refuses a length when it is no whole pages", () => {
  for (const bytes of [0, -4096, 4095, 4096.5, NaN, Infinity]) {
    throws(() => Mapping.anonymous(bytes), RangeError);
  }
});

function ownMaps(): string {
  return Deno.readTextFileSync("/proc/self/maps");
}
