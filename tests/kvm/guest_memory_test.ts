import assert from "node:assert/strict";
import { guestAddress, type HumanMonitor, locateBlocks } from "../../kvm/guest_memory.ts";

const base = 0x7ff2d3fff000;
const blocks = [
  { name: "m0", bytes: 5 * 2 ** 30 },
  { name: "0000:00:02.0/vga.vram", bytes: 2 ** 24 },
  { name: "pc.rom", bytes: 0x20000 },
];

// QEMU 7.2, -machine pc -m 5G, main memory in a backend with id m0; abridged.
const tree = `\
FlatView #0
 AS "memory", root: system
  0000000000000000-000000000009ffff (prio 0, ram): m0
  00000000000c0000-00000000000dffff (prio 1, ram): pc.rom
  00000000000e0000-00000000bfffffff (prio 0, ram): m0 @00000000000e0000
  0000000100000000-000000017fffffff (prio 0, ram): m0 @00000000c0000000
`;

/** A monitor with these answers to `gpa2hva`, by address; it knows what it was asked. */
function monitor(answers: Record<string, string>): HumanMonitor & { asked: string[] } {
  const asked: string[] = [];
  return {
    asked,
    hmp(line) {
      asked.push(line);
      if (line === "info mtree -f") return Promise.resolve(tree);
      const gpa = line.replace("gpa2hva ", "");
      return Promise.resolve(answers[gpa] ?? `No memory is mapped at address ${gpa}\r\n`);
    },
  };
}

function at(block: string, address: number): string {
  return `Host virtual address for 0x0 (${block}) is 0x${address.toString(16)}\r\n`;
}

Deno.test("locateBlocks() finds a block by address 0 and checks its ranges, but none of the legacy area", async () => {
  const qmp = monitor({
    "0": at("m0", base),
    "0x0": at("m0", base),
    "0x100000000": at("m0", base + 0xc0000000),
  });
  const { blocks: [main, ...others], notes } = await locateBlocks(qmp, blocks);
  assert.equal(main?.base, base);
  assert.deepEqual(main?.ranges.map(({ address }) => address), [0, 0x1_0000_0000]);
  assert.deepEqual(others, [null, null]);
  assert.deepEqual(notes, []);
  assert.deepEqual(qmp.asked, ["gpa2hva 0", "info mtree -f", "gpa2hva 0x0", "gpa2hva 0x100000000"]);
});

Deno.test("locateBlocks() does not take a block when a range is not at its offset", async () => {
  const qmp = monitor({
    "0": at("m0", base),
    "0x0": at("m0", base),
    "0x100000000": at("m0", base + 0xc0001000),
  });
  const { blocks: [main], notes } = await locateBlocks(qmp, blocks);
  assert.equal(main, null);
  assert.deepEqual(notes, ["block m0: guest address 0x100000000 does not lie at its offset"]);
});

Deno.test("locateBlocks() does not take a block when another one is behind its range, or none", async () => {
  for (
    const answer of [at("m1", base + 0xc0000000), "Memory at address 0x100000000 is not RAM\r\n"]
  ) {
    const qmp = monitor({ "0": at("m0", base), "0x0": at("m0", base), "0x100000000": answer });
    const { blocks: [main], notes } = await locateBlocks(qmp, blocks);
    assert.equal(main, null);
    assert.match(notes.join(), /^block m0: guest address 0x100000000 is not where/);
  }
});

Deno.test("guestAddress() is null in the legacy area and where the guest has nothing", () => {
  const block = {
    name: "m0",
    bytes: 5 * 2 ** 30,
    base,
    ranges: [
      { block: "m0", address: 0, bytes: 0xc0000000, offset: 0 },
      { block: "m0", address: 0x1_0000_0000, bytes: 0x4000_0000, offset: 0xc0000000 },
    ],
  };
  assert.equal(guestAddress(block, 0x9ffff), 0x9ffff);
  assert.equal(guestAddress(block, 0xa0000), null);
  assert.equal(guestAddress(block, 0xfffff), null);
  assert.equal(guestAddress(block, 0x100000), 0x100000);
  assert.equal(guestAddress(block, 0xc0000000), 0x1_0000_0000);
  assert.equal(guestAddress(block, 0x1_0000_0000), null);
});
