import assert from "node:assert/strict";
import fc from "fast-check";
import { encodeCanonical } from "../../migration/canonical_json.ts";
import { MigrationError } from "../../migration/errors.ts";
import { encodeKey } from "../../migration/identity.ts";
import { MAX_BLOCK_BYTES, MAX_BLOCKS, MAX_CONTROL_MESSAGE_BYTES } from "../../migration/limits.ts";
import {
  abortCodes,
  decodeMessage,
  encodeMessage,
  MAX_CAPABILITIES,
  MAX_LABEL_LENGTH,
  MAX_LANES,
  MAX_LIMIT_MS,
  MAX_NOTES,
  MAX_REPAIR_BUDGET_BYTES,
  MAX_SUITES_PER_CLASS,
  MAX_TEXT_LENGTH,
  MAX_WINDOW_BYTES,
  type Message,
  type MessageOf,
  negotiateSuites,
  printable,
  refuseCodes,
} from "../../migration/messages.ts";
import { destinationJournalStates, sourceJournalStates } from "../../migration/ports.ts";

const count = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const lane = fc.nat({ max: MAX_LANES - 1 });
const text = fc.string({ unit: "binary", maxLength: 600 }).map(printable);
const label = fc.string({ unit: "grapheme", minLength: 1, maxLength: 60 })
  .map(printable).filter((name) => name.length > 0 && name.length <= MAX_LABEL_LENGTH);
const uuid = fc.uuid();
const random = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(encodeKey);
const suiteId = fc.constantFrom("aes-256-gcm", "chacha20-poly1305", "example.com/wide", "a");
const suites = fc.array(suiteId, { maxLength: MAX_SUITES_PER_CLASS });
const perClass = <T>(one: fc.Arbitrary<T>) =>
  fc.record({ user: one, kernelText: one, kernelData: one, unmapped: one });
const limits = fc.record({
  reconnectMs: fc.nat({ max: MAX_LIMIT_MS }),
  maxStopMs: fc.nat({ max: MAX_LIMIT_MS }),
  repairBudgetBytes: fc.nat({ max: MAX_REPAIR_BUDGET_BYTES }),
  windowBytes: fc.nat({ max: MAX_WINDOW_BYTES }),
});
const lanes = fc.uniqueArray(fc.record({ lane, sequence: count }), {
  selector: (one) => one.lane,
  maxLength: 5,
}).map((list) => list.sort((a, b) => a.lane - b.lane));
const type = <T extends string>(name: T) => fc.constant(name);
const nullable = <T>(one: fc.Arbitrary<T>) => fc.option(one, { nil: null });

const messages: { [T in Message["type"]]: fc.Arbitrary<MessageOf<T>> } = {
  OFFER: fc.record({
    type: type("OFFER"),
    uuid,
    name: nullable(text),
    machine: label,
    qemuVersion: label,
    memoryBytes: count.filter((n) => n <= MAX_BLOCKS * MAX_BLOCK_BYTES),
    blocks: fc.array(fc.record({ name: label, bytes: fc.nat({ max: MAX_BLOCK_BYTES }) }), {
      maxLength: 4,
    }),
    capabilities: fc.array(label, { maxLength: 4 }),
    vmId: nullable(uuid),
    sensitivity: nullable(label),
    before: fc.constantFrom("running", "paused", "prelaunch"),
    suites: perClass(suites),
    limits,
    dryRun: fc.boolean(),
    sourceRandom: random,
  }),
  ACCEPT: fc.record({
    type: type("ACCEPT"),
    suites: perClass(suiteId),
    landing: label,
    backend: label,
    notes: fc.array(text, { maxLength: 3 }),
    warnings: fc.array(text, { maxLength: 3 }),
    limits,
    qemuVersion: label,
    destinationRandom: random,
  }),
  REFUSE: fc.record({
    type: type("REFUSE"),
    code: fc.constantFrom(...refuseCodes),
    text,
    hint: nullable(text),
  }),
  ACK: fc.record({ type: type("ACK"), lane, sequence: count }),
  MISTAKE: fc.record({ type: type("MISTAKE"), lane, sequence: count }),
  LOADED: fc.record({ type: type("LOADED"), pages: count, records: count }),
  RUNNING: fc.record({
    type: type("RUNNING"),
    sinceResumeUs: count,
    cpuMs: fc.record({ agent: count, qemu: nullable(count) }),
  }),
  DISCARDED: fc.record({ type: type("DISCARDED") }),
  ABORT: fc.record({ type: type("ABORT"), code: fc.constantFrom(...abortCodes), text }),
  PONG: fc.record({ type: type("PONG"), nonce: count }),
  FINISH: fc.record({
    type: type("FINISH"),
    lanes,
    pages: count,
    records: count,
    damaged: fc.record({
      count,
      sha256: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((hash) => hash.toHex()),
    }),
  }),
  RELEASE: fc.record({ type: type("RELEASE") }),
  DONE: fc.record({ type: type("DONE") }),
  DISCARD: fc.record({ type: type("DISCARD") }),
  PING: fc.record({ type: type("PING"), nonce: count, lanes }),
  RESUME: fc.record({ type: type("RESUME"), attempt: count, lanes }),
  HAVE: fc.record({ type: type("HAVE"), lanes }),
  STATUS: fc.record({
    type: type("STATUS"),
    side: fc.constantFrom("source", "destination"),
    journal: fc.constantFrom(...sourceJournalStates, ...destinationJournalStates),
    runState: label,
    migration: nullable(label),
  }),
};
const message: fc.Arbitrary<Message> = fc.oneof(...Object.values(messages));

function refuses(bytes: Uint8Array, why: string): void {
  assert.throws(() => decodeMessage(bytes), (error) => {
    assert.ok(error instanceof MigrationError, `${why}: ${error}`);
    assert.equal(error.code, "protocol", why);
    return true;
  }, why);
}

function sampleOf<T extends Message["type"]>(name: T): MessageOf<T> {
  return fc.sample(messages[name], { numRuns: 1, seed: 1 })[0]!;
}

for (const [name, one] of Object.entries(messages)) {
  Deno.test(`decodeMessage() gives back every ${name} that encodeMessage() took`, () => {
    fc.assert(
      fc.property(one as fc.Arbitrary<Message>, (given) => {
        // fast-check's records have no prototype; what is decoded has one.
        assert.deepEqual(decodeMessage(encodeMessage(given)), structuredClone(given));
      }),
      { numRuns: 50 },
    );
  });
}

Deno.test("decodeMessage() throws nothing but MigrationError for any bytes", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.jsonValue({ maxDepth: 4 }).map((value) => new TextEncoder().encode(JSON.stringify(value))),
    fc.tuple(message, fc.nat(), fc.integer({ min: 0, max: 255 })).map(([one, at, byte]) => {
      const encoded = encodeMessage(one);
      encoded[at % encoded.length] = byte;
      return encoded;
    }),
    fc.tuple(message, fc.nat()).map(([one, at]) => {
      const encoded = encodeMessage(one);
      return encoded.subarray(0, at % encoded.length);
    }),
  );
  fc.assert(
    fc.property(bytes, (some) => {
      try {
        // What decodes says exactly the bytes it came from.
        assert.deepEqual(encodeMessage(decodeMessage(some)), new Uint8Array(some));
      } catch (error) {
        assert.ok(error instanceof MigrationError && error.code === "protocol", String(error));
      }
    }),
    { numRuns: 1000 },
  );
});

Deno.test("decodeMessage() refuses a message when a field is missing, unknown or of another type", () => {
  fc.assert(
    fc.property(message, fc.nat(), (one, at) => {
      const fields = Object.keys(one).filter((name) => name !== "type");
      refuses(encodeCanonical({ ...one, surplus: 1 }), "surplus");
      refuses(encodeCanonical({ ...one, type: "HELLO" }), "type");
      const field = fields[at % Math.max(fields.length, 1)];
      if (field === undefined) return;
      const rest = Object.fromEntries(Object.entries(one).filter(([name]) => name !== field));
      refuses(encodeCanonical(rest), `without ${field}`);
      refuses(encodeCanonical({ ...one, [field]: -1 }), `${field}: -1`);
      refuses(encodeCanonical({ ...one, [field]: [[]] }), `${field}: list`);
      refuses(encodeCanonical({ ...one, [field]: { x: 1 } }), `${field}: object`);
      refuses(encodeCanonical({ ...one, [field]: "\u001b[2J" }), `${field}: escape sequence`);
    }),
  );
});

Deno.test("decodeMessage() refuses what is no object with a known type", () => {
  for (
    const value of [null, 1, "ACK", [], {}, { type: 1 }, { type: "ack" }, { type: "toString" }]
  ) {
    refuses(encodeCanonical(value), JSON.stringify(value));
  }
});

const offer = sampleOf("OFFER");
const accept = sampleOf("ACCEPT");
const overCaps: Record<string, unknown> = {
  "a sequence above 2^53 - 1": { type: "ACK", lane: 0, sequence: 2n ** 53n },
  "a lane above the cap": { type: "ACK", lane: MAX_LANES, sequence: 1 },
  "a lane twice": {
    type: "PING",
    nonce: 0,
    lanes: [{ lane: 1, sequence: 1 }, { lane: 1, sequence: 2 }],
  },
  "lanes out of order": {
    type: "PING",
    nonce: 0,
    lanes: [{ lane: 1, sequence: 1 }, { lane: 0, sequence: 2 }],
  },
  "too long a text": { type: "ABORT", code: "vm", text: "x".repeat(MAX_TEXT_LENGTH + 1) },
  "a text with control characters": { type: "ABORT", code: "vm", text: "\u001b]0;x\u0007" },
  "a text that turns others around": { type: "ABORT", code: "vm", text: "\u202egpj" },
  "an unknown code": { type: "ABORT", code: "bored", text: "" },
  "too many blocks": {
    ...offer,
    blocks: Array.from({ length: MAX_BLOCKS + 1 }, () => ({ name: "a", bytes: 1 })),
  },
  "too large a block": { ...offer, blocks: [{ name: "a", bytes: MAX_BLOCK_BYTES + 1 }] },
  "too long a block name": {
    ...offer,
    blocks: [{ name: "a".repeat(MAX_LABEL_LENGTH + 1), bytes: 1 }],
  },
  "an empty block name": { ...offer, blocks: [{ name: "", bytes: 1 }] },
  "too many capabilities": { ...offer, capabilities: Array(MAX_CAPABILITIES + 1).fill("a") },
  "too many suites": {
    ...offer,
    suites: { ...offer.suites, user: Array(MAX_SUITES_PER_CLASS + 1).fill("a") },
  },
  "a class too few": { ...offer, suites: { user: [], kernelText: [], kernelData: [] } },
  "a class too many": { ...offer, suites: { ...offer.suites, zero: [] } },
  "a suite id in capitals": { ...accept, suites: { ...accept.suites, user: "AES" } },
  "too long a suite id": { ...accept, suites: { ...accept.suites, user: "a".repeat(65) } },
  "a UUID in capitals": { ...offer, uuid: "ABCDEFAB-0000-0000-0000-000000000000" },
  "a short random": { ...offer, sourceRandom: "AAAA" },
  "a random with loose bits": { ...offer, sourceRandom: "A".repeat(42) + "B=" },
  "too large a repair budget": {
    ...offer,
    limits: { ...offer.limits, repairBudgetBytes: MAX_REPAIR_BUDGET_BYTES + 1 },
  },
  "too long a time": { ...offer, limits: { ...offer.limits, maxStopMs: MAX_LIMIT_MS + 1 } },
  "too many notes": { ...accept, notes: Array(MAX_NOTES + 1).fill("") },
  "a hash in capitals": {
    ...sampleOf("FINISH"),
    damaged: { count: 0, sha256: "A".repeat(64) },
  },
};
for (const [name, value] of Object.entries(overCaps)) {
  Deno.test(`decodeMessage() refuses ${name}`, () => {
    refuses(encodeCanonical(value), name);
  });
}

Deno.test("decodeMessage() refuses too long a message before it reads it", () => {
  refuses(new Uint8Array(MAX_CONTROL_MESSAGE_BYTES + 1), "length");
});

Deno.test("decodeMessage() never repeats the other side's words in its error", () => {
  const bytes = encodeCanonical({ type: "ACK", lane: "\u001b[2J", sequence: 0 });
  assert.throws(() => decodeMessage(bytes), {
    message: "Cannot read message: ACK.lane is not an integer from 0 to 255",
  });
});

Deno.test("encodeMessage() makes texts printable, so that an ABORT never fails for its words", () => {
  const words = `\u001b[31m${"x".repeat(2000)}`;
  const aborted = decodeMessage(encodeMessage({ type: "ABORT", code: "vm", text: words }));
  assert.ok(aborted.type === "ABORT");
  assert.equal(aborted.text, printable(words));
  const refusal = { type: "REFUSE", code: "vm", text: "a\nb", hint: "c\td" } as const;
  assert.deepEqual(decodeMessage(encodeMessage(refusal)), { ...refusal, text: "a b", hint: "c d" });
  const notes = Array.from({ length: MAX_NOTES + 5 }, () => "n\r");
  const accepted = decodeMessage(encodeMessage({ ...accept, notes, warnings: notes }));
  assert.ok(accepted.type === "ACCEPT");
  assert.deepEqual(accepted.notes, Array(MAX_NOTES).fill("n "));
  assert.deepEqual(accepted.warnings, accepted.notes);
  const offered = decodeMessage(encodeMessage({ ...offer, name: "vm\n1" }));
  assert.ok(offered.type === "OFFER");
  assert.equal(offered.name, "vm 1");
});

Deno.test("encodeMessage() refuses a message when the other side would", () => {
  assert.throws(() => encodeMessage({ type: "ACK", lane: 0, sequence: -1 }), TypeError);
  assert.throws(() => encodeMessage({ type: "ACK", lane: 0, sequence: 0.5 }), TypeError);
  assert.throws(() => encodeMessage({ ...offer, machine: "" }), TypeError);
});

Deno.test("printable() gives a text that a terminal only shows", () => {
  assert.equal(printable("plain text, é, 語, 😀"), "plain text, é, 語, 😀");
  assert.equal(printable("a\u001b[2Jb\r\nc\u009bd\u007f"), "a [2Jb  c d ");
  assert.equal(printable("a\u202eb\u2066c\u200f"), "a b c ");
  assert.equal(printable("a\ud800b"), "a\ufffdb");
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 1200 }), (given) => {
    const shown = printable(given);
    assert.ok(shown.length <= MAX_TEXT_LENGTH);
    assert.ok(shown.isWellFormed());
    assert.doesNotMatch(shown, /[\p{Cc}\p{Zl}\p{Zp}]/u);
    assert.equal(printable(shown), shown);
  }));
});

Deno.test("negotiateSuites() takes the source's first that the destination accepts", () => {
  const offered = {
    user: ["a", "b", "c"],
    kernelText: ["c", "a"],
    kernelData: ["b"],
    unmapped: [],
  };
  const accepted = {
    user: ["c", "b"],
    kernelText: ["a", "c"],
    kernelData: ["a"],
    unmapped: ["a"],
  };
  assert.deepEqual(negotiateSuites(offered, accepted), {
    user: "b",
    kernelText: "c",
    kernelData: null,
    unmapped: null,
  });
});

Deno.test("negotiateSuites() never chooses what one side does not accept", () => {
  fc.assert(fc.property(perClass(suites), perClass(suites), (offered, accepted) => {
    const chosen = negotiateSuites(offered, accepted);
    for (const name of ["user", "kernelText", "kernelData", "unmapped"] as const) {
      const both = offered[name].filter((id) => accepted[name].includes(id));
      assert.equal(chosen[name], both[0] ?? null);
    }
  }));
});
