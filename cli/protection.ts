/**
 * What protects a migration: profile, plug-ins and policy, loaded before a VM is touched and asked once it is
 * known.
 *
 * @module
 */

import { type CipherRegistry, defaultRegistry } from "../ciphers/registry.ts";
import { defaultSuiteId } from "../ciphers/sealed.ts";
import type { PaperSuiteId } from "../ciphers/paper_suites.ts";
import { MigrationError } from "../migration/errors.ts";
import { messageOf } from "../migration/failure.ts";
import { encodeKey } from "../migration/identity.ts";
import type { SuiteOffers } from "../migration/message_types.ts";
import type { OfferJudge } from "../migration/offer_answer.ts";
import type { Policy } from "../migration/policy_types.ts";
import type { VmFacts } from "../migration/ports.ts";
import type { ProfileId } from "../migration/profile.ts";
import { CliError } from "./cli_error.ts";
import type { ResolvedPeer } from "./peers.ts";
import type { PolicyOptions } from "./policy_options.ts";
import type { PolicyProcess } from "./policy_process.ts";
import type { ProtectionOptions } from "./protection_options.ts";
import type { Terminal } from "./terminal.ts";
import type { Address } from "./values.ts";

const defaultSuites: Readonly<Record<ProfileId, string>> = {
  sealed: defaultSuiteId,
  paper: "rc4-round" satisfies PaperSuiteId,
};

/** Said each time. */
export const PAPER_WARNING =
  "the paper's profile is for the lab: who listens can find its keys and read the VM, who stands between can change it";

/** As `send` and `receive` have them. */
export interface NetworkProtectionOptions extends ProtectionOptions {
  /** Lets the paper's profile leave this machine. */
  labNetwork: boolean;
}

/** What the source offers for one VM. */
export interface SourceProtection {
  suites: SuiteOffers;
  /** A level of the policy; goes with the offer. */
  sensitivity: string | undefined;
  /** What the policy says is done when damage does not end; null leaves it to the command line. */
  onTamper: "abort" | "ask" | null;
}

/** Everything about the protection that can be wrong by itself is found here. The stack ends the policy. */
export async function loadProtection(options: NetworkProtectionOptions, world: {
  /** Where the other side is, or where this one listens. */
  address: Address;
  stack: AsyncDisposableStack;
  terminal: Terminal;
  warn: (text: string) => void;
}): Promise<Protection> {
  const { address, stack, terminal, warn } = world;
  checkPolicyOptions(options);
  checkProfile(options, address);
  if (options.profile === "paper") warn(PAPER_WARNING);
  if (options.plugins.length > 0) {
    const { loadPlugins } = await import("./plugin.ts");
    for (const { suite, checks } of await loadPlugins(options.plugins)) {
      terminal.detail(`suite ${suite.id} passed ${checks} checks`);
    }
  }
  let policy: PolicyProcess | null = null;
  if (options.policy !== undefined) {
    const { PolicyProcess } = await import("./policy_process.ts");
    policy = stack.use(
      await PolicyProcess.open(options.policy, {
        suites: defaultRegistry().list(),
        onOutput: (line) => terminal.detail(`policy: ${line}`),
      }),
    );
  }
  return new Protection(options, policy);
}

/** See the module. */
export class Protection {
  readonly profile: ProfileId;
  readonly policy: Policy | null;
  readonly #options: Pick<ProtectionOptions, "profile" | "sensitivity" | "labels">;

  constructor(
    options: Pick<ProtectionOptions, "profile" | "sensitivity" | "labels">,
    policy: Policy | null,
  ) {
    this.#options = options;
    this.profile = options.profile;
    this.policy = policy;
  }

  /** Fails early for a `--cipher` that cannot be. @throws {CliError} `usage` */
  checkCipher(cipher: string | undefined): void {
    if (cipher === undefined) return;
    if (this.policy === null) return this.#requireSuite(cipher, defaultRegistry());
    throw new CliError("usage", "Cannot use --cipher with --policy: the policy chooses", {
      hint: `leave --cipher out, or change policy ${this.policy.name}`,
    });
  }

  /** What is offered for a VM. @throws {CliError} `usage`; MigrationError `refused` when the policy says no */
  async ofSource(
    facts: VmFacts,
    { peer, cipher }: { peer: ResolvedPeer; cipher: string | undefined },
  ): Promise<SourceProtection> {
    const { policy, profile } = this;
    this.checkCipher(cipher);
    if (policy === null) {
      return {
        suites: forAll([cipher ?? defaultSuites[profile]]),
        sensitivity: undefined,
        onTamper: null,
      };
    }
    const { decide } = await import("../migration/policy_decision.ts");
    const { sensitivity, labels } = this.#options;
    const { name, uuid, memoryBytes, machine } = facts;
    const decision = await decide(policy, { name, uuid, memoryBytes, machine, labels }, {
      sensitivity,
      peer: { name: peer.name, key: encodeKey(peer.publicKey) },
      profile,
    });
    if (decision.refusal !== null) {
      const { text, hint } = decision.refusal;
      throw new MigrationError("refused", `Cannot move the VM: ${text}`, {
        hint: hint ?? undefined,
      });
    }
    return { suites: decision.suites, sensitivity: decision.level, onTamper: decision.onTamper };
  }

  /** What is accepted, and who is asked about each offer; `onFailure` hears why a policy cannot answer. @throws MigrationError `usage` for a level that the policy has not */
  async ofDestination({ onFailure }: { onFailure: (text: string) => void }): Promise<
    { profile: ProfileId; suites: SuiteOffers; judge: OfferJudge | undefined }
  > {
    const { policy, profile } = this;
    const suites = defaultRegistry().list().filter((suite) => suite.profile === profile);
    const all = forAll(suites.map((suite) => suite.id));
    if (policy === null) return { profile, suites: all, judge: undefined };
    const { checkSensitivity, judge } = await import("../migration/policy_decision.ts");
    const { sensitivity: minimum, labels } = this.#options;
    if (minimum !== undefined) checkSensitivity(minimum, policy);
    const options = { minimum, labels, profile };
    return {
      profile,
      suites: all,
      async judge(offer) {
        try {
          return await judge(policy, offer, options);
        } catch (error) {
          // The other side need not know where our files are.
          onFailure(messageOf(error));
          return { refusal: { code: "policy", text: "this side's policy failed", hint: null } };
        }
      },
    };
  }

  #requireSuite(id: string, registry: CipherRegistry): void {
    const { profile } = this;
    const known = registry.list();
    const suite = known.find((one) => one.id === id);
    if (suite?.profile === profile) return;
    const usable = known.filter((one) => one.profile === profile).map((one) => one.id).join(", ");
    if (suite === undefined) {
      throw new CliError("usage", `Cannot use suite ${id}: there is none of that name`, {
        hint: `known are ${usable}; --plugin FILE brings others`,
      });
    }
    throw new CliError(
      "usage",
      `Cannot use suite ${id} in the ${profile} profile: it is of the ${suite.profile} profile`,
      { hint: `of the ${profile} profile are ${usable}` },
    );
  }
}

/** @throws {CliError} `usage` for what means nothing without a policy */
export function checkPolicyOptions(
  { policy, sensitivity, labels }: Omit<PolicyOptions, "policy"> & { policy: unknown },
): void {
  if (policy !== undefined || (sensitivity === undefined && labels.length === 0)) return;
  const flag = sensitivity === undefined ? "--label" : "--sensitivity";
  throw new CliError("usage", `Cannot use ${flag}: there is no policy that knows it`, {
    hint: "give --policy FILE too",
  });
}

/** @throws {CliError} `usage` for the paper's profile on a network that was not permitted */
export function checkProfile(
  { profile, labNetwork }: Pick<NetworkProtectionOptions, "profile" | "labNetwork">,
  { host }: Address,
): void {
  if (profile === "sealed") {
    if (!labNetwork) return;
    throw new CliError("usage", "Cannot use --lab-network: it belongs to --profile paper");
  }
  if (labNetwork || isLoopback(host)) return;
  throw new CliError(
    "usage",
    `Cannot use the paper's profile with ${host}: it would show the VM to the network`,
    { hint: "--lab-network permits it, for a network and a VM that nobody has to trust" },
  );
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

function forAll(ids: readonly string[]): SuiteOffers {
  return { user: ids, kernelText: ids, kernelData: ids, unmapped: ids };
}
