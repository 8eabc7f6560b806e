import assert from "node:assert/strict";
import { NO_SLOT, PhysicalLayout, physicalRanges } from "../../kvm/guest_physical.ts";

Deno.test("physicalRanges() leaves the legacy area out", () => {
  const main = {
    name: "m0",
    bytes: 0x40_0000,
    base: 0x7000_0000,
    ranges: [
      { block: "m0", address: 0, bytes: 0xc_3000, offset: 0 },
      { block: "m0", address: 0xe_8000, bytes: 0x8000, offset: 0xe_8000 },
      { block: "m0", address: 0x10_0000, bytes: 0x10_0000, offset: 0x10_0000 },
      { block: "m0", address: 0x1_0000_0000, bytes: 0x20_0000, offset: 0x20_0000 },
    ],
  };
  assert.deepEqual(physicalRanges([null, main]), [
    { block: 1, blockPage: 0, page: 0, pageCount: 0xa0 },
    { block: 1, blockPage: 0x100, page: 0x100, pageCount: 0x100 },
    { block: 1, blockPage: 0x200, page: 0x10_0000, pageCount: 0x200 },
  ]);
});

Deno.test("PhysicalLayout finds slots on both sides of a hole", () => {
  const layout = new PhysicalLayout([
    { block: 0, blockPage: 100, page: 0x10_0000, pageCount: 50 },
    { block: 0, blockPage: 0, page: 0, pageCount: 100 },
  ]);
  assert.equal(layout.slotCount, 150);
  assert.equal(layout.slotOf(99), 99);
  assert.equal(layout.slotOf(100), NO_SLOT);
  assert.equal(layout.slotOf(0x10_0000), 100);
  assert.equal(layout.slotOf(0x10_0031), 149);
  assert.equal(layout.slotOf(0x10_0032), NO_SLOT);
  assert.equal(layout.slotOf(2 ** 40 - 1), NO_SLOT);
  assert.equal(layout.slotInBlock(0, 120), 120);
  assert.equal(layout.slotInBlock(0, 150), NO_SLOT);
  assert.equal(layout.slotInBlock(1, 0), NO_SLOT);
  assert.equal(layout.rangeOf(120).page, 0x10_0000);
  assert.throws(() => layout.rangeOf(150), RangeError);
});
