import type { VmProcess } from "../migration/ports.ts";

/**
 * Whether exactly that process is still there: same boot, same PID, same start time, and no zombie.
 *
 * @see https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
 */
export async function processStatus(
  process: VmProcess,
): Promise<"present" | "gone" | "unknown"> {
  try {
    const bootId = await Deno.readTextFile("/proc/sys/kernel/random/boot_id");
    if (bootId.trim() !== process.bootId) return "gone";
    const stat = await Deno.readTextFile(`/proc/${process.pid}/stat`);
    // Field 2 is the command in parentheses and may hold anything; field 3, the state, follows the last one.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state, startTime] = [fields[0], fields[22 - 3]];
    return state === "Z" || state === "X" || startTime !== process.startTime ? "gone" : "present";
  } catch (error) {
    return error instanceof Deno.errors.NotFound ? "gone" : "unknown";
  }
}
