/**
 * A kernel structure over bytes, read and written field by field.
 *
 * @module
 */

import type { StructureLayout } from "./kvm_structures.ts";

/** What a field of layout `L` holds: 64 bits as `bigint`, fewer as `number`, anything longer as its bytes. */
export type FieldValue<L extends StructureLayout, F extends keyof L["fields"]> =
  L["fields"][F][1] extends "u64" ? bigint
    : L["fields"][F][1] extends number ? Uint8Array<ArrayBuffer>
    : number;

/**
 * A view; nothing is copied.
 *
 * @example
 * ```ts
 * import { kvm_regs } from "./kvm_structures.ts";
 * import { Structure } from "./structure.ts";
 * import { equal } from "node:assert/strict";
 *
 * const regs = new Structure(kvm_regs);
 * regs.set("rip", 0x1000n);
 * equal(regs.get("rip"), 0x1000n);
 * equal(regs.bytes[129], 0x10);
 * ```
 */
export class Structure<const L extends StructureLayout> {
  /** All of its bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #layout: L;
  readonly #view: DataView<ArrayBuffer>;

  /**
   * Of the first bytes of `bytes`, or of new zeros.
   *
   * @throws {RangeError} when `bytes` are too few
   */
  constructor(layout: L, bytes: Uint8Array<ArrayBuffer> = new Uint8Array(layout.bytes)) {
    if (bytes.length < layout.bytes) {
      throw new RangeError(`Cannot view a structure: ${bytes.length} bytes, not ${layout.bytes}`);
    }
    this.#layout = layout;
    this.bytes = bytes.subarray(0, layout.bytes);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, layout.bytes);
  }

  /** The value of a field; arrays and nested structures as a view of their bytes. */
  get<F extends keyof L["fields"] & string>(field: F): FieldValue<L, F> {
    return this.#read(field) as FieldValue<L, F>;
  }

  /** Sets a field; an array or a nested structure has to be given whole. */
  set<F extends keyof L["fields"] & string>(field: F, value: FieldValue<L, F>): void {
    const [offset, type] = this.#layout.fields[field]!;
    if (type === "u64") this.#view.setBigUint64(offset, value as bigint, true);
    else if (type === "u32") this.#view.setUint32(offset, value as number, true);
    else if (type === "u16") this.#view.setUint16(offset, value as number, true);
    else if (type === "u8") this.#view.setUint8(offset, value as number);
    else {
      const bytes = value as Uint8Array;
      if (bytes.length !== type) {
        throw new RangeError(`Cannot set ${field}: ${bytes.length} bytes, not ${type}`);
      }
      this.bytes.set(bytes, offset);
    }
  }

  /** Sets several fields. */
  assign(values: { [F in keyof L["fields"] & string]?: FieldValue<L, F> }): this {
    for (const [field, value] of Object.entries(values)) this.set(field, value as never);
    return this;
  }

  #read(field: string): bigint | number | Uint8Array<ArrayBuffer> {
    const [offset, type] = this.#layout.fields[field]!;
    if (type === "u64") return this.#view.getBigUint64(offset, true);
    if (type === "u32") return this.#view.getUint32(offset, true);
    if (type === "u16") return this.#view.getUint16(offset, true);
    if (type === "u8") return this.#view.getUint8(offset);
    return this.bytes.subarray(offset, offset + type);
  }
}
