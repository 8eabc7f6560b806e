import { cpuUsage } from "node:process";

/** One run of a stage. */
export interface StageRun {
  /** Guest bytes moved. */
  bytes: number;
  /** Calls that moved them; null where that says nothing. */
  calls: number | null;
  seconds: number;
  /** Of this process: user and kernel. */
  cpuSeconds: number;
}

/** Runs `action`, which returns how many bytes it moved, and in how many calls. */
export async function timed(
  action: () => Promise<{ bytes: number; calls?: number }>,
): Promise<StageRun> {
  const cpu = cpuUsage();
  const startedMs = performance.now();
  const { bytes, calls } = await action();
  const seconds = (performance.now() - startedMs) / 1000;
  const { user, system } = cpuUsage(cpu);
  return { bytes, calls: calls ?? null, seconds, cpuSeconds: (user + system) / 1e6 };
}
