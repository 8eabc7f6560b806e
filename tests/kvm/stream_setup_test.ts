import assert from "node:assert/strict";
import {
  begin,
  bigEndian,
  builtBlocks,
  command,
  concat,
  endOfSection,
  full,
  header,
  part,
  sectionHeader,
  setup,
  startRam,
  subsection,
  text8,
  word,
} from "../support/stream_builder.ts";
import { read, refuses } from "../support/stream_listener.ts";

Deno.test("StreamReader refuses what is not QEMU's stream", () => {
  refuses(bigEndian(0x51455655, 4), /does not begin with QEVM \(byte 0\)/);
  refuses(concat(header().subarray(0, 4), bigEndian(2, 4)), /version 2, not 3 \(byte 4\)/);
  refuses(concat(header(), command(1)), /no configuration .*\(byte 8\)/);
  refuses(concat(header(), bigEndian(7, 1), bigEndian(257, 4)), /a machine name of 257 bytes/);
  refuses(concat(begin, bigEndian(6, 1)), /item of type 6 where a section was due \(byte 23\)/);
  refuses(concat(setup, bigEndian(0, 1)), /ends before RAM does/);
});

Deno.test("StreamReader refuses subsections by the name of what they tell", () => {
  const capabilities = concat(bigEndian(1, 4), text8("x-ignore-shared"));
  refuses(
    concat(begin, subsection("configuration/capabilities", capabilities)),
    /QEMU has capability x-ignore-shared on/,
  );
  refuses(
    concat(begin, subsection("configuration/target-page-bits", bigEndian(14, 4))),
    /pages of 14 bits/,
  );
  refuses(
    concat(begin, subsection("configuration/new", bigEndian(1, 4))),
    /unknown subsection "configuration\/new"/,
  );
  refuses(
    concat(begin, subsection("configuration/uuid", new Uint8Array(16), { version: 2 })),
    /version 2 of subsection/,
  );
  refuses(concat(setup, subsection("configuration/uuid", new Uint8Array(16))), /item of type 5/);
});

Deno.test("StreamReader takes subsections that change nothing", () => {
  const stream = concat(
    begin,
    subsection("configuration/capabilities", bigEndian(0, 4)),
    subsection("configuration/target-page-bits", bigEndian(12, 4)),
    startRam(builtBlocks),
  );
  assert.deepEqual(read(stream, { cuts: stream.keys() }).setup, stream);
});

Deno.test("StreamReader refuses commands by name", () => {
  refuses(concat(begin, command(3)), /command POSTCOPY_ADVISE \(capability postcopy-ram is on\)/);
  refuses(concat(setup, command(7, bigEndian(9, 4))), /command PACKAGED/);
  refuses(concat(begin, command(8)), /command ENABLE_COLO/);
  refuses(concat(begin, command(12)), /command 12, which is unknown/);
  refuses(concat(begin, command(2, bigEndian(1, 2))), /command 2 with 2 bytes, not 4/);
  refuses(concat(setup, command(11), command(11)), /a second command SWITCHOVER_START/);
});

Deno.test("StreamReader refuses RAM blocks that are not the VM's", () => {
  const [ram, bios] = [{ name: "pc.ram", bytes: 64 * 4096 }, { name: "pc.bios", bytes: 4 * 4096 }];
  const start = (blocks: typeof builtBlocks, total?: number) =>
    concat(begin, startRam(blocks, total === undefined ? {} : { total }));
  assert.equal(read(start([bios, ram])).setup.length, setup.length);
  refuses(start([ram]), /RAM block "pc.bios" is missing/);
  refuses(
    start([ram, { name: "pc.rom", bytes: 4096 }]),
    /RAM block "pc.rom" is unknown, or listed twice/,
  );
  refuses(start([ram, ram]), /"pc.ram" is unknown, or listed twice/);
  refuses(start([{ ...ram, bytes: 4096 }, bios]), /RAM block "pc.ram" has 4096 bytes, not 262144/);
  refuses(start([ram, bios], 65 * 4096), /RAM blocks of more than 266240 bytes/);
  refuses(start([{ ...ram, bytes: 2 ** 56 }], 4096), /the length 72057594037927940 is absurd/);
  refuses(concat(begin, startRam(builtBlocks, { version: 5 })), /version 5 of section ram, not 4/);
  refuses(concat(setup, startRam(builtBlocks)), /section ram starts twice/);
  // postcopy-ram and x-ignore-shared put more behind each block.
  const gpa = concat(
    sectionHeader(1, 2, { name: "ram", version: 4 }),
    word(68, 4),
    ...builtBlocks.map(({ name, bytes }) =>
      concat(text8(name), bigEndian(bytes, 8), bigEndian(0, 8))
    ),
    endOfSection,
  );
  refuses(concat(begin, gpa), /RAM block "" is unknown/);
});

Deno.test("StreamReader refuses sections of other kinds by name", () => {
  const dirtyBitmap = sectionHeader(1, 3, { name: "dirty-bitmap", version: 1 });
  refuses(concat(setup, dirtyBitmap), /section "dirty-bitmap" is not supported/);
  refuses(
    concat(setup, part([])).fill(9, setup.length + 4, setup.length + 5),
    /section 9 was never started/,
  );
  refuses(concat(begin, part([])), /section 2 was never started/);
  refuses(
    concat(setup, part([]), full(5, new Uint8Array(3))),
    /section "timer" between pages is not supported/,
  );
});
