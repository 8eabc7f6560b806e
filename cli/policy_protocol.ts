/**
 * What a policy's process and ours say to each other: one JSON object a line, one answer to each request.
 *
 * @module
 */

import type { PolicyDefinition, PolicyRound, PolicyVm } from "../migration/policy_types.ts";

/** A question; `id` counts from 1. */
export type PolicyRequest =
  | { id: number; call: "select"; argument: PolicyVm }
  | { id: number; call: "round"; argument: PolicyRound };

/** The answer to request 0, which is the start itself. */
export interface PolicyLoaded {
  definition: PolicyDefinition;
  /** Whether it has a `round`. */
  hasRound: boolean;
  /** Where it was defined, as `LINE:COLUMN`; null when unknown. */
  definedAt: string | null;
}

/** What went wrong in the policy's process. */
export interface PolicyFailure {
  /** What, for people. */
  text: string;
  /** Where in the policy's file, as `LINE:COLUMN`; null when unknown. */
  at: string | null;
}

/** An answer; `id` is null for what went wrong outside of any request. */
export type PolicyAnswer =
  | { id: number; value: unknown }
  | { id: number | null; failure: PolicyFailure };
