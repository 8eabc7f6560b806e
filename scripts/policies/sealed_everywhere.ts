/**
 * Every page of every VM under the strongest suites, whatever its class.
 *
 * Why: what a process writes does not stay in its own pages. A secret that goes through a file, a pipe or a
 * terminal also lies in pages of the kernel, so to spare "system" pages is to leak it. And there is nothing to
 * gain: AES-256-GCM is faster than the memory of most VMs changes. This is the policy to start from.
 *
 * Use it on both ends: `--policy scripts/policies/sealed_everywhere.ts`
 *
 * @module
 */

import { definePolicy } from "../../mod.ts";

export default definePolicy({
  name: "sealed-everywhere",
  levels: {
    // Both have keys of 256 bits; the second is for hosts without AES instructions.
    all: { suites: ["aes-256-gcm", "chacha20-poly1305"], onTamper: "abort" },
  },
  select: () => "all",
});
