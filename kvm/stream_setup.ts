/**
 * The items of a migration stream that are not pages: header, configuration, commands, section headers, block list.
 * Every function reads one item from where the cursor is and leaves it behind the item.
 *
 * @module
 */

import type { StreamCursor } from "./stream_cursor.ts";
import {
  commandBytes,
  itemTypes,
  MAX_MACHINE_NAME_BYTES,
  PAGE_BYTES,
  RAM_VERSION,
  ramFlags,
  refusedCommands,
  refusedRamFlags,
  STREAM_MAGIC,
  STREAM_VERSION,
  type StreamBlock,
} from "./stream_format.ts";

/** Reads the file header. @throws KvmError `stream` when it is another */
export function readHeader(cursor: StreamCursor): void {
  const from = cursor.at;
  if (cursor.u32() !== STREAM_MAGIC) cursor.fail("it does not begin with QEVM", from);
  const version = cursor.u32();
  if (version !== STREAM_VERSION) {
    cursor.fail(`version ${version}, not ${STREAM_VERSION}`, from + 4);
  }
}

/** Reads the configuration without its subsections. @throws KvmError `stream` when there is none */
export function readConfiguration(cursor: StreamCursor): void {
  const from = cursor.at;
  // Only machine types before 2.4 leave it out, and they leave out footers too.
  if (cursor.u8() !== itemTypes.configuration) {
    cursor.fail("no configuration (a machine type before 2.4?)", from);
  }
  const bytes = cursor.u32();
  if (bytes > MAX_MACHINE_NAME_BYTES) cursor.fail(`a machine name of ${bytes} bytes`, from + 1);
  cursor.skip(bytes);
}

/** Reads a subsection of the configuration. @throws KvmError `stream` when it tells of something not supported */
export function readSubsection(cursor: StreamCursor): void {
  const from = cursor.at;
  cursor.skip(1);
  const name = cursor.text8();
  const version = cursor.u32();
  if (version !== 1) cursor.fail(`version ${version} of subsection ${JSON.stringify(name)}`, from);
  switch (name) {
    case "configuration/capabilities":
      // Listed are capabilities that both ends must have on, and each of them changes the stream.
      if (cursor.u32() > 0) cursor.fail(`QEMU has capability ${cursor.text8()} on`, from);
      return;
    case "configuration/target-page-bits": {
      const bits = cursor.u32();
      if (2 ** bits !== PAGE_BYTES) cursor.fail(`target pages of ${bits} bits`, from);
      return;
    }
    case "configuration/uuid":
      return cursor.skip(16);
    default:
      cursor.fail(`unknown subsection ${JSON.stringify(name)} of the configuration`, from);
  }
}

/** Reads a command. @returns its number, one of `commands` @throws KvmError `stream` when it is any other */
export function readCommand(cursor: StreamCursor): number {
  const from = cursor.at;
  cursor.skip(1);
  const command = cursor.u16();
  const bytes = cursor.u16();
  const due = commandBytes[command];
  if (due === undefined) {
    cursor.fail(`command ${refusedCommands[command] ?? `${command}, which is unknown`}`, from);
  }
  if (bytes !== due) cursor.fail(`command ${command} with ${bytes} bytes, not ${due}`, from);
  cursor.skip(bytes);
  return command;
}

/** Header of a START or FULL section. */
export interface SectionHeader {
  /** Its id in this stream. */
  id: number;
  /** What it belongs to, for instance `ram` or `0000:00:02.0/vga`. */
  name: string;
  /** Version of its body. */
  version: number;
}

/** Reads the header of a START or FULL section. */
export function readSectionHeader(cursor: StreamCursor): SectionHeader {
  cursor.skip(1);
  const id = cursor.u32();
  const name = cursor.text8();
  cursor.skip(4); // instance: 0 for RAM, meaningless here for devices
  return { id, name, version: cursor.u32() };
}

/**
 * Reads the body and footer of the START section of `ram`: the list of blocks, which has to be `blocks` in any order.
 * @throws KvmError `stream` when it is not
 */
export function readBlockList(
  cursor: StreamCursor,
  blocks: readonly StreamBlock[],
  options: { header: SectionHeader },
): void {
  const from = cursor.at;
  const { id, version } = options.header;
  if (version !== RAM_VERSION) {
    cursor.fail(`version ${version} of section ram, not ${RAM_VERSION}`, from);
  }
  const high = cursor.u32();
  const low = cursor.u32();
  const flags = low % PAGE_BYTES;
  if (flags !== ramFlags.memSize) failFlags(cursor, flags, { at: from, due: "the list of blocks" });
  const total = high * 2 ** 32 + low - flags;

  const missing = new Map(blocks.map((block) => [block.name, block.bytes]));
  for (let sum = 0; sum < total;) {
    const at = cursor.at;
    const name = cursor.text8();
    const bytes = cursor.u64();
    const due = missing.get(name);
    if (due === undefined) {
      cursor.fail(`RAM block ${JSON.stringify(name)} is unknown, or listed twice`, at);
    }
    if (bytes !== due) {
      cursor.fail(`RAM block ${JSON.stringify(name)} has ${bytes} bytes, not ${due}`, at);
    }
    missing.delete(name);
    sum += bytes;
    if (sum > total) cursor.fail(`RAM blocks of more than ${total} bytes`, at);
  }
  for (const name of missing.keys()) {
    cursor.fail(`RAM block ${JSON.stringify(name)} is missing`, from);
  }

  const end = cursor.at;
  const endHigh = cursor.u32();
  const endLow = cursor.u32();
  if (endHigh !== 0 || endLow !== ramFlags.endOfSection) {
    failFlags(cursor, endLow % PAGE_BYTES, { at: end, due: "the end of the list of blocks" });
  }
  readFooter(cursor, id);
}

/** Reads the footer of section `id`. @throws KvmError `stream` when there is none */
export function readFooter(cursor: StreamCursor, id: number): void {
  const from = cursor.at;
  if (cursor.u8() !== itemTypes.footer) cursor.fail(`no footer of section ${id}`, from);
  const of = cursor.u32();
  if (of !== id) cursor.fail(`a footer of section ${of} in section ${id}`, from);
}

/** Refuses the flags of a RAM word, by the capability that they come from where there is one. */
export function failFlags(
  cursor: StreamCursor,
  flags: number,
  options: { at: number; due: string },
): never {
  const [, text] = refusedRamFlags.find(([flag]) => (flags & flag) !== 0) ?? [];
  cursor.fail(text ?? `RAM flags 0x${flags.toString(16)} where ${options.due} was due`, options.at);
}
