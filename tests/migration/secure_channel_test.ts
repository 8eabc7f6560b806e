import assert from "node:assert/strict";
import { gcm } from "@noble/ciphers/aes.js";
import fc from "fast-check";
import { nodeCryptoSuites } from "../../ciphers/node_crypto.ts";
import { AUTHENTICATION_FAILED, MigrationError } from "../../migration/errors.ts";
import {
  FRAME_HEADER_BYTES,
  MAX_CONTROL_FRAME_BYTES,
  MAX_CONTROL_MESSAGE_BYTES,
} from "../../migration/limits.ts";
import { ControlChannel } from "../../migration/secure_channel.ts";

const suite = nodeCryptoSuites().find(({ id }) => id === "aes-256-gcm")!;
const sourceKey = new Uint8Array(32).fill(1);
const destinationKey = new Uint8Array(32).fill(2);
const unauthentic = { name: "MigrationError", code: "cut", message: AUTHENTICATION_FAILED };
const disjoint = {
  name: "MigrationError",
  code: "protocol",
  message: "Cannot join control message: its parts do not follow",
};
/** Message bytes in a full part: 65,535 less tag and part header. */
const PIECE = MAX_CONTROL_FRAME_BYTES - 16 - 4;

function sourceEnd(): ControlChannel {
  return new ControlChannel({ sendKey: sourceKey, receiveKey: destinationKey, suite });
}

function destinationEnd(): ControlChannel {
  return new ControlChannel({ sendKey: destinationKey, receiveKey: sourceKey, suite });
}

function openFrame(channel: ControlChannel, frame: Uint8Array): Uint8Array | null {
  return channel.open(frame.subarray(0, FRAME_HEADER_BYTES), frame.subarray(FRAME_HEADER_BYTES));
}

function bytes(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => index * 7 + (index >> 8));
}

function nonce(counter: number): Uint8Array {
  const value = new Uint8Array(12);
  new DataView(value.buffer).setBigUint64(4, BigInt(counter));
  return value;
}

/** A frame as the source's n-th, made with another implementation: parts may be nonsense. */
function forge(counter: number, options: { part: number; count: number; piece: Uint8Array }) {
  const plaintext = new Uint8Array(4 + options.piece.length);
  const view = new DataView(plaintext.buffer);
  view.setUint16(0, options.part);
  view.setUint16(2, options.count);
  plaintext.set(options.piece, 4);
  const frame = new Uint8Array(FRAME_HEADER_BYTES + plaintext.length + 16);
  frame[0] = 1;
  new DataView(frame.buffer).setUint32(4, plaintext.length + 16);
  const header = frame.slice(0, FRAME_HEADER_BYTES);
  frame.set(gcm(sourceKey, nonce(counter), header).encrypt(plaintext), FRAME_HEADER_BYTES);
  return frame;
}

Deno.test("seal() makes exactly the frame that PROTOCOL.md section 2 describes", () => {
  using source = sourceEnd();
  for (let counter = 0; counter < 3; counter++) {
    const piece = bytes(20 + counter);
    const [frame, ...more] = source.seal(piece);
    assert.equal(more.length, 0);
    assert.deepEqual(frame, forge(counter, { part: 0, count: 1, piece }));
  }
});

Deno.test("open() gives back what seal() took, both ways and in order", () => {
  using source = sourceEnd();
  using destination = destinationEnd();
  const message = fc.uint8Array({ minLength: 1, maxLength: 300 });
  fc.assert(fc.property(message, fc.boolean(), (given, forward) => {
    const [from, to] = forward ? [source, destination] : [destination, source];
    const frames = from.seal(given);
    assert.equal(frames.length, 1);
    assert.deepEqual(openFrame(to, frames[0]!), new Uint8Array(given));
  }));
});

for (
  const [length, parts] of [
    [1, 1],
    [PIECE, 1],
    [PIECE + 1, 2],
    [2 * PIECE, 2],
    [MAX_CONTROL_MESSAGE_BYTES, 5],
  ] as const
) {
  Deno.test(`open() joins a message of ${length} bytes from ${parts} parts`, () => {
    using source = sourceEnd();
    using destination = destinationEnd();
    const message = bytes(length);
    const frames = source.seal(message);
    assert.equal(frames.length, parts);
    frames.forEach((frame, index) => {
      assert.ok(frame.length <= FRAME_HEADER_BYTES + MAX_CONTROL_FRAME_BYTES);
      const joined = openFrame(destination, frame);
      if (index < parts - 1) assert.equal(joined, null);
      else assert.deepEqual(joined, message);
    });
    // And the next one is not disturbed by it.
    assert.deepEqual(openFrame(destination, source.seal(bytes(3))[0]!), bytes(3));
  });
}

Deno.test("seal() refuses a message when it is empty or too long", () => {
  using source = sourceEnd();
  assert.throws(() => source.seal(new Uint8Array(0)), RangeError);
  assert.throws(() => source.seal(new Uint8Array(MAX_CONTROL_MESSAGE_BYTES + 1)), RangeError);
});

Deno.test("open() refuses a frame when any bit of it was changed", () => {
  using source = sourceEnd();
  const [frame] = source.seal(bytes(25));
  for (let bit = 0; bit < frame!.length * 8; bit++) {
    using destination = destinationEnd();
    const changed = frame!.slice();
    changed[bit >> 3]! ^= 1 << (bit & 7);
    assert.throws(() => openFrame(destination, changed), unauthentic, `bit ${bit}`);
  }
  using destination = destinationEnd();
  assert.deepEqual(openFrame(destination, frame!), bytes(25));
});

Deno.test("open() refuses any changed frame of any message", () => {
  const message = fc.uint8Array({ minLength: 1, maxLength: 100 });
  const change = fc.record({ at: fc.nat(), by: fc.integer({ min: 1, max: 255 }) });
  fc.assert(fc.property(message, change, (given, { at, by }) => {
    using source = sourceEnd();
    using destination = destinationEnd();
    const [frame] = source.seal(given);
    frame![at % frame!.length]! ^= by;
    assert.throws(() => openFrame(destination, frame!), unauthentic);
  }));
});

Deno.test("open() refuses a frame when it is cut, or too long", () => {
  using source = sourceEnd();
  const [frame] = source.seal(bytes(10));
  for (let length = 0; length < frame!.length; length++) {
    using destination = destinationEnd();
    assert.throws(() => openFrame(destination, frame!.subarray(0, length)), unauthentic);
  }
  using destination = destinationEnd();
  const long = new Uint8Array(MAX_CONTROL_FRAME_BYTES + 1);
  assert.throws(() => destination.open(new Uint8Array(8), long), unauthentic);
});

Deno.test("open() refuses frames when they are repeated, left out, swapped or sent back", () => {
  using source = sourceEnd();
  const [first, second] = [source.seal(bytes(5))[0]!, source.seal(bytes(6))[0]!];
  for (const order of [[first, first], [second], [second, first]]) {
    using destination = destinationEnd();
    assert.throws(() => order.forEach((frame) => openFrame(destination, frame)), unauthentic);
  }
  // Each direction has its own key.
  assert.throws(() => openFrame(source, first), unauthentic);
});

Deno.test("open() opens nothing more when one frame was refused", () => {
  using source = sourceEnd();
  using destination = destinationEnd();
  const [frame] = source.seal(bytes(5));
  const changed = frame!.with(20, frame![20]! ^ 1);
  assert.throws(() => openFrame(destination, changed), unauthentic);
  assert.throws(() => openFrame(destination, frame!), unauthentic);
  assert.throws(() => openFrame(destination, source.seal(bytes(5))[0]!), unauthentic);
});

const full = bytes(PIECE);
const some = bytes(9);
const nonsense: Record<string, { part: number; count: number; piece: Uint8Array }[]> = {
  "part 0 of 0": [{ part: 0, count: 0, piece: some }],
  "part 1 first": [{ part: 1, count: 2, piece: some }],
  "a part number above the count": [{ part: 2, count: 2, piece: some }],
  "more parts than a message can have": [{ part: 0, count: 6, piece: full }],
  "65,535 parts": [{ part: 0, count: 65_535, piece: full }],
  "a part that is not full": [{ part: 0, count: 2, piece: some }],
  "a part twice": [{ part: 0, count: 2, piece: full }, { part: 0, count: 2, piece: full }],
  "a part left out": [{ part: 0, count: 3, piece: full }, { part: 2, count: 3, piece: some }],
  "a count that changes": [{ part: 0, count: 3, piece: full }, { part: 1, count: 2, piece: some }],
  "a message between parts": [
    { part: 0, count: 2, piece: full },
    { part: 0, count: 1, piece: some },
  ],
  "a message above its cap": [0, 1, 2, 3, 4].map((part) => ({
    part,
    count: 5,
    piece: part < 4 ? full : bytes(MAX_CONTROL_MESSAGE_BYTES - 4 * PIECE + 1),
  })),
};
for (const [name, parts] of Object.entries(nonsense)) {
  Deno.test(`open() refuses ${name}`, () => {
    using destination = destinationEnd();
    parts.forEach((part, counter) => {
      const frame = forge(counter, part);
      if (counter < parts.length - 1) assert.equal(openFrame(destination, frame), null);
      else assert.throws(() => openFrame(destination, frame), disjoint);
    });
    const next = forge(parts.length, { part: 0, count: 1, piece: some });
    assert.throws(() => openFrame(destination, next), MigrationError);
  });
}

Deno.test("open() refuses an authentic frame when it holds no message", () => {
  using destination = destinationEnd();
  const empty = forge(0, { part: 0, count: 1, piece: new Uint8Array(0) });
  assert.throws(() => openFrame(destination, empty), unauthentic);
});

Deno.test("ControlChannel copies its keys, and seals and opens nothing when disposed", () => {
  const keys = { sendKey: sourceKey.slice(), receiveKey: destinationKey.slice() };
  const source = new ControlChannel({ ...keys, suite });
  keys.sendKey.fill(0);
  keys.receiveKey.fill(0);
  using destination = destinationEnd();
  assert.deepEqual(openFrame(destination, source.seal(some)[0]!), some);
  assert.deepEqual(openFrame(source, destination.seal(some)[0]!), some);
  source[Symbol.dispose]();
  source[Symbol.dispose]();
  assert.throws(() => source.seal(some));
  assert.throws(() => openFrame(source, destination.seal(some)[0]!), MigrationError);
});

Deno.test("ControlChannel refuses a suite when its nonce is not Noise's", () => {
  const keys = { sendKey: sourceKey, receiveKey: destinationKey };
  assert.throws(
    () => new ControlChannel({ ...keys, suite: { ...suite, nonceBytes: 8 } }),
    TypeError,
  );
});
