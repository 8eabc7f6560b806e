import assert from "node:assert/strict";
import {
  type PagingMode,
  pagingMode,
  type PagingRegisters,
  parseRegisters,
  readPagingMode,
} from "../../kvm/page_tables_registers.ts";
import { QmpError } from "../../kvm/qmp_error.ts";

const long: PagingRegisters = { cr0: 0x8005_0033n, cr3: 0x2a4_a000n, cr4: 0x6b0n, efer: 0xd01n };
const waiting: PagingRegisters = { cr0: 0x6000_0010n, cr3: 0n, cr4: 0n, efer: 0n };

function printed(registers: readonly PagingRegisters[]): string {
  return registers.map(({ cr0, cr3, cr4, efer }, cpu) => {
    const hex = (value: bigint, digits: number) => value.toString(16).padStart(digits, "0");
    return `\nCPU#${cpu}\nRAX=0000000000000000 RBX=ffffffff9ec1aa40\n` +
      `CR0=${hex(cr0, 8)} CR2=00007ffdb9f42080 CR3=${hex(cr3, 16)} CR4=${hex(cr4, 8)}\n` +
      `DR0=0000000000000000 DR1=0000000000000000\nEFER=${hex(efer, 16)}\nXMM00=0\n`;
  }).join("");
}

function monitor(options: {
  registers: readonly PagingRegisters[];
  cpus?: number;
  target?: string;
  sev?: unknown;
}) {
  const { registers, cpus = registers.length, target = "x86_64", sev } = options;
  return {
    hmp: (line: string) => {
      assert.equal(line, "info registers -a");
      return Promise.resolve(printed(registers));
    },
    execute: (command: string): Promise<unknown> => {
      if (command === "query-cpus-fast") {
        return Promise.resolve(Array.from({ length: cpus }, () => ({ target })));
      }
      if (sev !== undefined) return Promise.resolve(sev);
      return Promise.reject(new QmpError("command", `Cannot run ${command}: no such command`));
    },
  };
}

function why(mode: PagingMode): string {
  return mode.why ?? "";
}

Deno.test("parseRegisters() reads every vCPU", () => {
  assert.deepEqual(parseRegisters(printed([long, waiting])), [long, waiting]);
  assert.deepEqual(parseRegisters(""), []);
  assert.deepEqual(parseRegisters("\nCPU#0\nCR0=80050033\n"), []);
});

Deno.test("pagingMode() gives the tables' pages without PCID and control bits", () => {
  const tagged = { ...long, cr3: 0x4000_0000_02a4_b801n };
  assert.deepEqual(pagingMode([long, waiting, tagged]), {
    why: null,
    levels: 4,
    topPages: [{ cpu: 0, page: 0x2a4a }, { cpu: 2, page: 0x2a4b }],
  });
});

Deno.test("pagingMode() says 5 levels when CR4.LA57 is set", () => {
  const mode = pagingMode([{ ...long, cr4: 0x16b0n }]);
  assert.equal(mode.why === null && mode.levels, 5);
});

Deno.test("pagingMode() says why when the guest cannot be read", () => {
  assert.match(why(pagingMode([waiting])), /no vCPU uses page tables/);
  assert.match(why(pagingMode([])), /no vCPU/);
  assert.match(why(pagingMode([long, { ...long, efer: 0n }])), /vCPU 1 is in 32-bit mode/);
  assert.match(why(pagingMode([{ ...long, cr4: 0x26b0n }])), /virtual machines of its own/);
  assert.match(why(pagingMode([{ ...long, efer: 0x1d01n }])), /virtual machines of its own/);
  assert.match(why(pagingMode([long, { ...long, cr4: 0x16b0n }])), /others 5/);
});

Deno.test("readPagingMode() asks QEMU", async () => {
  const mode = await readPagingMode(monitor({ registers: [long] }));
  assert.equal(mode.why, null);
  const notEncrypted = await readPagingMode(
    monitor({ registers: [long], sev: { enabled: false } }),
  );
  assert.equal(notEncrypted.why, null);
});

Deno.test("readPagingMode() says why when QEMU runs something else", async () => {
  const asked = async (options: Parameters<typeof monitor>[0]) =>
    why(await readPagingMode(monitor(options)));
  assert.match(await asked({ registers: [long], sev: { enabled: true } }), /encrypted/);
  assert.match(await asked({ registers: [long], target: "aarch64" }), /not x86-64 but aarch64/);
  assert.match(await asked({ registers: [long], cpus: 2 }), /1 CPUs of 2/);
});
