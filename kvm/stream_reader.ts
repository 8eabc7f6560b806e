/**
 * The migration stream of a QEMU, taken apart: pages here, everything else there.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { INCOMPLETE, StreamCursor } from "./stream_cursor.ts";
import { DescriptionFinder } from "./stream_description.ts";
import {
  commands,
  itemTypes,
  MAX_SETUP_BYTES,
  MAX_STATE_BYTES,
  type StreamBlock,
  type StreamEvents,
} from "./stream_format.ts";
import { RecordReader } from "./stream_records.ts";
import {
  readBlockList,
  readCommand,
  readConfiguration,
  readFooter,
  readHeader,
  readSectionHeader,
  readSubsection,
} from "./stream_setup.ts";

/** Free bytes that {@linkcode StreamReader.space} always has. */
export const MIN_SPACE_BYTES = 256 * 1024;
const DEFAULT_BUFFER_BYTES = 1024 * 1024;
// What an incomplete item can leave behind, at most: a list of 255 blocks with the longest names is 66 KiB.
const MAX_REST_BYTES = 128 * 1024;

const FOOTER_BYTES = 5;
// What can come after a footer: it tells a footer from bytes of a device that look like one.
const AFTER_FOOTER: readonly number[] = [0x00, 0x01, 0x02, 0x03, 0x04, 0x08];

/** What is being read: each is a method that reads one item of it. */
type Phase = "header" | "configuration" | "sections" | "full" | "records" | "footer" | "state";

/** Settings of a {@linkcode StreamReader}. */
export interface StreamReaderOptions {
  /** The VM's RAM blocks; events number them by their index here. */
  blocks: readonly StreamBlock[];
  /** Size of the input buffer in bytes; at least 384 KiB, 1 MiB by default. */
  bufferBytes?: number;
}

/**
 * Reads the precopy stream (no multifd, no postcopy) of a source QEMU whose return path ends here.
 *
 * The stream may be cut anywhere. Pages are handed out as views of the one input buffer, uncopied. Commands
 * that concern the return path are taken out; whatever this reader does not know for certain it refuses by name.
 * A reader that has failed stays failed.
 *
 * ```ts
 * import { StreamReader } from "./stream_reader.ts";
 *
 * async function read(socket: Deno.Conn, onPage: (page: number, bytes: Uint8Array) => void) {
 *   const reader = new StreamReader({ blocks: [{ name: "pc.ram", bytes: 128 * 2 ** 20 }] });
 *   const ignore = () => {};
 *   const events = { setup: ignore, zero: ignore, stopped: ignore, state: ignore, drained: ignore };
 *   while (!reader.ended) {
 *     const count = await socket.read(reader.space());
 *     if (count === null) return reader.end();
 *     reader.advance(count, { ...events, page: (_block, page, bytes) => onPage(page, bytes) });
 *   }
 * }
 * ```
 * @see https://gitlab.com/qemu-project/qemu/-/blob/v7.2.0/migration/ram.c
 */
export class StreamReader {
  readonly #cursor: StreamCursor;
  readonly #blocks: readonly StreamBlock[];
  readonly #records: RecordReader;
  #phase: Phase = "header";
  #failure: unknown = null;
  /** A subsection may come now: only directly behind the configuration. */
  #configured = false;
  #ramSectionId: number | null = null;
  #fullSectionId = 0;
  #pagesBegan = false;
  #vmStopped = false;
  /** SWITCHOVER_START comes before the last pages but belongs behind them. */
  #switchover: Uint8Array | null = null;
  #setupBytes = 0;
  #stateBytes = 0;
  #description: DescriptionFinder | null = null;
  #ended = false;

  /** Expects the header next. @throws RangeError when a block or the buffer's size cannot be */
  constructor(options: StreamReaderOptions) {
    const { blocks, bufferBytes = DEFAULT_BUFFER_BYTES } = options;
    if (!Number.isSafeInteger(bufferBytes) || bufferBytes < MIN_SPACE_BYTES + MAX_REST_BYTES) {
      throw new RangeError(
        `Cannot read a migration stream: a buffer of ${bufferBytes} bytes is too small`,
      );
    }
    this.#blocks = blocks.map(({ name, bytes }) => ({ name, bytes }));
    this.#cursor = new StreamCursor(bufferBytes);
    this.#records = new RecordReader(this.#cursor, this.#blocks);
  }

  /** Whether everything has come: devices, EOF and the description behind it. */
  get ended(): boolean {
    return this.#ended;
  }

  /** The id of the stream's `ram` section; null before its START. */
  get ramSectionId(): number | null {
    return this.#ramSectionId;
  }

  /** Where the caller reads the next bytes to; at least 256 KiB. Ends the life of all views handed out before. */
  space(): Uint8Array<ArrayBuffer> {
    this.#cursor.compact();
    return this.#cursor.bytes.subarray(this.#cursor.end);
  }

  /**
   * Takes `count` bytes that were read to the beginning of {@linkcode space}, and hands out all that is complete.
   * What the handlers throw passes through, and fails the reader.
   * @throws KvmError `stream` when the stream is malformed or not supported
   */
  advance(count: number, events: StreamEvents): void {
    if (this.#failure !== null) throw this.#failure;
    const cursor = this.#cursor;
    if (!Number.isSafeInteger(count) || count < 0 || count > cursor.bytes.length - cursor.end) {
      throw new RangeError(`Cannot advance by ${count} bytes: there is less space`);
    }
    cursor.end += count;
    try {
      while (cursor.at < cursor.end && this.#readItem(events));
      events.drained();
    } catch (cause) {
      this.#failure = cause;
      throw cause;
    }
  }

  /** The stream's socket was closed. @throws KvmError `streamCut` unless the stream has {@linkcode ended} */
  end(): void {
    if (this.#failure !== null) throw this.#failure;
    if (this.#ended) return;
    const bytes = this.#cursor.base + this.#cursor.end;
    const text = this.#phase === "state"
      ? "without a whole description of the devices (machine option suppress-vmdesc=on is not supported)"
      : `in its ${this.#phase}`;
    this.#failure = new KvmError(
      "streamCut",
      `Cannot read the migration stream: QEMU closed it after ${bytes} bytes, ${text}`,
    );
    throw this.#failure;
  }

  /** @returns false when the item is not all there yet */
  #readItem(events: StreamEvents): boolean {
    const from = this.#cursor.at;
    try {
      switch (this.#phase) {
        case "header":
          return this.#readHeader(events);
        case "configuration":
          return this.#readConfiguration(events);
        case "sections":
          return this.#readSection(events);
        case "full":
          return this.#readFullBody(events);
        case "records":
          return this.#readRecords(events);
        case "footer":
          return this.#readRamFooter(events);
        case "state":
          return this.#readState(events);
      }
    } catch (cause) {
      if (cause !== INCOMPLETE) throw cause;
      this.#cursor.at = from;
      return false;
    }
  }

  #readHeader(events: StreamEvents): boolean {
    const from = this.#cursor.at;
    readHeader(this.#cursor);
    this.#phase = "configuration";
    return this.#emitSetup(from, events);
  }

  #readConfiguration(events: StreamEvents): boolean {
    const from = this.#cursor.at;
    readConfiguration(this.#cursor);
    this.#phase = "sections";
    this.#configured = true;
    return this.#emitSetup(from, events);
  }

  #readSection(events: StreamEvents): boolean {
    const cursor = this.#cursor;
    const from = cursor.at;
    const type = cursor.bytes[from];
    if (type === itemTypes.subsection && this.#configured) {
      readSubsection(cursor);
      return this.#emitSetup(from, events);
    }
    switch (type) {
      case itemTypes.command:
        this.#readCommand();
        break;
      case itemTypes.start:
        this.#readStart();
        this.#emitSetup(from, events);
        break;
      case itemTypes.full:
        this.#readFullHeader();
        this.#emitSetup(from, events);
        break;
      case itemTypes.part:
      case itemTypes.end:
        this.#readRamHeader(events);
        break;
      case itemTypes.eof:
        cursor.fail("it ends before RAM does", from);
        break;
      default:
        cursor.fail(`item of type ${type} where a section was due`, from);
    }
    this.#configured = false;
    return true;
  }

  #readCommand(): void {
    const cursor = this.#cursor;
    const from = cursor.at;
    // OPEN_RETURN_PATH and PING are for whoever ends the return path, and that is this side.
    if (readCommand(cursor) !== commands.switchoverStart) return;
    if (this.#switchover !== null) cursor.fail("a second command SWITCHOVER_START", from);
    this.#switchover = cursor.bytes.slice(from, cursor.at);
  }

  #readStart(): void {
    const cursor = this.#cursor;
    const from = cursor.at;
    const header = readSectionHeader(cursor);
    // Sections of other kinds tell neither their length nor their kind of record.
    if (header.name !== "ram") {
      cursor.fail(`section ${JSON.stringify(header.name)} is not supported`, from);
    }
    if (this.#ramSectionId !== null) cursor.fail("section ram starts twice", from);
    readBlockList(cursor, this.#blocks, { header });
    this.#ramSectionId = header.id;
  }

  #readFullHeader(): void {
    const cursor = this.#cursor;
    const from = cursor.at;
    const { id, name } = readSectionHeader(cursor);
    if (this.#pagesBegan) {
      cursor.fail(`section ${JSON.stringify(name)} between pages is not supported`, from);
    }
    this.#fullSectionId = id;
    this.#phase = "full";
  }

  /** An early device section (virtio-mem): its length is unknown, so its footer is searched for. */
  #readFullBody(events: StreamEvents): boolean {
    const cursor = this.#cursor;
    const { at: from, end, bytes, view } = cursor;
    for (let at = from; at < end; at++) {
      at = bytes.indexOf(itemTypes.footer, at);
      if (at < 0 || at >= end) break;
      if (at + FOOTER_BYTES >= end) {
        cursor.at = at; // may be the footer: what comes will tell
        this.#emitSetup(from, events);
        return false;
      }
      const next = bytes[at + FOOTER_BYTES] ?? -1;
      if (view.getUint32(at + 1) === this.#fullSectionId && AFTER_FOOTER.includes(next)) {
        cursor.at = at + FOOTER_BYTES;
        this.#phase = "sections";
        return this.#emitSetup(from, events);
      }
    }
    cursor.at = end;
    return this.#emitSetup(from, events);
  }

  #readRamHeader(events: StreamEvents): void {
    const cursor = this.#cursor;
    const from = cursor.at;
    const type = cursor.u8();
    const id = cursor.u32();
    if (id !== this.#ramSectionId) cursor.fail(`section ${id} was never started`, from);
    this.#pagesBegan = true;
    this.#phase = "records";
    if (type === itemTypes.end) {
      this.#vmStopped = true;
      events.stopped();
    }
  }

  #readRecords(events: StreamEvents): boolean {
    const what = this.#records.read(events);
    if (what === "end") this.#phase = "footer";
    return what !== "cut";
  }

  #readRamFooter(events: StreamEvents): boolean {
    readFooter(this.#cursor, this.#ramSectionId ?? -1);
    this.#phase = this.#vmStopped ? "state" : "sections";
    if (this.#vmStopped && this.#switchover !== null) this.#emitState(this.#switchover, events);
    return true;
  }

  #readState(events: StreamEvents): boolean {
    const cursor = this.#cursor;
    const { at: from, end } = cursor;
    if (this.#ended) cursor.fail(`${end - from} bytes behind its end`, from);
    if (this.#description === null) {
      const type = cursor.bytes[from];
      if (type !== itemTypes.full && type !== itemTypes.eof) {
        cursor.fail(`item of type ${type} behind the last page, where devices were due`, from);
      }
      this.#description = new DescriptionFinder();
    }
    cursor.at = end;
    const bytes = cursor.bytes.subarray(from, end);
    this.#emitState(bytes, events);
    this.#ended = this.#description.push(bytes);
    return true;
  }

  #emitSetup(from: number, events: StreamEvents): true {
    const { at, bytes } = this.#cursor;
    this.#setupBytes += at - from;
    if (this.#setupBytes > MAX_SETUP_BYTES) {
      this.#cursor.fail(`more than ${MAX_SETUP_BYTES} bytes before the first page`, from);
    }
    if (at > from) events.setup(bytes.subarray(from, at));
    return true;
  }

  #emitState(bytes: Uint8Array, events: StreamEvents): void {
    this.#stateBytes += bytes.length;
    if (this.#stateBytes > MAX_STATE_BYTES) {
      this.#cursor.fail(`more than ${MAX_STATE_BYTES} bytes of device state`, this.#cursor.at);
    }
    events.state(bytes);
  }
}
