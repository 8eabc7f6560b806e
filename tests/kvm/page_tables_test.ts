import assert from "node:assert/strict";
import fc from "fast-check";
import { PhysicalLayout } from "../../kvm/guest_physical.ts";
import { GuestPaging } from "../../kvm/page_tables.ts";
import { pageMarks } from "../../kvm/page_tables_marks.ts";
import { pagingFlags } from "../../migration/ports.ts";
import { entryOf, linuxAddresses, SyntheticGuest } from "../support/synthetic_guest.ts";

const { known } = pageMarks;
const user = known | pageMarks.user;
const text = pageMarks.kernel | pageMarks.kernelExecutable;
const PROGRAM = 0x40_0000n;
const STACK = 0x7fff_ffff_e000n;

/** Marks of a page of the only block, by guest-physical number. */
function marksOf(guest: SyntheticGuest, cr3: number[]): (page: number) => number {
  const { why, marks } = guest.read(cr3);
  assert.equal(why, null);
  return (page) => {
    const range = guest.layout.rangeOf(guest.layout.slotOf(page));
    return marks[0]![range.blockPage + page - range.page]!;
  };
}

function twoProcesses(levels: 4 | 5 = 4) {
  const guest = new SyntheticGuest({ levels });
  const kernel = guest.kernel();
  const [first, second] = [guest.process(kernel), guest.process(kernel)];
  guest.map(first, PROGRAM, { page: 0x10, user: true, executable: true });
  guest.map(first, STACK, { page: 0x11, user: true });
  guest.map(second, PROGRAM, { page: 0x12, user: true, executable: true });
  guest.map(second, 0x4000_0000n, { page: 0x10_0200, user: true, level: 2 });
  return { guest, kernel, first, second };
}

Deno.test("pageMarks are what migration/ calls pagingFlags", () => {
  assert.deepEqual(pageMarks, pagingFlags);
});

for (const levels of [4, 5] as const) {
  Deno.test(`GuestPaging.read() finds every process when CR3 shows one, with ${levels} levels`, () => {
    const { guest, first } = twoProcesses(levels);
    assert.equal(guest.read([first]).addressSpaces, 2);
    const marks = marksOf(guest, [first]);
    for (const page of [0x10, 0x11, 0x12]) assert.equal(marks(page) & user, user, `${page}`);
    for (let page = 0x10_0200; page < 0x10_0400; page++) assert.equal(marks(page) & user, user);
    assert.equal(marks(0x10_0000), known | pageMarks.kernel);
    assert.equal(marks(0x13), known | pageMarks.kernel);
    for (let page = 0x600; page < 0x800; page++) assert.equal(marks(page), known | text);
    assert.equal(marks(0x100), known | text);
    assert.equal(marks(0x101), known | pageMarks.kernel);
  });
}

Deno.test("GuestPaging.read() finds the processes when every CR3 is the kernel's own table", () => {
  const { guest, kernel, first } = twoProcesses();
  assert.equal(guest.read([kernel]).addressSpaces, 2);
  assert.equal(guest.read([kernel, first]).addressSpaces, 2);
});

Deno.test("GuestPaging.read() sees a process that began after it was attached", () => {
  const { guest, kernel, first } = twoProcesses();
  const paging = guest.paging([first]);
  assert.equal(paging.read(60_000).marks[0]![0x14], known | pageMarks.kernel);
  const third = guest.process(kernel);
  guest.map(third, PROGRAM, { page: 0x14, user: true });
  const reading = paging.read(60_000);
  assert.equal(reading.addressSpaces, 3);
  assert.equal(reading.marks[0]![0x14]! & user, user);
});

Deno.test("GuestPaging.read() looks for tables everywhere but in memory of processes", () => {
  const { guest, kernel, first } = twoProcesses();
  guest.map(first, 0x4020_0000n, { page: 0x10_0000, user: true, level: 2 });
  const paging = guest.paging([first]);
  paging.read(60_000);
  assert.equal(guest.piecesSkipped, 0);
  // What was a process's memory becomes a table, and there is one more elsewhere.
  const table = 0x10_0064;
  for (const root of [table, guest.process(kernel)]) {
    for (let index = 256; index < 512; index++) {
      guest.setEntry(root, index, guest.entry(kernel, index));
    }
    guest.map(root, PROGRAM, { page: 0x14 + root % 2, user: true });
  }
  assert.equal(paging.read(60_000).addressSpaces, 3);
  assert.ok(guest.piecesSkipped > 0);
  // The process gives that memory back: now the table in it is seen.
  for (let index = 0; index < 256; index++) guest.setEntry(first, index, 0n);
  const { addressSpaces, marks } = paging.read(60_000);
  assert.equal(addressSpaces, 3);
  assert.equal(marks[0]![0x14 + table % 2]! & user, user);
});

Deno.test("GuestPaging.read() forgets what was mapped before", () => {
  const { guest, first } = twoProcesses();
  const paging = guest.paging([first]);
  paging.read(60_000);
  for (let index = 0; index < 256; index++) guest.setEntry(first, index, 0n);
  const { marks, addressSpaces } = paging.read(60_000);
  assert.equal(addressSpaces, 1);
  assert.equal(marks[0]![0x10], known | pageMarks.kernel);
});

Deno.test("GuestPaging.read() forgets a table that is none any more", () => {
  const { guest, first, second } = twoProcesses();
  const paging = guest.paging([second]);
  paging.read(60_000);
  guest.setEntry(first, 511, 0n);
  const { marks, addressSpaces } = paging.read(60_000);
  assert.equal(addressSpaces, 1);
  assert.equal(marks[0]![0x10], known | pageMarks.kernel);
});

for (const inRing3 of [false, true]) {
  const state = inRing3 ? "the processes'" : "the kernel's";
  Deno.test(`GuestPaging.read() finds isolated pairs when CR3 is ${state} table`, () => {
    const { guest, kernel, first, second } = twoProcesses();
    const entryText = guest.allocate();
    guest.map(entryText, linuxAddresses.image, { page: 0x600, executable: true, level: 2 });
    const twin = guest.isolate(first, { root: entryText });
    guest.isolate(second, { root: entryText });
    const paging = guest.paging([inRing3 ? twin : first, kernel]);
    assert.equal(paging.isolated, true);
    const { addressSpaces, marks } = paging.read(60_000);
    assert.equal(addressSpaces, 2);
    for (const page of [0x10, 0x11, 0x12]) assert.equal(marks[0]![page]! & user, user);
    assert.equal(marks[0]![0x101], known | pageMarks.kernel);
  });
}

Deno.test("GuestPaging.read() takes an odd page for a table of its own when it is no twin", () => {
  const { guest, kernel } = twoProcesses();
  guest.allocate({ even: true });
  const odd = guest.allocate();
  assert.equal(odd % 2, 1);
  for (let index = 256; index < 512; index++) {
    guest.setEntry(odd, index, guest.entry(kernel, index));
  }
  guest.map(odd, PROGRAM, { page: 0x15, user: true });
  const paging = guest.paging([odd]);
  assert.equal(paging.isolated, false);
  assert.equal(paging.read(60_000).marks[0]![0x15]! & user, user);
});

Deno.test("GuestPaging.read() marks every page of 1 GiB, also across a hole", () => {
  const { guest, first } = twoProcesses();
  guest.map(first, 0x40_0000_0000n, { page: 0, user: true, level: 3 });
  const marks = marksOf(guest, [first]);
  for (const page of [0, 0x7ff, 0x600]) assert.equal(marks(page) & user, user);
  assert.equal(marks(0x10_0000) & user, known);
});

Deno.test("GuestPaging.read() says unmapped when nothing maps a page", () => {
  const { guest, first } = twoProcesses();
  guest.map(first, guest.directMap + 0x10_0000n * 4096n, { page: 0x1, level: 2 });
  const marks = marksOf(guest, [first]);
  assert.equal(marks(0x10_0000), known);
});

Deno.test("GuestPaging.read() does not say user when an entry on the way lacks the user bit", () => {
  const { guest, first } = twoProcesses();
  guest.map(first, PROGRAM + 0x8000_0000_00n, { page: 0x16, user: false });
  const level1 = guest.allocate();
  guest.setEntry(level1, 0, entryOf(0x17) | 7n);
  guest.map(first, 0x80_8000_0000n, { page: level1, user: true });
  // The table on the way was made without the user bit: nothing below it is for ring 3.
  assert.equal(marksOf(guest, [first])(0x16), known | pageMarks.kernel);
});

Deno.test("GuestPaging.read() says user when a process has a page without rights", () => {
  const { guest, first } = twoProcesses();
  guest.map(first, PROGRAM + 0x1000n, { page: 0x18, user: true });
  const tableOf = (table: number, index: number) =>
    Number((guest.entry(table, index) >> 12n) & 0xff_ffff_ffffn);
  const level1 = tableOf(tableOf(tableOf(first, 0), 0), 2);
  const protNone = 0x100n | 0x20n;
  const inverted = ~entryOf(0x18) & 0x000f_ffff_ffff_f000n;
  guest.setEntry(level1, 1, inverted | protNone);
  guest.setEntry(level1, 2, entryOf(0x19) | protNone);
  // Swapped out: no page of RAM.
  guest.setEntry(level1, 3, entryOf(0x1a) | 0x2n);
  const marks = marksOf(guest, [first]);
  assert.equal(marks(0x18) & user, user);
  assert.equal(marks(0x19) & user, user);
  assert.equal(marks(0x1a), known | pageMarks.kernel);
});

Deno.test("GuestPaging.read() says why when CR3 does not show Linux", () => {
  const { guest, first } = twoProcesses();
  const why = (...pages: number[]) => guest.read(pages).why ?? "";
  assert.match(why(0x8_0000), /vCPU 0: CR3 does not point into RAM/);
  assert.match(why(0x10), /the kernel's half of the page tables is empty/);
  assert.match(why(first, 0x8_0000), /vCPU 1/);
  guest.words.subarray(0x20 * 1024, 0x21 * 1024).fill(0xffff_ffff);
  assert.match(why(0x20), /CR3 does not point to a page table/);
  guest.setEntry(first, 300, entryOf(first) | 3n);
  assert.match(why(first), /not those of Linux/);
  guest.setEntry(first, 300, 0n);
  assert.equal(guest.read([first]).why, null);
  const noImage = guest.kernel();
  guest.map(noImage, linuxAddresses.image, { page: 0x600, level: 2 });
  assert.match(why(noImage), /no kernel image/);
  const other = guest.kernel({ imagePage: 0x400 });
  assert.match(why(first, other), /of another kernel/);
});

Deno.test("GuestPaging.read() says why when no process is left", () => {
  const { guest, first, second } = twoProcesses();
  const paging = guest.paging([first]);
  for (const root of [first, second]) {
    for (let index = 0; index < 256; index++) guest.setEntry(root, index, 0n);
  }
  assert.match(paging.read(60_000).why ?? "", /no address space/);
});

Deno.test("GuestPaging.read() gives up when its time is over", () => {
  const { guest, first } = twoProcesses();
  const { why, marks } = guest.read([first], { budgetMs: 0 });
  assert.match(why ?? "", /not read within 0 ms/);
  assert.deepEqual(marks, []);
});

Deno.test("GuestPaging.read() says why when memory cannot be read", () => {
  const { guest, first } = twoProcesses();
  const paging = guest.paging([first]);
  guest.readPages = () => {
    throw new Error("Cannot read the memory of process 7: it ends too early");
  };
  assert.match(paging.read(60_000).why ?? "", /process 7/);
});

Deno.test("GuestPaging.read() says why when there is no RAM", () => {
  const layout = new PhysicalLayout([]);
  const memory = { layout, readPages: () => {}, pieces: () => [] };
  const mode = { why: null, levels: 4, topPages: [{ cpu: 0, page: 1 }] } as const;
  assert.match(GuestPaging.of(memory, mode).read(1000).why ?? "", /RAM/);
});

Deno.test("GuestPaging.read() reads each table once when all tables lead to all", () => {
  const { guest, first } = twoProcesses();
  // A hundred tables, each entry of which leads to one of them: without bounds, 512 ^ 4 ways.
  const tables = Array.from({ length: 100 }, () => guest.allocate());
  for (const table of tables) {
    for (let index = 0; index < 512; index++) {
      guest.setEntry(table, index, entryOf(tables[index % tables.length]!) | 7n);
    }
  }
  for (let index = 0; index < 256; index++) guest.setEntry(first, index, entryOf(tables[0]!) | 7n);
  const paging = guest.paging([first]);
  guest.tablesRead = 0;
  assert.equal(paging.read(60_000).why, null);
  // 100 at each of three levels below the root, and the ordinary ones.
  assert.ok(guest.tablesRead < 400, `${guest.tablesRead} tables`);
});

Deno.test("GuestPaging.read() reads each table once when the kernel's half is shared", () => {
  const { guest, kernel, first } = twoProcesses();
  const count = () => {
    const paging = guest.paging([first]);
    guest.tablesRead = 0;
    paging.read(60_000);
    return guest.tablesRead;
  };
  const before = count();
  for (let n = 0; n < 20; n++) guest.process(kernel);
  assert.equal(count(), before + 20);
});

Deno.test("GuestPaging.read() ends and never throws when RAM is garbage", () => {
  fc.assert(
    fc.property(fc.infiniteStream(fc.integer({ min: 0, max: 511 })), fc.nat(), (noise, seed) => {
      const { guest, first } = twoProcesses();
      let state = seed | 1;
      const random = () => {
        state ^= state << 13;
        state ^= state >>> 17;
        return (state ^= state << 5) >>> 0;
      };
      // Tables below the process, at every level, full of entries that lead anywhere.
      for (let page = 0x400; page < 0x600; page++) {
        for (let index = 0; index < 512; index += 7) {
          guest.setEntry(page, index, BigInt(random() % 0x1000) << 12n | BigInt(random() & 0xfff));
        }
      }
      for (let n = 0; n < 32; n++) {
        const { value } = noise.next();
        guest.setEntry(first, value! % 256, entryOf(0x400 + value!) | 7n);
      }
      const reading = guest.read([first]);
      assert.equal(reading.why, null);
      assert.equal(reading.marks[0]!.length, guest.layout.slotCount);
    }),
    { numRuns: 10 },
  );
});
