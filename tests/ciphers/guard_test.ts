import assert from "node:assert/strict";
import {
  type CipherErrorCode,
  type CipherSuite,
  guardOpener,
  guardSealer,
  nodeCryptoSuites,
  type Opener,
  type Sealer,
} from "../../ciphers/mod.ts";
import { fakeSuite, suites } from "./_support.ts";

const none = new Uint8Array();
const key = new Uint8Array(32).fill(1);

function throwsCode(call: () => unknown, code: CipherErrorCode): void {
  assert.throws(call, { name: "CipherError", code });
}

function nonceOf(sequence: number): Uint8Array {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setBigUint64(4, BigInt(sequence));
  return nonce;
}

function sealOne(sealer: Sealer, sequence: number): Uint8Array {
  const tag = new Uint8Array(16);
  sealer.begin(nonceOf(sequence), none);
  sealer.update(new Uint8Array(10), new Uint8Array(10));
  sealer.finish(tag);
  return tag;
}

/** The suite, counting how often what it made was disposed. */
function counting(suite: CipherSuite): { suite: CipherSuite; disposed: () => number } {
  let disposals = 0;
  function count<T extends Disposable>(inner: T): T {
    const dispose = inner[Symbol.dispose].bind(inner);
    inner[Symbol.dispose] = () => {
      disposals++;
      dispose();
    };
    return inner;
  }
  const counted = {
    ...suite,
    createSealer: (key: Uint8Array) => count(suite.createSealer(key)),
    createOpener: (key: Uint8Array) => count(suite.createOpener(key)),
  };
  return { suite: counted, disposed: () => disposals };
}

const misuses: [string, CipherErrorCode, (sealer: Sealer) => void][] = [
  ["update before begin", "order", (s) => s.update(none, none)],
  ["finish before begin", "order", (s) => s.finish(new Uint8Array(16))],
  ["begin inside a message", "order", (s) => {
    s.begin(nonceOf(1), none);
    s.begin(nonceOf(2), none);
  }],
  ["finish twice", "order", (s) => {
    sealOne(s, 1);
    s.finish(new Uint8Array(16));
  }],
  ["update after finish", "order", (s) => {
    sealOne(s, 1);
    s.update(none, none);
  }],
  ["short nonce", "nonceLength", (s) => s.begin(new Uint8Array(11), none)],
  ["long nonce", "nonceLength", (s) => s.begin(new Uint8Array(13), none)],
  ["short tag", "tagLength", (s) => {
    s.begin(nonceOf(1), none);
    s.finish(new Uint8Array(12));
  }],
  ["from longer than to", "dataLength", (s) => {
    s.begin(nonceOf(1), none);
    s.update(new Uint8Array(2), new Uint8Array(1));
  }],
  ["to longer than from", "dataLength", (s) => {
    s.begin(nonceOf(1), none);
    s.update(new Uint8Array(1), new Uint8Array(2));
  }],
  ["overlapping views", "overlap", (s) => {
    const bytes = new Uint8Array(100);
    s.begin(nonceOf(1), none);
    s.update(bytes.subarray(0, 50), bytes.subarray(49, 99));
  }],
  ["the same nonce again", "nonceReused", (s) => {
    sealOne(s, 5);
    sealOne(s, 5);
  }],
  ["a nonce below the last", "nonceReused", (s) => {
    sealOne(s, 256);
    sealOne(s, 255);
  }],
];

for (const suite of [fakeSuite(), ...suites.filter((suite) => suite.id === "aes-256-gcm")]) {
  for (const [what, code, misuse] of misuses) {
    Deno.test(`guardSealer() over ${suite.id} (${suite.backend}) burns when misused: ${what}`, () => {
      const { suite: counted, disposed } = counting(suite);
      using sealer = guardSealer(counted, key);
      throwsCode(() => misuse(sealer), code);
      assert.equal(disposed(), 1, "the suite's own sealer is disposed, its key wiped");
      throwsCode(() => sealer.begin(nonceOf(1000), none), "burnt");
      throwsCode(() => sealer.update(none, none), "burnt");
      throwsCode(() => sealer.finish(new Uint8Array(16)), "burnt");
      sealer[Symbol.dispose]();
      assert.equal(disposed(), 1);
    });
  }
}

Deno.test("guardSealer() takes growing nonces with gaps, from zero, and the largest", () => {
  using sealer = guardSealer(fakeSuite(), key);
  for (const sequence of [0, 1, 2, 255, 256, 65_536, 2 ** 40, 2 ** 53 - 1]) {
    sealOne(sealer, sequence);
  }
  sealer.begin(new Uint8Array(12).fill(255), none);
  sealer.finish(new Uint8Array(16));
  throwsCode(() => sealer.begin(new Uint8Array(12).fill(255), none), "nonceReused");
});

Deno.test("guardSealer() remembers the nonce, not the caller's view of it", () => {
  using sealer = guardSealer(fakeSuite(), key);
  const nonce = nonceOf(7);
  sealer.begin(nonce, none);
  sealer.finish(new Uint8Array(16));
  nonce.fill(0);
  throwsCode(() => sealer.begin(nonceOf(7), none), "nonceReused");
});

Deno.test("guardSealer() and guardOpener() refuse a key of the wrong length", () => {
  for (const size of [0, 31, 33]) {
    throwsCode(() => guardSealer(fakeSuite(), new Uint8Array(size)), "keyLength");
    throwsCode(() => guardOpener(fakeSuite(), new Uint8Array(size)), "keyLength");
  }
});

Deno.test("guardSealer() takes adjoining views and the same view", () => {
  using sealer = guardSealer(fakeSuite(), key);
  const bytes = new Uint8Array(100);
  sealer.begin(nonceOf(1), none);
  sealer.update(bytes.subarray(0, 50), bytes.subarray(50));
  sealer.update(bytes.subarray(50), bytes.subarray(0, 50));
  sealer.update(bytes, bytes);
  sealer.update(bytes.subarray(3, 30), bytes.subarray(3, 30));
  sealer.finish(new Uint8Array(16));
});

Deno.test("guardSealer() and guardOpener() stop at the key's messages", () => {
  const suite = fakeSuite({ maxMessagesPerKey: 3 });
  using sealer = guardSealer(suite, key);
  for (const sequence of [1, 2, 3]) sealOne(sealer, sequence);
  throwsCode(() => sealOne(sealer, 4), "limit");
  throwsCode(() => sealOne(sealer, 5), "burnt");
  using opener = guardOpener(suite, key);
  for (const sequence of [1, 2, 3]) openOne(opener, sequence);
  throwsCode(() => openOne(opener, 4), "limit");
});

Deno.test("guardSealer() and guardOpener() stop at the key's bytes, over all messages", () => {
  const suite = fakeSuite({ maxBytesPerKey: 25 });
  using sealer = guardSealer(suite, key);
  sealOne(sealer, 1);
  sealOne(sealer, 2);
  throwsCode(() => sealOne(sealer, 3), "limit");
  using opener = guardOpener(suite, key);
  openOne(opener, 1);
  openOne(opener, 1);
  throwsCode(() => openOne(opener, 1), "limit");
});

Deno.test("guardOpener() goes on after a message that is not authentic", () => {
  const suite = nodeCryptoSuites()[0]!;
  using sealer = guardSealer(suite, key);
  const tag = sealOne(sealer, 1);
  using opener = guardOpener(suite, key);
  assert.equal(openOne(opener, 1), false);
  const sealed = new Uint8Array(10);
  using again = guardSealer(suite, key);
  again.begin(nonceOf(1), none);
  again.update(sealed, sealed);
  again.finish(new Uint8Array(16));
  opener.begin(nonceOf(1), none, tag);
  opener.update(sealed, sealed);
  assert.equal(opener.finish(), true);
});

Deno.test("guardOpener() burns when misused", () => {
  const tag = new Uint8Array(16);
  const cases: [CipherErrorCode, (opener: Opener) => void][] = [
    ["order", (o) => o.update(none, none)],
    ["order", (o) => o.finish()],
    ["tagLength", (o) => o.begin(nonceOf(1), none, new Uint8Array(15))],
    ["nonceLength", (o) => o.begin(new Uint8Array(8), none, tag)],
    ["order", (o) => {
      o.begin(nonceOf(1), none, tag);
      o.begin(nonceOf(2), none, tag);
    }],
    ["dataLength", (o) => {
      o.begin(nonceOf(1), none, tag);
      o.update(new Uint8Array(1), none);
    }],
  ];
  for (const [code, misuse] of cases) {
    const { suite, disposed } = counting(fakeSuite());
    using opener = guardOpener(suite, key);
    throwsCode(() => misuse(opener), code);
    assert.equal(disposed(), 1);
    throwsCode(() => opener.begin(nonceOf(9), none, tag), "burnt");
  }
});

Deno.test("guardOpener() refuses a verdict that is a promise", () => {
  const suite = fakeSuite({
    createOpener: () => ({
      begin() {},
      update() {},
      finish: () => Promise.resolve(false) as unknown as boolean,
      [Symbol.dispose]() {},
    }),
  });
  using opener = guardOpener(suite, key);
  throwsCode(() => openOne(opener, 1), "asynchronous");
});

Deno.test("guardSealer() refuses a suite that works asynchronously", () => {
  const suite = fakeSuite({
    createSealer: () => ({
      begin() {},
      update: () => Promise.resolve() as unknown as void,
      finish() {},
      [Symbol.dispose]() {},
    }),
  });
  using sealer = guardSealer(suite, key);
  throwsCode(() => sealOne(sealer, 1), "asynchronous");
  throwsCode(() => sealOne(sealer, 2), "burnt");
});

Deno.test("guardSealer() burns and keeps the cause when the suite throws", () => {
  const failure = new Error("device lost");
  const fail = (): never => {
    throw failure;
  };
  const parts = { begin() {}, update() {}, finish() {}, [Symbol.dispose]() {} };
  for (const part of ["begin", "update", "finish"] as const) {
    const suite = fakeSuite({ createSealer: () => ({ ...parts, [part]: fail }) });
    using sealer = guardSealer(suite, key);
    assert.throws(() => sealOne(sealer, 1), { code: "suiteFailed", cause: failure });
    throwsCode(() => sealOne(sealer, 2), "burnt");
  }
  const broken = fakeSuite({ createSealer: fail, createOpener: fail });
  assert.throws(() => guardSealer(broken, key), { code: "suiteFailed", cause: failure });
  assert.throws(() => guardOpener(broken, key), { code: "suiteFailed", cause: failure });
});

Deno.test("guardSealer() throws `disposed` when used after dispose, which disposes the suite's own once", () => {
  const { suite, disposed } = counting(fakeSuite());
  const sealer = guardSealer(suite, key);
  sealer.begin(nonceOf(1), none);
  sealer[Symbol.dispose]();
  sealer[Symbol.dispose]();
  throwsCode(() => sealer.update(none, none), "disposed");
  assert.equal(disposed(), 1);
});

function openOne(opener: Opener, sequence: number): boolean {
  opener.begin(nonceOf(sequence), none, new Uint8Array(16));
  opener.update(new Uint8Array(10), new Uint8Array(10));
  return opener.finish();
}
