import assert from "node:assert/strict";
import { StreamReader } from "../../kvm/stream_reader.ts";
import {
  begin,
  bigEndian,
  concat,
  endOfSection,
  footer,
  page,
  part,
  sectionHeader,
  setup,
  startRam,
  text8,
  word,
  zero,
} from "../support/stream_builder.ts";
import { read, refuses } from "../support/stream_listener.ts";

Deno.test("StreamReader refuses records by the capability that they come from", () => {
  const record = (flags: number) =>
    concat(setup, part([page(0, 1, "pc.ram"), word(1, flags), text8("pc.ram")]));
  refuses(record(0x40), /QEMU has capability xbzrle on/);
  refuses(record(0x60), /QEMU has capability xbzrle on/);
  refuses(record(0x80), /QEMU migrates over RDMA/);
  refuses(record(0x100), /QEMU has capability compress on/);
  refuses(record(0x200), /QEMU has capability multifd on/);
  refuses(record(0x0a), /RAM flags 0xa where a page was due/);
  refuses(record(0x30), /RAM flags 0x30/);
  refuses(record(0), /RAM flags 0x0/);
  refuses(record(0x10), /an end of section with an offset/);
  refuses(
    concat(begin, sectionHeader(1, 2, { name: "ram", version: 4 }), word(0, 0x200)),
    /QEMU has capability multifd on/,
  );
});

Deno.test("StreamReader refuses pages that are in no block", () => {
  const pages = (...records: Uint8Array[]) => concat(setup, part(records));
  refuses(pages(page(0, 1)), /a page that continues no block/);
  refuses(pages(zero(0)), /a page that continues no block/);
  refuses(pages(page(0, 1, "pc.rom")), /RAM block "pc.rom", which is unknown/);
  refuses(pages(page(64, 1, "pc.ram")), /page 64 of RAM block "pc.ram", which is shorter/);
  refuses(pages(zero(4, "pc.bios")), /page 4 of RAM block "pc.bios"/);
  refuses(pages(page(3, 1, "pc.bios"), page(4, 1)), /page 4 of RAM block "pc.bios"/);
  refuses(pages(zero(3, "pc.bios"), zero(2 ** 40)), /page 1099511627776 of RAM block "pc.bios"/);
  const filled = zero(0, "pc.ram");
  filled[filled.length - 1] = 1;
  refuses(pages(filled), /a zero page with another fill/);
  refuses(
    pages(zero(0, "pc.ram"), concat(word(1, 0x22), bigEndian(9, 1))),
    /a zero page with another fill/,
  );
});

Deno.test("StreamReader numbers pages beyond 4 GiB", () => {
  const blocks = [{ name: "m0", bytes: 16 * 2 ** 40 }];
  const last = 2 ** 32 - 1;
  const stream = concat(
    begin,
    startRam(blocks),
    part([zero(last, "m0"), page(2 ** 20, 3), zero(2 ** 31)]),
  );
  const heard = read(stream, { reader: new StreamReader({ blocks }) });
  assert.deepEqual(heard.pages, [`zero 0 ${last}`, `page 0 ${2 ** 20} 3`, `zero 0 ${2 ** 31}`]);
});

Deno.test("StreamReader refuses sections that do not end as they began", () => {
  const body = concat(setup, bigEndian(2, 1), bigEndian(2, 4), endOfSection);
  refuses(concat(body, footer(3)), /a footer of section 3 in section 2/);
  refuses(concat(body, bigEndian(4, 1)), /no footer of section 2/);
});
