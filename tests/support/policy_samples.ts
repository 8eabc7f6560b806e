/**
 * What a policy is asked about: one VM, one round.
 *
 * @module
 */

import type { PolicyRound, PolicyVm } from "../../migration/policy_types.ts";

/** A VM without labels. */
export const sampleVm: PolicyVm = {
  name: "web1",
  uuid: "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
  memoryBytes: 2 ** 32,
  machine: "pc-q35-7.2",
  labels: [],
};

/** A round of one page that did not converge. */
export const sampleRound: PolicyRound = {
  round: 1,
  pages: { user: 1, kernelText: 0, kernelData: 0, unmapped: 0, zero: 0 },
  bytes: 4096,
  sealedBytes: 4300,
  durationMs: 10,
  keyNumber: 1,
  mistakes: 0,
  converging: false,
};
