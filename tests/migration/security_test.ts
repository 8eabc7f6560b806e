import assert from "node:assert/strict";
import fc from "fast-check";
import { crc32 } from "../../ciphers/crc32.ts";
import { type CipherSuite, paperSuites } from "../../ciphers/mod.ts";
import { Rc4 } from "../../ciphers/rc4.ts";
import { PAGE_BYTES, PAPER_TIME_WINDOW_MS } from "../../migration/limits.ts";
import { paperKeys } from "../../migration/secret_key.ts";
import { SecurityDecoder, SecurityEncoder, unitOverheadBytes } from "../../migration/security.ts";

const suites = paperSuites();
const timestampMs = Date.UTC(2024, 0, 1);

/** One unit, encoded. */
function encode(suite: CipherSuite, data: Uint8Array, isUser: boolean): Uint8Array {
  using encoder = new SecurityEncoder({ suite, timestampMs });
  return encodeWith(encoder, { suite, data, isUser });
}

function encodeWith(
  encoder: SecurityEncoder,
  { suite, data, isUser }: { suite: CipherSuite; data: Uint8Array; isUser: boolean },
): Uint8Array {
  const unit = new Uint8Array(data.length + unitOverheadBytes(suite));
  unit.set(data);
  encoder.encode(unit, isUser);
  return unit;
}

/** What one unit holds; null when it is skipped. */
function decode(suite: CipherSuite, unit: Uint8Array, isUser: boolean): Uint8Array | null {
  using decoder = new SecurityDecoder({ suite, timestampMs });
  const into = new Uint8Array(unit.length - unitOverheadBytes(suite));
  return decoder.decode(unit, { isUser, into }) ? into : null;
}

function textPage(text: string): Uint8Array {
  const page = new Uint8Array(PAGE_BYTES).map((_, i) => (i * 31) & 0x7f);
  page.set(new TextEncoder().encode(text), 1000);
  return page;
}

function includes(bytes: Uint8Array, text: string): boolean {
  return new TextDecoder("latin1").decode(bytes).includes(text);
}

for (const suite of suites) {
  Deno.test(`SecurityDecoder.decode() gives back what was encoded (${suite.id})`, () => {
    fc.assert(fc.property(
      fc.array(fc.tuple(fc.uint8Array({ maxLength: 300 }), fc.boolean()), { maxLength: 8 }),
      (units) => {
        using encoder = new SecurityEncoder({ suite, timestampMs });
        using decoder = new SecurityDecoder({ suite, timestampMs });
        for (const [data, isUser] of units) {
          const unit = encodeWith(encoder, { suite, data, isUser });
          const into = new Uint8Array(data.length);
          assert.equal(decoder.decode(unit, { isUser, into }), true);
          assert.deepEqual(into, data);
        }
      },
    ));
  });

  Deno.test(`SecurityDecoder.decode() finds damage by chance, wherever it is (${suite.id})`, () => {
    for (const isUser of [true, false]) {
      const unit = encode(suite, textPage("damaged"), isUser);
      // Of v each bit, of the rest every 61st.
      const dataBits = PAGE_BYTES * 8;
      for (let bit = 0; bit < unit.length * 8; bit += bit < dataBits ? 61 : 1) {
        const changed = unit.slice();
        changed[bit >> 3]! ^= 1 << (bit & 7);
        assert.equal(decode(suite, changed, isUser), null, `bit ${bit}, user: ${isUser}`);
      }
    }
  });
}

Deno.test("SecurityEncoder.encode() hides user pages and leaves system pages in clear", () => {
  const page = textPage("centospassword");
  for (const suite of suites) {
    const hidden = suite.id !== "none";
    assert.equal(includes(encode(suite, page, true), "centospassword"), !hidden, suite.id);
    assert.equal(includes(encode(suite, page, false), "centospassword"), true, suite.id);
  }
});

Deno.test("SecurityEncoder.encode() is <M, CRC-32(M)> XOR RC4(v || seed key), v beside it", () => {
  const suite = suites[0]!;
  const page = textPage("as the paper has it");
  using encoder = new SecurityEncoder({ suite, timestampMs });
  const units = [1, 2].map(() => encodeWith(encoder, { suite, data: page, isUser: true }));
  units.forEach((unit, i) => {
    const iv = unit.subarray(PAGE_BYTES, PAGE_BYTES + 8);
    assert.deepEqual(iv, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, i + 1));
    using rc4 = new Rc4();
    rc4.setKey(Uint8Array.of(...iv, ...paperKeys(timestampMs, suite.keyBytes).seedKey));
    const plaintext = Uint8Array.of(
      ...unit.subarray(0, PAGE_BYTES),
      ...unit.subarray(PAGE_BYTES + 8),
    );
    rc4.xor(plaintext, plaintext);
    assert.deepEqual(plaintext.subarray(0, PAGE_BYTES), page);
    assert.equal(new DataView(plaintext.buffer).getUint32(PAGE_BYTES), crc32(page));
  });
});

Deno.test("SecurityEncoder.encode() takes another v for each unit, past every byte's end", () => {
  const suite = suites[0]!;
  using encoder = new SecurityEncoder({ suite, timestampMs });
  for (let count = 1; count <= 66_000; count++) {
    const unit = encodeWith(encoder, { suite, data: new Uint8Array(), isUser: false });
    assert.equal(new DataView(unit.buffer).getBigUint64(0), BigInt(count));
  }
});

Deno.test("SecurityEncoder.encode() encodes the checksum of a system page with the public key", () => {
  const suite = suites[0]!;
  const page = textPage("kernel");
  const unit = encode(suite, page, false);
  using rc4 = new Rc4();
  const iv = unit.subarray(PAGE_BYTES, PAGE_BYTES + 8);
  rc4.setKey(Uint8Array.of(...iv, ...paperKeys(timestampMs, suite.keyBytes).publicKey));
  const checksum = unit.slice(PAGE_BYTES + 8);
  rc4.xor(checksum, checksum);
  assert.equal(new DataView(checksum.buffer).getUint32(0), crc32(page));
});

// ---- What the paper promises and this does not give. The sealed profile refuses each of these. ----

/** Changes bytes of a unit on the way, without a key: the checksum's change follows from the change alone. */
function forge(unit: Uint8Array, { at, from, to }: { at: number; from: string; to: string }): void {
  const change = new Uint8Array(PAGE_BYTES);
  const bytes = (text: string) => new TextEncoder().encode(text);
  bytes(from).forEach((byte, i) => change[at + i] = byte ^ bytes(to)[i]!);
  change.forEach((byte, i) => unit[i]! ^= byte);
  // CRC-32(M XOR D) = CRC-32(M) XOR CRC-32(D) XOR CRC-32(0...0), and XOR goes through the stream cipher.
  const view = new DataView(unit.buffer, unit.byteOffset);
  const checksumAt = unit.length - 4;
  const difference = crc32(change) ^ crc32(new Uint8Array(PAGE_BYTES));
  view.setUint32(checksumAt, view.getUint32(checksumAt) ^ difference);
}

for (const suite of suites) {
  Deno.test(`attack: bytes changed on the way pass the checksum, without any key (${suite.id})`, () => {
    for (const isUser of [true, false]) {
      const unit = encode(suite, textPage("mallory:x:1000:1000:"), isUser);
      forge(unit, { at: 1000, from: "mallory:x:1000", to: "mallory:x:0000" });
      const landed = decode(suite, unit, isUser);
      assert(landed !== null && includes(landed, "mallory:x:0000:1000:"), `user: ${isUser}`);
    }
  });
}

Deno.test("attack: the seed key of a round is found by trying every time of the window", () => {
  const suite = suites[0]!;
  // Known: where some bytes of a page stand, such as an ELF header's; and the time, to the minute.
  const known = Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0);
  const page = textPage("the rest is not known");
  page.set(known);
  const unit = encode(suite, page, true);
  const iv = unit.subarray(PAGE_BYTES, PAGE_BYTES + suite.nonceBytes);
  const aboutMs = timestampMs + 21_503;

  const seed = new Uint8Array(256);
  seed.set(iv);
  using rc4 = new Rc4();
  const guess = new Uint8Array(known.length);
  const found: number[] = [];
  const tries = 2 * PAPER_TIME_WINDOW_MS + 1;
  for (let i = 0; i < tries; i++) {
    const candidateMs = aboutMs - PAPER_TIME_WINDOW_MS + i;
    seed.set(paperKeys(candidateMs, suite.keyBytes).seedKey, suite.nonceBytes);
    rc4.setKey(seed);
    rc4.xor(unit.subarray(0, guess.length), guess);
    if (guess.every((byte, at) => byte === known[at])) found.push(candidateMs);
  }
  assert.deepEqual(found, [timestampMs], `in ${tries} tries`);
});

Deno.test("attack: a unit that was sent before is taken again", () => {
  const suite = suites[0]!;
  using encoder = new SecurityEncoder({ suite, timestampMs });
  using decoder = new SecurityDecoder({ suite, timestampMs });
  const [old, fresh] = ["old version", "new version"].map((text) =>
    encodeWith(encoder, { suite, data: textPage(text), isUser: true })
  );
  const into = new Uint8Array(PAGE_BYTES);
  for (const unit of [old!, fresh!, old!]) {
    assert.equal(decoder.decode(unit, { isUser: true, into }), true);
  }
  assert(includes(into, "old version"));
});
