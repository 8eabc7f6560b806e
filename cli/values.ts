/**
 * What people type as values: durations, rates, addresses, peers. Each parser takes the text and
 * gives the value, or says what it accepts; none guesses a missing unit.
 *
 * @module
 */

import { isEncodedKey } from "../migration/identity.ts";

/** A value, or what would have been accepted instead. */
export type Parsed<T> = { ok: true; value: T } | { ok: false; expected: string };

/** Where to connect to, or to listen. */
export interface Address {
  /** A name, an IPv4 address, or an IPv6 address without brackets. */
  host: string;
  /** 0 to 65535; 0 lets the system choose, when listening. */
  port: number;
}

const durationUnitsMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;

const sizeUnitsBytes = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
} as const;

/** Longest duration: timers in JavaScript hold 31 bits of milliseconds. */
const MAX_DURATION_MS = 2 ** 31 - 1;

/**
 * Milliseconds of a duration with its unit: `300ms`, `5s`, `1.5m`, `2h`.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(parseDuration("1.5s"), { ok: true, value: 1500 });
 * assert.equal(parseDuration("5").ok, false);
 * ```
 */
export function parseDuration(text: string): Parsed<number> {
  const match = /^(\d{1,10}(?:\.\d{1,6})?)(ms|s|m|h)$/.exec(text);
  const ms = match === null
    ? NaN
    : Math.round(Number(match[1]) * durationUnitsMs[match[2] as keyof typeof durationUnitsMs]);
  if (ms > 0 && ms <= MAX_DURATION_MS) return { ok: true, value: ms };
  return {
    ok: false,
    expected: "a duration above zero with its unit (ms, s, m, h), such as 300ms or 5s",
  };
}

/** Bytes per second of a rate: `100MiB`, `1GB/s`. */
export function parseRate(text: string): Parsed<number> {
  const bytes = sizeInBytes(text.endsWith("/s") ? text.slice(0, -2) : text);
  if (bytes > 0) return { ok: true, value: bytes };
  return {
    ok: false,
    expected:
      "a rate above zero in bytes per second with its unit (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB), such as 100MiB/s or 1GB",
  };
}

/** Bytes of a size: `4GiB`, `512MB`. */
export function parseSize(text: string): Parsed<number> {
  const bytes = sizeInBytes(text);
  if (bytes > 0) return { ok: true, value: bytes };
  return {
    ok: false,
    expected:
      "a size above zero with its unit (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB), such as 4GiB",
  };
}

/** NaN when the text is no size, or one that no exact number can hold. */
function sizeInBytes(text: string): number {
  const match = /^(\d{1,15}(?:\.\d{1,6})?)([kKMGT]?i?B)$/.exec(text);
  const unit = match === null ? undefined : match[2];
  if (match === null || unit === undefined || !Object.hasOwn(sizeUnitsBytes, unit)) return NaN;
  const bytes = Math.round(Number(match[1]) * sizeUnitsBytes[unit as keyof typeof sizeUnitsBytes]);
  return Number.isSafeInteger(bytes) ? bytes : NaN;
}

/**
 * A host and a port: `host-b:7900`, `192.0.2.7:7900`, `[2001:db8::7]:7900`. Port 0 only to listen.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(parseAddress("[::1]:79"), { ok: true, value: { host: "::1", port: 79 } });
 * assert.equal(parseAddress("::1:7900").ok, false);
 * ```
 */
export function parseAddress(text: string, options = { listen: false }): Parsed<Address> {
  const match =
    /^(?:\[([0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?)\]|([A-Za-z0-9._-]{1,253})):(\d{1,5})$/
      .exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host !== undefined && port <= 65_535 && (port > 0 || options.listen)) {
    return { ok: true, value: { host, port } };
  }
  return {
    ok: false,
    expected: options.listen
      ? "HOST:PORT, such as 0.0.0.0:7900 or [::]:7900; port 0 takes a free one"
      : "HOST:PORT, such as host-b:7900, 192.0.2.7:7900 or [2001:db8::7]:7900",
  };
}

/** The address as it is typed: IPv6 in brackets. */
export function formatAddress(address: Address): string {
  return address.host.includes(":")
    ? `[${address.host}]:${address.port}`
    : `${address.host}:${address.port}`;
}

/** Whether this may name a peer: `[A-Za-z0-9._-]{1,64}`. */
export function isPeerName(text: string): boolean {
  return /^[A-Za-z0-9._-]{1,64}$/.test(text);
}

/** A peer's name. */
export function parsePeerName(text: string): Parsed<string> {
  if (isPeerName(text)) return { ok: true, value: text };
  return { ok: false, expected: "a name: letters, digits, . _ -; at most 64" };
}

/** A public key, as `key show` prints it. */
export function parsePublicKey(text: string): Parsed<string> {
  if (isEncodedKey(text)) return { ok: true, value: text };
  return {
    ok: false,
    expected: "a public key: 44 characters of base64, as `sealift key show` prints it",
  };
}

/** A path: any text that the system takes for one. */
export function parsePath(text: string): Parsed<string> {
  if (/^[^\0]+$/.test(text)) return { ok: true, value: text };
  return { ok: false, expected: "a path" };
}

/** How pages reach the memory of the destination's QEMU; `auto` takes the best that works. */
export const landModes = ["auto", "mapped", "process", "stream"] as const;
/** One of {@linkcode landModes}. */
export type LandMode = typeof landModes[number];

/** A peer's name or its key. The two cannot be taken for each other: a key ends in `=`, a name never does. */
export function parsePeer(text: string): Parsed<string> {
  if (isPeerName(text) || isEncodedKey(text)) return { ok: true, value: text };
  return {
    ok: false,
    expected:
      "a name from `sealift peer list` (letters, digits, . _ -; at most 64) or a public key (44 characters of base64)",
  };
}

/** A VM's UUID, in lower case. */
export function parseUuid(text: string): Parsed<string> {
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) {
    return { ok: true, value: text.toLowerCase() };
  }
  return { ok: false, expected: "a UUID, such as 1b4e28ba-2fa1-11d2-883f-0016d3cca427" };
}

/** A migration's id: 32 hexadecimal digits, in lower case. */
export function parseMigrationId(text: string): Parsed<string> {
  if (/^[0-9a-f]{32}$/i.test(text)) return { ok: true, value: text.toLowerCase() };
  return {
    ok: false,
    expected: "a migration's id: 32 hexadecimal digits, as `sealift status` shows it",
  };
}

/** A whole number from `min` to `max`. */
export function parseCount(text: string, range: { min: number; max: number }): Parsed<number> {
  const count = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  if (count >= range.min && count <= range.max) return { ok: true, value: count };
  return { ok: false, expected: `a whole number from ${range.min} to ${range.max}` };
}

/** MiB of a micro-VM's memory. */
export function parseMicroMemory(text: string): Parsed<number> {
  const parsed = parseCount(text, { min: 4, max: 4096 });
  if (parsed.ok && parsed.value % 2 === 0) return parsed;
  return { ok: false, expected: "an even number of MiB from 4 to 4096" };
}
