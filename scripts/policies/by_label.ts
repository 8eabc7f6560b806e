/**
 * Three levels; the operator's labels choose one: `send --label pci`.
 *
 * Why these levels:
 * - `internal`: a VM without secrets of its own may use the 128-bit suite, which costs less CPU.
 * - `confidential`, the default: 256-bit keys. The kernel's text is the distribution's, which everybody can
 *   download, so it alone may go with shorter keys. It is authenticated like every other page.
 * - `restricted`: nothing but AES-256-GCM; damage on the way ends the migration, since for such a VM an attacker
 *   on the network is a reason to stop and look, and the VM runs on where it is.
 *
 * Unknown labels choose `confidential`: a label that is mistyped must not lower anything.
 *
 * @module
 */

import { definePolicy } from "../../mod.ts";

export default definePolicy({
  name: "by-label",
  levels: {
    internal: { suites: ["aes-128-gcm", "aes-256-gcm"] },
    confidential: {
      suites: ["aes-256-gcm"],
      classes: { kernelText: ["aes-128-gcm", "aes-256-gcm"] },
    },
    restricted: { suites: ["aes-256-gcm"], onTamper: "abort" },
  },
  select: ({ labels }) => {
    if (labels.some((label) => ["pci", "health", "keys"].includes(label))) return "restricted";
    return labels.includes("internal") && labels.length === 1 ? "internal" : "confidential";
  },
  // A VM that writes faster than the network carries would never come to its last round.
  round: ({ converging, round }) => converging || round < 3 ? {} : { autoConverge: true },
});
