/**
 * QEMU's precopy migration stream, as numbers and names. All integers of the stream are big-endian.
 *
 * ```
 * header  CONFIGURATION {subsection}  {COMMAND | FULL}  START ram     what precedes the first page: SETUP
 * {PART ram}                                                          while the VM runs
 * [COMMAND SWITCHOVER_START]  END ram                                 the VM is stopped
 * {FULL}  EOF  VMDESCRIPTION                                          devices: STATE
 * ```
 * @see https://www.qemu.org/docs/master/devel/migration/main.html (section "Stream structure")
 * @see https://gitlab.com/qemu-project/qemu/-/blob/v7.2.0/migration/savevm.c
 * @see https://gitlab.com/qemu-project/qemu/-/blob/v7.2.0/migration/ram.c
 * @module
 */

/** Size of a target page on x86, in bytes; RAM records have this unit whatever backs the block. */
export const PAGE_BYTES = 4096;

/** "QEVM", QEMU's `QEMU_VM_FILE_MAGIC`. */
export const STREAM_MAGIC = 0x5145564d;

/** QEMU's `QEMU_VM_FILE_VERSION`. */
export const STREAM_VERSION = 3;

/** Version of the `ram` section. */
export const RAM_VERSION = 4;

/** The first byte of each item of the stream (`QEMU_VM_*`). */
export const itemTypes = {
  eof: 0x00,
  start: 0x01,
  part: 0x02,
  end: 0x03,
  full: 0x04,
  subsection: 0x05,
  description: 0x06,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
} as const satisfies Record<string, number>;

/** Commands of a source that leaves postcopy and COLO off (`MIG_CMD_*`). */
export const commands = {
  openReturnPath: 1,
  ping: 2,
  switchoverStart: 11,
} as const satisfies Record<string, number>;

/** Body length in bytes of each of {@linkcode commands}. */
export const commandBytes: Readonly<Record<number, number>> = {
  [commands.openReturnPath]: 0,
  [commands.ping]: 4,
  [commands.switchoverStart]: 0,
};

/** Commands that are not read, in QEMU's words. */
export const refusedCommands: Readonly<Record<number, string>> = {
  3: "POSTCOPY_ADVISE (capability postcopy-ram is on)",
  4: "POSTCOPY_LISTEN (capability postcopy-ram is on)",
  5: "POSTCOPY_RUN (capability postcopy-ram is on)",
  6: "POSTCOPY_RAM_DISCARD (capability postcopy-ram is on)",
  7: "PACKAGED (capability postcopy-ram is on)",
  8: "ENABLE_COLO (capability x-colo is on)",
  9: "POSTCOPY_RESUME (capability postcopy-ram is on)",
  10: "RECV_BITMAP (capability postcopy-ram is on)",
};

/** Flags of a RAM word, its low 12 bits (`RAM_SAVE_FLAG_*`); the rest is an offset inside the block. */
export const ramFlags = {
  zero: 0x02,
  memSize: 0x04,
  page: 0x08,
  endOfSection: 0x10,
  continue: 0x20,
} as const satisfies Record<string, number>;

/** Flags that are not read: what is on in QEMU when they come. */
export const refusedRamFlags: ReadonlyArray<readonly [flag: number, text: string]> = [
  [0x40, "QEMU has capability xbzrle on"],
  [0x80, "QEMU migrates over RDMA"],
  [0x100, "QEMU has capability compress on"],
  [0x200, "QEMU has capability multifd on"],
];

/** Longest machine name taken, in bytes; real ones are near 20. */
export const MAX_MACHINE_NAME_BYTES = 256;

/** SETUP in all, in bytes; seen: under 2 KiB. */
export const MAX_SETUP_BYTES = 1024 * 1024;

/** STATE in all, in bytes; seen: 13 to 160 KiB; VFIO devices reach megabytes. */
export const MAX_STATE_BYTES = 64 * 1024 * 1024;

/** RAM blocks of a VM: block numbers are a u8. */
export const MAX_BLOCKS = 255;

/** Bytes of a RAM block: page numbers are u32. */
export const MAX_BLOCK_BYTES = 2 ** 32 * PAGE_BYTES;

/** One migratable RAM block. */
export interface StreamBlock {
  /** QEMU's name of it. */
  name: string;
  /** Used length in bytes. */
  bytes: number;
}

/** Where the parts of a stream go, in its order. Bytes are views, valid only during the read that found them. */
export interface StreamEvents {
  /** A piece of what precedes the first page. */
  setup(bytes: Uint8Array): void;
  /** One page of 4096 bytes: page number `page` (in units of 4 KiB) of block number `block`. */
  page(block: number, page: number, bytes: Uint8Array): void;
  /** One page that is all zeros. */
  zero(block: number, page: number): void;
  /** The VM has stopped; its last pages follow. */
  stopped(): void;
  /** A piece of what follows the last page. */
  state(bytes: Uint8Array): void;
  /** All that has been read was handed out. */
  drained(): void;
}

/** A block as records name it. */
export interface BlockEntry {
  /** Its name in UTF-8 after a length byte. */
  prefix: Uint8Array;
  /** How many pages it has. */
  pages: number;
}

/**
 * Checks a list of blocks and prepares it for reading or writing records.
 * @throws RangeError when the list is empty or too long, names one twice, or a length or name does not fit the stream
 */
export function blockEntries(blocks: readonly StreamBlock[]): BlockEntry[] {
  if (blocks.length === 0 || blocks.length > MAX_BLOCKS) {
    throw new RangeError(
      `Cannot use RAM blocks: ${blocks.length} of them, 1 to ${MAX_BLOCKS} can be`,
    );
  }
  if (new Set(blocks.map((block) => block.name)).size < blocks.length) {
    throw new RangeError("Cannot use RAM blocks: two have the same name");
  }
  return blocks.map(({ name, bytes }) => {
    if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes > MAX_BLOCK_BYTES) {
      throw new RangeError(`Cannot use RAM block ${JSON.stringify(name)}: ${bytes} bytes`);
    }
    const encoded = new TextEncoder().encode(name);
    if (encoded.length === 0 || encoded.length > 255) {
      throw new RangeError(
        `Cannot use RAM block ${JSON.stringify(name)}: its name has ${encoded.length} bytes`,
      );
    }
    return {
      prefix: Uint8Array.of(encoded.length, ...encoded),
      pages: Math.ceil(bytes / PAGE_BYTES),
    };
  });
}
