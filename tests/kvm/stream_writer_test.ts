import assert from "node:assert/strict";
import fc from "fast-check";
import { KvmError } from "../../kvm/errors.ts";
import { StreamReader } from "../../kvm/stream_reader.ts";
import { StreamWriter } from "../../kvm/stream_writer.ts";
import {
  bigEndian,
  builtBlocks,
  command,
  concat,
  configuration,
  description,
  end,
  endOfSection,
  footer,
  full,
  header,
  page,
  part,
  sectionHeader,
  setup,
  startRam,
  subsection,
  text8,
  wholeSetup,
  zero,
} from "../support/stream_builder.ts";

const options = { ramSectionId: 2, blocks: builtBlocks };

function filled(...fills: number[]): Uint8Array {
  return concat(...fills.map((fill) => new Uint8Array(4096).fill(fill)));
}

/** Feeds a whole stream to a reader and tells its pages. */
function pagesOf(stream: Uint8Array, blocks: typeof builtBlocks): string[] {
  const pages: string[] = [];
  const reader = new StreamReader({ blocks });
  const events = {
    setup: () => {},
    page: (block: number, number: number, bytes: Uint8Array) =>
      void pages.push(`page ${block} ${number} ${bytes[0]} ${bytes[4095]}`),
    zero: (block: number, number: number) => void pages.push(`zero ${block} ${number}`),
    stopped: () => void pages.push("stopped"),
    state: () => {},
    drained: () => {},
  };
  for (let at = 0; at < stream.length;) {
    const space = reader.space();
    const piece = stream.subarray(at, at + space.length);
    space.set(piece);
    reader.advance(piece.length, events);
    at += piece.length;
  }
  assert.equal(reader.ended, true);
  return pages;
}

Deno.test("StreamWriter.pages() encodes a section in which every record names its block", () => {
  const writer = new StreamWriter(options);
  assert.deepEqual(
    concat(writer.pages(1, Uint32Array.of(3, 0), filled(0xaa, 0xbb))),
    part([page(3, 0xaa, "pc.bios"), page(0, 0xbb, "pc.bios")]),
  );
});

Deno.test("StreamWriter.zeros() encodes a section in which every record names its block", () => {
  const writer = new StreamWriter({ ...options, ramSectionId: 0x01020304 });
  assert.deepEqual(
    concat(writer.zeros(0, Uint32Array.of(63, 1))),
    part([zero(63, "pc.ram"), zero(1, "pc.ram")], { id: 0x01020304 }),
  );
});

Deno.test("StreamWriter.end() encodes an END without pages", () => {
  assert.deepEqual(concat(new StreamWriter(options).end()), end([]));
});

Deno.test("StreamWriter encodes a shorter section behind a longer one when its output is used again", () => {
  const writer = new StreamWriter(options);
  const first = writer.pages(0, Uint32Array.of(1, 2), filled(1, 2));
  const second = writer.pages(0, Uint32Array.of(9), filled(9));
  assert.equal(first.buffer, second.buffer);
  assert.deepEqual(concat(second), part([page(9, 9, "pc.ram")]));
  assert.deepEqual(concat(writer.zeros(0, Uint32Array.of())), part([]));
});

Deno.test("StreamWriter writes what StreamReader reads, whatever the pages", () => {
  const blocks = [{ name: "m0", bytes: 2 ** 44 }, {
    name: "ü/rom@etc/acpi/tables",
    bytes: 4096 * 100,
  }];
  const call = fc.record({
    isBig: fc.boolean(),
    isZero: fc.boolean(),
    pages: fc.array(fc.tuple(fc.nat(2 ** 31 - 1), fc.boolean(), fc.nat(255)), { maxLength: 10 }),
  });
  fc.assert(
    fc.property(fc.array(call, { maxLength: 6 }), (calls) => {
      const writer = new StreamWriter({ ramSectionId: 77, blocks });
      const expected: string[] = [];
      const sections = calls.map(({ isBig, isZero, pages }) => {
        const block = isBig ? 0 : 1;
        const numbers = pages.map(([number, high]) =>
          isBig ? number * 2 + (high ? 1 : 0) : number % 100
        );
        const fills = pages.map(([, , fill]) => fill);
        numbers.forEach((number, i) =>
          expected.push(
            isZero ? `zero ${block} ${number}` : `page ${block} ${number} ${fills[i]} ${fills[i]}`,
          )
        );
        const list = Uint32Array.from(numbers);
        return concat(
          isZero ? writer.zeros(block, list) : writer.pages(block, list, filled(...fills)),
        );
      });
      const before = concat(header(), configuration(), startRam(blocks, { id: 77 }));
      const stream = concat(
        before,
        ...sections,
        concat(writer.end()),
        full(1, new Uint8Array(3)),
        description(),
      );
      assert.deepEqual(pagesOf(stream, blocks), [...expected, "stopped"]);
    }),
    { numRuns: 60 },
  );
});

Deno.test("StreamWriter throws RangeError when there is no such page", () => {
  const writer = new StreamWriter(options);
  assert.throws(() => writer.zeros(2, Uint32Array.of(0)), RangeError);
  assert.throws(() => writer.zeros(-1, Uint32Array.of(0)), RangeError);
  assert.throws(() => writer.zeros(0, Uint32Array.of(1, 64)), RangeError);
  assert.throws(() => writer.pages(1, Uint32Array.of(4), filled(1)), RangeError);
  assert.throws(() => writer.pages(0, Uint32Array.of(4, 5), filled(1)), RangeError);
  assert.throws(() => new StreamWriter({ ...options, ramSectionId: -1 }), RangeError);
  assert.throws(() => new StreamWriter({ ...options, blocks: [] }), RangeError);
});

Deno.test("StreamWriter.parseSetup() tells the id of section ram", () => {
  const blocks = builtBlocks;
  assert.deepEqual(StreamWriter.parseSetup(setup, { blocks }), { ramSectionId: 2 });
  assert.deepEqual(StreamWriter.parseSetup(wholeSetup({ commands: false }), { blocks }), {
    ramSectionId: 2,
  });
  const other = concat(header(), configuration(), startRam(builtBlocks, { id: 0xfffffffe }));
  assert.deepEqual(StreamWriter.parseSetup(other, { blocks }), { ramSectionId: 0xfffffffe });
});

Deno.test("StreamWriter.parseSetup() refuses what the reader refuses", () => {
  const refused: [Uint8Array, RegExp][] = [
    [new Uint8Array(100), /does not begin with QEVM/],
    [concat(setup, command(3)), /POSTCOPY_ADVISE/],
    [
      concat(setup, sectionHeader(1, 3, { name: "vfio", version: 1 })),
      /section "vfio" is not supported/,
    ],
    [
      concat(
        header(),
        configuration(),
        subsection("configuration/capabilities", concat(bigEndian(1, 4), text8("x-ignore-shared"))),
        startRam(builtBlocks),
      ),
      /capability x-ignore-shared/,
    ],
    [
      concat(header(), configuration(), startRam([{ name: "pc.ram", bytes: 4096 }])),
      /has 4096 bytes, not 262144/,
    ],
    [
      concat(setup, sectionHeader(4, 9, { name: "x", version: 1 }), new Uint8Array(1 << 20)),
      /more than 1048576/,
    ],
  ];
  for (const [bytes, message] of refused) assertRefused(bytes, message);
});

Deno.test("StreamWriter.parseSetup() refuses what is more or less than SETUP", () => {
  const more = /more in it than what precedes the first page/;
  assertRefused(new Uint8Array(0), /section ram does not start in it/);
  assertRefused(concat(header(), configuration()), /section ram does not start in it/);
  for (let bytes = 0; bytes < setup.length; bytes++) {
    assertRefused(setup.subarray(0, bytes), /does not start in it/);
  }
  assertRefused(wholeSetup({ commands: true }), more);
  assertRefused(concat(setup, command(11)), more);
  assertRefused(concat(setup, part([])), more);
  assertRefused(concat(setup, part([page(0, 1, "pc.ram")])), more);
  assertRefused(concat(setup, part([zero(0, "pc.ram")])), more);
  assertRefused(concat(setup, end([])), more);
  assertRefused(
    concat(setup, bigEndian(2, 1), bigEndian(2, 4), endOfSection),
    /no footer of section 2/,
  );
  assertRefused(
    concat(setup, bigEndian(2, 1), bigEndian(2, 4)),
    /RAM flags|end of section with an offset/,
  );
  const cut = concat(
    setup,
    sectionHeader(4, 9, { name: "x", version: 1 }),
    new Uint8Array(9),
    footer(9),
  );
  assertRefused(cut.subarray(0, -1), /its last item is cut/);
  for (let bytes = setup.length + 1; bytes < cut.length; bytes++) {
    assert.throws(
      () => StreamWriter.parseSetup(cut.subarray(0, bytes), { blocks: builtBlocks }),
      KvmError,
    );
  }
});

Deno.test("StreamWriter.parseSetup() throws nothing but KvmError when bytes are damaged", () => {
  const whole = wholeSetup({ commands: false });
  const change = fc.tuple(fc.nat(whole.length - 1), fc.nat(255));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const damaged = whole.slice();
      for (const [at, value] of changes) damaged[at] = value;
      try {
        StreamWriter.parseSetup(damaged, { blocks: builtBlocks });
      } catch (error) {
        assert.ok(error instanceof KvmError, `${error}`);
      }
    }),
    { numRuns: 300 },
  );
});

function assertRefused(bytes: Uint8Array, message: RegExp): void {
  assert.throws(
    () => StreamWriter.parseSetup(bytes, { blocks: builtBlocks }),
    (error) => error instanceof KvmError && error.code === "stream" && message.test(error.message),
    `expected ${message}`,
  );
}
