/**
 * What a {@linkcode Destination} is told.
 *
 * @module
 */

import type { CipherRegistry } from "../ciphers/registry.ts";
import type { Identity } from "./identity.ts";
import type { SuiteOffers } from "./messages.ts";
import type { OfferJudge } from "./offer_answer.ts";
import type { Clock, DestinationVm, JournalStore, TransportListener } from "./ports.ts";
import type { ProfileId } from "./profile.ts";
import type { DestinationState, EnteredHook } from "./states.ts";

/** Everything a destination needs. */
export interface DestinationOptions {
  /** The VM that waits. */
  vm: DestinationVm;
  /** Where sources call. */
  listener: TransportListener;
  /** This host's key. */
  identity: Identity;
  /** Public keys that may open a migration, and what the operator calls them. */
  allowed: readonly { publicKey: Uint8Array; name: string }[];
  /** What protects the migration, the same on both ends; absent: `sealed`. */
  profile?: ProfileId | undefined;
  /** Where suites are found by their ids. */
  registry: CipherRegistry;
  /** Acceptable suites per class, where no policy says more. */
  suites: SuiteOffers;
  /** The policy's word on each offer, before anything else is found out about it. */
  judge?: OfferJudge | undefined;
  /** Bytes of damaged records that may be sent again, in all; the smaller of both sides' holds. */
  repairBudgetBytes: number;
  /** Where this side's journal is kept. */
  journals: JournalStore;
  /** What its first line says besides: where QEMU's monitor is. */
  journalFacts?: Record<string, unknown> | undefined;
  /** Time and timers. */
  clock: Clock;
  /** The operator's wish to end it. */
  signal: AbortSignal;
  /** In the place of the VM's UUID; the source has to be given the same. */
  vmId?: string | undefined;
  /** Called at each state; the migration waits for it. */
  entered?: EnteredHook<DestinationState> | undefined;
  /** Something a person may want to know; the machine goes on listening. */
  onNote?: ((note: { text: string; migrationId: string | null }) => void) | undefined;
  /** CPU seconds of this process so far. */
  agentCpuSeconds: () => number;
}
