/**
 * What `recover` is told, and what came of it.
 *
 * @module
 */

import type { MigrationError } from "./errors.ts";
import type { Identity } from "./identity.ts";
import type {
  Clock,
  Journal,
  JournalEntry,
  MigrationCounters,
  Transport,
  TransportListener,
} from "./ports.ts";
import type { VmStatus } from "./recovery_standing.ts";
import type { Outcome } from "./result.ts";

/** A QEMU after a crash of its agent. */
export interface RecoveryVm {
  /** Whether it was seen to run since this began, however it stands now. */
  readonly hasRun: boolean;
  /** Called when it becomes {@linkcode hasRun}. */
  onRun: (() => void) | null;
  /** How it stands; run state `gone` when its process is. */
  status(): Promise<VmStatus & { counters: MigrationCounters | null }>;
  /** `cont`; resolves when it runs. @throws with QEMU's words */
  resume(): Promise<void>;
  /** Tells the network where it is now; never throws. */
  announce(): Promise<void>;
  /** Ends it; resolves when its process is gone, at once when it is already. */
  quit(): Promise<void>;
}

/** Everything that `recover` needs. */
export interface RecoveryOptions {
  /** The migration, 32 hex digits. */
  id: string;
  /** Which side this host was. */
  side: "source" | "destination";
  /** This host's VM. */
  vm: RecoveryVm;
  /** What the journal holds: at least `open`. */
  entries: readonly JournalEntry[];
  /** The same journal, to go on with. */
  journal: Journal;
  /** This host's key. */
  identity: Identity;
  /** The other host's public key, as the journal names it. */
  peerKey: Uint8Array;
  /** How the two meet: one dials, the other listens, and closes its listener when they have met. */
  meet: { dial: () => Promise<Transport> } | { listener: TransportListener };
  /** Time and timers. */
  clock: Clock;
  /** The operator's wish to end it. */
  signal: AbortSignal;
  /** The operator's word that the other side is dead for good, and that its copy did not run since. */
  declareDead?: boolean | undefined;
  /** Explains, changes nothing. */
  dryRun?: boolean | undefined;
  /** Something a person may want to know. */
  onNote?: ((text: string) => void) | undefined;
}

/** What came of it. */
export interface RecoveryResult {
  /** How it ended. */
  outcome: Outcome;
  /** What was found and what was done, in order. */
  notes: string[];
  /** Where the VM stands at the source, as far as this side knows. */
  sourceState: string | null;
  /** Where it stands at the destination. */
  destinationState: string | null;
  /** Null when it is settled. */
  error: MigrationError | null;
}
