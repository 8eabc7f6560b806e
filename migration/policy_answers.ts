/**
 * What a policy's functions may answer.
 *
 * @module
 */

import { didYouMean } from "./did_you_mean.ts";
import { isRecord, PolicyFault, refuseUnknownKeys, shown } from "./policy_check.ts";
import type { PolicyDefinition } from "./policy_types.ts";
import type { LiveSettings } from "./ports.ts";

/** QEMU's own cap on `downtime-limit`. */
const MAX_DOWNTIME_LIMIT_MS = 2_000_000;

/** What `select` returned, if it names a level. @throws {PolicyFault} */
export function checkSelected(value: unknown, { levels }: PolicyDefinition): string {
  if (value instanceof Promise) {
    throw new PolicyFault("select() returned a promise: it must return the name of a level");
  }
  if (typeof value === "string" && Object.hasOwn(levels, value)) return value;
  const known = Object.keys(levels);
  const meant = typeof value === "string" ? didYouMean(value, known) : "";
  throw new PolicyFault(
    `select() returned ${shown(value)}, which is none of its levels (${known.join(", ")})${meant}`,
  );
}

/** What `round` returned, if these are settings. @throws {PolicyFault} */
export function checkLiveSettings(value: unknown): LiveSettings {
  if (!isRecord(value) || value instanceof Promise) {
    throw new PolicyFault(`round() returned ${shown(value)}: it must return settings, or {}`);
  }
  refuseUnknownKeys(value, ["autoConverge", "maxBandwidth", "downtimeLimitMs"], "round()");
  const { autoConverge, maxBandwidth, downtimeLimitMs } = value;
  const settings: LiveSettings = {};
  if (autoConverge !== undefined) {
    if (typeof autoConverge !== "boolean") {
      throw new PolicyFault("round().autoConverge is not a boolean");
    }
    settings.autoConverge = autoConverge;
  }
  if (maxBandwidth !== undefined) {
    settings.maxBandwidth = checkInteger(maxBandwidth, "round().maxBandwidth", {
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
    });
  }
  if (downtimeLimitMs !== undefined) {
    settings.downtimeLimitMs = checkInteger(downtimeLimitMs, "round().downtimeLimitMs", {
      min: 1,
      max: MAX_DOWNTIME_LIMIT_MS,
    });
  }
  return settings;
}

function checkInteger(value: unknown, path: string, range: { min: number; max: number }): number {
  if (
    typeof value === "number" && Number.isInteger(value) && value >= range.min && value <= range.max
  ) return value;
  throw new PolicyFault(`${path} is not a whole number from ${range.min} to ${range.max}`);
}
