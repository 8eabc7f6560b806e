import { deepEqual, equal } from "node:assert/strict";
import { addresses } from "../../../kvm/micro/layout.ts";
import { physicalAddress, writePageTables } from "../../../kvm/micro/page_tables.ts";

const MIB = 2 ** 20, GIB = 2 ** 30;

/** Walks the tables as a CPU does. Tables lie below 2 MiB, where physical addresses are offsets. */
function walk(memory: Uint8Array<ArrayBuffer>, cr3: number, address: number) {
  const view = new DataView(memory.buffer);
  let table = cr3, user = true, writable = true, executable = true;
  for (const shift of [39, 30, 21, 12]) {
    const entry = view.getBigUint64(table + Math.floor(address / 2 ** shift) % 512 * 8, true);
    if ((entry & 1n) === 0n) return null;
    writable &&= (entry & 2n) !== 0n;
    user &&= (entry & 4n) !== 0n;
    executable &&= entry >> 63n === 0n;
    table = Number(entry & 0x000f_ffff_ffff_f000n);
    if (shift === 12 || (entry & 0x80n) !== 0n) {
      return { physical: table + address % 2 ** shift, user, writable, executable };
    }
  }
}

Deno.test("writePageTables() gives each page the rights it needs when it is below 2 MiB", () => {
  const memory = new Uint8Array(4 * MIB);
  const cr3 = writePageTables(memory);
  const rights = (address: number) => {
    const page = walk(memory, cr3, address);
    if (page === null || page === undefined) return "none";
    equal(page.physical, address);
    return `${page.user ? "user" : "kernel"} r${page.writable ? "w" : ""}${
      page.executable ? "x" : ""
    }`;
  };
  deepEqual(
    [
      0,
      addresses.kernelText,
      addresses.idt,
      addresses.userText,
      addresses.stacks[1],
      addresses.information[1],
      addresses.secret,
      addresses.pageTables,
      2 * MIB + 4096,
      4 * MIB,
    ].map(rights),
    [
      "none",
      "kernel rx",
      "kernel rw",
      "user rx",
      "kernel rw",
      "user rw",
      "user rw",
      "none",
      "user rw",
      "none",
    ],
  );
});

Deno.test("writePageTables() maps RAM past the hole when it reaches above 3 GiB", () => {
  // Only the tables are touched: the rest of it costs nothing.
  const memory = new Uint8Array(new ArrayBuffer(4 * GIB));
  const cr3 = writePageTables(memory);
  for (const offset of [2 * MIB, GIB - 1, 3 * GIB - 1, 3 * GIB, 4 * GIB - 1]) {
    equal(walk(memory, cr3, offset)?.physical, physicalAddress(offset));
  }
  equal(physicalAddress(3 * GIB - 1), 3 * GIB - 1);
  equal(physicalAddress(3 * GIB), 4 * GIB);
});
