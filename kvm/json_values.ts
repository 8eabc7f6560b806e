/**
 * Checked reading of JSON that came from somebody else: a value has the type that was asked for, or an error names it.
 *
 * @module
 */

import { QmpError } from "./qmp_error.ts";

/** A JSON object of unknown members. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** `value` as an object. @throws {QmpError} `protocol` */
export function asObject(value: unknown, what: string): JsonObject {
  if (!isObject(value)) throw wrongType(what, "an object");
  return value;
}

/** `value` as a list. @throws {QmpError} `protocol` */
export function asList(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw wrongType(what, "a list");
  return value;
}

/** `value` as a string. @throws {QmpError} `protocol` */
export function asText(value: unknown, what: string): string {
  if (typeof value !== "string") throw wrongType(what, "a string");
  return value;
}

/** `value` as a number that is not negative. @throws {QmpError} `protocol` */
export function asNumber(value: unknown, what: string): number {
  if (typeof value !== "number" || !(value >= 0)) throw wrongType(what, "a number");
  return value;
}

/** Whether `value` is a JSON object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function wrongType(what: string, type: string): QmpError {
  return new QmpError("protocol", `Cannot understand QEMU: ${what} is not ${type}`);
}
