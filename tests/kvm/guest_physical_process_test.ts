import assert from "node:assert/strict";
import { ProcessPhysicalMemory } from "../../kvm/guest_physical_process.ts";
import { KvmError } from "../../kvm/errors.ts";
import { FileDescriptor, libc, openFlags } from "../../kvm/libc.ts";
import { Mapping } from "../../kvm/mapping.ts";
import { parseMaps } from "../../kvm/memory_map.ts";
import { TempDir } from "../support/temp_dir.ts";

libc();

const PAGES = 1024;
const BYTES = PAGES * 4096;

/** This process's own memory, as if it were a QEMU's. The guest sees its second half at 4 GiB. */
function open(mapping: Mapping): ProcessPhysicalMemory {
  const half = BYTES / 2;
  const ranges = [
    { block: "m0", address: 0, bytes: half, offset: 0 },
    { block: "m0", address: 2 ** 32, bytes: half, offset: half },
  ];
  const base = Number(mapping.unsafeAddress);
  return ProcessPhysicalMemory.open({
    pid: Deno.pid,
    blocks: [null, { name: "m0", bytes: BYTES, base, ranges }],
    mappings: parseMaps(Deno.readTextFileSync("/proc/self/maps")),
  });
}

async function withMappings(check: (mapping: Mapping, what: string) => void): Promise<void> {
  await using directory = await TempDir.make();
  const path = `${directory.path}/ram`;
  await Deno.writeFile(path, new Uint8Array(0));
  await Deno.truncate(path, BYTES);
  using file = FileDescriptor.open(path, { flags: openFlags.O_RDWR });
  using shared = Mapping.ofFile(file.unsafeFd, BYTES);
  check(shared, "shared");
  using anonymous = Mapping.anonymous(BYTES);
  check(anonymous, "private");
}

Deno.test("ProcessPhysicalMemory.readPages() reads pages in the order asked for", async () => {
  await withMappings((mapping, what) => {
    const words = new Uint32Array(mapping.bytes.buffer);
    for (let page = 0; page < PAGES; page++) words[page * 1024 + 3] = page + 1;
    using memory = open(mapping);
    const slots = Array.from({ length: 600 }, (_, index) => (index * 7) % memory.layout.slotCount);
    const into = new Uint32Array(slots.length * 1024);
    memory.readPages(slots, into);
    // The slots have no legacy area: those after it are 96 pages further in the block.
    const expected = slots.map((slot) => (slot < 0xa0 ? slot : slot + 0x60) + 1);
    assert.deepEqual(slots.map((_, index) => into[index * 1024 + 3]), expected, what);
  });
});

Deno.test("ProcessPhysicalMemory.pieces() gives every page that was touched, once", async () => {
  await withMappings((mapping, what) => {
    const words = new Uint32Array(mapping.bytes.buffer);
    const written = [0, 255, 256, 600, 1023];
    for (const page of written) words[page * 1024] = page + 1;
    using memory = open(mapping);
    const found: number[] = [];
    for (const { block, first, words } of memory.pieces()) {
      assert.equal(block, 1);
      for (let at = 0; at < words.length; at += 1024) {
        if (words[at] !== 0) found.push(first + at / 1024);
      }
    }
    assert.deepEqual(found, written, what);
  });
});

Deno.test("ProcessPhysicalMemory.pieces() leaves out long runs that are to be skipped", async () => {
  await withMappings((mapping, what) => {
    mapping.bytes.fill(1);
    using memory = open(mapping);
    const read = new Set<number>();
    const wanted = (page: number) => page < 300 || (page >= 305 && page < 310) || page === 900;
    for (const { first, words } of memory.pieces((_, page) => !wanted(page))) {
      for (let page = first; page < first + words.length / 1024; page++) {
        assert.ok(!read.has(page));
        read.add(page);
      }
    }
    for (let page = 0; page < PAGES; page++) if (wanted(page)) assert.ok(read.has(page), what);
    assert.ok(read.size <= 312, `${what}: ${read.size}`);
  });
});

Deno.test("ProcessPhysicalMemory.open() throws when the block is not there", () => {
  using mapping = Mapping.anonymous(BYTES);
  const block = { name: "m0", bytes: BYTES, base: Number(mapping.unsafeAddress), ranges: [] };
  const open = (pid: number, base: number) =>
    ProcessPhysicalMemory.open({
      pid,
      blocks: [{ ...block, base }],
      mappings: parseMaps(Deno.readTextFileSync("/proc/self/maps")),
    });
  assert.throws(() => open(Deno.pid, 4096), { name: "KvmError", code: "landing" });
  // The largest PID there can be is 2^22.
  assert.throws(
    () => open(2 ** 22 + 1, block.base),
    (error) => error instanceof KvmError && error.code === "gone",
  );
});
