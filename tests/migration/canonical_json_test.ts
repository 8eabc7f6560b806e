import assert from "node:assert/strict";
import fc from "fast-check";
import { decodeStrict, encodeCanonical, MAX_JSON_DEPTH } from "../../migration/canonical_json.ts";
import { MigrationError } from "../../migration/errors.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function text(value: unknown): string {
  return decoder.decode(encodeCanonical(value));
}

const integer = fc.integer({ min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER });
const string = fc.string({ unit: "binary", maxLength: 20 });
const key = string.filter((name) => name !== "__proto__");
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthIdentifier: "json" },
    fc.constantFrom(null, true, false),
    integer,
    string,
    fc.array(tie("value"), { maxLength: 4, depthIdentifier: "json" }),
    fc.dictionary(key, tie("value"), {
      maxKeys: 4,
      depthIdentifier: "json",
      noNullPrototype: true,
    }),
  ),
}));

Deno.test("decodeStrict() gives back what encodeCanonical() took", () => {
  fc.assert(fc.property(value, (one) => {
    // JSON has no negative zero.
    const expected = JSON.parse(JSON.stringify(one));
    assert.deepEqual(decodeStrict(encodeCanonical(one)), expected);
  }));
});

Deno.test("encodeCanonical() does not depend on the order of keys", () => {
  fc.assert(fc.property(fc.dictionary(key, integer), (one) => {
    const reversed = Object.fromEntries(Object.entries(one).reverse());
    assert.equal(text(reversed), text(one));
  }));
});

Deno.test("encodeCanonical() sorts keys by code unit and leaves no space", () => {
  assert.equal(
    text({ b: 1, "10": [], "9": {}, a: null, "\u{1f600}": "x", "\ufb33": 'é\n"' }),
    '{"10":[],"9":{},"a":null,"b":1,"\u{1f600}":"x","\ufb33":"é\\n\\""}',
  );
});

Deno.test("encodeCanonical() writes an integer as a string when it is above 2^53 - 1", () => {
  assert.equal(
    text([2n ** 53n - 1n, 2n ** 53n, -(2n ** 53n), 0n]),
    `[${2n ** 53n - 1n},"9007199254740992","-9007199254740992",0]`,
  );
  assert.equal(text(2 ** 53 - 1), "9007199254740991");
  assert.equal(text(-0), "0");
});

Deno.test("encodeCanonical() refuses a value when it has no canonical encoding", () => {
  const nested = (depth: number): unknown => depth === 0 ? 1 : [nested(depth - 1)];
  const wrong: unknown[] = [
    undefined,
    [undefined],
    // deno-lint-ignore no-sparse-arrays
    [1, , 2],
    { a: undefined },
    1.5,
    NaN,
    Infinity,
    2 ** 53,
    "\ud800",
    { "\udc00": 1 },
    { ["__proto__"]: 1 },
    JSON.parse('{"__proto__":1}'),
    new Uint8Array(2),
    new Map(),
    new Date(),
    () => 1,
    Symbol("x"),
    nested(MAX_JSON_DEPTH + 1),
  ];
  for (const one of wrong) assert.throws(() => encodeCanonical(one), TypeError);
  assert.equal(text(nested(MAX_JSON_DEPTH)), "[".repeat(8) + "1" + "]".repeat(8));
});

const hostile: Record<string, string | Uint8Array> = {
  "nothing": "",
  "a duplicate key": '{"a":1,"a":1}',
  "keys out of order": '{"b":1,"a":1}',
  "a space": '{"a": 1}',
  "a final newline": "1\n",
  "a byte order mark": "\ufeff1",
  "a fraction": "1.5",
  "a fraction that is none": "1.0",
  "an exponent": "1e3",
  "a negative zero": "-0",
  "a number above 2^53 - 1": "9007199254740992",
  "a needless escape": '"\\u0061"',
  "an escaped slash": '"\\/"',
  "an unpaired surrogate": '"\\ud800"',
  "a __proto__ key": '{"__proto__":{}}',
  "nesting too deep": "[".repeat(9) + "]".repeat(9),
  "nesting far too deep": "[".repeat(200_000) + "]".repeat(200_000),
  "two values": "1 2",
  "invalid UTF-8": Uint8Array.of(0x22, 0xff, 0x22),
  "overlong UTF-8": Uint8Array.of(0x22, 0xc0, 0x80, 0x22),
  "a surrogate in UTF-8": Uint8Array.of(0x22, 0xed, 0xa0, 0x80, 0x22),
  "cut UTF-8": Uint8Array.of(0x22, 0xc3),
};
for (const [name, bytes] of Object.entries(hostile)) {
  Deno.test(`decodeStrict() refuses ${name}`, () => {
    assert.throws(
      () => decodeStrict(typeof bytes === "string" ? encoder.encode(bytes) : bytes),
      (error) => error instanceof MigrationError && error.code === "protocol",
    );
  });
}

Deno.test("decodeStrict() accepts bytes only when they are their value's one encoding", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 30 }),
    fc.json({ maxDepth: 3 }).map((json) => encoder.encode(json)),
    fc.tuple(value, fc.nat(), fc.integer({ min: 0, max: 255 })).map(([one, at, byte]) => {
      const encoded = encodeCanonical(one);
      encoded[at % encoded.length] = byte;
      return encoded;
    }),
  );
  fc.assert(
    fc.property(bytes, (some) => {
      try {
        assert.deepEqual(encodeCanonical(decodeStrict(some)), new Uint8Array(some));
      } catch (error) {
        assert.ok(error instanceof MigrationError && error.code === "protocol", String(error));
      }
    }),
    { numRuns: 1000 },
  );
});
