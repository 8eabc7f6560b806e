/**
 * The system's clocks, in the shape that the algorithm wants them.
 *
 * @module
 */

import type { Clock } from "../migration/ports.ts";

/** Monotonic time and timers of this process. */
export const systemClock: Clock = {
  now: () => performance.now(),
  date: () => new Date(),
  timer(ms, callback) {
    const id = setTimeout(callback, ms);
    return { clear: () => clearTimeout(id) };
  },
};

/** CPU seconds, user and system, that this process has used since it started. */
export function ownCpuSeconds(): number {
  // Field 14 and 15 of /proc/self/stat, in ticks of 10 ms on every Linux that Deno runs on.
  const stat = Deno.readTextFileSync("/proc/self/stat");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
