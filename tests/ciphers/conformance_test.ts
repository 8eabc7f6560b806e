import assert from "node:assert/strict";
import {
  type CipherSuite,
  conformanceChecks,
  nodeCryptoSuites,
  type Opener,
  type Sealer,
} from "../../ciphers/mod.ts";
import { fakeSuite, references, vectorsOf } from "./_support.ts";

const sound = nodeCryptoSuites()[0]!;

/** The sound suite with one fault built in. */
function faulty(
  fault: {
    sealer?: (inner: Sealer, key: Uint8Array) => Partial<Sealer>;
    opener?: (inner: Opener, key: Uint8Array) => Partial<Opener>;
  },
): CipherSuite {
  return {
    ...sound,
    createSealer(key) {
      const inner = sound.createSealer(key);
      return { ...methods(inner, ["begin", "update", "finish"]), ...fault.sealer?.(inner, key) };
    },
    createOpener(key) {
      const inner = sound.createOpener(key);
      return { ...methods(inner, ["begin", "update", "finish"]), ...fault.opener?.(inner, key) };
    },
  };
}

function methods<T extends Disposable>(inner: T, names: (keyof T)[]): T {
  const bound: Record<PropertyKey, unknown> = {
    [Symbol.dispose]: () => inner[Symbol.dispose](),
  };
  for (const name of names) bound[name] = (inner[name] as () => void).bind(inner);
  return bound as T;
}

function failures(suite: CipherSuite): string[] {
  const options = { vectors: vectorsOf(sound), reference: references["aes-256-gcm"] };
  return conformanceChecks(suite, options).filter((check) => {
    try {
      check.run();
      return false;
    } catch {
      return true;
    }
  }).map((check) => check.name.slice(check.name.indexOf(": ") + 2));
}

Deno.test("conformanceChecks() passes a sound suite", () => {
  assert.deepEqual(failures(faulty({})), []);
});

const faults: Record<string, [Parameters<typeof faulty>[0], string]> = {
  "accepts every message": [{
    opener: (inner) => ({ finish: () => [inner.finish(), true][1]! }),
  }, "refuses a changed tag"],
  "compares twelve bytes of the tag": [{
    // Seals again what it opened, to have the true tag.
    opener: (inner, key) => {
      let sealer = sound.createSealer(key);
      let expected = new Uint8Array();
      return {
        begin(nonce, associatedData, tag) {
          sealer[Symbol.dispose]();
          sealer = sound.createSealer(key);
          expected = tag.slice();
          inner.begin(nonce, associatedData, tag);
          sealer.begin(nonce, associatedData);
        },
        update(from, to) {
          inner.update(from, to);
          sealer.update(to, new Uint8Array(to.length));
        },
        finish() {
          inner.finish();
          const tag = new Uint8Array(16);
          sealer.finish(tag);
          return tag.subarray(0, 12).every((byte, index) => byte === expected[index]);
        },
        [Symbol.dispose]() {
          inner[Symbol.dispose]();
          sealer[Symbol.dispose]();
        },
      };
    },
  }, "refuses a changed tag"],
  "leaves associated data out": [{
    sealer: (inner) => ({ begin: (nonce) => inner.begin(nonce, new Uint8Array()) }),
    opener: (inner) => ({ begin: (nonce, _, tag) => inner.begin(nonce, new Uint8Array(), tag) }),
  }, "refuses a changed nonce, key or associated data"],
  "looks at eight bytes of the nonce": [{
    sealer: (inner) => ({ begin: (nonce, ad) => inner.begin(half(nonce), ad) }),
    opener: (inner) => ({ begin: (nonce, ad, tag) => inner.begin(half(nonce), ad, tag) }),
  }, "refuses a changed nonce, key or associated data"],
  "repeats its keystream when only the tag knows the nonce": [{
    sealer: (inner) => ({
      begin: (nonce, ad) => inner.begin(new Uint8Array(12), Uint8Array.of(...nonce, ...ad)),
    }),
    opener: (inner) => ({
      begin: (nonce, ad, tag) =>
        inner.begin(new Uint8Array(12), Uint8Array.of(...nonce, ...ad), tag),
    }),
  }, "repeats no keystream"],
  "pads a short nonce": [{
    sealer: (inner) => ({ begin: (nonce, ad) => inner.begin(padded(nonce), ad) }),
  }, "refuses wrong lengths"],
  "cuts a piece that does not fit": [{
    sealer: (inner) => ({
      update(from, to) {
        const length = Math.min(from.length, to.length);
        inner.update(from.subarray(0, length), to.subarray(0, length));
      },
    }),
  }, "refuses wrong lengths"],
  "returns promises": [{
    sealer: (inner) => ({
      finish: (tag) => Promise.resolve(inner.finish(tag)) as unknown as void,
    }),
  }, "does its work before it returns"],
  "rejects a promise that nobody waits for": [{
    opener: () => ({ finish: () => Promise.reject(new Error("late")) as unknown as boolean }),
  }, "does its work before it returns"],
  "writes its ciphertext later": [{
    sealer: (inner) => ({
      update(from, to) {
        const late = new Uint8Array(to.length);
        inner.update(from, late);
        queueMicrotask(() => to.set(late));
      },
    }),
  }, "does its work before it returns"],
  "writes beside its view": [{
    sealer: (inner) => ({
      update(from, to) {
        inner.update(from, to);
        const after = new Uint8Array(to.buffer, to.byteOffset + to.length);
        if (after.length > 0) after[0]! ^= 1;
      },
    }),
  }, "touches nothing beside its views"],
  "fails in place": [{
    sealer: (inner) => ({
      update(from, to) {
        to.fill(0);
        inner.update(from, to);
      },
    }),
  }, "seals and opens in place"],
  "starts anew with every piece": [{
    sealer: (inner) => {
      let begin = () => {};
      return {
        begin(nonce, ad) {
          const copy = [nonce.slice(), ad.slice()] as const;
          begin = () => inner.begin(...copy);
          inner.begin(...copy);
        },
        update(from, to) {
          inner.finish(new Uint8Array(16));
          begin();
          inner.update(from, to);
        },
      };
    },
  }, "seals alike however the message is split"],
};

for (const [what, [fault, check]] of Object.entries(faults)) {
  Deno.test(`conformanceChecks() catches a suite that ${what}`, () => {
    const failed = failures(faulty(fault));
    assert(failed.includes(check), `failed: ${failed.join("; ") || "nothing"}`);
  });
}

Deno.test("conformanceChecks() catches a suite that keeps the caller's key", () => {
  const suite: CipherSuite = {
    ...sound,
    createSealer(key) {
      let inner: Sealer | null = null;
      return {
        begin: (nonce, ad) => (inner = sound.createSealer(key)).begin(nonce, ad),
        update: (from, to) => inner!.update(from, to),
        finish: (tag) => inner!.finish(tag),
        [Symbol.dispose]: () => inner?.[Symbol.dispose](),
      };
    },
  };
  assert(failures(suite).includes("copies the key"));
});

Deno.test("conformanceChecks() catches a suite that is another cipher", () => {
  const other = nodeCryptoSuites()[2]!;
  const failed = failures({ ...other, id: sound.id });
  assert(failed.includes("vector: test case 16"));
  assert(failed.includes("agrees with the reference"));
});

Deno.test("conformanceChecks() leaves the checks of authenticity out for the paper's profile", () => {
  const names = (suite: CipherSuite) => conformanceChecks(suite).map((check) => check.name);
  const damaged = (name: string) => name.includes("refuses a changed tag");
  assert.equal(names(fakeSuite()).some(damaged), true);
  assert.equal(names(fakeSuite({ profile: "paper" })).some(damaged), false);
});

function half(nonce: Uint8Array): Uint8Array {
  const copy = nonce.slice();
  copy.fill(0, 0, 4);
  return copy;
}

function padded(nonce: Uint8Array): Uint8Array {
  const whole = new Uint8Array(12);
  whole.set(nonce.subarray(0, 12));
  return whole;
}
