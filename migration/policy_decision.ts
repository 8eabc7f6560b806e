/**
 * What a policy means for one VM and one peer: at the source before anything is offered, at the destination
 * before an offer is accepted.
 *
 * @see PROTOCOL.md section 3
 * @module
 */

import type { SuiteProfile } from "../ciphers/suite.ts";
import { didYouMean } from "./did_you_mean.ts";
import { MigrationError } from "./errors.ts";
import type { SuiteOffers } from "./message_types.ts";
import { levelSuites } from "./policy_suites.ts";
import type { Policy, PolicyDefinition, PolicyVm, TamperAct } from "./policy_types.ts";

/** A policy that says yes, and how. */
export interface PolicyConsent {
  /** Not refused. */
  refusal: null;
  /** The VM's level. */
  level: string;
  /** Who said so: the operator, the source's offer, or the policy's `select`. */
  levelFrom: "operator" | "offer" | "select";
  /** The profile that the level belongs to. */
  profile: SuiteProfile;
  /** Acceptable suites per class, best first. */
  suites: SuiteOffers;
  /** When damage does not end; null leaves it to the command line. */
  onTamper: TamperAct | null;
  /** Destinations that the VM may go to; null for any. */
  to: readonly string[] | null;
}

/** A policy that says no, and why: for people here, or as it is for a REFUSE. */
export interface PolicyRefusal {
  /** `profile` when the run is of another one, else `policy`; the text and the next step are for people. */
  refusal: { code: "policy" | "profile"; text: string; hint: string };
}

/** A VM as a source offers it; an OFFER has these fields. */
export interface OfferedVm extends Omit<PolicyVm, "labels"> {
  /** Its level, as the source's policy has it; null when the source has none. */
  readonly sensitivity: string | null;
}

/** The level of that name. @throws {MigrationError} `usage` when there is none */
export function checkSensitivity(sensitivity: string, { name, levels }: PolicyDefinition): string {
  if (Object.hasOwn(levels, sensitivity)) return sensitivity;
  const known = Object.keys(levels);
  throw new MigrationError(
    "usage",
    `Cannot use sensitivity ${sensitivity}: policy ${name} has no such level` +
      didYouMean(sensitivity, known),
    { hint: `its levels, lowest first: ${known.join(", ")}` },
  );
}

/**
 * What the source's policy makes of a VM that is to go to `peer`.
 *
 * @param vm as it was attached, with the operator's labels
 * @throws {MigrationError} `usage` for a `sensitivity` that is no level; what `policy.select` throws
 *
 * @example
 * ```ts
 * import { definePolicy } from "./policy.ts";
 * import { decide } from "./policy_decision.ts";
 *
 * const policy = definePolicy({
 *   name: "bank",
 *   levels: { restricted: { suites: ["aes-256-gcm"], to: ["host-b"] } },
 *   select: () => "restricted",
 * });
 * const vm = { name: "web", uuid: "", memoryBytes: 2 ** 30, machine: "pc-q35-7.2", labels: [] };
 * const { refusal } = await decide(policy, vm, { peer: { name: "host-c", key: null } });
 * console.assert(refusal?.code === "policy");
 * ```
 */
export async function decide(policy: Policy, vm: PolicyVm, options: {
  /** `--sensitivity`. */
  sensitivity?: string | undefined;
  /** The destination: what it is called here, and its public key in base64; absent asks for no destination. */
  peer?: { name: string | null; key: string | null } | undefined;
  /** The profile of this run. Absent takes the level's own. */
  profile?: SuiteProfile | undefined;
}): Promise<PolicyConsent | PolicyRefusal> {
  const { sensitivity, peer, profile } = options;
  const level = sensitivity === undefined
    ? await policy.select(vm)
    : checkSensitivity(sensitivity, policy);
  const consent = consentOf(policy, level, sensitivity === undefined ? "select" : "operator");
  const { to } = consent;
  if (peer !== undefined && to !== null && !to.some((id) => id === peer.name || id === peer.key)) {
    return refuse(
      `policy ${policy.name} lets no VM of level ${level} go to ${peer.name ?? peer.key}`,
      `it may go to ${to.join(", ")}`,
    );
  }
  return otherProfile(consent, profile) ?? consent;
}

/**
 * What the destination's policy makes of an offer. The suites that both accept are then found by
 * `negotiateSuites`.
 *
 * @throws {MigrationError} `usage` for a `minimum` that is no level; what `policy.select` throws
 */
export async function judge(
  policy: Policy,
  offer: OfferedVm,
  options: {
    /** `receive --sensitivity`: lower levels are refused. */
    minimum?: string | undefined;
    /** `receive --label`. */
    labels?: readonly string[] | undefined;
    /** The profile of this run. */
    profile?: SuiteProfile | undefined;
  },
): Promise<PolicyConsent | PolicyRefusal> {
  const { name, uuid, memoryBytes, machine, sensitivity } = offer;
  const { labels = [], profile } = options;
  const order = Object.keys(policy.levels);
  const minimum = options.minimum === undefined ? null : checkSensitivity(options.minimum, policy);
  if (sensitivity !== null && !order.includes(sensitivity)) {
    return refuse(
      `the source's sensitivity ${sensitivity} is no level of this side's policy ${policy.name}`,
      `its levels, lowest first: ${order.join(", ")}`,
    );
  }
  const level = sensitivity ??
    await policy.select({ name, uuid, memoryBytes, machine, labels });
  if (minimum !== null && order.indexOf(level) < order.indexOf(minimum)) {
    return refuse(
      `the VM's sensitivity is ${level}, this side takes nothing below ${minimum}`,
      `send --sensitivity ${minimum}, if the source's policy knows it`,
    );
  }
  const consent = consentOf(policy, level, sensitivity === null ? "select" : "offer");
  return otherProfile(consent, profile) ?? consent;
}

function consentOf(
  { levels }: PolicyDefinition,
  name: string,
  levelFrom: PolicyConsent["levelFrom"],
): PolicyConsent {
  const level = levels[name]!;
  return {
    refusal: null,
    level: name,
    levelFrom,
    profile: level.profile ?? "sealed",
    suites: levelSuites(level),
    onTamper: level.onTamper ?? null,
    to: level.to ?? null,
  };
}

/** The profile is never negotiated, nor changed by a policy: the operator says it on both ends. */
function otherProfile(
  { level, profile }: PolicyConsent,
  wanted: SuiteProfile | undefined,
): PolicyRefusal | null {
  if (wanted === undefined || wanted === profile) return null;
  const text = `level ${level} is of profile ${profile}, and this run is of profile ${wanted}`;
  return {
    refusal: { code: "profile", text, hint: `only with --profile ${profile} on both ends` },
  };
}

function refuse(text: string, hint: string): PolicyRefusal {
  return { refusal: { code: "policy", text, hint } };
}
