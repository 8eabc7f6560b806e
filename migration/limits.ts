/**
 * Every cap on what the other side, or a file, may make us hold; each with its reason. Checked before
 * anything is allocated.
 *
 * @module
 */

/** Size of a target page on x86, in bytes: the unit of RAM records (QEMU's TARGET_PAGE_SIZE). */
export const PAGE_BYTES = 4096;

/** Pages in one PAGES record: 256 KiB of plaintext stay in a second-level cache while they are checked. */
export const MAX_PAGES_PER_RECORD = 64;

/**
 * Pages that we put into one record, at most. One flipped bit costs a record: to be kept, sent and opened again. Full ones
 * would cost twice as much then, and each record takes some 10 us of both sides whatever it holds.
 */
export const PAGES_PER_RECORD = 32;

/** Page numbers in one ZEROS record: 32 KiB of list. */
export const MAX_ZEROS_PER_RECORD = 8192;

/** RAM blocks of a VM: the wire has a u8 for them; a large VM with 256 DIMM slots has its ROMs beside. */
export const MAX_BLOCKS = 255;

/** Bytes of a RAM block: page numbers are u32, so 16 TiB. */
export const MAX_BLOCK_BYTES = 2 ** 32 * PAGE_BYTES;

/** Bytes of stream inside one SETUP or STATE record: as large as a full PAGES record. */
export const MAX_STREAM_PIECE_BYTES = MAX_PAGES_PER_RECORD * PAGE_BYTES;

/** SETUP in all: header, configuration and block list; seen: under 2 KiB. */
export const MAX_SETUP_BYTES = 1024 * 1024;

/** STATE in all: device state and description; seen: 13 to 160 KiB; VFIO devices reach megabytes. */
export const MAX_STATE_BYTES = 64 * 1024 * 1024;

/** Record header, in clear. */
export const RECORD_HEADER_BYTES = 24;

/** Authentication tag of every sealed suite. */
export const TAG_BYTES = 16;

/** Largest plaintext of a record: type, block, count, list, pages. */
export const MAX_RECORD_PLAINTEXT_BYTES: number = 3 + MAX_PAGES_PER_RECORD * (4 + PAGE_BYTES);

/** Largest body of a record, tag included. */
export const MAX_RECORD_BODY_BYTES: number = MAX_RECORD_PLAINTEXT_BYTES + TAG_BYTES;

/** Frame header. */
export const FRAME_HEADER_BYTES = 8;

/** Largest frame payload: a DATA frame with a full record. */
export const MAX_DATA_FRAME_BYTES: number = RECORD_HEADER_BYTES + MAX_RECORD_BODY_BYTES;

/** A Noise transport message (Noise revision 34, section 3): 65,535 bytes, tag included. */
export const MAX_CONTROL_FRAME_BYTES = 65_535;

/**
 * Control messages that wait to be written: whoever asks without reading the answers is cut off. An honest peer has
 * a few hundred bytes of them.
 */
export const MAX_QUEUED_CONTROL_BYTES: number = 1024 * 1024;

/** A whole control message, joined from its parts: an OFFER of 255 blocks with long names is under 100 KiB. */
export const MAX_CONTROL_MESSAGE_BYTES = 256 * 1024;

/**
 * Half-open connections that have only dialled, and again of those that have said message 1 of an allowed key: over it
 * the oldest of them is dropped, so silent sockets cannot keep the peer out.
 */
export const MAX_HALF_OPEN = 16;

/** Message 1s of allowed keys that are remembered, since none is answered twice: over it the oldest is forgotten. */
export const MAX_REMEMBERED_DIALS = 1_024;

/** Offers that wait for a judgement at once, with their connections: over it the next is refused. */
export const MAX_JUDGED_OFFERS = 8;

/** How long a connection may take to prove its key, in milliseconds. */
export const HANDSHAKE_TIMEOUT_MS = 5_000;

/** Key numbers a header may be ahead of the last record that opened: above the 16,384 mistakes the default budget permits. */
export const MAX_KEY_NUMBER_LEAD = 65_536;

/** Records under one key before the next: far below the 2^32 invocations of NIST SP 800-38D section 8.3. */
export const MAX_RECORDS_PER_KEY = 2 ** 20;

/** Bytes under one key before the next: NIST SP 800-38D allows 2^39 - 256 bits a message; this keeps the total modest. */
export const MAX_BYTES_PER_KEY = 64 * 2 ** 30;

/** Sealed records kept until they are acknowledged, in bytes. */
export const DEFAULT_WINDOW_BYTES = 64 * 1024 * 1024;

/** What one record costs the window besides its bytes. */
export const WINDOW_RECORD_COST_BYTES = 256;

/** Bytes of damaged records that may be sent again, in all. */
export const DEFAULT_REPAIR_BUDGET_BYTES = 64 * 1024 * 1024;

/** Times that a page, or a piece of SETUP, STATE or ROUND, may be sent again: damaged once more, it is tampering. */
export const MAX_TRIES = 3;

/** What a damaged record counts at least against the budget: so that small ones cannot go on for ever. */
export const MIN_DAMAGE_BYTES = 4096;

/** How long one try to JOIN may take, from the dial to HAVE, in milliseconds. */
export const JOIN_TIMEOUT_MS = 5_000;

/** Waits between two tries to JOIN, in milliseconds: from, to (while the VM is stopped: to); each twice the one before. */
export const JOIN_BACKOFF_MS = { first: 50, last: 2_000, lastStopped: 250 } as const;

/** An ACK at least this often, in bytes of processed records: a sixteenth of the window. */
export const ACK_INTERVAL_BYTES: number = 4 * 1024 * 1024;

/** An ACK at least this often, in milliseconds, while records come: a slow network must not look like a dead one. */
export const ACK_INTERVAL_MS = 250;

/** How long processed records may wait for their ACK once the input is drained, in milliseconds. */
export const ACK_DELAY_MS = 4;

/** PING interval while the VM runs, in milliseconds. */
export const PING_INTERVAL_MS = 1_000;
/** PING interval while it is stopped, in milliseconds. */
export const PING_INTERVAL_STOPPED_MS = 250;

/** Silence after which a connection counts as cut while the VM runs, in milliseconds. */
export const SILENCE_MS = 10_000;
/** The same for a connection of RECOVER, in milliseconds: nobody says PING there while the other side's QEMU takes its time. */
export const SILENCE_RECOVER_MS = 60_000;
/** The same as SILENCE_MS while the VM is stopped, in milliseconds. */
export const SILENCE_STOPPED_MS = 2_000;

/** Default total of time without a connection while the VM runs, in milliseconds (`--reconnect`). */
export const DEFAULT_RECONNECT_MS = 120_000;

/** Default total of stopped time, in milliseconds (`--max-stop`). */
export const DEFAULT_MAX_STOP_MS = 5_000;

/** How long the source waits for DISCARDED after an ABORT; its exit code does not depend on it. */
export const DISCARD_WAIT_MS = 5_000;

/**
 * How far a record's time may be from the destination's clock in the lab profile, in milliseconds: clocks of two
 * hosts may differ, and a record may wait. All of it is room for replays.
 */
export const PAPER_TIME_WINDOW_MS = 60_000;

/** Pages in one PAGES record of the lab profile: what they cost besides must fit into a sealed record's body. */
export const MAX_PAPER_PAGES_PER_RECORD: number = MAX_PAGES_PER_RECORD - 1;

/** Damaged records that reports and journals tell one by one; they are counted beyond it. */
export const MAX_HITS = 100;
