import assert from "node:assert/strict";
import { KvmError } from "../../kvm/errors.ts";
import {
  parseLocalDrives,
  parseRamBlocks,
  refuseCapabilities,
  refusedCapabilities,
} from "../../kvm/qemu_facts.ts";

const of72 = `\
              Block Name    PSize              Offset               Used              Total
                  pc.ram    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000
    /rom@etc/acpi/tables    4 KiB  0x0000000004080000 0x0000000000020000 0x0000000000200000
   0000:00:02.0/vga.vram    4 KiB  0x00000000042c0000 0x0000000001000000 0x0000000001000000
`;
const of100 = `\
              Block Name    PSize              Offset               Used              Total                HVA  RO
                    m0    2 MiB  0x0000000000000000 0x0000000200000000 0x0000000200000000 0x00007f0000000000  rw
                 pc.rom    4 KiB  0x0000000200040000 0x0000000000020000 0x0000000000020000 0x00007f0a00000000  ro
                           4 KiB  0x0000000200060000 0x0000000000001000 0x0000000000001000 0x00007f0b00000000  rw
`.replaceAll("\n", "\r\n");

Deno.test("parseRamBlocks() gives names and used lengths when QEMU is 7.2", () => {
  assert.deepEqual(parseRamBlocks(of72), [
    { name: "pc.ram", bytes: 64 * 2 ** 20 },
    { name: "/rom@etc/acpi/tables", bytes: 0x20000 },
    { name: "0000:00:02.0/vga.vram", bytes: 16 * 2 ** 20 },
  ]);
});

Deno.test("parseRamBlocks() leaves out blocks without a name when QEMU is 10.0", () => {
  assert.deepEqual(parseRamBlocks(of100), [
    { name: "m0", bytes: 8 * 2 ** 30 },
    { name: "pc.rom", bytes: 0x20000 },
  ]);
});

Deno.test("parseRamBlocks() throws unsupported when there is another text, or none", () => {
  for (const text of ["", "unknown command: 'info ramblock'", `${of72}and more\n`]) {
    assert.throws(
      () => parseRamBlocks(text),
      (error) => error instanceof KvmError && error.code === "unsupported",
    );
  }
});

Deno.test("refuseCapabilities() names each capability when it has to be off", () => {
  refuseCapabilities([
    "events",
    "return-path",
    "auto-converge",
    "validate-uuid",
    "late-block-activate",
  ]);
  for (const name of refusedCapabilities) {
    assert.throws(
      () => refuseCapabilities(["events", name]),
      (error) =>
        error instanceof KvmError && error.code === "capability" &&
        error.message.endsWith(`: ${name}`),
    );
  }
  assert.throws(() => refuseCapabilities(["multifd", "xbzrle"]), /multifd, xbzrle/);
});

Deno.test("parseLocalDrives() lists files that are writable and lie on this host", () => {
  const drive = (file: string, more = {}) => ({
    device: "d",
    inserted: { file, ro: false, drv: "raw", ...more },
  });
  const answer = [
    { device: "floppy0" },
    drive("/images/a.qcow2"),
    drive("relative.raw"),
    drive("/images/b.iso", { ro: true }),
    drive("nbd+unix:///export?socket=/run/x"),
    drive("nbd://host/export"),
    drive("rbd:pool/image"),
    drive('json:{"driver": "qcow2", "file": {"driver": "nbd", "path": "/run/x"}}'),
    drive('json:{"driver": "qcow2", "file.driver": "rbd", "file.pool": "p"}'),
    drive('json:{"driver": "qcow2", "file": {"driver": "file", "filename": "/images/c"}}'),
    drive("/dev/vg/root"),
  ];
  assert.deepEqual(parseLocalDrives(answer), [
    "/images/a.qcow2",
    "relative.raw",
    'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "/images/c"}}',
    "/dev/vg/root",
  ]);
});
