/**
 * The control messages of PROTOCOL.md sections 3 to 5 and 7: what they hold, and how much of it.
 *
 * @module
 */

import { MAX_KEY_NUMBER_LEAD, PAGE_BYTES } from "./limits.ts";
import type {
  DestinationJournalState,
  RamBlock,
  SourceJournalState,
  StateBefore,
} from "./ports.ts";

/** Longest name of a thing: QEMU keeps a RAM block's name in 256 bytes, its terminator included. */
export const MAX_LABEL_LENGTH = 255;
/** Longest suite id: a domain and a name; the key derivation has a u8 for its length. */
export const MAX_SUITE_ID_LENGTH = 64;
/** Suites offered for one class: three are built in, the rest are plug-ins. */
export const MAX_SUITES_PER_CLASS = 16;
/** Migration capabilities that are on: QEMU 11 has 26 in all. */
export const MAX_CAPABILITIES = 64;
/** Notes, and warnings, in an ACCEPT: what a person will read. */
export const MAX_NOTES = 32;
/** Lanes: one per channel of QEMU, whose `multifd-channels` is a u8. */
export const MAX_LANES = 256;
/** Longest time limit, in milliseconds: a day; more is a typing error, and timers stay below 2^31 ms. */
export const MAX_LIMIT_MS = 24 * 60 * 60 * 1000;
/** Largest repair budget: a mistake counts at least a page, and there must be fewer than {@linkcode MAX_KEY_NUMBER_LEAD}. */
export const MAX_REPAIR_BUDGET_BYTES = (MAX_KEY_NUMBER_LEAD - 1) * PAGE_BYTES;
/** Largest window of sealed records: it lies in the source's memory as a whole. */
export const MAX_WINDOW_BYTES = 4 * 2 ** 30;

/** The classes a page can be in; suites are chosen for each. */
export const pageClasses = ["user", "kernelText", "kernelData", "unmapped"] as const;
/** One of {@linkcode pageClasses}. */
export type PageClass = typeof pageClasses[number];

/** Acceptable suites for each class, best first. */
export type SuiteOffers = Readonly<Record<PageClass, readonly string[]>>;
/** The one suite of each class. */
export type SuiteChoice = Readonly<Record<PageClass, string>>;

/** What both sides hold to (PROTOCOL.md section 3). */
export interface MigrationLimits {
  /** Total of time without a connection while the VM runs. The source's holds on both sides. */
  reconnectMs: number;
  /** Total of stopped time. The source's holds on both sides. */
  maxStopMs: number;
  /** Damaged records that may be sent again, in all. The smaller one holds. */
  repairBudgetBytes: number;
  /** Sealed records that the source keeps until they are acknowledged. */
  windowBytes: number;
}

/** A place in the order of records (PROTOCOL.md section 4). */
export interface LanePosition {
  /** From 0. */
  lane: number;
  /** From 1; 0 says "none yet". */
  sequence: number;
}

/** Source: what would move, and how. */
export interface OfferMessage {
  /** Which message it is. */
  type: "OFFER";
  /** Lower-case, with dashes. */
  uuid: string;
  /** Shown, never compared. */
  name: string | null;
  /** The versioned machine type, for instance `pc-q35-7.2`. */
  machine: string;
  /** For instance `7.2.22`. */
  qemuVersion: string;
  /** Guest RAM, without ROM and video memory. */
  memoryBytes: number;
  /** Index in this list = the block number of the records. */
  blocks: RamBlock[];
  /** Migration capabilities that are on. */
  capabilities: string[];
  /** The operator's `--vm-id`, in the form of `uuid`. */
  vmId: string | null;
  /** A level of the policy. */
  sensitivity: string | null;
  /** Whether the VM runs: it will run after the migration only if it did. */
  before: StateBefore;
  /** What the source's policy accepts, in its order. */
  suites: SuiteOffers;
  /** What the source asks for. */
  limits: MigrationLimits;
  /** Whether to make every check and stop there. */
  dryRun: boolean;
  /** 32 random bytes in base64. */
  sourceRandom: string;
}

/** Destination: it fits, and this is how it will be done. */
export interface AcceptMessage {
  /** Which message it is. */
  type: "ACCEPT";
  /** One of those offered, class by class. */
  suites: SuiteChoice;
  /** Where pages go: `mapped`, `process` or `stream`. */
  landing: string;
  /** What computes the suites there. */
  backend: string;
  /** Why no better landing was taken. */
  notes: string[];
  /** What a person should know before going on. */
  warnings: string[];
  /** What holds for this migration. */
  limits: MigrationLimits;
  /** For instance `7.2.22`. */
  qemuVersion: string;
  /** 32 random bytes in base64. */
  destinationRandom: string;
}

/** Why an OFFER is refused. */
export const refuseCodes = ["policy", "vm", "busy", "profile", "landing", "state"] as const;
/** Destination: no. */
export interface RefuseMessage {
  /** Which message it is. */
  type: "REFUSE";
  /** Why, for programs. */
  code: typeof refuseCodes[number];
  /** Why, for people. */
  text: string;
  /** The next step, for people. */
  hint: string | null;
}

/** Destination: everything up to `sequence` was landed or reported. */
export interface AckMessage extends LanePosition {
  /** Which message it is. */
  type: "ACK";
}

/** Destination: this record did not open, and was skipped. */
export interface MistakeMessage extends LanePosition {
  /** Which message it is. */
  type: "MISTAKE";
}

/** Destination: the VM is loaded and does not run. */
export interface LoadedMessage {
  /** Which message it is. */
  type: "LOADED";
  /** Pages and zero pages in all. */
  pages: number;
  /** Records in all. */
  records: number;
}

/** Destination: the VM runs. */
export interface RunningMessage {
  /** Which message it is. */
  type: "RUNNING";
  /** Microseconds from the VM's RESUME to this message, on the destination's monotonic clock. */
  sinceResumeUs: number;
  /** Processor time used, in milliseconds; QEMU's is null when unknown. */
  cpuMs: { agent: number; qemu: number | null };
}

/** Destination: its copy is gone for good. */
export interface DiscardedMessage {
  /** Which message it is. */
  type: "DISCARDED";
}

/** Why a migration ends early. */
export const abortCodes = [
  "tampering",
  "vm",
  "interrupted",
  "timeout",
  "protocol",
  "cannotRun",
] as const;
/** Either side: it ends here. */
export interface AbortMessage {
  /** Which message it is. */
  type: "ABORT";
  /** Why, for programs. */
  code: typeof abortCodes[number];
  /** Why, for people. */
  text: string;
}

/** Destination: the answer to PING, with its nonce. */
export interface PongMessage {
  /** Which message it is. */
  type: "PONG";
  /** That of the PING. */
  nonce: number;
}

/** Source: everything is sent; check the totals and load. */
export interface FinishMessage {
  /** Which message it is. */
  type: "FINISH";
  /** The last sequence of each lane, lanes ascending. */
  lanes: LanePosition[];
  /** Pages and zero pages in all. */
  pages: number;
  /** Records in all. */
  records: number;
  /** How many records were damaged, and SHA-256 (lower-case hex) of their ascending u64 sequences. */
  damaged: { count: number; sha256: string };
}

/** Source: it will never run here again; run it. */
export interface ReleaseMessage {
  /** Which message it is. */
  type: "RELEASE";
}

/** Source: it is over. */
export interface DoneMessage {
  /** Which message it is. */
  type: "DONE";
}

/** Source: throw your copy away. */
export interface DiscardMessage {
  /** Which message it is. */
  type: "DISCARD";
}

/** Source: the last sequence sent on each lane, and a nonce to answer with. */
export interface PingMessage {
  /** Which message it is. */
  type: "PING";
  /** Comes back in the PONG. */
  nonce: number;
  /** The last sequence sent on each lane, lanes ascending. */
  lanes: LanePosition[];
}

/** Source, first message after JOIN: this connection goes on where the last one was cut (PROTOCOL.md section 6). */
export interface ResumeMessage {
  /** Which message it is. */
  type: "RESUME";
  /** Grows with every JOIN of a migration. */
  attempt: number;
  /** The last sequence of each lane that was acknowledged, lanes ascending. */
  lanes: LanePosition[];
}

/** Destination: the answer to RESUME, after every MISTAKE above what RESUME says was acknowledged. */
export interface HaveMessage {
  /** Which message it is. */
  type: "HAVE";
  /** The sequence that must come next on each lane, lanes ascending. */
  lanes: LanePosition[];
}

/** Either side, first over RECOVER: what its journal and its QEMU say. It holds for its connection only. */
export interface StatusMessage {
  /** Which message it is. */
  type: "STATUS";
  /** Whose status it is. */
  side: "source" | "destination";
  /** The last state of its journal. */
  journal: SourceJournalState | DestinationJournalState;
  /** Run state of its QEMU, or `gone`. */
  runState: string;
  /** Status in query-migrate; null for none. */
  migration: string | null;
}

/** Every control message. */
export type Message =
  | OfferMessage
  | AcceptMessage
  | RefuseMessage
  | AckMessage
  | MistakeMessage
  | LoadedMessage
  | RunningMessage
  | DiscardedMessage
  | AbortMessage
  | PongMessage
  | FinishMessage
  | ReleaseMessage
  | DoneMessage
  | DiscardMessage
  | PingMessage
  | ResumeMessage
  | HaveMessage
  | StatusMessage;

/** The message of one type. */
export type MessageOf<T extends Message["type"]> = Extract<Message, { type: T }>;

/** What {@linkcode negotiateSuites} found: one suite per class, `null` where nothing is acceptable to both. */
export type NegotiatedSuites = Record<PageClass, string | null>;

/**
 * The intersection of what both sides accept, class by class; the source's order decides among several
 * (PROTOCOL.md section 3). A class with `null` means that the offer is refused.
 *
 * @example
 * ```ts
 * import { negotiateSuites } from "./message_types.ts";
 *
 * const offered = { user: ["a", "b"], kernelText: ["a"], kernelData: ["a"], unmapped: ["a"] };
 * const accepted = { user: ["b", "a"], kernelText: ["b"], kernelData: ["a"], unmapped: ["a"] };
 * const chosen = negotiateSuites(offered, accepted);
 * console.assert(chosen.user === "a" && chosen.kernelText === null);
 * ```
 */
export function negotiateSuites(offered: SuiteOffers, accepted: SuiteOffers): NegotiatedSuites {
  const choose = (name: PageClass) =>
    offered[name].find((id) => accepted[name].includes(id)) ?? null;
  return {
    user: choose("user"),
    kernelText: choose("kernelText"),
    kernelData: choose("kernelData"),
    unmapped: choose("unmapped"),
  };
}
