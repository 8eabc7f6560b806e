/**
 * The words of policies: what a level says, what a policy sees of a VM and of a round.
 *
 * @module
 */

import type { PaperSuiteId } from "../ciphers/paper_suites.ts";
import type { SealedSuiteId } from "../ciphers/sealed.ts";
import type { PageClass } from "./message_types.ts";
import type { LiveSettings } from "./ports.ts";
import type { RoundStatistics } from "./rounds.ts";

/** What is done when damage does not end: the migration is given up, or the administrator is asked. */
export const tamperActs = ["abort", "ask"] as const;
/** One of {@linkcode tamperActs}. */
export type TamperAct = typeof tamperActs[number];

/** The id of a third party's suite: a domain, a slash, a name. */
export type ThirdPartySuiteId = `${string}.${string}/${string}`;

/** Suite ids, best first; at least one. */
export type SuiteList<Id extends string> = readonly [Id, ...Id[]];

/** What every level says; `Id` are the suites that it may name. */
export interface LevelParts<Id extends string> {
  /** Acceptable suites, best first. */
  readonly suites: SuiteList<Id>;
  /** When damage does not end. Default: what the command line says. */
  readonly onTamper?: TamperAct;
  /** Destinations that such a VM may go to: names of the list of peers, or public keys. Default: any that is allowed. */
  readonly to?: readonly [string, ...string[]];
}

/** A level of the sealed profile. */
export interface SealedLevel extends LevelParts<SealedSuiteId | ThirdPartySuiteId> {
  /** In the place of `suites`, for pages of these classes. */
  readonly classes?: {
    readonly [Class in PageClass]?: SuiteList<SealedSuiteId | ThirdPartySuiteId>;
  };
  /** Every page is encrypted and authenticated, whatever its class. */
  readonly profile?: "sealed";
}

/** A level of the lab profile: it takes `--profile paper` on both ends besides. */
export interface PaperLevel extends LevelParts<PaperSuiteId | ThirdPartySuiteId> {
  /** The paper's own scheme: pages of user space go through the suite, all others in clear. */
  readonly profile: "paper";
  /** There is one suite for all. */
  readonly classes?: never;
}

/** What protects VMs of one sensitivity. */
export type PolicyLevel = SealedLevel | PaperLevel;

/** A VM as a policy sees it. */
export interface PolicyVm {
  /** QEMU's -name. */
  readonly name: string | null;
  /** Lower case, with dashes; all zeros when QEMU was given none. */
  readonly uuid: string;
  /** Guest RAM in bytes. */
  readonly memoryBytes: number;
  /** The versioned machine type, for instance `pc-q35-7.2`. */
  readonly machine: string;
  /** What the operator calls it: each `--label`. */
  readonly labels: readonly string[];
}

/** A round that was closed, as a policy sees it. */
export interface PolicyRound extends RoundStatistics {
  /** Whether it carried fewer bytes than the round before it; true for the first. */
  readonly converging: boolean;
}

/** What a policy is defined by, see {@linkcode definePolicy}. */
export interface PolicySource<Level extends string> {
  /** For reports. */
  readonly name: string;
  /** By name, lowest first. */
  readonly levels: { readonly [Name in Level]: PolicyLevel };
  /** The level of a VM when the operator does not name it. Synchronous. */
  readonly select: (vm: PolicyVm) => NoInfer<Level>;
  /** Settings to change after a round; `{}` changes none. Synchronous. */
  readonly round?: (stats: PolicyRound) => LiveSettings;
}

/** The part of a policy that is data. */
export interface PolicyDefinition {
  /** For reports. */
  readonly name: string;
  /** By name, lowest first. */
  readonly levels: Readonly<Record<string, PolicyLevel>>;
}

/** A policy that can be asked: one of this process, or one in a process of its own. */
export interface Policy extends PolicyDefinition {
  /** The level of a VM: one of `levels`. */
  select(vm: PolicyVm): string | Promise<string>;
  /** Settings to change after a round; undefined when the policy has no say in it. */
  readonly round: ((stats: PolicyRound) => LiveSettings | Promise<LiveSettings>) | undefined;
}
