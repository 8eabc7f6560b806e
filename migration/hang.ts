/**
 * QEMUs that hang at the one moment at which nothing may be taken back.
 *
 * @module
 */

import type { Clock } from "./ports.ts";
import type { Waiter } from "./waiter.ts";

/** How long a QEMU may still take once nobody waits for what it does, in milliseconds. */
const HANG_MS = 10_000;

/**
 * What `work` comes to, or `hung`: it is waited for as long as it takes, but once `unwanted` is true for ten seconds only.
 *
 * @throws what `work` throws
 */
export async function unlessHung<T>(
  work: Promise<T>,
  { waiter, clock, unwanted }: { waiter: Waiter; clock: Clock; unwanted: () => boolean },
): Promise<T | "hung"> {
  let over = false;
  const wake = () => {
    over = true;
    waiter.wake();
  };
  work.then(wake, wake);
  await waiter.until(() => over || unwanted());
  if (over) return await work;
  const hung = Promise.withResolvers<"hung">();
  const timer = clock.timer(HANG_MS, () => hung.resolve("hung"));
  try {
    return await Promise.race([work, hung.promise]);
  } finally {
    timer.clear();
  }
}
