/**
 * What the algorithm needs from the world, as structural interfaces.
 *
 * `migration/` knows no file descriptor, no QEMU and no `Deno.*` global: it is handed objects of
 * these shapes. `kvm/` satisfies them without importing them; tests satisfy them with a simulated VM.
 *
 * @module
 */

import type { PageClass } from "./message_types.ts";

/** A monotonic clock in milliseconds, and timers on it. */
export interface Clock {
  /** Milliseconds since an arbitrary start; never goes back. */
  now(): number;
  /** The wall clock, for journals and reports only. */
  date(): Date;
  /** Calls `callback` once after `ms`; `clear` on the returned timer makes sure that it never will. */
  timer(ms: number, callback: () => void): { clear(): void };
}

/** A reliable byte stream to the other agent. `Deno.Conn` has this shape. */
export interface Transport {
  /** Reads at most `into.length` bytes; the count, or `null` at the end of the stream. */
  read(into: Uint8Array): Promise<number | null>;
  /** Writes a prefix of `bytes`; the count written. */
  write(bytes: Uint8Array): Promise<number>;
  /** Ends the connection both ways; pending calls reject. */
  close(): void;
}

/** Where a destination takes its connections from. `accept` rejects once `close` was called. */
export interface TransportListener {
  /** The next connection. */
  accept(): Promise<Transport>;
  /** Takes no more. */
  close(): void;
}

/** Whether the VM ran before the migration: it runs after it only if it did. */
export type StateBefore = "running" | "paused" | "prelaunch";

/** The process of a QEMU, named so that no other can be taken for it. */
export interface VmProcess {
  /** Process id. */
  pid: number;
  /** `/proc/PID/stat`, field 22: clock ticks after boot. */
  startTime: string;
  /** `/proc/sys/kernel/random/boot_id`. */
  bootId: string;
}

/** One migratable RAM block. */
export interface RamBlock {
  /** QEMU's name of it, for instance `pc.ram` or a memory backend's id. */
  name: string;
  /** Used length in bytes. */
  bytes: number;
}

/** What a VM is: enough to refuse a migration between two that do not match. */
export interface VmFacts {
  /** QEMU's -name; shown, never compared. */
  name: string | null;
  /** Lower-case, with dashes; all zeros when QEMU was given none. */
  uuid: string;
  /** The versioned machine type, for instance `pc-q35-7.2`. */
  machine: string;
  /** For instance `7.2.22`. */
  qemuVersion: string;
  /** Guest RAM in bytes, without ROM and video memory. */
  memoryBytes: number;
  /** Index in this list = the block number of the wire. */
  blocks: RamBlock[];
  /** Migration capabilities that are on. */
  capabilities: string[];
  /** Writable local drives, which Sealift does not copy: their file names, for a warning. */
  localDrives: string[];
  /** The process that runs it. */
  process: VmProcess;
}

/** QEMU's counters of a migration: they tell this migration's `postmigrate` from another's. */
export interface MigrationCounters {
  /** Dirty-bitmap syncs: `dirty-sync-count`. */
  dirtySyncCount: number;
  /** Pages sent whole. */
  normal: number;
  /** Pages of zeros. */
  duplicate: number;
}

/** What QEMU says of a migration under way. */
export interface VmProgress {
  /** Bytes of RAM still to be sent, as of the last dirty-bitmap sync. */
  remainingBytes: number;
  /** QEMU's own estimate, in milliseconds; null before the first iteration. */
  expectedDowntimeMs: number | null;
  /** Pages dirtied per second, as of the last sync. */
  dirtyPagesPerSecond: number;
  /** Dirty-bitmap syncs so far. */
  dirtySyncCount: number;
}

/** Settings of the live phase; an absent one is left as it is. */
export interface LiveSettings {
  /** Bytes per second; 0 is unlimited. */
  maxBandwidth?: number;
  /** The downtime that the VM's side aims at. */
  downtimeLimitMs?: number;
  /** Slows the VM down when it dirties memory too fast. */
  autoConverge?: boolean;
}

/** Why a VM left the migration by itself. */
export type VmEnd =
  /** Its process is gone: QMP closed, and no such process; a source's, without having run again since its last stop. */
  | { kind: "gone" }
  /** It runs (again), or stands as it did before; or did, and its process is gone since (`gone`). */
  | { kind: "resumed"; text: string; gone?: true }
  /** QEMU reported failure; it may still be on its way back to running. */
  | { kind: "failed"; text: string };

/** What came out of the VM, in the VM's order. Bytes are valid only until `PageSource.next` resolves. */
export interface PageEvents {
  /** A piece of what precedes the first page (SETUP). */
  setup(bytes: Uint8Array): void;
  /** One page: `bytes` is 4096 long; `page` counts 4 KiB pages inside block `block` of `VmFacts.blocks`. */
  page(block: number, page: number, bytes: Uint8Array): void;
  /** One page that is all zeros. */
  zero(block: number, page: number): void;
  /** The VM has stopped; the last round begins (END). */
  stopped(): void;
  /** A piece of everything after the last page (STATE). */
  state(bytes: Uint8Array): void;
  /** Everything read so far was handed out: called at the end of every `next`. */
  drained(): void;
}

/** The pages of a VM, round by round. */
export interface PageSource {
  /**
   * Reads once and hands what came to `events`, synchronously. Not called again before it has resolved.
   * @returns false when the VM has said everything
   * @throws when the stream ends early, is malformed, or `close` was called
   */
  next(events: PageEvents): Promise<boolean>;
  /** Ends the stream: the VM sees its migration fail and goes on. A pending `next` rejects. */
  close(): void;
}

/** Tells which class a page is in (the paper's monitor function). */
export interface PageClassifier {
  /** Class of a 4 KiB page of a block; `user` for one that is not known. Called for every page. */
  classOf(block: number, page: number): PageClass;
  /**
   * Looks at the guest's page tables again, within its time budget; what it could not look at counts as `user`.
   * Synchronous, whether the VM runs or stands. Called before the first round and before the last.
   */
  refresh(): void;
  /** The same before every other round, unless it was just done: classes may be as old as the rest between two looks. */
  refreshIfDue(): void;
  /** For the report. */
  summary(): ClassifierSummary;
}

/** What a {@linkcode PageClassifier} did. */
export interface ClassifierSummary {
  /** Address spaces found at the last refresh. */
  addressSpaces: number;
  /** How often it looked. */
  refreshes: number;
  /** How long the last refresh took. */
  lastRefreshMs: number;
  /** After how many of the refreshes every page counted as `user`. */
  failed: number;
  /** Why, the last time; null when it was after none. */
  why: string | null;
}

/** Bits of a page's byte in {@linkcode PagingReading}; 0 says that nothing is known of it. */
export const pagingFlags = {
  /** An address space maps it for ring 3. */
  user: 1,
  /** The kernel maps it, and runs it as code. */
  kernelExecutable: 2,
  /** The kernel maps it. */
  kernel: 4,
  /** The page tables were asked about it. */
  known: 8,
} as const;

/** What the guest's page tables say. */
export interface PagingReading {
  /** Why nothing can be told of any page; null when `marks` can be used. */
  why: string | null;
  /** Address spaces that map anything for processes. */
  addressSpaces: number;
  /** Index as in `VmFacts.blocks`: a byte per 4 KiB page, of {@linkcode pagingFlags}; null for a block that nothing is known of. */
  marks: readonly (Uint8Array | null)[];
}

/** Reads the guest's page tables from outside. */
export interface PagingReader {
  /** Reads them as they are now; gives up after `budgetMs`. Never throws: the reading says what went wrong. */
  read(budgetMs: number): PagingReading;
}

/** The VM at the source. */
export interface SourceVm {
  /** As read when it was attached. */
  readonly facts: VmFacts;
  /** Its state when it was attached. */
  readonly before: StateBefore;
  /** Monotonic ms of the moment the VM stopped for the last round; null if it has not. Not set for a VM that did not run. */
  readonly stoppedAtMs: number | null;
  /** Whether it was seen to run after `release`, but by `resume`; however it stands now. */
  readonly hasRun: boolean;
  /**
   * Called when the VM leaves the migration unasked: once, once more (`resumed`) when it becomes {@linkcode hasRun}, and
   * once more when it is gone behind `release`. Set before `start`.
   */
  onEnd: ((end: VmEnd) => void) | null;
  /** Starts the outgoing migration; resolves when the VM's stream is connected. */
  start(settings: LiveSettings): Promise<PageSource>;
  /** Changes settings of the live phase. */
  tune(settings: LiveSettings): Promise<void>;
  /** Null when the VM does not answer just now (it may hang while stopped). */
  progress(): Promise<VmProgress | null>;
  /** Counters of the migration under way, or of the last one. */
  counters(): Promise<MigrationCounters>;
  /** Its run state now: `running`, `postmigrate`, ... or `gone`. @throws when it does not answer and is not gone */
  status(): Promise<string>;
  /**
   * Writes SHUT(0): lets the VM finish. Resolves when it is seen in `postmigrate` (`stopped`), when its
   * process is gone without having resumed (`gone`), or when it runs again after all (`resumed`).
   */
  release(): Promise<"stopped" | "gone" | "resumed">;
  /**
   * Closes the VM's stream first, then cancels; resolves when the VM is *seen* to run, or to stand as
   * before, or to be gone (`gone`: without RESUME seen since `start`; `goneAfterResume`: it may have run).
   */
  cancel(): Promise<
    "running" | "paused" | "prelaunch" | "postmigrate" | "gone" | "goneAfterResume"
  >;
  /** Lets a VM in `postmigrate` run again: the way back. @throws with the VM's own words when it cannot */
  resume(): Promise<void>;
  /** Ends the VM's process; resolves when it is gone. */
  quit(): Promise<void>;
  /** Puts parameters and capabilities back as they were before `start`. Never throws when the VM is gone. */
  restore(): Promise<void>;
  /** CPU seconds (user and system) the VM's process has used so far; null when unknown. */
  cpuSeconds(): number | null;
}

/** Where a destination puts pages; what each landing can do is in the design's section 4. */
export interface PageSink {
  /** SETUP, whole. */
  setup(bytes: Uint8Array): void | Promise<void>;
  /**
   * Verified pages of one block: page number `pages[i]` gets `bytes[4096 i .. 4096 i + 4095]`.
   * Both views are valid only until the call (or its promise) has ended.
   */
  pages(block: number, pages: Uint32Array, bytes: Uint8Array): void | Promise<void>;
  /** Verified pages of one block that are all zeros now. */
  zeros(block: number, pages: Uint32Array): void | Promise<void>;
  /**
   * END, STATE and EOF: the VM loads its devices. Resolves when it is seen loaded and not running.
   * From the first byte of EOF on, the caller discards only what the other side says to discard.
   * @throws when the VM refuses the state or dies
   */
  load(state: Uint8Array): Promise<void>;
  /** Unmaps and closes what the landing holds; the VM's process is untouched. */
  close(): void;
}

/** What a dry run or an ACCEPT says of the landing. */
export interface LandingProbe {
  /** `mapped`, `process` or `stream`. */
  landing: string;
  /** Why nothing better was taken; empty when the best was. */
  notes: string[];
}

/** The VM at the destination. */
export interface DestinationVm {
  /** Whether it was seen to run, however it stands now. */
  readonly hasRun: boolean;
  /** As read when it was attached. */
  readonly facts: VmFacts;
  /** Called at most once, when the VM leaves unasked. */
  onEnd: ((end: VmEnd) => void) | null;
  /** Finds the landing and checks it by reading pages both ways. Changes nothing in the VM. */
  probe(): Promise<LandingProbe>;
  /**
   * Prepares the VM (`stop`, `late-block-activate`, no announcing) and its incoming side; the first byte goes there only
   * with `PageSink.setup`. The landing is the one that `probe` found.
   */
  open(): Promise<PageSink>;
  /** Runs the loaded VM; resolves at its RESUME, with the monotonic ms of it. @throws with the VM's own words when it cannot */
  run(): Promise<number>;
  /** Tells the network where the VM is now. Never throws: the VM runs already. */
  announce(): Promise<void>;
  /** Its run state now: `inmigrate`, `paused`, `prelaunch`, `running`, ... or `gone`. */
  status(): Promise<string>;
  /** Ends the VM's process; resolves when it is gone. */
  quit(): Promise<void>;
  /** Puts back what `open` changed, as far as the VM is still there and untouched. */
  restore(): Promise<void>;
  /** CPU seconds (user and system) the VM's process has used so far; null when unknown. */
  cpuSeconds(): number | null;
}

/** States that a source's journal can be in (PROTOCOL.md section 7). */
export const sourceJournalStates = [
  "open",
  "releasing",
  "released",
  "ranHere",
  "done",
  "aborted",
  "ran",
] as const;
/** States that a destination's journal can be in. */
export const destinationJournalStates = [
  "open",
  "loaded",
  "ranEarly",
  "taking",
  "running",
  "discarded",
] as const;
/** One of {@linkcode sourceJournalStates}. */
export type SourceJournalState = typeof sourceJournalStates[number];
/** One of {@linkcode destinationJournalStates}. */
export type DestinationJournalState = typeof destinationJournalStates[number];

/** One line of a journal. The first, `open`, has everything that names the migration. */
export interface JournalEntry {
  /** The state that was reached. */
  state: SourceJournalState | DestinationJournalState;
  /** ISO 8601, UTC. */
  time: string;
  /** What this state adds: see PROTOCOL.md section 7. Plain JSON values only. */
  [key: string]: unknown;
}

/** The journal of one side of one migration. */
export interface Journal {
  /** Resolves when the line is on disk (fsync). @throws when it cannot be: then the step it guards is not taken */
  append(entry: JournalEntry): Promise<void>;
  /** Takes no more lines. */
  close(): void;
}

/** Where journals are kept. Nothing is written before the first `append`. */
export interface JournalStore {
  /** Throws when a journal could not be written here just now; leaves nothing. */
  check(): Promise<void>;
  /** Whether this host has a journal of that side for that id. */
  has(id: string, side: "source" | "destination"): Promise<boolean>;
  /** Creates it (file and directory durable) with its first entry, `open`. */
  create(id: string, side: "source" | "destination", entry: JournalEntry): Promise<Journal>;
}
