import assert from "node:assert/strict";
import { KvmError } from "../../kvm/errors.ts";
import { libc } from "../../kvm/libc.ts";
import { ProcessMemory, RemoteRanges } from "../../kvm/process_memory.ts";

// mmap(2)
const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const MADV_NOHUGEPAGE = 15;

// Open before any test: the library stays open for the life of the thread.
libc();

/** Memory of this process itself, in pages that nothing else uses. */
class OwnPages implements Disposable {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly #pointer: Deno.PointerObject;

  constructor(pageCount: number) {
    const length = BigInt(pageCount * 4096);
    // SAFETY: a new mapping; nothing is there before.
    const pointer = libc().mmap(null, length, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0n);
    assert.ok(pointer !== null);
    // SAFETY: the mapping made above. A huge page would be touched as a whole.
    libc().madvise(pointer, length, MADV_NOHUGEPAGE);
    this.#pointer = pointer;
    this.address = Number(Deno.UnsafePointer.value(pointer));
    this.bytes = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, Number(length)));
  }

  [Symbol.dispose](): void {
    const length = BigInt(this.bytes.length);
    // SAFETY: the mapping made in the constructor, which no test uses after this.
    libc().munmap(this.#pointer, length);
  }
}

Deno.test({
  name: "ProcessMemory.write() and read() reach the bytes of a process",
  permissions: "inherit",
  fn() {
    using pages = new OwnPages(4);
    using memory = ProcessMemory.open(Deno.pid);
    memory.write(pages.address + 4000, Uint8Array.from({ length: 5000 }, (_, i) => i % 251));
    assert.equal(pages.bytes[3999], 0);
    assert.equal(pages.bytes[4000 + 4999], 4999 % 251);
    assert.equal(pages.bytes[9000], 0);
    const back = new Uint8Array(5000);
    memory.read(pages.address + 4000, back);
    assert.deepEqual(back, pages.bytes.subarray(4000, 9000));
  },
});

Deno.test({
  name: "ProcessMemory.writeRanges() scatters bytes in order",
  permissions: "inherit",
  fn() {
    using pages = new OwnPages(4);
    using memory = ProcessMemory.open(Deno.pid);
    const ranges = new RemoteRanges();
    ranges.add(pages.address + 8192, 3);
    ranges.add(pages.address, 2);
    memory.writeRanges(Uint8Array.of(1, 2, 3, 4, 5), ranges);
    assert.deepEqual([...pages.bytes.subarray(8192, 8196)], [1, 2, 3, 0]);
    assert.deepEqual([...pages.bytes.subarray(0, 3)], [4, 5, 0]);
    assert.equal(ranges.count, 0);
    ranges.clear();
    ranges.add(pages.address, 2);
    assert.throws(() => memory.writeRanges(new Uint8Array(3), ranges), RangeError);
  },
});

Deno.test({
  name: "ProcessMemory.write() fails when a part of the range is not mapped, also not the first",
  permissions: "inherit",
  fn() {
    using pages = new OwnPages(4);
    // SAFETY: the last two pages of the mapping above, of which only the bytes before are used from here on.
    const hole = Deno.UnsafePointer.create(BigInt(pages.address + 8192));
    libc().munmap(hole, 8192n);
    using memory = ProcessMemory.open(Deno.pid);
    const denied = (error: unknown) => error instanceof KvmError && /EFAULT/.test(error.message);
    const ranges = new RemoteRanges();
    ranges.add(pages.address, 4096);
    ranges.add(pages.address + 8192, 4096);
    assert.throws(() => memory.writeRanges(new Uint8Array(8192).fill(7), ranges), denied);
    assert.equal(pages.bytes[4095], 7);
    assert.throws(() => memory.read(pages.address + 8192, new Uint8Array(8)), denied);
  },
});

Deno.test({
  name: "ProcessMemory.forEachTouched() tells written pages from those never touched",
  permissions: "inherit",
  fn() {
    // More pages than are asked about at once; a run across that border comes as two.
    using pages = new OwnPages(10_000);
    using memory = ProcessMemory.open(Deno.pid);
    for (const page of [0, 1, 5, 8191, 8192, 9999]) pages.bytes[page * 4096 + 17] = 1;
    const runs: [number, number][] = [];
    memory.forEachTouched(pages.address, 10_000, ({ first, count }) => runs.push([first, count]));
    assert.deepEqual(runs, [[0, 2], [5, 1], [8191, 1], [8192, 1], [9999, 1]]);
  },
});

Deno.test({
  name: "ProcessMemory fails with `gone` when the process has ended, or there is none",
  permissions: "inherit",
  async fn() {
    const process = new Deno.Command("sleep", { args: ["60"], stdin: "null" }).spawn();
    using memory = ProcessMemory.open(process.pid);
    memory.assertAlive();
    process.kill("SIGKILL");
    await process.status;
    const gone = (error: unknown) => error instanceof KvmError && error.code === "gone";
    assert.throws(() => memory.assertAlive(), gone);
    assert.throws(() => memory.write(0x1000, new Uint8Array(8)), gone);
    assert.throws(() => memory.forEachTouched(0x1000, 1, () => {}), gone);
    assert.throws(() => ProcessMemory.open(process.pid), gone);
  },
});

Deno.test("RemoteRanges.skip() uses up whole ranges and parts of them, beyond 4 GiB", () => {
  const ranges = new RemoteRanges();
  ranges.add(0x7fff_ffff_f000, 4096);
  ranges.add(0x7f01_ffff_f000, 8192);
  ranges.skip(4096 + 4096 + 1);
  assert.equal(ranges.count, 1);
  assert.deepEqual([...ranges.unsafeIovecs], [1, 0x7f02, 4095, 0]);
  ranges.skip(4095);
  assert.equal(ranges.count, 0);
});

Deno.test("RemoteRanges.add() refuses more than one call can take", () => {
  const ranges = new RemoteRanges();
  while (!ranges.isFull) ranges.add(0, 1);
  assert.equal(ranges.count, 1024);
  assert.throws(() => ranges.add(0, 1), RangeError);
});
