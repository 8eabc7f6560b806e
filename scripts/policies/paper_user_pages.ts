/**
 * The paper's rule, for the lab only: pages of user space go through RC4 with a key of their round, pages of
 * the system in clear. The second half is the profile's own: there is one suite, and only user pages go through it.
 *
 * Why: to measure what the rule saves, and to show what it costs. Nothing here protects a VM: RC4 is broken,
 * CRC-32 is no authentication, and what processes write is found in the kernel's pages too. It takes
 * `--profile paper` on both ends.
 *
 * @see Paper, section 3.2
 * @module
 */

import { definePolicy } from "../../mod.ts";

export default definePolicy({
  name: "paper-user-pages",
  levels: {
    lab: { profile: "paper", suites: ["rc4-round"] },
  },
  select: () => "lab",
});
