/**
 * The signal that brings a thread out of KVM_RUN.
 *
 * @module
 */

import { errnoError, errnos, lastErrno, libc } from "./libc.ts";

/** SIGUSR2: SIGUSR1 is the JavaScript engine's own. @see signal(7) */
const SIGUSR2 = 12;
/** `struct sigaction` of glibc on x86-64: handler u64, mask of 1024 bits, flags i32, restorer u64. */
const SIGACTION_BYTES = 152;
const SIG_DFL = 0n, SIG_IGN = 1n;

/**
 * Makes the signal harmless to this process, unless somebody handles it already: by default it would end the process, and ignored
 * it would not end KVM_RUN.
 *
 * @throws {KvmError} `system`
 */
export function prepareKickSignal(): void {
  const { sigaction, abs } = libc();
  const action = new Uint8Array(SIGACTION_BYTES);
  const before = new Uint8Array(SIGACTION_BYTES);
  // Any function of libc that takes an int and touches nothing is a handler that may run on any thread at any time.
  new DataView(action.buffer).setBigUint64(0, Deno.UnsafePointer.value(abs), true);
  // SAFETY: both are `struct sigaction`, referenced until the call has returned; the handler's code is never unloaded.
  let result = sigaction(SIGUSR2, action, before);
  const handler = new DataView(before.buffer).getBigUint64(0, true);
  if (result === 0 && handler !== SIG_DFL && handler !== SIG_IGN) {
    // SAFETY: what was in force a moment ago.
    result = sigaction(SIGUSR2, before, action);
  }
  if (result !== 0) throw errnoError("Cannot handle SIGUSR2", lastErrno());
}

/**
 * Interrupts one thread of this process.
 *
 * @param threadId from `gettid`, of a thread that lives
 * @throws {KvmError} `system`; a thread that has ended is fine
 */
export function kickThread(threadId: number): void {
  // SAFETY: numbers only; the signal has a handler that does nothing.
  if (libc().tgkill(Deno.pid, threadId, SIGUSR2) === 0) return;
  const errno = lastErrno();
  if (errno !== errnos.ESRCH) throw errnoError(`Cannot interrupt thread ${threadId}`, errno);
}
