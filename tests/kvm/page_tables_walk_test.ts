import assert from "node:assert/strict";
import fc from "fast-check";
import { NO_SLOT } from "../../kvm/guest_physical.ts";
import { PageMarks, pageMarks } from "../../kvm/page_tables_marks.ts";
import { PageTableWalk } from "../../kvm/page_tables_walk.ts";
import { SyntheticGuest } from "../support/synthetic_guest.ts";

const TABLES = 6;
const SIGNIFICANT = [0, 1, 255, 256, 507, 508, 511];

/** Entries at random, few of them: each leads to a table, a page or nowhere. */
const randomEntries = fc.array(
  fc.record({
    table: fc.nat(TABLES - 1),
    index: fc.oneof(fc.constantFrom(...SIGNIFICANT), fc.nat(511)),
    page: fc.oneof(
      { weight: 5, arbitrary: fc.nat(TABLES - 1) },
      { weight: 2, arbitrary: fc.nat(0x1100) },
      { weight: 1, arbitrary: fc.integer({ min: 0xffff_ff00, max: 0xff_ffff_ffff }) },
    ),
    flags: fc.oneof(
      { weight: 4, arbitrary: fc.constantFrom(0x67n, 0x63n) },
      { weight: 2, arbitrary: fc.constantFrom(0xe7n, 0xe3n, 0x100n, 0x180n, 0x80n) },
      { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: 0xfffn }) },
    ),
    executeDisable: fc.boolean(),
  }),
  { minLength: 10, maxLength: 30 },
);

/** What the walk says of each slot, one page at a time. */
function walked(guest: SyntheticGuest, roots: readonly number[]): Uint8Array {
  const marks = new PageMarks(guest.layout);
  const walk = new PageTableWalk({ memory: guest, marks, levels: guest.levels });
  for (const root of roots) walk.addRoot(guest.layout.slotOf(root));
  assert.equal(walk.run(Infinity), true);
  const map = new Uint8Array(guest.layout.slotCount);
  marks.copyTo([map]);
  return map;
}

/** The same by the book: every path of entries from each root, with the address that it translates. */
function translated(guest: SyntheticGuest, roots: readonly number[]): Uint8Array {
  const map = new Uint8Array(guest.layout.slotCount).fill(pageMarks.known);
  const mark = (first: number, { count, marks }: { count: number; marks: number }) => {
    for (const range of guest.layout.ranges) {
      const from = Math.max(first, range.page);
      const to = Math.min(first + count, range.page + range.pageCount);
      for (let page = from; page < to; page++) map[range.blockPage + page - range.page]! |= marks;
    }
  };
  const used = Array.from(
    { length: TABLES },
    (_, table) =>
      Array.from({ length: 512 }, (_, index) => index).filter((index) =>
        guest.entry(table, index) !== 0n
      ),
  );
  const visit = (
    table: number,
    at: { level: number; address: bigint; user: boolean; executable: boolean },
  ) => {
    // Pages above the tables are never written: they hold no entry.
    for (const index of used[table] ?? []) {
      const entry = guest.entry(table, index);
      const isLarge = (entry & 0x80n) !== 0n;
      const page = Number((entry >> 12n) & 0xff_ffff_ffffn);
      const address = at.address | BigInt(index) << BigInt(12 + 9 * (at.level - 1));
      const isUpper = address >> BigInt(12 + 9 * guest.levels - 1) === 1n;
      const size = 512 ** (at.level - 1);
      const first = (page: number) => Math.floor(page / size) * size;
      if ((entry & 1n) === 0n) {
        const protNone = (entry & 0x100n) !== 0n || (at.level > 1 && isLarge);
        if (!at.user || isUpper || at.level > 3 || !protNone) continue;
        for (const each of [page, 0xff_ffff_ffff - page]) {
          mark(first(each), { count: size, marks: pageMarks.user });
        }
        continue;
      }
      const user = at.user && (entry & 4n) !== 0n;
      const executable = at.executable && entry >> 63n === 0n;
      if (at.level === 1 || (isLarge && at.level < 4)) {
        const canonical = isUpper
          ? address |
            (0xffff_ffff_ffff_ffffn << BigInt(12 + 9 * guest.levels)) & 0xffff_ffff_ffff_ffffn
          : address;
        const text = executable && canonical >= 0xffff_fe00_0000_0000n;
        const marks = user
          ? pageMarks.user
          : pageMarks.kernel | (text ? pageMarks.kernelExecutable : 0);
        mark(first(page), { count: size, marks });
      } else if (!isLarge && guest.layout.slotOf(page) !== NO_SLOT) {
        visit(page, { level: at.level - 1, address, user, executable });
      }
    }
  };
  for (const root of roots) {
    visit(root, { level: guest.levels, address: 0n, user: true, executable: true });
  }
  return map;
}

for (const levels of [4, 5] as const) {
  Deno.test(`PageTableWalk says what a plain translation says, with ${levels} levels`, () => {
    let marked = 0;
    fc.assert(
      fc.property(
        randomEntries,
        fc.uniqueArray(fc.nat(TABLES - 1), { minLength: 1, maxLength: 3 }),
        (entries, roots) => {
          const guest = new SyntheticGuest({
            levels,
            lowPages: 64,
            highPage: 0x1000,
            highPages: 64,
          });
          for (const { table, index, page, flags, executeDisable } of entries) {
            const high = executeDisable ? 1n << 63n : 0n;
            guest.setEntry(table, index, BigInt(page) << 12n | flags | high);
          }
          const expected = translated(guest, roots);
          assert.deepEqual(walked(guest, roots), expected);
          if (expected.some((marks) => marks !== pageMarks.known)) marked++;
        },
      ),
      { numRuns: 300 },
    );
    assert.ok(marked > 50, `only ${marked} of 300 guests map anything`);
  });
}

Deno.test("PageTableWalk.run() says false when the deadline has passed", () => {
  const guest = new SyntheticGuest();
  const marks = new PageMarks(guest.layout);
  const walk = new PageTableWalk({ memory: guest, marks, levels: 4 });
  walk.addRoot(0);
  assert.equal(walk.run(-1), false);
});
