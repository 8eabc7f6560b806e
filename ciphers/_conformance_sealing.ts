/**
 * The conformance kit's checks of what a suite does with honest messages and honest callers.
 *
 * @module
 */

import {
  assertBytes,
  expect,
  fill,
  flip,
  open,
  refuses,
  roundTrip,
  seal,
  sequenceNonce,
  SIZES,
  testKey,
} from "./_conformance_tools.ts";
import { guardOpener, guardSealer } from "./guard.ts";
import type { CipherSuite } from "./suite.ts";

const AD_SIZES = [0, 1, 12, 15, 16, 17, 24, 31, 32, 33, 64, 65, 1000];

export function opensEverySize(suite: CipherSuite): void {
  for (const size of SIZES) {
    roundTrip(suite, { plaintext: fill(size, { seed: size }), associatedData: fill(24) });
  }
}

export function sealsAlikeWhenSplit(suite: CipherSuite): void {
  // As a record: type, block, count, list of page numbers, pages.
  const plaintext = fill(3 + 4 * 4 + 4 * 4096);
  const whole = seal(suite, { plaintext });
  const splits = {
    record: [3, 16, 4096, 4096, 4096, 4096],
    odd: [1, 0, 15, 16, 17, 0, 63, 65, 255, 1000, 4097],
    halves: [plaintext.length / 2 | 0],
    bytes: Array<number>(300).fill(1),
  };
  for (const [name, split] of Object.entries(splits)) {
    const sealed = seal(suite, { plaintext, split });
    assertBytes(sealed.ciphertext, whole.ciphertext, `ciphertext of a message split in ${name}`);
    assertBytes(sealed.tag, whole.tag, `tag of a message split in ${name}`);
    const { authentic, plaintext: opened } = open(suite, { ...whole, split });
    expect(authentic, `a message split in ${name} does not open`);
    assertBytes(opened, plaintext, `plaintext of a message split in ${name}`);
  }
}

export function worksInPlace(suite: CipherSuite): void {
  for (const size of SIZES) {
    const plaintext = fill(size);
    const apart = seal(suite, { plaintext });
    const view = plaintext.slice();
    const tag = new Uint8Array(suite.tagBytes);
    using sealer = guardSealer(suite, testKey(suite));
    sealer.begin(apart.nonce, apart.associatedData);
    sealer.update(view, view);
    sealer.finish(tag);
    assertBytes(view, apart.ciphertext, `${size} bytes sealed in place`);
    assertBytes(tag, apart.tag, `tag of ${size} bytes sealed in place`);
    using opener = guardOpener(suite, testKey(suite));
    opener.begin(apart.nonce, apart.associatedData, tag);
    opener.update(view, view);
    expect(opener.finish(), `${size} bytes do not open in place`);
    assertBytes(view, plaintext, `${size} bytes opened in place`);
  }
}

export function touchesNothingElse(suite: CipherSuite): void {
  // Pages at a stride of 4104 bytes, as they lie in QEMU's stream; all in one buffer.
  const before = fill(16 * 4104);
  const buffer = before.slice();
  const tag = new Uint8Array(suite.tagBytes + 2).fill(0xa5);
  const view = (index: number) => buffer.subarray(8 + index * 4104, 8 + index * 4104 + 4095);
  using sealer = guardSealer(suite, testKey(suite));
  sealer.begin(sequenceNonce(suite, 1), fill(24));
  for (let i = 0; i < 8; i++) sealer.update(view(i), view(i + 8));
  sealer.finish(tag.subarray(1, -1));
  for (let i = 8; i < 16; i++) before.set(view(i), 8 + i * 4104);
  assertBytes(buffer, before, "the buffer around the sealed pages");
  expect(tag[0] === 0xa5 && tag.at(-1) === 0xa5, "bytes beside the tag were changed");
  using opener = guardOpener(suite, testKey(suite));
  opener.begin(sequenceNonce(suite, 1), fill(24), tag.subarray(1, -1));
  for (let i = 0; i < 8; i++) view(i).fill(0);
  for (let i = 0; i < 8; i++) opener.update(view(i + 8), view(i));
  expect(opener.finish(), "pages in one buffer do not open");
  assertBytes(buffer, before, "the buffer around the opened pages");
}

export function takesAssociatedData(suite: CipherSuite): void {
  for (const adSize of AD_SIZES) {
    for (const size of [0, 1, 16, 100]) {
      roundTrip(suite, { plaintext: fill(size), associatedData: fill(adSize) });
    }
  }
}

export function isDeterministic(suite: CipherSuite): void {
  const plaintext = fill(5000);
  const first = seal(suite, { plaintext });
  const second = seal(suite, { plaintext });
  assertBytes(second.ciphertext, first.ciphertext, "ciphertext of the same message");
  assertBytes(second.tag, first.tag, "tag of the same message");
}

/** Apart, not in place: what is written too late is missing then. */
export function isSynchronous(suite: CipherSuite): void {
  const plaintext = fill(100);
  const ciphertext = new Uint8Array(100);
  const opened = new Uint8Array(100);
  const tag = new Uint8Array(suite.tagBytes);
  const nonce = sequenceNonce(suite, 1);
  using sealer = suite.createSealer(testKey(suite));
  using opener = suite.createOpener(testKey(suite));
  returnsNothing("begin of a sealer", sealer.begin(nonce, fill(24)));
  returnsNothing("update of a sealer", sealer.update(plaintext, ciphertext));
  returnsNothing("finish of a sealer", sealer.finish(tag));
  expect(ciphertext.some((byte) => byte !== 0), "after finish of a sealer there is no ciphertext");
  returnsNothing("begin of an opener", opener.begin(nonce, fill(24), tag));
  returnsNothing("update of an opener", opener.update(ciphertext, opened));
  const authentic: unknown = opener.finish();
  if (typeof authentic !== "boolean") returnsNothing("finish of an opener", authentic);
  expect(authentic === true, "finish of an opener did not return true");
  assertBytes(opened, plaintext, "plaintext right after finish");
}

function returnsNothing(what: string, value: unknown): void {
  // Nobody waits for it; when it rejects, that must not end the process.
  if (value instanceof Promise) value.catch(() => {});
  const kind = value instanceof Promise ? "a promise" : "a value";
  expect(value === undefined, `${what} returned ${kind}`);
}

/**
 * Two messages that differ in one bit of nonce or key share no block of keystream, nor do two blocks of one
 * message: equal plaintext would show.
 */
export function repeatsNoKeystream(suite: CipherSuite): void {
  const plaintext = new Uint8Array(1024);
  const nonce = sequenceNonce(suite, 1);
  const key = testKey(suite);
  const blocks = new Set<string>();
  const add = (message: { key: Uint8Array; nonce: Uint8Array }, what: string) => {
    const { ciphertext } = seal(suite, { ...message, plaintext });
    for (let at = 0; at < ciphertext.length; at += 16) {
      const block = ciphertext.subarray(at, at + 16).toHex();
      expect(!blocks.has(block), `${what} seals equal plaintext to equal ciphertext`);
      blocks.add(block);
    }
  };
  add({ key, nonce }, "one message");
  for (let bit = 0; bit < nonce.length * 8; bit++) {
    add({ key, nonce: flip(nonce, bit) }, `another nonce (bit ${bit})`);
  }
  for (let bit = 0; bit < key.length * 8; bit++) {
    add({ key: flip(key, bit), nonce }, `another key (bit ${bit})`);
  }
}

export function copiesTheKey(suite: CipherSuite): void {
  const plaintext = fill(100);
  const sealed = seal(suite, { plaintext });
  const key = testKey(suite);
  using sealer = guardSealer(suite, key);
  using opener = guardOpener(suite, key);
  key.fill(0);
  const ciphertext = new Uint8Array(100);
  sealer.begin(sealed.nonce, sealed.associatedData);
  sealer.update(plaintext, ciphertext);
  sealer.finish(new Uint8Array(suite.tagBytes));
  assertBytes(ciphertext, sealed.ciphertext, "ciphertext after the caller wiped its key");
  opener.begin(sealed.nonce, sealed.associatedData, sealed.tag);
  opener.update(ciphertext, ciphertext);
  expect(opener.finish(), "a message does not open after the caller wiped its key");
}

export function sealsManyMessages(suite: CipherSuite): void {
  using sealer = guardSealer(suite, testKey(suite));
  using opener = guardOpener(suite, testKey(suite));
  const tag = new Uint8Array(suite.tagBytes);
  for (let sequence = 1; sequence <= 300; sequence++) {
    const plaintext = fill(sequence, { seed: sequence });
    const nonce = sequenceNonce(suite, sequence);
    const associatedData = fill(sequence % 40);
    const view = plaintext.slice();
    sealer.begin(nonce, associatedData);
    sealer.update(view, view);
    sealer.finish(tag);
    const alone = seal(suite, { plaintext, nonce, associatedData });
    assertBytes(view, alone.ciphertext, `ciphertext of message ${sequence}`);
    assertBytes(tag, alone.tag, `tag of message ${sequence}`);
    opener.begin(nonce, associatedData, tag);
    opener.update(view, view);
    expect(opener.finish(), `message ${sequence} does not open`);
    assertBytes(view, plaintext, `plaintext of message ${sequence}`);
  }
}

export function keepsSealersApart(suite: CipherSuite): void {
  const messages = [1, 2].map((seed) => ({
    key: testKey(suite, seed),
    plaintext: fill(300, { seed }),
    nonce: sequenceNonce(suite, seed),
  }));
  const alone = messages.map((message) => seal(suite, message));
  using first = guardSealer(suite, messages[0]!.key);
  using second = guardSealer(suite, messages[1]!.key);
  const sealers = [first, second];
  const ciphertexts = [new Uint8Array(300), new Uint8Array(300)];
  sealers.forEach((sealer, i) => sealer.begin(messages[i]!.nonce, alone[i]!.associatedData));
  for (let at = 0; at < 300; at += 50) {
    sealers.forEach((sealer, i) =>
      sealer.update(
        messages[i]!.plaintext.subarray(at, at + 50),
        ciphertexts[i]!.subarray(at, at + 50),
      )
    );
  }
  sealers.forEach((sealer, i) => {
    const tag = new Uint8Array(suite.tagBytes);
    sealer.finish(tag);
    assertBytes(ciphertexts[i]!, alone[i]!.ciphertext, `ciphertext of interleaved sealer ${i}`);
    assertBytes(tag, alone[i]!.tag, `tag of interleaved sealer ${i}`);
  });
}

/** Without the guard: a suite keeps its own memory safe, and says no rather than pad or cut. */
export function refusesWrongLengths(suite: CipherSuite): void {
  const { keyBytes, nonceBytes, tagBytes } = suite;
  const key = testKey(suite);
  const nonce = sequenceNonce(suite, 1);
  const none = new Uint8Array();
  const wrong = (bytes: number) => [0, bytes - 1, bytes + 1].filter((n) => n >= 0 && n !== bytes);
  for (const size of wrong(keyBytes)) {
    refuses(() => suite.createSealer(fill(size)), `createSealer takes a key of ${size} bytes`);
    refuses(() => suite.createOpener(fill(size)), `createOpener takes a key of ${size} bytes`);
  }
  for (const size of wrong(nonceBytes)) {
    using sealer = suite.createSealer(key);
    using opener = suite.createOpener(key);
    refuses(() => sealer.begin(fill(size), none), `a sealer takes a nonce of ${size} bytes`);
    refuses(
      () => opener.begin(fill(size), none, new Uint8Array(tagBytes)),
      `an opener takes a nonce of ${size} bytes`,
    );
  }
  for (const size of wrong(tagBytes)) {
    using sealer = suite.createSealer(key);
    using opener = suite.createOpener(key);
    sealer.begin(nonce, none);
    refuses(() => sealer.finish(new Uint8Array(size)), `a sealer takes a tag of ${size} bytes`);
    refuses(
      () => opener.begin(nonce, none, new Uint8Array(size)),
      `an opener takes a tag of ${size} bytes`,
    );
  }
  for (const [from, to] of [[10, 9], [10, 11], [0, 1], [1, 0]] as const) {
    using sealer = suite.createSealer(key);
    using opener = suite.createOpener(key);
    sealer.begin(nonce, none);
    opener.begin(nonce, none, new Uint8Array(tagBytes));
    refuses(() => sealer.update(fill(from), fill(to)), `a sealer takes ${from} bytes to ${to}`);
    refuses(() => opener.update(fill(from), fill(to)), `an opener takes ${from} bytes to ${to}`);
  }
}

export function mayBeDisposedAnyTime(suite: CipherSuite): void {
  const nonce = sequenceNonce(suite, 1);
  const view = fill(20);
  const sealer = suite.createSealer(testKey(suite));
  sealer.begin(nonce, view);
  sealer.update(view, view);
  const opener = suite.createOpener(testKey(suite));
  opener.begin(nonce, view, new Uint8Array(suite.tagBytes));
  for (let i = 0; i < 2; i++) {
    sealer[Symbol.dispose]();
    opener[Symbol.dispose]();
  }
}
