/**
 * The smallest guest: a boot sector that beats and dirties memory, for machines too small or too big for Linux.
 *
 * It switches to 32 bits with PAE paging, so that the memory it dirties may lie anywhere, also above 4 GiB.
 *
 * @module
 */

import type { LinuxLoad } from "./linux_guest.ts";

/** Where a BIOS loads it. */
const ORIGIN = 0x7c00;
const SECTOR_BYTES = 512;
/** A BIOS takes a disk for empty that is smaller than a cylinder (504 KiB). */
const IMAGE_BYTES = 1024 * 1024;
/** Input clock of the PC's timer, in Hz. */
const TIMER_HZ = 1_193_182;
/** Where the program sees the range that it dirties. */
const WINDOW = 0x4000_0000;
const MAX_WINDOW_MIB = 1024;
const LARGE_PAGE_MIB = 2;
/** Present, writable, large. */
const LARGE_PAGE_FLAGS = 0x83;

/** Addresses of what {@linkcode bootSector} fills in. */
const parameters = {
  /** First entry of the page table of the window: 64 bits. */
  firstEntry: 0x7de0,
  /** Size of the window in words of 32 bits. */
  words: 0x7de8,
  /** Its end, as the program sees it. */
  end: 0x7dec,
  /** Pages changed at each beat. */
  pagesPerBeat: 0x7df0,
  /** Timer clocks per beat: 16 bits. */
  divisor: 0x7df4,
} as const;

/** Address, bytes, instruction; numbers with h are hexadecimal. The listing is the program: its bytes are used. */
const LISTING = `
7c00 fa                   cli
7c01 31c0                 xor ax, ax
7c03 8ed8                 mov ds, ax
7c05 0f0116c87d           lgdt [7dc8]
7c0a 0f20c0               mov eax, cr0
7c0d 0c01                 or al, 1
7c0f 0f22c0               mov cr0, eax
7c12 ea177c0800           jmp 8:7c17                ; to 32 bits, flat
7c17 b810000000           mov eax, 10h
7c1c 8ed8                 mov ds, eax
7c1e 8ec0                 mov es, eax
7c20 8ed0                 mov ss, eax
7c22 bc007c0000           mov esp, 7c00h
7c27 31c0                 xor eax, eax
7c29 bf00100000           mov edi, 1000h            ; PAE tables: root at 1000,
7c2e b9000c0000           mov ecx, c00h
7c33 f3ab                 rep stosd
7c35 c7050010000001200000 mov dword [1000h], 2001h  ; 0 to 1 GiB as it is,
7c3f c7050810000001300000 mov dword [1008h], 3001h  ; the range at 1 GiB
7c49 b083                 mov al, 83h               ; pages of 2 MiB
7c4b 31d2                 xor edx, edx
7c4d bf00200000           mov edi, 2000h
7c52 e8ca000000           call 7d21
7c57 a1e07d0000           mov eax, [7de0]
7c5c 8b15e47d0000         mov edx, [7de4]
7c62 e8ba000000           call 7d21
7c67 b800100000           mov eax, 1000h
7c6c 0f22d8               mov cr3, eax
7c6f 0f20e0               mov eax, cr4
7c72 0c20                 or al, 20h                ; PAE
7c74 0f22e0               mov cr4, eax
7c77 0f20c0               mov eax, cr0
7c7a 0d00000080           or eax, 80000000h         ; paging
7c7f 0f22c0               mov cr0, eax
7c82 bf00000040           mov edi, 40000000h
7c87 89fe                 mov esi, edi              ; esi: next page to change
7c89 8b0de87d0000         mov ecx, [7de8]
7c8f e30e                 jecxz 7c9f
7c91 69c00d661900         imul eax, eax, 1664525    ; fill the range with noise
7c97 055ff36e3c           add eax, 1013904223
7c9c ab                   stosd
7c9d e2f2                 loop 7c91
7c9f 89c7                 mov edi, eax              ; edi: state of the noise
7ca1 0f011dce7d0000       lidt [7dce]
7ca8 b034                 mov al, 34h               ; timer 0: rate generator
7caa e643                 out 43h, al
7cac a0f47d0000           mov al, [7df4]
7cb1 e640                 out 40h, al
7cb3 a0f57d0000           mov al, [7df5]
7cb8 e640                 out 40h, al
7cba b0ff                 mov al, ffh               ; no interrupt but the timer's
7cbc e6a1                 out a1h, al
7cbe 48                   dec eax
7cbf e621                 out 21h, al
7cc1 31ed                 xor ebp, ebp              ; ebp: number of the beat
7cc3 fb                   sti
7cc4 f4                   hlt
7cc5 b90a000000           mov ecx, 10
7cca 51                   push ecx                  ; the line, last character first
7ccb 89e8                 mov eax, ebp
7ccd 31d2                 xor edx, edx
7ccf f7f1                 div ecx
7cd1 80c230               add dl, 30h
7cd4 52                   push edx
7cd5 85c0                 test eax, eax
7cd7 75f4                 jnz 7ccd
7cd9 6a20                 push 20h
7cdb 6a42                 push 42h
7cdd 6a48                 push 48h
7cdf 5b                   pop ebx
7ce0 bafd030000           mov edx, 3fdh             ; COM1: wait until it takes a byte
7ce5 ec                   in al, dx
7ce6 a820                 test al, 20h
7ce8 74fb                 jz 7ce5
7cea b2f8                 mov dl, f8h
7cec 88d8                 mov al, bl
7cee ee                   out dx, al
7cef 3c0a                 cmp al, 10
7cf1 75ec                 jne 7cdf
7cf3 45                   inc ebp
7cf4 8b0df07d0000         mov ecx, [7df0]
7cfa e3c7                 jecxz 7cc3
7cfc 69ff0d661900         imul edi, edi, 1664525
7d02 81c75ff36e3c         add edi, 1013904223
7d08 893e                 mov [esi], edi            ; changes a page
7d0a 81c600100000         add esi, 1000h
7d10 3b35ec7d0000         cmp esi, [7dec]
7d16 7205                 jb 7d1d
7d18 be00000040           mov esi, 40000000h
7d1d e2dd                 loop 7cfc
7d1f eba2                 jmp 7cc3
7d21 b900020000           mov ecx, 512              ; one table of 512 pages from edx:eax
7d26 8907                 mov [edi], eax
7d28 895704               mov [edi+4], edx
7d2b 83c708               add edi, 8
7d2e 0500002000           add eax, 200000h
7d33 83d200               adc edx, 0
7d36 e2ee                 loop 7d26
7d38 c3                   ret
7d39 50                   push eax                  ; the timer's interrupt only ends hlt
7d3a b020                 mov al, 20h
7d3c e620                 out 20h, al
7d3e 58                   pop eax
7d3f cf                   iretd
7db0 0000000000000000     .quad 0                   ; descriptors
7db8 ffff0000009acf00     .quad 00cf9a000000ffffh   ; 8: code
7dc0 ffff00000092cf00     .quad 00cf92000000ffffh   ; 10h: data
7dc8 1700                 .word 23
7dca b07d0000             .long 7db0h
7dce 4700                 .word 71
7dd0 947d0000             .long 7d94h               ; so that the only gate there is, is number 8
7dd4 397d                 .word 7d39h
7dd6 0800                 .word 8
7dd8 008e                 .word 8e00h
7dda 0000                 .word 0
7dfe 55aa                 .word aa55h               ; what a BIOS boots
`;

/** What the boot sector does once it runs. */
export interface BootSectorLoad extends Omit<LinuxLoad, "secretToken"> {
  /** Where the working set begins in guest-physical memory: a multiple of 2, at least 2; 2 by default. */
  beginMiB?: number;
  /** Time between two beats: 1 to 54; 10 by default. */
  beatMs?: number;
}

/**
 * The boot sector: fills the working set with noise, then says `HB <n>` on COM1 at every beat and
 * changes the next pages of the working set, one word each, for ever.
 *
 * @throws {RangeError} when a number is out of its range
 */
export function bootSector(load: BootSectorLoad): Uint8Array<ArrayBuffer> {
  const { beginMiB = LARGE_PAGE_MIB, beatMs = 10, workingSetMiB } = load;
  const pagesPerBeat = Math.round((load.dirtyMiBPerSecond * 256 * beatMs) / 1000);
  if (
    !Number.isSafeInteger(beginMiB) || beginMiB < LARGE_PAGE_MIB || beginMiB % LARGE_PAGE_MIB !== 0
  ) {
    throw new RangeError(`Cannot load the guest: ${beginMiB} is not a positive multiple of 2 MiB`);
  }
  if (!Number.isInteger(workingSetMiB) || workingSetMiB < 1 || workingSetMiB > MAX_WINDOW_MIB) {
    throw new RangeError(
      `Cannot load the guest: a working set of ${workingSetMiB} MiB is not 1 to 1024`,
    );
  }
  if (!(beatMs >= 1 && beatMs <= 54)) {
    throw new RangeError(`Cannot load the guest: ${beatMs} ms between beats is not 1 to 54`);
  }
  if (!(pagesPerBeat >= 0 && pagesPerBeat <= 0xffff_ffff)) {
    throw new RangeError(`Cannot load the guest: ${load.dirtyMiBPerSecond} MiB/s is no rate`);
  }
  const sector = assembled();
  const view = new DataView(sector.buffer);
  const entry = BigInt(beginMiB) * 1024n * 1024n + BigInt(LARGE_PAGE_FLAGS);
  view.setBigUint64(parameters.firstEntry - ORIGIN, entry, true);
  view.setUint32(parameters.words - ORIGIN, (workingSetMiB * 1024 * 1024) / 4, true);
  view.setUint32(parameters.end - ORIGIN, WINDOW + workingSetMiB * 1024 * 1024, true);
  view.setUint32(parameters.pagesPerBeat - ORIGIN, pagesPerBeat, true);
  view.setUint16(parameters.divisor - ORIGIN, Math.round((TIMER_HZ * beatMs) / 1000), true);
  return sector;
}

/** Writes a disk image that begins with the boot sector, as `QemuOptions.guest.bootSector` wants it. */
export async function writeBootSector(path: string, load: BootSectorLoad): Promise<void> {
  await Deno.writeFile(path, bootSector(load));
  await Deno.truncate(path, IMAGE_BYTES);
}

function assembled(): Uint8Array<ArrayBuffer> {
  const sector = new Uint8Array(SECTOR_BYTES);
  for (const [, address = "", bytes = ""] of LISTING.matchAll(/^([0-9a-f]{4}) ([0-9a-f]+)/gm)) {
    sector.set(Uint8Array.fromHex(bytes), parseInt(address, 16) - ORIGIN);
  }
  return sector;
}
