import assert from "node:assert/strict";
import fc from "fast-check";
import { KvmError } from "../../kvm/errors.ts";
import { MAX_SETUP_BYTES, MAX_STATE_BYTES } from "../../kvm/stream_format.ts";
import { MIN_SPACE_BYTES, StreamReader } from "../../kvm/stream_reader.ts";
import {
  begin,
  bigEndian,
  builtBlocks,
  command,
  concat,
  description,
  end,
  full,
  header,
  page,
  part,
  sectionHeader,
  setup,
  wholeSetup,
  wholeState,
  wholeStream,
  zero,
} from "../support/stream_builder.ts";
import { put, read, refuses, silent } from "../support/stream_listener.ts";

Deno.test("StreamReader takes a whole stream apart", () => {
  const heard = read(wholeStream());
  assert.deepEqual(heard.setup, wholeSetup({ commands: false }));
  assert.deepEqual(heard.pages, [
    "zero 0 0",
    "page 0 1 17",
    "page 0 2 16",
    "zero 0 3",
    "page 1 0 177",
    "page 1 3 179",
    "zero 0 63",
    "stopped",
    "page 0 5 126",
    "zero 0 1",
  ]);
  assert.deepEqual(heard.state, concat(command(11), wholeState()));
  assert.equal(heard.ended, true);
});

Deno.test("StreamReader says the same when the stream is cut at every byte", () => {
  const stream = wholeStream();
  const whole = read(stream);
  assert.deepEqual(read(stream, { cuts: stream.keys() }), whole);
  for (let cut = 1; cut < stream.length; cut += 7) {
    assert.deepEqual(read(stream, { cuts: [cut] }), whole);
  }
});

Deno.test("StreamReader says the same wherever streams of any pages are cut", () => {
  const record = fc.record({
    number: fc.nat(63),
    fill: fc.nat(255),
    named: fc.boolean(),
    isZero: fc.boolean(),
  });
  const sections = fc.array(fc.array(record, { maxLength: 8 }), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(sections, fc.array(fc.nat(140_000), { maxLength: 30 }), (shapes, anyCuts) => {
      const expected: string[] = [];
      let isFirst = true;
      const built = shapes.map((shape, index) => {
        const isEnd = index === shapes.length - 1;
        if (isEnd) expected.push("stopped");
        const records = shape.map(({ number, fill, named, isZero }) => {
          const name = named || isFirst ? "pc.ram" : undefined;
          isFirst = false;
          expected.push(isZero ? `zero 0 ${number}` : `page 0 ${number} ${fill}`);
          return isZero ? zero(number, name) : page(number, fill, name);
        });
        return isEnd ? end(records) : part(records);
      });
      const stream = concat(setup, ...built, full(3, new Uint8Array(5)), description());
      const cuts = anyCuts.filter((cut) => cut < stream.length).sort((a, b) => a - b);
      const heard = read(stream, { cuts });
      assert.deepEqual(heard.pages, expected);
      assert.deepEqual(heard.setup, setup);
      assert.equal(heard.ended, true);
    }),
    { numRuns: 60 },
  );
});

Deno.test("StreamReader throws nothing but KvmError when bytes are garbage", () => {
  const stream = wholeStream();
  const damage = fc.array(fc.tuple(fc.nat(stream.length - 1), fc.nat(255)), {
    minLength: 1,
    maxLength: 6,
  });
  const near = fc.array(fc.tuple(fc.nat(600), fc.nat(255)), { minLength: 1, maxLength: 4 });
  const survive = (bytes: Uint8Array) => {
    try {
      read(bytes);
    } catch (error) {
      // A damaged page is not of one byte any more: that is the test's own complaint.
      if (!(error instanceof assert.AssertionError)) {
        assert.ok(error instanceof KvmError, `${error}`);
      }
    }
  };
  fc.assert(
    fc.property(fc.oneof(damage, near), (changes) => {
      const damaged = stream.slice();
      for (const [at, value] of changes) damaged[at] = value;
      survive(damaged);
    }),
    { numRuns: 400 },
  );
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 2000 }),
      fc.constantFrom(begin, setup, header()),
      (bytes, before) => {
        survive(bytes);
        survive(concat(before, bytes));
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("StreamReader refuses what is not a device behind the last page", () => {
  const ended = concat(setup, end([]));
  refuses(concat(ended, part([])), /item of type 2 behind the last page/);
  refuses(concat(ended, end([])), /item of type 3 behind the last page/);
  refuses(concat(ended, command(11)), /item of type 8 behind the last page/);
});

Deno.test("StreamReader refuses bytes behind the end", () => {
  const stream = concat(setup, end([]), full(3, new Uint8Array(4)), description());
  assert.throws(
    () => read(concat(stream, bigEndian(0, 1)), { cuts: [stream.length] }),
    /1 bytes behind its end/,
  );
});

Deno.test("StreamReader holds SETUP and STATE to their caps", () => {
  const early = sectionHeader(4, 9, { name: "early", version: 1 });
  const endless = concat(setup, early, new Uint8Array(MAX_SETUP_BYTES).fill(0x7e));
  assert.throws(() => read(endless), /more than 1048576 bytes before the first page/);

  const reader = new StreamReader({ blocks: builtBlocks });
  const listener = { ...silent(), setup: () => {}, state: () => {} };
  put(reader, concat(setup, end([]), full(3, new Uint8Array(0))), listener);
  assert.throws(() => {
    for (let sum = 0; sum <= MAX_STATE_BYTES; sum += MIN_SPACE_BYTES) {
      reader.space();
      reader.advance(MIN_SPACE_BYTES, listener);
    }
  }, /more than 67108864 bytes of device state/);
});

Deno.test("StreamReader.end() does nothing when the stream has ended", () => {
  const reader = new StreamReader({ blocks: builtBlocks });
  read(wholeStream(), { reader });
  reader.end();
});

Deno.test("StreamReader.end() throws when the stream is cut", () => {
  const stream = wholeStream();
  for (const bytes of [0, 4, 100, 20_000, stream.length - 1]) {
    const reader = new StreamReader({ blocks: builtBlocks });
    read(stream.subarray(0, bytes), { reader });
    const isCut = (error: unknown) =>
      error instanceof KvmError && error.code === "streamCut" &&
      error.message.includes(`after ${bytes} bytes`);
    assert.throws(() => reader.end(), isCut);
    assert.throws(() => reader.advance(0, silent()), isCut);
  }
});

Deno.test("StreamReader stays failed", () => {
  const reader = new StreamReader({ blocks: builtBlocks });
  const failures = new Set<unknown>();
  for (
    const act of [
      () => read(concat(header(), command(1)), { reader }),
      () => reader.advance(0, silent()),
    ]
  ) {
    assert.throws(act, (error) => failures.add(error) !== undefined);
  }
  assert.throws(() => reader.end(), (error) => failures.has(error));
  assert.equal(failures.size, 1);
});

Deno.test("StreamReader fails with what a handler throws", () => {
  const reader = new StreamReader({ blocks: builtBlocks });
  const trouble = new Error("no more pages");
  const events = {
    ...silent(),
    setup: () => {},
    page: () => {
      throw trouble;
    },
  };
  const isTrouble = (error: unknown) => error === trouble;
  assert.throws(() => put(reader, concat(setup, part([page(0, 1, "pc.ram")])), events), isTrouble);
  assert.throws(() => reader.advance(0, silent()), isTrouble);
});

Deno.test("StreamReader hands pages out as views of its one buffer", () => {
  const reader = new StreamReader({ blocks: builtBlocks });
  const buffers = new Set<unknown>();
  const events = {
    ...silent(),
    setup: () => {},
    page: (_b: number, _p: number, bytes: Uint8Array) => void buffers.add(bytes.buffer),
  };
  put(reader, concat(setup, part([page(0, 1, "pc.ram"), page(1, 1)])), events);
  assert.deepEqual([...buffers], [reader.space().buffer]);
});

Deno.test("new StreamReader() throws when its options cannot be", () => {
  const bytes = 4096;
  assert.throws(() => new StreamReader({ blocks: [] }), RangeError);
  assert.throws(
    () => new StreamReader({ blocks: Array(256).fill({ name: "a", bytes }) }),
    RangeError,
  );
  assert.throws(
    () => new StreamReader({ blocks: [{ name: "a", bytes }, { name: "a", bytes }] }),
    RangeError,
  );
  assert.throws(() => new StreamReader({ blocks: [{ name: "a".repeat(256), bytes }] }), RangeError);
  for (const bytes of [0, -4096, NaN, 2 ** 44 + 4096]) {
    assert.throws(() => new StreamReader({ blocks: [{ name: "a", bytes }] }), RangeError);
  }
  assert.throws(
    () => new StreamReader({ blocks: builtBlocks, bufferBytes: 256 * 1024 }),
    RangeError,
  );
});

Deno.test("StreamReader.advance() throws when there was less space", () => {
  const reader = new StreamReader({ blocks: builtBlocks });
  assert.throws(() => reader.advance(reader.space().length + 1, silent()), RangeError);
  assert.throws(() => reader.advance(-1, silent()), RangeError);
});
