/**
 * The options of `send` and `receive` that say what protects the migration.
 *
 * @module
 */

import { merge, object } from "@optique/core/constructs";
import { type Message, message } from "@optique/core/message";
import { optional, withDefault } from "@optique/core/modifiers";
import { option } from "@optique/core/primitives";
import { choice } from "@optique/core/valueparser";
import type { PaperSuiteId } from "../ciphers/paper_suites.ts";
import { sealedSuiteIds } from "../ciphers/sealed.ts";
import { type ProfileId, profileIds } from "../migration/profile.ts";
import { pluginsOption, suiteValue } from "./plugin_options.ts";
import { type PolicyOptions, policyOptions } from "./policy_options.ts";

/** `ciphers/paper_suites.ts` has them, and is not loaded for their names. */
const paperSuiteIds: readonly PaperSuiteId[] = ["rc4-round", "rc4", "aes-256-ctr", "none"];

/** What was said about the protection. */
export interface ProtectionOptions extends PolicyOptions {
  profile: ProfileId;
  /** Files with suites of third parties. */
  plugins: readonly string[];
}

/** The parser of {@linkcode ProtectionOptions}; `sensitivity` says what `--sensitivity` means to the command. */
export function protectionOptions(meanings: { sensitivity: Message }) {
  return merge(
    policyOptions(meanings),
    object("Profile and suites", {
      profile: withDefault(
        option("--profile", choice(profileIds, { metavar: "PROFILE" }), {
          description:
            message`sealed; or paper, the 2016 paper's own scheme, which is for the lab and protects nothing. The same on both ends.`,
        }),
        "sealed",
      ),
      plugins: pluginsOption,
    }),
  );
}

/** The parser of `--lab-network`. */
export const labNetworkOption = option("--lab-network", {
  description: message`Let --profile paper leave this machine.`,
});

/** The parser of `--cipher`, which leaves the choice to policy or profile where it is not given. */
export const cipherOption = optional(
  option("--cipher", suiteValue([...sealedSuiteIds, ...paperSuiteIds]), {
    description:
      message`The suite that seals the VM (default: aes-256-gcm; with --profile paper rc4-round). See sealift ciphers.`,
  }),
);

/** The flags that make another process of ours protect a migration alike. */
export function protectionFlags(options: ProtectionOptions): string[] {
  return [
    ...["--profile", options.profile],
    ...options.plugins.flatMap((file) => ["--plugin", file]),
    ...(options.policy === undefined ? [] : ["--policy", options.policy]),
    ...(options.sensitivity === undefined ? [] : ["--sensitivity", options.sensitivity]),
    ...options.labels.flatMap((label) => ["--label", label]),
  ];
}
