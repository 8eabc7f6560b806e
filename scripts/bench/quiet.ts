/**
 * How busy the machine is with other work, and waiting until it is not.
 *
 * @module
 */

const TICKS_PER_SECOND = 100;
const LOOK_MS = 250;
/** Of all cores together. */
const QUIET_SHARE = 0.15;
const PATIENCE_MS = 5_000;

/** CPU seconds that the machine has spent on anything, over all cores. @see proc_stat(5) */
export async function busySeconds(): Promise<number> {
  const [line = ""] = (await Deno.readTextFile("/proc/stat")).split("\n");
  const [user, nice, system, , , irq, softirq] = line.trim().split(/\s+/).slice(1).map(Number);
  return (user! + nice! + system! + irq! + softirq!) / TICKS_PER_SECOND;
}

/** Waits until the machine is nearly idle; gives up after 5 s, since medians bear with some noise. */
export async function waitForQuiet(): Promise<void> {
  const deadlineMs = performance.now() + PATIENCE_MS;
  while (performance.now() < deadlineMs) {
    const before = await busySeconds();
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    const share = (await busySeconds() - before) / (LOOK_MS / 1000) / navigator.hardwareConcurrency;
    if (share <= QUIET_SHARE) return;
  }
}
