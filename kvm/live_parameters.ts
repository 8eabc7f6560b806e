/**
 * QEMU's settings for the live phase of an outgoing migration.
 *
 * @module
 */

import type { MigrationSettings, Parameters } from "./migration_settings.ts";

/** Settings of the live phase; an absent one is left as it is. */
export interface LiveParameters {
  /** Bytes per second; 0 is unlimited. */
  maxBandwidth?: number;
  /** How long the VM may be stopped, by QEMU's estimate. */
  downtimeLimitMs?: number;
  /** Whether QEMU may slow the guest down when its memory changes faster than it can be sent. */
  autoConverge?: boolean;
}

/**
 * Prepares QEMU for a migration whose return path ends here. Without `maxBandwidth` there is no limit (QEMU's own is
 * 128 MiB/s). The capability `auto-converge` cannot be switched during a migration: it is on from the beginning, and
 * what it may take is next to nothing until it is asked for.
 *
 * @throws {QmpError}
 */
export async function configure(qemu: MigrationSettings, wanted: LiveParameters): Promise<void> {
  // QEMU refuses the two together.
  const canConverge = qemu.wasOn("auto-converge") !== null && qemu.wasOn("dirty-limit") !== true;
  await qemu.setCapabilities({
    events: true,
    "return-path": true,
    ...(canConverge ? { "auto-converge": true } : {}),
  });
  const autoConverge = wanted.autoConverge ?? qemu.wasOn("auto-converge") === true;
  await qemu.setParameters(
    parametersOf({ maxBandwidth: 0, ...wanted, ...(canConverge ? { autoConverge } : {}) }, qemu),
  );
}

/** The same in QEMU's names; they can be set during a migration. */
export function parametersOf(wanted: LiveParameters, qemu: MigrationSettings): Parameters {
  const { maxBandwidth, downtimeLimitMs, autoConverge } = wanted;
  return {
    ...(maxBandwidth === undefined ? {} : { "max-bandwidth": maxBandwidth }),
    ...(downtimeLimitMs === undefined ? {} : { "downtime-limit": downtimeLimitMs }),
    ...(autoConverge === undefined ? {} : throttle(autoConverge, qemu)),
  };
}

/** As the VM's owner has set it, or next to nothing: 1 % is the least that QEMU takes. */
function throttle(on: boolean, qemu: MigrationSettings): Parameters {
  const names = ["cpu-throttle-initial", "cpu-throttle-increment", "max-cpu-throttle"];
  return Object.fromEntries(names.map((name) => [name, on ? qemu.numberBefore(name) ?? 1 : 1]));
}
