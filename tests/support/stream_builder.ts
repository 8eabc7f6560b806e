/**
 * Migration streams built by hand, piece by piece, for tests: also such as no QEMU would send.
 *
 * @module
 */

/** A RAM block of a built stream. */
export interface BuiltBlock {
  name: string;
  bytes: number;
}

/** Joins pieces. */
export function concat(...pieces: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

/** A number in `bytes` bytes, big-endian. */
export function bigEndian(value: number, bytes: number): Uint8Array {
  const encoded = new Uint8Array(bytes);
  for (let at = bytes - 1, rest = value; at >= 0; at--, rest = Math.floor(rest / 256)) {
    encoded[at] = rest % 256;
  }
  return encoded;
}

/** Text. */
export function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

/** Text behind a length byte. */
export function text8(value: string): Uint8Array {
  return concat(bigEndian(text(value).length, 1), text(value));
}

/** QEVM, version 3. */
export function header(): Uint8Array {
  return concat(text("QEVM"), bigEndian(3, 4));
}

/** The configuration, without subsections. */
export function configuration(machine = "pc-q35-7.2"): Uint8Array {
  return concat(bigEndian(7, 1), bigEndian(machine.length, 4), text(machine));
}

/** A subsection of the configuration. */
export function subsection(
  name: string,
  body: Uint8Array,
  options: { version?: number } = {},
): Uint8Array {
  return concat(bigEndian(5, 1), text8(name), bigEndian(options.version ?? 1, 4), body);
}

/** A command. */
export function command(number: number, body: Uint8Array = new Uint8Array(0)): Uint8Array {
  return concat(bigEndian(8, 1), bigEndian(number, 2), bigEndian(body.length, 2), body);
}

/** A footer. */
export function footer(id: number): Uint8Array {
  return concat(bigEndian(0x7e, 1), bigEndian(id, 4));
}

/** Header of a START (1) or FULL (4) section. */
export function sectionHeader(
  type: number,
  id: number,
  options: { name: string; version: number },
): Uint8Array {
  return concat(
    bigEndian(type, 1),
    bigEndian(id, 4),
    text8(options.name),
    bigEndian(0, 4),
    bigEndian(options.version, 4),
  );
}

/** A RAM word: page number and flags. */
export function word(page: number, flags: number): Uint8Array {
  return bigEndian(page * 4096 + flags, 8);
}

/** The word that ends a RAM body. */
export const endOfSection: Uint8Array = word(0, 0x10);

/** START of RAM with its list of blocks. */
export function startRam(
  blocks: readonly BuiltBlock[],
  options: { id?: number; version?: number; total?: number } = {},
): Uint8Array {
  const { id = 2, version = 4, total = blocks.reduce((sum, block) => sum + block.bytes, 0) } =
    options;
  return concat(
    sectionHeader(1, id, { name: "ram", version }),
    bigEndian(total + 4, 8),
    ...blocks.map((block) => concat(text8(block.name), bigEndian(block.bytes, 8))),
    endOfSection,
    footer(id),
  );
}

/** A page: 4096 times `fill`; without a name it continues the block of the record before. */
export function page(number: number, fill: number, block?: string): Uint8Array {
  const body = new Uint8Array(4096).fill(fill);
  return block === undefined
    ? concat(word(number, 0x28), body)
    : concat(word(number, 0x08), text8(block), body);
}

/** A zero page; without a name it continues the block of the record before. */
export function zero(number: number, block?: string): Uint8Array {
  return block === undefined
    ? concat(word(number, 0x22), bigEndian(0, 1))
    : concat(word(number, 0x02), text8(block), bigEndian(0, 1));
}

/** A PART of RAM. */
export function part(
  records: Uint8Array[],
  options: { id?: number; type?: number } = {},
): Uint8Array {
  const { id = 2, type = 2 } = options;
  return concat(bigEndian(type, 1), bigEndian(id, 4), ...records, endOfSection, footer(id));
}

/** The END of RAM. */
export function end(records: Uint8Array[], options: { id?: number } = {}): Uint8Array {
  return part(records, { ...options, type: 3 });
}

/** A device: a FULL section. */
export function full(id: number, body: Uint8Array, options: { name?: string } = {}): Uint8Array {
  return concat(
    sectionHeader(4, id, { name: options.name ?? "timer", version: 2 }),
    body,
    footer(id),
  );
}

/** EOF and a description. */
export function description(json: string = '{"page_size": 4096, "devices": []}'): Uint8Array {
  return concat(bigEndian(0, 1), bigEndian(6, 1), bigEndian(text(json).length, 4), text(json));
}

/** Two blocks. */
export const builtBlocks: readonly BuiltBlock[] = [
  { name: "pc.ram", bytes: 64 * 4096 },
  { name: "pc.bios", bytes: 4 * 4096 },
];

/** A header and a configuration. */
export const begin: Uint8Array = concat(header(), configuration());

/** The least that can precede a page. */
export const setup: Uint8Array = concat(begin, startRam(builtBlocks));

/** A whole small stream with everything in it that a source may send. */
export function wholeStream(): Uint8Array<ArrayBuffer> {
  return concat(wholeSetup({ commands: true }), ...wholePages(), wholeState());
}

/** What precedes the first page of {@linkcode wholeStream}; without commands it is what a reader makes of it. */
export function wholeSetup(options: { commands: boolean }): Uint8Array<ArrayBuffer> {
  const early = Uint8Array.of(1, 0x7e, 0, 0, 0, 9, 0x77, 0x7e, 0, 0, 0, 8, 0, 0x7e);
  return concat(
    header(),
    configuration(),
    subsection("configuration/uuid", new Uint8Array(16).fill(7)),
    ...(options.commands ? [command(1), command(2, bigEndian(1, 4))] : []),
    startRam(builtBlocks),
    full(9, early, { name: "0000:00:03.0/virtio-mem-device-early" }),
  );
}

/** PART sections, SWITCHOVER_START and END of {@linkcode wholeStream}. */
export function wholePages(): Uint8Array[] {
  return [
    part([zero(0, "pc.ram"), page(1, 0x11), page(2, 0x10), zero(3), page(0, 0xb1, "pc.bios")]),
    part([page(3, 0xb3), zero(63, "pc.ram")]),
    command(11),
    end([page(5, 0x7e), zero(1)]),
  ];
}

/** What follows SWITCHOVER_START in STATE of {@linkcode wholeStream}. */
export function wholeState(): Uint8Array<ArrayBuffer> {
  // A device that imitates a description, and a real one whose length holds the byte that marks it.
  const decoy = concat(Uint8Array.of(0, 6, 0, 0, 0, 4), text('{"}}'), Uint8Array.of(0x7d));
  const json = '{"page_size": 4096, "devices": [{"name": "timer"}]'.padEnd(0x0605) + "}";
  return concat(full(3, decoy), full(4, text("{}")), description(json));
}
