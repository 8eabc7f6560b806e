import assert from "node:assert/strict";
import { layersPlugin } from "../../../scripts/lint/layers.ts";

function faults(fileName: string, source: string): string[] {
  return Deno.lint.runPlugin(layersPlugin, fileName, source).map(({ message }) => message);
}

Deno.test("sealift-layers refuses every kind of import across layers", () => {
  for (
    const source of [
      'import { x } from "../kvm/qmp.ts"; x();',
      'import type { X } from "../cli/report.ts"; export type Y = X;',
      'export * from "../kvm/qmp.ts";',
      'export { x } from "../mod.ts";',
      'await import("../kvm/qmp.ts");',
      'export type X = import("../kvm/qmp.ts").X;',
      'import "../../elsewhere/x.ts";',
      'import fs from "node:fs"; fs.x();',
      'import { gcm } from "@noble/ciphers/aes.js"; gcm();',
    ]
  ) {
    assert.equal(faults("migration/x.ts", source).length, 1, source);
  }
});

Deno.test("sealift-layers lets each layer import what it may", () => {
  assert.deepEqual(faults("migration/x.ts", 'import { a } from "./a.ts"; a();'), []);
  assert.deepEqual(faults("migration/x.ts", 'import { a } from "../ciphers/a.ts"; a();'), []);
  assert.deepEqual(faults("kvm/x.ts", 'import { a } from "node:net"; a(Deno.pid);'), []);
  assert.deepEqual(faults("cli/x.ts", 'import { a } from "../kvm/a.ts"; a(Deno.pid);'), []);
  assert.deepEqual(
    faults("tests/kvm/x_test.ts", 'import { a } from "../../migration/a.ts"; a();'),
    [],
  );
});

Deno.test("sealift-layers keeps kvm/ and ciphers/ apart from the others", () => {
  assert.equal(faults("kvm/x.ts", 'import { a } from "../migration/a.ts"; a();').length, 1);
  assert.equal(faults("kvm/x.ts", 'import { a } from "../ciphers/a.ts"; a();').length, 1);
  assert.equal(faults("ciphers/x.ts", 'import { a } from "../migration/a.ts"; a();').length, 1);
  assert.equal(faults("ciphers/x.ts", 'import { a } from "../kvm/a.ts"; a();').length, 1);
  assert.equal(faults("migration/x.ts", 'import { a } from "node:crypto"; a();').length, 1);
});

Deno.test("sealift-layers refuses the Deno global in migration/ only", () => {
  assert.equal(faults("migration/x.ts", "export const p = Deno.pid;").length, 1);
  assert.equal(faults("migration/x.ts", "export const { pid } = Deno;").length, 1);
  assert.deepEqual(faults("migration/x.ts", "// Deno.pid is not for here\n"), []);
  assert.deepEqual(faults("ciphers/x.ts", "export const p = Deno.pid;"), []);
});

Deno.test("sealift-layers knows a file by its absolute path too", () => {
  const root = new URL("../../../", import.meta.url);
  const source = 'import { a } from "../kvm/a.ts"; a();';
  assert.equal(faults(new URL("migration/x.ts", root).pathname, source).length, 1);
  assert.deepEqual(faults(new URL("cli/x.ts", root).pathname, source), []);
});
