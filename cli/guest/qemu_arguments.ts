import type { LinuxGuest } from "./linux_guest.ts";

/** What is booted: a Linux guest with its command line, or a disk image that begins with a boot sector. */
export type GuestImage = (LinuxGuest & { append: string }) | { bootSector: string };

/** Where the guest's RAM is: process memory, an anonymous shared file, or a shared file with a name. */
export type GuestMemoryKind = "private" | "memfd" | "file";

/** What a virtual machine is. The same on both sides of a migration, but for what `incoming` and `paused` say. */
export interface QemuOptions {
  /** What it boots. */
  guest: GuestImage;
  /** Guest RAM. */
  memoryMiB: number;
  /** `q35` (the default), `pc`, or a versioned machine type. */
  machine?: string;
  /** 1 by default. */
  vcpus?: number;
  /** `private` by default. */
  memory?: GuestMemoryKind;
  /** Whether QEMU touches all memory before it starts. */
  prealloc?: boolean;
  /** By default what {@linkcode defaultAccelerator} says. */
  accel?: "kvm" | "tcg";
  /** A migration URI, for instance `defer`; absent for a machine that boots. */
  incoming?: string;
  /** Whether the machine waits for `cont` before it runs. */
  paused?: boolean;
  /** All zeros by default. */
  uuid?: string;
  /** None by default. */
  name?: string;
  /** A display adapter with 16 MiB of memory of its own; none by default. */
  vga?: boolean;
  /** How many QMP sockets; 1 by default. Each takes one client at a time. */
  qmpCount?: number;
  /** Where the private directory for sockets and the memory file is made; the system's temporary one by default. */
  directory?: string;
}

/** The name of the machine's main RAM block in its migration stream. */
export const mainBlockName = "m0";

/**
 * KVM where the CPU shows that it can, else emulation. The flag decides and not `/dev/kvm`, which may
 * open on a host where a stock kernel does not get far.
 */
export function defaultAccelerator(): "kvm" | "tcg" {
  return /^flags\s*:.*\b(vmx|svm)\b/m.test(Deno.readTextFileSync("/proc/cpuinfo")) ? "kvm" : "tcg";
}

/** How many serial ports a guest has; its heartbeat is on the last one. */
export function serialPortCount(guest: GuestImage): number {
  return "bootSector" in guest ? 1 : 2;
}

/**
 * QEMU's arguments. `directory` holds the sockets: `qmp0`, ... which QEMU makes, and `serial0`, ... to which it connects.
 *
 * @see https://www.qemu.org/docs/master/system/invocation.html
 */
export function qemuArguments(options: QemuOptions, directory: string): string[] {
  const accel = options.accel ?? defaultAccelerator();
  const size = memorySize(options.memoryMiB, accel);
  const args = [
    ...["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"],
    ...["-machine", `${options.machine ?? "q35"},memory-backend=${mainBlockName}`],
    ...["-accel", accel],
    ...["-smp", String(options.vcpus ?? 1), "-m", size],
    ...["-object", memoryBackend(options, size, directory)],
    ...["-vga", options.vga ? "std" : "none"],
  ];
  if (options.name !== undefined) args.push("-name", options.name);
  if (options.uuid !== undefined) args.push("-uuid", options.uuid);
  for (let i = 0; i < (options.qmpCount ?? 1); i++) {
    args.push("-qmp", `unix:${directory}/qmp${i},server=on,wait=off`);
  }
  for (let i = 0; i < serialPortCount(options.guest); i++) {
    args.push("-chardev", `socket,id=serial${i},path=${directory}/serial${i}`);
    args.push("-serial", `chardev:serial${i}`);
  }
  args.push(...bootArguments(options.guest));
  if (options.paused) args.push("-S");
  if (options.incoming !== undefined) args.push("-incoming", options.incoming);
  return args;
}

/**
 * Under emulation 8 KiB more than asked for. Before 9.0 QEMU syncs the dirty bitmap of RAM that is a multiple of 256 KiB
 * without telling the emulator's TLB, which then writes to pages without marking them: such writes are lost in any
 * migration. RAM of another size takes the slower path, which does tell it.
 *
 * @see QEMU, "physmem: Fix migration dirty bitmap coherency with TCG memory access"
 */
function memorySize(memoryMiB: number, accel: "kvm" | "tcg"): string {
  return accel === "tcg" ? `${memoryMiB * 1024 + 8}K` : `${memoryMiB}M`;
}

/** Every kind is a backend with one id: the RAM block has the same name on both sides whatever the kind. */
function memoryBackend(options: QemuOptions, size: string, directory: string): string {
  const common = `id=${mainBlockName},size=${size}${options.prealloc ? ",prealloc=on" : ""}`;
  switch (options.memory ?? "private") {
    case "private":
      return `memory-backend-ram,${common}`;
    case "memfd":
      return `memory-backend-memfd,${common},share=on`;
    case "file":
      return `memory-backend-file,${common},share=on,mem-path=${directory}/${mainBlockName}`;
  }
}

function bootArguments(guest: GuestImage): string[] {
  if ("bootSector" in guest) {
    // A disk that both machine types boot from, and that cannot be written: nothing to copy with the VM.
    return ["-drive", `file=${guest.bootSector},format=raw,if=virtio,readonly=on`];
  }
  return ["-kernel", guest.kernel, "-initrd", guest.initrd, "-append", guest.append];
}
