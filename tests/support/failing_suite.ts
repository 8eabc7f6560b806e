import type { CipherSuite } from "../../ciphers/suite.ts";

/** A suite whose sealers fail, before they have changed a byte, while `fails` says so: as an accelerator that is lost. */
export function failingSuite(suite: CipherSuite, fails: () => boolean): CipherSuite {
  return {
    ...suite,
    createSealer: (key) => {
      const sealer = suite.createSealer(key);
      return {
        begin: (nonce, associatedData) => sealer.begin(nonce, associatedData),
        update: (from, to) => {
          if (fails()) throw new Error("the device is lost");
          sealer.update(from, to);
        },
        finish: (tag) => sealer.finish(tag),
        [Symbol.dispose]: () => sealer[Symbol.dispose](),
      };
    },
  };
}
