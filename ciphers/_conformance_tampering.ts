/**
 * The conformance kit's checks of what a suite does with messages that somebody damaged.
 *
 * @module
 */

import {
  expect,
  fill,
  flip,
  open,
  seal,
  type SealedMessage,
  testKey,
} from "./_conformance_tools.ts";
import { guardOpener } from "./guard.ts";
import type { CipherSuite } from "./suite.ts";

export function refusesChangedTag(suite: CipherSuite): void {
  const sealed = seal(suite, { plaintext: fill(50) });
  for (let bit = 0; bit < suite.tagBytes * 8; bit++) {
    expectRefused(
      suite,
      { ...sealed, tag: flip(sealed.tag, bit) },
      `bit ${bit} of the tag changed`,
    );
  }
  expectRefused(suite, { ...sealed, tag: new Uint8Array(suite.tagBytes) }, "the tag zeroed");
}

export function refusesChangedCiphertext(suite: CipherSuite): void {
  const sealed = seal(suite, { plaintext: fill(517) });
  const { ciphertext } = sealed;
  for (let at = 0; at < ciphertext.length; at++) {
    const changed = flip(ciphertext, at * 8 + at % 8);
    expectRefused(suite, { ...sealed, ciphertext: changed }, `byte ${at} of ciphertext changed`);
  }
  const longer = new Uint8Array(518);
  longer.set(ciphertext);
  const pieces = {
    "cut by a byte": ciphertext.subarray(0, -1),
    "cut to nothing": ciphertext.subarray(0, 0),
    "longer by a zero byte": longer,
    "rotated by a block": Uint8Array.of(...ciphertext.subarray(16), ...ciphertext.subarray(0, 16)),
  };
  for (const [what, changed] of Object.entries(pieces)) {
    expectRefused(suite, { ...sealed, ciphertext: changed }, `ciphertext ${what}`);
  }
}

export function refusesChangedContext(suite: CipherSuite): void {
  const sealed = seal(suite, { plaintext: fill(50), associatedData: fill(24) });
  const { key, nonce, associatedData, ciphertext } = sealed;
  for (let bit = 0; bit < nonce.length * 8; bit++) {
    expectRefused(suite, { ...sealed, nonce: flip(nonce, bit) }, `bit ${bit} of the nonce changed`);
  }
  for (let bit = 0; bit < key.length * 8; bit++) {
    expectRefused(suite, { ...sealed, key: flip(key, bit) }, `bit ${bit} of the key changed`);
  }
  for (let bit = 0; bit < associatedData.length * 8; bit++) {
    const changed = flip(associatedData, bit);
    expectRefused(
      suite,
      { ...sealed, associatedData: changed },
      `bit ${bit} of the header changed`,
    );
  }
  const longer = new Uint8Array(25);
  longer.set(associatedData);
  expectRefused(suite, { ...sealed, associatedData: longer }, "a zero byte after the header");
  expectRefused(suite, { ...sealed, associatedData: fill(0) }, "the header taken away");
  // The border between header and body is bound, not their concatenation only.
  const moved = {
    associatedData: Uint8Array.of(...associatedData, ciphertext[0]!),
    ciphertext: ciphertext.subarray(1),
  };
  expectRefused(suite, { ...sealed, ...moved }, "a byte moved from body to header");
}

export function refusesForgedEmptyMessage(suite: CipherSuite): void {
  const sealed = seal(suite, { plaintext: fill(0), associatedData: fill(0) });
  expect(open(suite, sealed).authentic, "an empty message does not open");
  expectRefused(suite, { ...sealed, tag: new Uint8Array(suite.tagBytes) }, "the tag zeroed");
  expectRefused(suite, { ...sealed, associatedData: fill(1) }, "a header added");
}

export function opensAfterRefusal(suite: CipherSuite): void {
  const sealed = seal(suite, { plaintext: fill(50) });
  using opener = guardOpener(suite, testKey(suite));
  for (const bit of [null, 3, null, 9, 77, null]) {
    const tag = bit === null ? sealed.tag : flip(sealed.tag, bit);
    const view = sealed.ciphertext.slice();
    opener.begin(sealed.nonce, sealed.associatedData, tag);
    opener.update(view, view);
    const authentic = opener.finish();
    expect(authentic === (bit === null), `after a refusal: tag bit ${bit} gives ${authentic}`);
  }
}

function expectRefused(suite: CipherSuite, message: SealedMessage, what: string): void {
  expect(!open(suite, message).authentic, `it opens with ${what}`);
}
