/**
 * Waiting that can be ended.
 *
 * @module
 */

import type { Clock } from "./ports.ts";

/** Resolves after `ms`, or as soon as `signal` is aborted. */
export async function pause(
  ms: number,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const end = () => resolve();
  const timer = clock.timer(ms, end);
  signal.addEventListener("abort", end);
  await promise;
  timer.clear();
  signal.removeEventListener("abort", end);
}
