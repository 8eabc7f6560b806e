import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { KvmError } from "../../kvm/errors.ts";
import { hashBlocks, locateBlocks, type LocatedBlock } from "../../kvm/guest_memory.ts";
import { findLanding, type Landing, type LandingMode } from "../../kvm/landing.ts";
import { libc } from "../../kvm/libc.ts";
import { readProcess } from "../../kvm/process.ts";
import { parseRamBlocks } from "../../kvm/qemu_facts.ts";
import { QmpClient } from "../../kvm/qmp.ts";

const qemu = "qemu-system-x86_64";
const hasQemu = await new Deno.Command(qemu, { args: ["--version"], stdout: "null" }).output()
  .then(({ success }) => success, () => false);
const isRoot = Deno.uid() === 0;
const pageBytes = 4096;
const nobody = 65_534;
// Whatever hangs here fails here.
const patienceMs = 60_000;

// Open before any test: the library stays open for the life of the thread.
libc();

/** A QEMU that waits for a migration. */
class WaitingQemu implements AsyncDisposable {
  readonly folder: string;
  readonly qmp: QmpClient;
  readonly #child: Deno.ChildProcess;

  private constructor(vm: { folder: string; qmp: QmpClient; child: Deno.ChildProcess }) {
    this.folder = vm.folder;
    this.qmp = vm.qmp;
    this.#child = vm.child;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** @param args of QEMU; `FOLDER` in them is a folder of this VM alone */
  static async start(args: string[], options: { uid?: number } = {}): Promise<WaitingQemu> {
    const folder = await Deno.makeTempDir({ prefix: "sealift-landing-" });
    if (options.uid !== undefined) await Deno.chown(folder, options.uid, options.uid);
    const child = new Deno.Command(qemu, {
      args: [
        ...["-accel", "tcg", "-display", "none", "-nodefaults", "-S", "-incoming", "defer"],
        ...["-qmp", `unix:${folder}/qmp,server=on,wait=off`],
        ...args.map((arg) => arg.replaceAll("FOLDER", folder)),
      ],
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
      ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
    }).spawn();
    for (const deadlineMs = Date.now() + patienceMs;;) {
      try {
        return new WaitingQemu({
          folder,
          qmp: await QmpClient.connect(join(folder, "qmp")),
          child,
        });
      } catch (error) {
        if (Date.now() > deadlineMs) {
          child.kill("SIGKILL");
          await child.status;
          throw error;
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  async blocks(): Promise<{ name: string; bytes: number }[]> {
    return parseRamBlocks(await this.qmp.hmp("info ramblock"));
  }

  async land(
    mode: LandingMode,
    qmp: { hmp(line: string): Promise<string> } = this.qmp,
  ): Promise<Landing> {
    const facts = { blocks: await this.blocks() };
    return await findLanding({ qmp, process: readProcess(this.pid), facts, mode });
  }

  /** Bytes of a block by its address and `/proc/PID/mem`, which no landing uses. */
  async memory(block: { base: number }, page: number): Promise<Uint8Array> {
    using file = await Deno.open(`/proc/${this.pid}/mem`);
    await file.seek(block.base + page * pageBytes, Deno.SeekMode.Start);
    const bytes = new Uint8Array(pageBytes);
    assert.equal(await file.read(bytes), pageBytes);
    return bytes;
  }

  /** Where a block is, by the monitor. */
  async locate(number: number): Promise<LocatedBlock> {
    const { blocks } = await locateBlocks(this.qmp, await this.blocks());
    const block = blocks[number] ?? null;
    assert.ok(block !== null);
    return block;
  }

  /** Page of the main block at guest address 4 GiB; null when the VM has none. */
  async highPage(base: number): Promise<number | null> {
    const parts = / is (0x[0-9a-f]+)/.exec(await this.qmp.hmp("gpa2hva 0x100000000"));
    return parts === null ? null : (Number(parts[1]) - base) / pageBytes;
  }

  /** Anonymous and shared memory that QEMU has, in KiB, and what its memory's files have. */
  allocatedKib(): number {
    const text = Deno.readTextFileSync(`/proc/${this.pid}/smaps_rollup`);
    const files = Array.from(Deno.readDirSync(`/proc/${this.pid}/fd`), ({ name }) => {
      const path = `/proc/${this.pid}/fd/${name}`;
      const isMemory = /memfd|guest-ram/.test(Deno.readLinkSync(path));
      return isMemory ? (Deno.statSync(path).blocks ?? 0) / 2 : 0;
    });
    return Number(/^Anonymous: +(\d+) kB/m.exec(text)?.[1]) + files.reduce((a, b) => a + b, 0);
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.qmp[Symbol.asyncDispose]();
    await this.kill().catch(() => {});
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Every byte depends on the page's number and its place. */
function content(page: number): Uint8Array {
  return Uint8Array.from({ length: pageBytes }, (_, at) => (page * 7 + at * 13 + 1) & 0xff);
}

function land(landing: Landing, block: number, pages: number[]): void {
  const bytes = new Uint8Array(pages.length * pageBytes);
  pages.forEach((page, index) => bytes.set(content(page), index * pageBytes));
  landing.pages(block, Uint32Array.from(pages), bytes);
}

/** What of this process points to a QEMU's memory. */
function held(): string[] {
  const maps = Deno.readTextFileSync("/proc/self/maps").split("\n");
  const files = Array.from(Deno.readDirSync("/proc/self/fd"), ({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${name}`);
    } catch {
      return "";
    }
  });
  return [...maps, ...files].filter((text) => /memfd|guest-ram|pagemap|\/dev\/zero/.test(text));
}

const main = "memory-backend=m0";
const vms: { args: string[]; bytes: number; expected: "mapped" | "process" }[] = [
  { args: ["-machine", "q35", "-m", "64"], bytes: 64 * 2 ** 20, expected: "process" },
  {
    args: ["-machine", "pc", "-m", "5G", "-vga", "std"],
    bytes: 5 * 2 ** 30,
    expected: "process",
  },
  {
    args: [
      ...["-machine", `q35,${main}`, "-m", "5G", "-vga", "std"],
      ...["-object", "memory-backend-memfd,id=m0,size=5G,share=on"],
    ],
    bytes: 5 * 2 ** 30,
    expected: "mapped",
  },
  {
    args: [
      ...["-machine", `pc,${main}`, "-m", "64"],
      ...["-object", "memory-backend-file,id=m0,size=64M,share=on,mem-path=FOLDER/guest-ram"],
    ],
    bytes: 64 * 2 ** 20,
    expected: "mapped",
  },
  {
    args: [
      ...["-machine", `q35,${main}`, "-m", "64"],
      ...["-object", "memory-backend-ram,id=m0,size=64M,share=on,prealloc=on"],
    ],
    bytes: 64 * 2 ** 20,
    expected: "mapped",
  },
  {
    args: [
      ...["-machine", `q35,${main}`, "-m", "64"],
      ...["-object", "memory-backend-file,id=m0,size=64M,share=off,mem-path=FOLDER/guest-ram"],
    ],
    bytes: 64 * 2 ** 20,
    expected: "process",
  },
];

for (const { args, bytes, expected } of vms) {
  Deno.test({
    name: `findLanding() lands by ${expected} when QEMU has ${args.join(" ")}`,
    ignore: !hasQemu || !isRoot,
    permissions: "inherit",
    async fn() {
      await using vm = await WaitingQemu.start(args);
      const number = (await vm.blocks()).findIndex((block) => block.bytes === bytes);
      const before = held();
      const landing = await vm.land("auto");
      try {
        assert.equal(landing.name, expected);
        if (expected === "mapped") assert.deepEqual(landing.notes, []);
        else {assert.match(
            landing.notes.join("|"),
            /^mapped: block \S+ is private memory; start QEMU/,
          );}
        assert.ok(held().length > before.length);
        await checkLanding(vm, { landing, number, bytes });
      } finally {
        landing.close();
      }
      assert.deepEqual(held(), before);
    },
  });
}

async function checkLanding(
  vm: WaitingQemu,
  options: { landing: Landing; number: number; bytes: number },
): Promise<void> {
  const { landing, number, bytes } = options;
  const pageCount = bytes / pageBytes;
  const { name, base } = await vm.locate(number);
  const block = { name, base, bytes };
  for (const index of (await vm.blocks()).keys()) {
    assert.equal(landing.covers(index), index === number);
  }
  assert.equal(landing.covers(255), false);

  // Runs, single pages, any order, the legacy area, both ends.
  const high = await vm.highPage(base);
  const pages = [300, 301, 302, 0, 1, pageCount - 2, pageCount - 1, 0xa0, 0xff, 0x100, 9, 7, 5];
  pages.push(...high === null ? [] : [high - 1, high, high + 1]);
  land(landing, number, pages);
  for (const page of pages) {
    assert.deepEqual(await vm.memory(block, page), content(page), `${page}`);
  }
  for (const page of [2, 8, 299, 303, pageCount - 3]) {
    assert.deepEqual(await vm.memory(block, page), new Uint8Array(pageBytes), `${page}`);
  }
  if (high !== null) {
    const [word] = /0x[0-9a-f]{16}/.exec(await vm.qmp.hmp("xp /1gx 0x100000000"))!;
    assert.equal(BigInt(word), new DataView(content(high).buffer).getBigUint64(0, true));
  }

  // More runs than one system call takes, and a page twice.
  const scattered = Array.from({ length: 3000 }, (_, index) => 2000 + 2 * index);
  land(landing, number, scattered);
  for (const page of [2000, 2000 + 2 * 1024, 2000 + 2 * 2999]) {
    assert.deepEqual(await vm.memory(block, page), content(page), `${page}`);
  }
  const twice = new Uint8Array(2 * pageBytes);
  twice.set(content(1), 0);
  twice.set(content(2), pageBytes);
  landing.pages(number, Uint32Array.of(4000, 4000), twice);
  assert.deepEqual(await vm.memory(block, 4000), content(2));

  const kept = [301, 7, pageCount - 1];
  landing.zeros(number, Uint32Array.of(300, 0, 1, 302, 9, 2, pageCount - 2));
  for (const page of [300, 0, 1, 302, 9, 2, pageCount - 2]) {
    assert.deepEqual(await vm.memory(block, page), new Uint8Array(pageBytes), `${page}`);
  }
  for (const page of kept) assert.deepEqual(await vm.memory(block, page), content(page), `${page}`);

  // Zeros everywhere, most of it never touched: nothing becomes resident.
  const allocatedBefore = vm.allocatedKib();
  landing.zeros(number, Uint32Array.from({ length: pageCount }, (_, page) => page));
  for (const page of [...pages, ...scattered.slice(0, 3), 4000]) {
    assert.deepEqual(await vm.memory(block, page), new Uint8Array(pageBytes), `${page}`);
  }
  assert.ok(vm.allocatedKib() - allocatedBefore < 8192, `${allocatedBefore}, ${vm.allocatedKib()}`);

  land(landing, number, [0, 17]);
  if (bytes <= 64 * 2 ** 20) {
    const expected = new Uint8Array(bytes);
    expected.set(content(0), 0);
    expected.set(content(17), 17 * pageBytes);
    const hashes = await hashBlocks({ pid: vm.pid, blocks: [block] });
    assert.equal(hashes.get(name), createHash("sha256").update(expected).digest("hex"));
  }

  const outside = (error: unknown) => error instanceof KvmError && error.code === "landing";
  assert.throws(() => land(landing, number, [pageCount]), outside);
  assert.throws(() => landing.zeros(number, Uint32Array.of(0xffff_ffff)), outside);
  assert.throws(() => land(landing, number + 1, [0]), RangeError);
  assert.throws(() => landing.pages(number, Uint32Array.of(1), new Uint8Array(1)), RangeError);
}

const memfd = (id: string, mebibytes: number) =>
  `memory-backend-memfd,id=${id},size=${mebibytes}M,share=on`;

Deno.test({
  name: "findLanding() covers each of several memory backends and a DIMM",
  ignore: !hasQemu || !isRoot,
  permissions: "inherit",
  async fn() {
    await using vm = await WaitingQemu.start([
      ...["-machine", "q35", "-m", "64,slots=2,maxmem=256M", "-smp", "2"],
      ...["-object", memfd("m0", 24), "-object", memfd("m1", 40), "-object", memfd("m2", 128)],
      ...["-numa", "node,memdev=m0", "-numa", "node,memdev=m1", "-device", "pc-dimm,memdev=m2"],
    ]);
    const names = (await vm.blocks()).map(({ name }) => name);
    for (const mode of ["mapped", "process"] as const) {
      const landing = await vm.land(mode);
      try {
        const covered = names.filter((_, index) => landing.covers(index));
        assert.deepEqual(covered.toSorted(), ["m0", "m1", "m2"]);
        for (const [index, name] of names.entries()) {
          if (!landing.covers(index)) continue;
          const page = 100 + index + (mode === "mapped" ? 0 : 50);
          land(landing, index, [page]);
          assert.deepEqual(await vm.memory(await vm.locate(index), page), content(page), name);
        }
      } finally {
        landing.close();
      }
    }
  },
});

Deno.test({
  name: "findLanding() refuses private memory by name, but only when asked for mapped",
  ignore: !hasQemu || !isRoot,
  permissions: "inherit",
  async fn() {
    await using vm = await WaitingQemu.start([
      ...["-machine", "q35", "-m", "64"],
      ...["-object", memfd("m0", 24), "-object", "memory-backend-ram,id=m1,size=40M"],
      ...["-numa", "node,memdev=m0", "-numa", "node,memdev=m1"],
    ]);
    const message =
      "Cannot land by mapped: block m1 is private memory; start QEMU with memory-backend-memfd,share=on";
    const before = held();
    await assert.rejects(vm.land("mapped"), { name: "KvmError", code: "landing", message });
    assert.deepEqual(held(), before);
    const landing = await vm.land("auto");
    landing.close();
    assert.equal(landing.name, "process");
    const stream = await vm.land("stream");
    assert.equal(stream.covers(0), false);
    assert.deepEqual([stream.name, stream.notes], ["stream", []]);
    assert.throws(() => land(stream, 0, [0]), RangeError);
    stream.close();
  },
});

Deno.test({
  name: "findLanding() does not use a landing when its pages are not what QEMU reads",
  ignore: !hasQemu || !isRoot,
  permissions: "inherit",
  async fn() {
    await using vm = await WaitingQemu.start([
      ...["-machine", `q35,${main}`, "-m", "64", "-object", memfd("m0", 64)],
    ]);
    const number = (await vm.blocks()).findIndex(({ name }) => name === "m0");
    const direct = await vm.land("mapped");
    land(direct, number, [0, 70]);
    direct.close();
    // A monitor whose guest has the neighbour there: of a page where data is, and of the first one.
    const wrongAt = (page: number) => ({
      hmp: (line: string) =>
        vm.qmp.hmp(
          line === `xp /512gx 0x${(page * pageBytes).toString(16)}`
            ? `xp /512gx 0x${((page + 1) * pageBytes).toString(16)}`
            : line,
        ),
    });
    const before = held();
    for (const [mode, page] of [["mapped", 70], ["process", 0]] as const) {
      await assert.rejects(vm.land(mode, wrongAt(page)), {
        code: "landing",
        message: `Cannot land by ${mode}: page ${page} of block m0 is not what QEMU reads there`,
      });
    }
    const landing = await vm.land("auto", wrongAt(0));
    assert.equal(landing.name, "stream");
    assert.equal(landing.notes.length, 2);
    // And one that says nothing of its memory.
    const silent = { hmp: () => Promise.resolve("unknown command\r\n") };
    assert.equal((await vm.land("auto", silent)).name, "stream");
    assert.deepEqual(held(), before);
  },
});

Deno.test({
  name: "Landing.pages() fails with `gone` when QEMU has ended",
  ignore: !hasQemu || !isRoot,
  permissions: "inherit",
  async fn() {
    await using vm = await WaitingQemu.start(["-machine", "q35", "-m", "64"]);
    const number = (await vm.blocks()).findIndex(({ name }) => name === "pc.ram");
    const landing = await vm.land("process");
    land(landing, number, [1]);
    await vm.kill();
    const gone = (error: unknown) => error instanceof KvmError && error.code === "gone";
    assert.throws(() => land(landing, number, [1]), gone);
    assert.throws(() => landing.zeros(number, Uint32Array.of(1)), gone);
    landing.close();
  },
});

/** What `findLanding` says to a process that has only another user's rights. */
async function landAsNobody(vm: WaitingQemu): Promise<string[]> {
  const library = Deno.dlopen("libc.so.6", {
    setegid: { parameters: ["u32" /* egid */], result: "i32" },
    seteuid: { parameters: ["u32" /* euid */], result: "i32" },
  });
  try {
    // SAFETY: both take a number; glibc changes every thread, and nothing else runs before they are changed back.
    assert.equal(library.symbols.setegid(nobody), 0);
    assert.equal(library.symbols.seteuid(nobody), 0);
    try {
      const landing = await vm.land("auto");
      landing.close();
      return [landing.name, ...landing.notes];
    } finally {
      // SAFETY: as above; the real user is still root.
      assert.equal(library.symbols.seteuid(0), 0);
      assert.equal(library.symbols.setegid(0), 0);
    }
  } finally {
    library.close();
  }
}

Deno.test({
  name: "findLanding() falls to the stream when QEMU is another user's",
  ignore: !hasQemu || !isRoot,
  permissions: "inherit",
  async fn() {
    await using vm = await WaitingQemu.start([
      ...["-machine", `q35,${main}`, "-m", "64", "-object", memfd("m0", 64)],
    ]);
    const [name, ...notes] = await landAsNobody(vm);
    assert.equal(name, "stream");
    assert.match(
      notes.join("\n"),
      /^mapped: .*permission denied.*\nprocess: .*permission denied.*$/,
    );
  },
});

Deno.test({
  name: "findLanding() lands by mapped without root when QEMU is the same user's",
  ignore: !hasQemu || !isRoot,
  permissions: "inherit",
  async fn() {
    await using vm = await WaitingQemu.start([
      ...["-machine", `q35,${main}`, "-m", "64", "-object", memfd("m0", 64)],
    ], { uid: nobody });
    assert.deepEqual(await landAsNobody(vm), ["mapped"]);
  },
});
