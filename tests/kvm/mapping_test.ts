import { equal, throws } from "node:assert/strict";
import { KvmError } from "../../kvm/errors.ts";
import { libc } from "../../kvm/libc.ts";
import { Mapping } from "../../kvm/mapping.ts";
import { parseMaps } from "../../kvm/memory_map.ts";

// Open before any test: the library stays open for the life of the thread.
libc();

Deno.test("Mapping.anonymous() gives zeros at an address that ends with it", () => {
  const mapping = Mapping.anonymous(1 << 20);
  const view = mapping.bytes.subarray(4096);
  equal(mapping.bytes.every((byte) => byte === 0), true);
  mapping[Symbol.dispose]();
  equal(view.length, 0);
  equal(mapping.bytes.length, 0);
  throws(() => mapping.unsafeAddress, KvmError);
  mapping[Symbol.dispose]();
});

Deno.test("Mapping gives its addresses back to the kernel when it ends", () => {
  // Another thread may take the same ones at once, but not each time.
  const kept = Array.from({ length: 8 }, () => {
    const mapping = Mapping.anonymous(1 << 20);
    const address = mapping.unsafeAddress;
    equal(isMapped(address), true);
    mapping[Symbol.dispose]();
    return isMapped(address);
  });
  equal(kept.includes(false), true);
});

Deno.test("Mapping.anonymous() refuses a length when it is no whole pages", () => {
  for (const bytes of [0, -4096, 4095, 4096.5, NaN, Infinity]) {
    throws(() => Mapping.anonymous(bytes), RangeError);
  }
});

/** Whether our process has something at `address`. */
function isMapped(address: bigint): boolean {
  return parseMaps(Deno.readTextFileSync("/proc/self/maps"))
    .some(({ start, end }) => start <= address && address < end);
}
