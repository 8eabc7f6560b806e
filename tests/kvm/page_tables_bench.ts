/**
 * What a refresh of the monitor costs per GiB of guest memory: all that it does, on memory of this process instead of a QEMU's. What
 * processes have is not searched for page tables; the rest is.
 */

import { ProcessPhysicalMemory } from "../../kvm/guest_physical_process.ts";
import { FileDescriptor, libc, openFlags } from "../../kvm/libc.ts";
import { Mapping } from "../../kvm/mapping.ts";
import { parseMaps } from "../../kvm/memory_map.ts";
import { GuestPaging } from "../../kvm/page_tables.ts";
import { SyntheticGuest } from "../support/synthetic_guest.ts";

const GIB = 2 ** 30;
const PAGES = GIB / 4096;
/** Below that the tables are. */
const FIRST_USER_PAGE = 0x2000;
const PROCESSES = 64;
const PROGRAM = 0x40_0000n;

libc();

interface BenchGuest {
  paging: GuestPaging;
  [Symbol.dispose](): void;
}

/** A GiB in which nothing is zero, a share of it mapped by processes, in pages of 4 KiB. */
function prepare(memory: "private" | "shared", userShare: number): BenchGuest {
  const resources = new DisposableStack();
  const mapping = resources.use(memory === "private" ? Mapping.anonymous(GIB) : sharedMapping());
  const guest = new SyntheticGuest({
    lowPages: PAGES,
    highPages: 0,
    words: new Uint32Array(mapping.bytes.buffer),
  });
  for (let page = 0; page < PAGES; page++) guest.words[page * 1024 + 7] = page | 0x8000_0000;
  guest.words.fill(0, 0, FIRST_USER_PAGE * 1024);
  const kernel = guest.kernel();
  const processes = Array.from({ length: PROCESSES }, () => guest.process(kernel));
  const userPages = Math.min(PAGES - FIRST_USER_PAGE, Math.floor(PAGES * userShare));
  for (let index = 0; index < userPages; index++) {
    const process = processes[index % PROCESSES]!;
    const address = PROGRAM + BigInt(Math.floor(index / PROCESSES)) * 4096n;
    guest.map(process, address, { page: FIRST_USER_PAGE + index, user: true });
  }
  const physical = resources.use(ProcessPhysicalMemory.open({
    pid: Deno.pid,
    blocks: [{
      name: "m0",
      bytes: GIB,
      base: Number(mapping.unsafeAddress),
      ranges: [{ block: "m0", address: 0, bytes: GIB, offset: 0 }],
    }],
    mappings: parseMaps(Deno.readTextFileSync("/proc/self/maps")),
  }));
  const topPages = [{ cpu: 0, page: processes[0]! }];
  const paging = GuestPaging.of(physical, { why: null, levels: 4, topPages });
  const { why, addressSpaces } = paging.read(Infinity);
  if (why !== null || addressSpaces !== PROCESSES) throw new Error(`${why}, ${addressSpaces}`);
  return { paging, [Symbol.dispose]: () => resources.dispose() };
}

/** Shared memory as QEMU has it from `memory-backend-file`. */
function sharedMapping(): Mapping {
  const path = Deno.makeTempFileSync({ dir: "/dev/shm" });
  try {
    Deno.truncateSync(path, GIB);
    using file = FileDescriptor.open(path, { flags: openFlags.O_RDWR });
    return Mapping.ofFile(file.unsafeFd, GIB);
  } finally {
    Deno.removeSync(path);
  }
}

let current: { key: string; guest: BenchGuest } | null = null;

/** The guest of the case that is run, made when its first iteration asks for it; the one before is gone then. */
function guestOf(memory: "private" | "shared", userShare: number): BenchGuest {
  const key = `${memory} ${userShare}`;
  if (current?.key !== key) {
    current?.guest[Symbol.dispose]();
    current = { key, guest: prepare(memory, userShare) };
  }
  return current.guest;
}

for (const memory of ["private", "shared"] as const) {
  for (const userShare of [0.05, 0.5, 0.95]) {
    Deno.bench(`refresh, 1 GiB ${memory}, ${userShare * 100} % of processes`, {
      group: `monitor, ${memory} memory`,
      baseline: userShare === 0.05,
      n: 10,
      warmup: 2,
    }, (bench) => {
      const { paging } = guestOf(memory, userShare);
      bench.start();
      paging.read(Infinity);
      bench.end();
    });
  }
}
