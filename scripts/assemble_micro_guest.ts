/**
 * Assembles the micro-VM's guest and writes its bytes into the tree: `deno run -A scripts/assemble_micro_guest.ts`.
 *
 * @module
 */

const source = new URL("../kvm/micro/guest.asm", import.meta.url);
const target = new URL("../kvm/micro/guest_image.ts", import.meta.url);

/**
 * Assembles guest.asm with nasm.
 *
 * @returns the flat image
 * @throws {Deno.errors.NotFound} without nasm
 */
export async function assembleGuest(): Promise<Uint8Array<ArrayBuffer>> {
  const path = await Deno.makeTempFile({ prefix: "sealift-", suffix: ".bin" });
  try {
    const { success, stderr } = await new Deno.Command("nasm", {
      args: ["-f", "bin", "-w+all", "-o", path, decodeURIComponent(source.pathname)],
      stdout: "null",
    }).output();
    if (!success) {
      throw new Error(`Cannot assemble the guest: ${new TextDecoder().decode(stderr)}`);
    }
    return await Deno.readFile(path);
  } finally {
    await Deno.remove(path);
  }
}

/** The module that has `image` as base64, a line for each 66 bytes. */
export function guestModule(image: Uint8Array): string {
  const lines = image.toBase64().match(/.{1,88}/g) ?? [];
  return `/**
 * The micro-VM's guest, assembled: written by scripts/assemble_micro_guest.ts from guest.asm.
 *
 * @module
 */

const base64 = \`
${lines.join("\n")}
\`;

/** The flat image, for guest-physical address 0x1000. */
export function guestImage(): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromBase64(base64);
}
`;
}

if (import.meta.main) await Deno.writeTextFile(target, guestModule(await assembleGuest()));
