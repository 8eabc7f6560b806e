import assert from "node:assert/strict";
import { KvmError } from "../../kvm/errors.ts";
import { findBacking, parseFlatView, parseMaps } from "../../kvm/memory_map.ts";

// QEMU 7.2, -machine pc -m 5G with a shared memfd; abridged.
const maps = `\
55ea01e00000-55ea02a6d000 r-xp 0037f000 fe:00 530871                     /usr/bin/qemu-system-x86_64
7ff2cc000000-7ff2cc021000 rw-p 00000000 00:00 0 
7ff2cc021000-7ff2d0000000 ---p 00000000 00:00 0 
7ff2d3fff000-7ff413fff000 rw-s 00000000 00:01 26                         /memfd:memory-backend-memfd (deleted)
7ff413fff000-7ff414000000 ---p 00000000 00:00 0 
7fff6d1c5000-7fff6d1e6000 rw-p 00000000 00:00 0                          [stack]
`;

// QEMU 7.2, -machine q35 -m 5G -vga std, while it waits for a migration; abridged.
const tree = `\
FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan
  000000000000005f-000000000000005f (prio 0, ram): not.memory

FlatView #1
 AS "mch", root: bus master container
 Root memory region: (none)
  No rendered FlatView

FlatView #2
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom
  00000000000e0000-00000000000fffff (prio 0, rom): pc.bios @0000000000020000
  0000000000100000-000000007fffffff (prio 0, ram): pc.ram @0000000000100000
  00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic
  00000000fee00000-00000000feefffff (prio 4096, i/o): apic-msi
  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios
  0000000100000000-00000001bfffffff (prio 0, ram): pc.ram @0000000080000000
  0000000240000000-0000000247ffffff (prio 0, nv-ram): a dimm

FlatView #3
 AS "cpu-smm-0", root: memory
 Root memory region: memory
  0000000000000000-00000000000bffff (prio 0, ram): pc.ram
`;

function refused(error: unknown): boolean {
  return error instanceof KvmError && error.code === "landing" &&
    error.message.includes("block m0");
}

Deno.test("parseMaps() reads every line of a QEMU's maps", () => {
  const mappings = parseMaps(maps);
  assert.equal(mappings.length, 6);
  assert.deepEqual(mappings[3], {
    start: 0x7ff2d3fff000,
    end: 0x7ff413fff000,
    readable: true,
    writable: true,
    shared: true,
    offset: 0,
    device: "00:01",
    inode: "26",
    path: "/memfd:memory-backend-memfd (deleted)",
  });
  assert.equal(mappings[0]?.offset, 0x37f000);
  assert.equal(mappings[1]?.path, "");
  assert.equal(mappings[2]?.writable, false);
  assert.equal(mappings[5]?.path, "[stack]");
});

Deno.test("parseMaps() refuses a line of another form", () => {
  const refusal = (error: unknown) => error instanceof KvmError && error.code === "unsupported";
  assert.throws(() => parseMaps(`${maps}7ff2d3fff000 rw-s\n`), refusal);
});

Deno.test("findBacking() gives the file and the offset of a block inside a mapping", () => {
  const block = { name: "m0", base: 0x7ff2d3fff000 + 0x2000, bytes: 0x1_0000_0000 };
  assert.deepEqual(findBacking(parseMaps(maps), block), {
    shared: true,
    anonymous: false,
    device: "00:01",
    inode: "26",
    path: "/memfd:memory-backend-memfd (deleted)",
    offset: 0x2000,
    mapFile: "7ff2d3fff000-7ff413fff000",
  });
});

Deno.test("findBacking() joins mappings that continue each other", () => {
  const file = parseMaps(`\
7f0000000000-7f0000001000 rw-s 00001000 00:01 26 /memfd:m0 (deleted)
7f0000001000-7f0000003000 rw-s 00002000 00:01 26 /memfd:m0 (deleted)
`);
  const block = { name: "m0", base: 0x7f0000000000, bytes: 0x3000 };
  assert.equal(findBacking(file, block).offset, 0x1000);
  const anonymous = parseMaps(`\
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
7f0000001000-7f0000003000 rw-p 00000000 00:00 0
`);
  assert.equal(findBacking(anonymous, block).anonymous, true);
});

Deno.test("findBacking() refuses a block when it is not all one writable thing", () => {
  const first = "7f0000000000-7f0000001000 rw-s 00001000 00:01 26 /memfd:m0 (deleted)\n";
  const block = { name: "m0", base: 0x7f0000000000, bytes: 0x3000 };
  const seconds = [
    "", // ends too early
    "7f0000002000-7f0000003000 rw-s 00003000 00:01 26 /memfd:m0 (deleted)\n", // a gap
    "7f0000001000-7f0000003000 rw-s 00003000 00:01 26 /memfd:m0 (deleted)\n", // another offset
    "7f0000001000-7f0000003000 rw-s 00002000 00:01 27 /memfd:m0 (deleted)\n", // another file
    "7f0000001000-7f0000003000 rw-s 00002000 00:02 26 /memfd:m0 (deleted)\n", // another device
    "7f0000001000-7f0000003000 rw-p 00002000 00:01 26 /memfd:m0 (deleted)\n", // private
    "7f0000001000-7f0000003000 r--s 00002000 00:01 26 /memfd:m0 (deleted)\n", // read-only
    "7f0000001000-7f0000003000 -w-s 00002000 00:01 26 /memfd:m0 (deleted)\n", // not readable
  ];
  for (const second of seconds) {
    assert.throws(() => findBacking(parseMaps(first + second), block), refused, second);
  }
  const late = "7f0000001000-7f0000003000 rw-s 00001000 00:01 26 /memfd:m0 (deleted)\n";
  assert.throws(() => findBacking(parseMaps(late), block), refused, "starts too late");
});

Deno.test("parseFlatView() takes RAM, and only from the view of the guest's memory", () => {
  assert.deepEqual(parseFlatView(tree), [
    { block: "pc.ram", address: 0, bytes: 0xa0000, offset: 0 },
    { block: "pc.ram", address: 0x100000, bytes: 0x7ff00000, offset: 0x100000 },
    { block: "pc.ram", address: 0x1_0000_0000, bytes: 0xc0000000, offset: 0x80000000 },
    { block: "a dimm", address: 0x2_4000_0000, bytes: 0x8000000, offset: 0 },
  ]);
  assert.deepEqual(parseFlatView(tree.replaceAll("\n", "\r\n")), parseFlatView(tree));
  assert.deepEqual(parseFlatView("unknown command: 'info mtree -f'\r\n"), []);
});
