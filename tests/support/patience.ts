/**
 * Waiting for what must come, however slow the machine is.
 *
 * @module
 */

import assert from "node:assert/strict";
import { delay } from "./qemu.ts";

/** Whatever hangs here fails here. */
export const patienceMs = 90_000;

/** Waits until `condition` holds, asking every few ms. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadlineMs = performance.now() + patienceMs;
  while (!await condition()) {
    assert.ok(performance.now() < deadlineMs, `Cannot go on: ${what} does not come about`);
    await delay(5);
  }
}
