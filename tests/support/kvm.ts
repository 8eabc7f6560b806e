/**
 * Real guests on /dev/kvm for tests.
 *
 * @module
 */

import { Kvm } from "../../kvm/kvm.ts";
import type { Vcpu } from "../../kvm/vcpu.ts";
import type { Vm } from "../../kvm/vm.ts";

/**
 * Registers a test that needs /dev/kvm. Without it the test is skipped, and its name says why; where `CI=true` promises it, it
 * runs and fails.
 */
export function kvmTest(name: string, test: () => void | Promise<void>): void {
  const why = Kvm.whyUnavailable();
  const ignore = why !== null && Deno.env.get("CI") !== "true";
  Deno.test({ name: ignore ? `${name} (${why})` : name, ignore, fn: test });
}

/**
 * Registers a test that needs one of some programs. Without any it is skipped, and its name says why; where `CI=true` promises
 * them, it runs and fails.
 */
export function toolTest(
  name: string,
  tools: readonly string[],
  test: (tool: string) => Promise<void>,
): void {
  const found = tools.find(isProgram);
  const ignore = found === undefined && Deno.env.get("CI") !== "true";
  Deno.test({
    name: ignore ? `${name} (needs ${tools.join(" or ")})` : name,
    ignore,
    fn: () => test(found ?? tools[0]!),
  });
}

function isProgram(name: string): boolean {
  return (Deno.env.get("PATH") ?? "").split(":").some((folder) => {
    try {
      return Deno.statSync(`${folder}/${name}`).isFile;
    } catch {
      return false;
    }
  });
}

/** A VM with a few instructions at guest-physical 0x1000, in 16-bit real mode. Stack and tables are the caller's business. */
export function realModeGuest(kvm: Kvm, code: readonly number[]): { vm: Vm; vcpu: Vcpu } {
  const vm = kvm.createVm();
  vm.addMemory({ guestAddress: 0x1000, bytes: 0x1000 }).bytes.set(code);
  const vcpu = vm.createVcpu();
  startRealMode(vcpu);
  return { vm, vcpu };
}

/** Lets a fresh vCPU begin at 0x1000. */
export function startRealMode(vcpu: Vcpu): void {
  const sregs = vcpu.getSregs();
  sregs.get("cs").fill(0, 0, 8);
  sregs.get("cs").fill(0, 12, 14);
  vcpu.setSregs(sregs);
  vcpu.setRegs(vcpu.getRegs().assign({ rip: 0x1000n, rflags: 2n }));
}
