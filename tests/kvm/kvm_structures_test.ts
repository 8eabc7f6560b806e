import { deepEqual } from "node:assert/strict";
import { type IoctlName, ioctlNumber, kvmCapabilities, kvmIoctls } from "../../kvm/ioctls.ts";
import { kvmStructures, type StructureLayout } from "../../kvm/kvm_structures.ts";
import { exitReasons } from "../../kvm/vcpu_exit.ts";
import { toolTest } from "../support/kvm.ts";
import { TempDir } from "../support/temp_dir.ts";

const layouts: [string, StructureLayout][] = Object.entries(kvmStructures);

/** What the tables say, a line for each fact. */
function factsOfTables(): string[] {
  const widths = { u8: 1, u16: 2, u32: 4, u64: 8 };
  return [
    ...layouts.map(([name, { bytes }]) => `sizeof ${name} ${bytes}`),
    ...layouts.flatMap(([name, { fields }]) =>
      Object.entries(fields).map(([field, [offset, type]]) =>
        `${name}.${field} ${offset} ${typeof type === "number" ? type : widths[type]}`
      )
    ),
    ...Object.keys(kvmIoctls).map((name) => `${name} ${ioctlNumber(name as IoctlName)}`),
    ...Object.entries(kvmCapabilities).map(([name, value]) => `${name} ${value}`),
    ...Object.entries(exitReasons).map(([value, [name]]) => `${name} ${value}`),
  ];
}

/** A C program that says the same from the system's headers. */
function program(): string {
  const lines = [
    ...layouts.map(([name]) => `printf("sizeof ${name} %zu\\n", sizeof(struct ${name}));`),
    ...layouts.flatMap(([name, { fields }]) =>
      Object.keys(fields).map((field) =>
        `printf("${name}.${field} %zu %zu\\n", offsetof(struct ${name}, ${field}), sizeof(((struct ${name} *)0)->${field}));`
      )
    ),
    ...[...Object.keys(kvmIoctls), ...Object.keys(kvmCapabilities)].map((name) =>
      `printf("${name} %u\\n", (unsigned)${name});`
    ),
    ...Object.values(exitReasons).map(([name]) => `printf("${name} %u\\n", (unsigned)${name});`),
  ];
  return `#include <stddef.h>
#include <stdio.h>
#include <linux/kvm.h>
int main(void) {
  ${lines.join("\n  ")}
}
`;
}

toolTest(
  "kvmStructures and kvmIoctls say what a C program with the system's headers says",
  ["gcc", "tcc"],
  async (compiler) => {
    await using directory = await TempDir.make();
    const source = `${directory.path}/facts.c`, binary = `${directory.path}/facts`;
    await Deno.writeTextFile(source, program());
    const compiled = await new Deno.Command(compiler, { args: ["-o", binary, source] }).output();
    deepEqual(new TextDecoder().decode(compiled.stderr), "");
    const { stdout } = await new Deno.Command(binary).output();
    deepEqual(factsOfTables(), new TextDecoder().decode(stdout).trimEnd().split("\n"));
  },
);
