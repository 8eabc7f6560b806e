/**
 * The seam between records and what protects them. A record is numbered, framed and kept in the same way in
 * every profile; its body is sealed by AEAD (`sealed_bodies.ts`), or by the paper's security function in the
 * lab (`paper_bodies.ts`).
 *
 * @module
 */

import type { PageClass } from "./messages.ts";
import type { RecordHeader } from "./record.ts";

/** What goes into a body, in this order. */
export interface BodyContent {
  /** Decides the suite: of pages their class, of everything else `kernelData`. */
  readonly pageClass: PageClass;
  /** Type, block, count and list of pages; or type, offset and total. */
  readonly head: Uint8Array;
  /** Pages, or bytes of QEMU's stream; those from `count` on are of another record. */
  readonly pieces: readonly Uint8Array[];
  readonly count: number;
  /** Of all pieces together. */
  readonly pieceBytes: number;
}

/** The source's end. One lane. */
export interface BodyWriter extends Disposable {
  /** Pages that fit into one record, at most. */
  readonly maxPages: number;
  /** After so many records, or bytes of bodies, another key is due. */
  readonly maxPerKey: { readonly records: number; readonly bytes: number };
  /** The suite of a class, as the header names it. */
  suiteOf(pageClass: PageClass): number;
  /** How long the body will be. */
  bodyBytes(content: BodyContent): number;
  /** Writes the body into `record`, right behind its header, to the end of `record`. */
  write(content: BodyContent, record: Uint8Array, header: RecordHeader): void;
  /** The records that follow have another key number. */
  dropKeys(): void;
  /** What a record of our own holds: head, then pieces; the caller's to keep. @throws MigrationError `protocol` when it changed in memory */
  reopen(record: Uint8Array): Uint8Array;
}

/** The destination's end. One lane. */
export interface BodyReader extends Disposable {
  /** Whether what was read is what the source wrote: if not, content that makes no sense is damage, too. */
  readonly isAuthentic: boolean;
  /** Whether a header names a suite of this migration, and a body that is long enough. */
  fits(header: RecordHeader): boolean;
  /**
   * What the record holds: head, then pieces, valid until the next call; null when it is damaged. Changes nothing but
   * keys that are at hand.
   *
   * @throws MigrationError when it says that the migration must end
   */
  read(record: Uint8Array, header: RecordHeader): Uint8Array | null;
}
