/**
 * What a {@linkcode Source} is told.
 *
 * @module
 */

import type { CipherRegistry } from "../ciphers/registry.ts";
import type { Identity } from "./identity.ts";
import type { MigrationLimits, SuiteOffers } from "./messages.ts";
import type {
  Clock,
  JournalStore,
  LiveSettings,
  PageClassifier,
  SourceVm,
  Transport,
} from "./ports.ts";
import type { ProfileId } from "./profile.ts";
import type { RoundStatistics } from "./rounds.ts";
import type { EnteredHook, SourceState } from "./states.ts";

/** Everything a source needs. */
export interface SourceOptions {
  /** The VM that moves. */
  vm: SourceVm;
  /** Connects to the destination. */
  dial: () => Promise<Transport>;
  /** This host's key. */
  identity: Identity;
  /** The destination's public key, and what the operator calls it. */
  peer: { publicKey: Uint8Array; name: string };
  /** What protects the migration, the same on both ends; absent: `sealed`. */
  profile?: ProfileId | undefined;
  /** Where suites are found by their ids. */
  registry: CipherRegistry;
  /** Acceptable suites per class, best first. */
  suites: SuiteOffers;
  /** The monitor function, made when pages have to be told apart; without it all are `user`. */
  classifier?: (() => Promise<PageClassifier>) | undefined;
  /** Budgets of time and memory. */
  limits: MigrationLimits;
  /** Settings of the live phase. */
  live: LiveSettings;
  /** Where this side's journal is kept. */
  journals: JournalStore;
  /** What its first line says besides: where QEMU's monitor is. */
  journalFacts?: Record<string, unknown> | undefined;
  /** Time and timers. */
  clock: Clock;
  /** The operator's wish to end it; a reason that is a MigrationError is reported as it is. */
  signal: AbortSignal;
  /** The operator's wish alone, where `signal` stands for more (a policy that failed): a QEMU that hangs is left for that. */
  operatorSignal?: AbortSignal | undefined;
  /** In the place of the VM's UUID; the destination has to be given the same. */
  vmId?: string | undefined;
  /** A word for how sensitive the VM is, for both reports. */
  sensitivity?: string | undefined;
  /** After so many live rounds the VM is stopped if the rest fits into `limits.maxStopMs`; else, a round later, it is given up. */
  maxRounds?: number | undefined;
  /** The VM must have stopped for the last round by then, or the migration is given up. */
  maxTimeMs?: number | undefined;
  /** Leaves the source's QEMU in `postmigrate` instead of ending it. */
  keepSource?: boolean | undefined;
  /** Makes every check on both ends, and moves nothing. */
  dryRun?: boolean | undefined;
  /** Called at each state; the migration waits for it. */
  entered?: EnteredHook<SourceState> | undefined;
  /** Something a person may want to know. */
  onNote?: ((text: string) => void) | undefined;
  /** Called when a record was found damaged, with what was hit; of many, once a second with their number. */
  onTamper?: ((text: string) => void) | undefined;
  /** Asks the administrator, once the damage does not end, whether to go on; absent: the migration is given up. */
  askTamper?: ((text: string) => Promise<boolean>) | undefined;
  /** Called when a round is closed. */
  onRound?: ((closed: RoundStatistics) => void) | undefined;
  /** CPU seconds of this process so far. */
  agentCpuSeconds: () => number;
}
