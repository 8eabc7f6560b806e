import assert from "node:assert/strict";
import { systemClock } from "../../cli/clock.ts";
import { locateBlocks, type LocatedBlock } from "../../kvm/guest_memory.ts";
import { GuestPaging } from "../../kvm/page_tables.ts";
import { readProcess } from "../../kvm/process.ts";
import { type QemuFacts, readFacts } from "../../kvm/qemu_facts.ts";
import { QmpClient } from "../../kvm/qmp.ts";
import { type PageClass, pageClasses } from "../../migration/message_types.ts";
import { Monitor } from "../../migration/monitor.ts";
import { qemuTest } from "../support/qemu.ts";
import { TestQemu } from "../support/test_qemu.ts";
import { TempDir } from "../support/temp_dir.ts";
import {
  startTruthGuest,
  type Truth,
  truthFlags,
  type TruthGuestOptions,
} from "../support/truth_guest.ts";

/** The legacy video and BIOS area in pages: nothing is known of it. */
const LEGACY = { first: 0xa0, end: 0x100 };
/** What a look may take on a machine that does other things as well. */
const BUDGET_MS = 60_000;

interface Machine extends Omit<TruthGuestOptions, "directory"> {
  what: string;
  levels: 4 | 5;
  isolated: boolean;
}

const machines: Machine[] = [
  {
    what: "4 levels and private memory",
    levels: 4,
    isolated: false,
    memoryMebibytes: 160,
  },
  {
    what: "4 levels, page table isolation, 2 vCPUs and a memfd",
    levels: 4,
    isolated: true,
    memoryMebibytes: 192,
    cpus: 2,
    append: "pti=on",
    args: [
      ...["-object", "memory-backend-memfd,id=m0,size=192M,share=on"],
      ...["-machine", "q35,memory-backend=m0"],
    ],
  },
  {
    what: "5 levels and pages of 1 GiB",
    levels: 5,
    isolated: false,
    memoryMebibytes: 3072,
    cpu: "qemu64,+la57,+pdpe1gb",
    append: "hugepagesz=1G hugepages=1 truth.gibibyte",
  },
];

/** What each page is for the guest; null for what its kernel does not say. */
function trueClass(truth: Truth, page: number): PageClass | null {
  const flags = truth.pages[page] ?? 0;
  if ((flags & (truthFlags.pagemap | truthFlags.mmap)) !== 0) return "user";
  if (page >= truth.code.first && page <= truth.code.last) return "kernelText";
  const data = truthFlags.slab | truthFlags.buddy | truthFlags.pageTable | truthFlags.lru;
  return (flags & data) !== 0 ? "kernelData" : null;
}

/** How many pages of each true class (`other` for none) the monitor puts into each of its classes. */
class Confusion {
  readonly #counts = new Map<string, number>();
  readonly misses: number[] = [];

  add(truth: PageClass | null, found: PageClass): void {
    const key = `${truth ?? "other"} ${found}`;
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  of(truth: PageClass | "other", found: PageClass): number {
    return this.#counts.get(`${truth} ${found}`) ?? 0;
  }

  recall(name: PageClass): number {
    const all = pageClasses.reduce((sum, found) => sum + this.of(name, found), 0);
    return this.of(name, name) / all;
  }

  /** Of the pages whose class the guest knows. */
  precision(name: PageClass): number {
    const all = pageClasses.reduce((sum, truth) => sum + this.of(truth, name), 0);
    return this.of(name, name) / all;
  }

  /** A line per true class, then precision and recall. */
  lines(): string[] {
    const share = (value: number) => Number.isNaN(value) ? "-" : `${(value * 100).toFixed(2)} %`;
    const truths = [...pageClasses, "other"] as const;
    return [
      ...truths.map((truth) =>
        `  ${truth}: ${pageClasses.map((found) => `${this.of(truth, found)} ${found}`).join(", ")}`
      ),
      ...pageClasses.map((name) =>
        `  ${name}: precision ${share(this.precision(name))}, recall ${share(this.recall(name))}`
      ),
    ];
  }
}

function compare(
  vm: { monitor: Monitor; facts: QemuFacts; blocks: readonly (LocatedBlock | null)[] },
  truth: Truth,
): Confusion {
  const confusion = new Confusion();
  for (const [index, block] of vm.blocks.entries()) {
    for (const range of block?.ranges ?? []) {
      for (let at = 0; at < range.bytes; at += 4096) {
        const page = (range.address + at) / 4096;
        if (page >= LEGACY.first && page < LEGACY.end) continue;
        const found = vm.monitor.classOf(index, (range.offset + at) / 4096);
        const expected = trueClass(truth, page);
        confusion.add(expected, found);
        if (expected === "user" && found !== "user") confusion.misses.push(page);
      }
    }
  }
  return confusion;
}

for (const { what, levels, isolated, ...machine } of machines) {
  qemuTest(`Monitor.classOf() says user for every page of a process, with ${what}`, async () => {
    await using directory = await TempDir.make();
    const { vm, truth } = await startTruthGuest({ ...machine, directory: directory.path });
    await using _vm = vm;
    await using qmp = await QmpClient.connect(vm.qmpPath);
    const process = readProcess(vm.pid);
    const facts = await readFacts(qmp, process);
    using paging = await GuestPaging.attach({ qmp, process, facts });
    const monitor = new Monitor({ reader: paging, clock: systemClock, budgetMs: BUDGET_MS });
    monitor.refresh();
    const summary = monitor.summary();
    assert.equal(summary.why, null);
    assert.deepEqual([paging.levels, paging.isolated], [levels, isolated]);
    const { blocks } = await locateBlocks(qmp, facts.blocks);
    const confusion = compare({ monitor, facts, blocks }, truth);
    console.log(
      [`${what}: ${JSON.stringify(summary)}`, ...confusion.lines()].join("\n"),
    );
    assert.deepEqual(confusion.misses, []);
    assert.equal(confusion.recall("user"), 1);
    assert.ok(confusion.precision("user") > 0.99);
    assert.equal(confusion.recall("kernelText"), 1);
    assert.ok(confusion.recall("kernelData") > 0.99);
    // Linux has one more, to patch its code through (`poking_mm`).
    const { addressSpaces } = truth;
    assert.ok([addressSpaces, addressSpaces + 1].includes(summary.addressSpaces));
  });
}

qemuTest("GuestPaging.read() says why once the guest was reset", async () => {
  await using directory = await TempDir.make();
  await using vm = await TestQemu.start({ directory: directory.path, name: "reset" });
  await using qmp = await QmpClient.connect(vm.qmpPath);
  const process = readProcess(vm.pid);
  using paging = await GuestPaging.attach({ qmp, process, facts: await readFacts(qmp, process) });
  assert.match(paging.read(BUDGET_MS).why ?? "", /no vCPU uses page tables/);
  const { promise, resolve } = Promise.withResolvers<void>();
  qmp.on(({ name }) => name === "RESET" && resolve());
  await qmp.execute("system_reset");
  await promise;
  assert.match(paging.read(BUDGET_MS).why ?? "", /the guest was reset/);
});
