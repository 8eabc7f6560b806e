import { deepEqual, equal } from "node:assert/strict";
import { guestImage } from "../../../kvm/micro/guest_image.ts";
import { addresses } from "../../../kvm/micro/layout.ts";
import { assembleGuest, guestModule } from "../../../scripts/assemble_micro_guest.ts";
import { toolTest } from "../../support/kvm.ts";

toolTest("guestImage() is what nasm makes of guest.asm", ["nasm"], async () => {
  const assembled = await assembleGuest();
  deepEqual(guestImage(), assembled);
  const module = new URL("../../../kvm/micro/guest_image.ts", import.meta.url);
  equal(await Deno.readTextFile(module), guestModule(assembled));
});

Deno.test("guestImage() ends before the stacks", () => {
  const end = addresses.kernelText + guestImage().length;
  equal(end > addresses.userText && end <= addresses.stacks[0], true);
});
