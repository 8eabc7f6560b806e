/**
 * Processes by `/proc`: named so that no other can be taken for them, and when they are gone for good.
 *
 * @module
 */

import { KvmError } from "./errors.ts";

/** A process, named so that a later one with the same PID cannot be taken for it. */
export interface ProcessIdentity {
  /** Process id. */
  pid: number;
  /** `/proc/PID/stat`, field 22: clock ticks after boot. */
  startTime: string;
  /** `/proc/sys/kernel/random/boot_id`: start times count from this boot. */
  bootId: string;
}

/** A process as it is now. */
export interface ProcessFacts extends ProcessIdentity {
  /** One letter, see proc_pid_stat(5). */
  state: string;
  /** Effective user id: whose files it can open. */
  uid: number;
}

/** What `/proc/PID/stat` says, as far as it is used here. */
export interface ProcessStat {
  /** One letter: R, S, D, Z (zombie), X (dead), ... */
  state: string;
  /** Clock ticks in user mode. */
  userTicks: number;
  /** Clock ticks in the kernel. */
  systemTicks: number;
  /** Clock ticks after boot, verbatim. */
  startTime: string;
}

/** USER_HZ: what `/proc` counts in on every Linux that Deno runs on, whatever the kernel's own HZ. */
const TICKS_PER_SECOND = 100;

/**
 * Parses `/proc/PID/stat`.
 *
 * @throws {KvmError} `unsupported` when it is not such a line
 * @see proc_pid_stat(5)
 *
 * @example
 * ```ts
 * import { parseStat } from "./process.ts";
 * import { equal } from "node:assert/strict";
 *
 * const rest = "S 1 7 7 0 -1 4194560 0 0 0 0 12 34 0 0 20 0 1 0 5678 0 0";
 * equal(parseStat(`7 (odd) name)) ${rest}`).startTime, "5678");
 * ```
 */
export function parseStat(line: string): ProcessStat {
  // Field 2 is the program's name in parentheses; it may contain anything, also spaces and parentheses.
  const fields = line.slice(line.lastIndexOf(")") + 1).trim().split(/\s+/);
  // fields[0] is field 3 of the manual page.
  const state = fields[0], startTime = fields[19];
  const userTicks = Number(fields[11]), systemTicks = Number(fields[12]);
  if (
    state === undefined || !/^[A-Za-z]$/.test(state) || startTime === undefined ||
    !/^\d+$/.test(startTime) ||
    !Number.isSafeInteger(userTicks) || !Number.isSafeInteger(systemTicks)
  ) {
    throw new KvmError(
      "unsupported",
      "Cannot read a process's state: /proc/PID/stat has another form",
    );
  }
  return { state, userTicks, systemTicks, startTime };
}

/**
 * What is known of the process `pid` now.
 *
 * @throws {KvmError} `gone` when there is none (or `/proc` hides it), `unsupported`
 */
export function readProcess(pid: number): ProcessFacts {
  const stat = readStat(pid);
  if (stat === null) throw new KvmError("gone", `Cannot find process ${pid}: it is not in /proc`);
  const status = readProc(`/proc/${pid}/status`);
  // Real, effective, saved, file system.
  const uid = status?.match(/^Uid:\s+\d+\s+(\d+)/m)?.[1];
  if (uid === undefined) {
    throw new KvmError("gone", `Cannot find the user of process ${pid}: it has just ended`);
  }
  return {
    pid,
    startTime: stat.startTime,
    bootId: readBootId(),
    state: stat.state,
    uid: Number(uid),
  };
}

/**
 * Whether that very process can never run again (PROTOCOL.md section 7): `/proc/PID` is missing, a zombie or dead, or
 * names a process with another start time. Before its parent reaps it a killed QEMU is a zombie that still has a PID.
 */
export function isGone(process: ProcessIdentity): boolean {
  if (process.bootId !== readBootId()) return true;
  const stat = readStat(process.pid);
  return stat === null || /^[ZXx]$/.test(stat.state) || stat.startTime !== process.startTime;
}

/** CPU seconds (user and kernel) that the process has used so far; null when it is gone. */
export function cpuSeconds(pid: number): number | null {
  const stat = readStat(pid);
  return stat === null ? null : (stat.userTicks + stat.systemTicks) / TICKS_PER_SECOND;
}

function readStat(pid: number): ProcessStat | null {
  const line = readProc(`/proc/${pid}/stat`);
  return line === null ? null : parseStat(line);
}

function readBootId(): string {
  return Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
}

/** A file of a process, or null when there is no such process any more. */
function readProc(path: string): string | null {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || isNoSuchProcess(error)) return null;
    throw error;
  }
}

/** Whether a file below `/proc/PID` was opened while the process lived and read after it was reaped: ESRCH, by its text alone. */
export function isNoSuchProcess(error: unknown): boolean {
  return error instanceof Error && error.message.includes("(os error 3)");
}
