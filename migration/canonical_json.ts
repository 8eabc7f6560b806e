/**
 * Canonical JSON: one value has one encoding, so that hashes over messages bind what was meant.
 *
 * UTF-8, keys in ascending order of UTF-16 code units, no whitespace, strings escaped as
 * `JSON.stringify` does (RFC 8785 section 3.2.2.2), integers only. An integer above 2^53 - 1 in size
 * is a decimal string, since JSON readers round it (RFC 8259 section 6).
 *
 * @module
 */

import { MigrationError } from "./errors.ts";

/** Deepest nesting of objects and lists: OFFER, the deepest message, needs 3. Bounds recursion. */
export const MAX_JSON_DEPTH = 8;

/** What {@linkcode decodeStrict} returns. */
export type JsonValue =
  | null
  | boolean
  | number
  | string
  | JsonValue[]
  | { [key: string]: JsonValue };

const encoder = new TextEncoder();

/**
 * Encodes a value. A `bigint` beyond 2^53 - 1 becomes a string, and is read back as one.
 *
 * @returns UTF-8 bytes
 * @throws {TypeError} when a part of it has no canonical encoding: undefined, fractions, NaN, unpaired
 * surrogates, `__proto__` keys, class instances, nesting deeper than {@linkcode MAX_JSON_DEPTH}
 * @see https://www.rfc-editor.org/rfc/rfc8785
 *
 * @example
 * ```ts
 * import { encodeCanonical } from "./canonical_json.ts";
 *
 * const bytes = encodeCanonical({ b: [1, null], a: "x" });
 * console.assert(new TextDecoder().decode(bytes) === '{"a":"x","b":[1,null]}');
 * ```
 */
export function encodeCanonical(value: unknown): Uint8Array<ArrayBuffer> {
  return encoder.encode(serialize(value, 0));
}

/**
 * Decodes bytes that must be exactly what {@linkcode encodeCanonical} makes of the value they hold:
 * this also refuses duplicate keys, whitespace, `1e3`, `-0` and needless escapes.
 *
 * @throws {MigrationError} `protocol`
 */
export function decodeStrict(bytes: Uint8Array): JsonValue {
  let value: JsonValue;
  let canonical: Uint8Array;
  try {
    // A byte order mark is kept, so that JSON.parse refuses it.
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
    canonical = encodeCanonical(value);
  } catch (cause) {
    throw new MigrationError("protocol", "Cannot read message: it is not canonical JSON", {
      cause,
    });
  }
  if (!sameBytes(bytes, canonical)) {
    throw new MigrationError("protocol", "Cannot read message: it is not canonical JSON");
  }
  return value;
}

function serialize(value: unknown, depth: number): string {
  switch (typeof value) {
    case "boolean":
      return value ? "true" : "false";
    case "string":
      return serializeString(value);
    case "number":
      if (!Number.isSafeInteger(value)) {
        throw new TypeError(`Cannot encode number: ${value} is not an integer below 2^53`);
      }
      return String(value);
    case "bigint": {
      const safe = value <= BigInt(Number.MAX_SAFE_INTEGER) &&
        value >= BigInt(Number.MIN_SAFE_INTEGER);
      return safe ? String(value) : `"${value}"`;
    }
    case "object":
      return value === null ? "null" : serializeObject(value, depth + 1);
    default:
      throw new TypeError(`Cannot encode ${typeof value}: it is not a JSON value`);
  }
}

function serializeObject(value: object, depth: number): string {
  if (depth > MAX_JSON_DEPTH) {
    throw new TypeError(`Cannot encode value: it is nested deeper than ${MAX_JSON_DEPTH}`);
  }
  if (Array.isArray(value)) {
    // Array.from visits holes too, as undefined, which is refused.
    return `[${Array.from(value, (item: unknown) => serialize(item, depth)).join(",")}]`;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    throw new TypeError("Cannot encode object: it is not a plain one");
  }
  const entries = new Map<string, unknown>(Object.entries(value));
  const fields: string[] = [];
  // Without a comparator sort() orders by UTF-16 code units (RFC 8785 section 3.2.3).
  for (const key of [...entries.keys()].sort()) {
    if (key === "__proto__") throw new TypeError("Cannot encode object: it has a key __proto__");
    fields.push(`${serializeString(key)}:${serialize(entries.get(key), depth)}`);
  }
  return `{${fields.join(",")}}`;
}

function serializeString(text: string): string {
  // UTF-8 has no unpaired surrogates (RFC 8785 section 3.2.2.2: terminate with an error).
  if (!text.isWellFormed()) throw new TypeError("Cannot encode string: it has unpaired surrogates");
  return JSON.stringify(text);
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
