import { equal, match, throws } from "node:assert/strict";
import { ioctlBuffer, ioctlError, ioctlNumber } from "../../kvm/ioctls.ts";
import { errnos } from "../../kvm/libc.ts";

Deno.test("ioctlNumber() packs direction, size, type and number when the ioctl carries data", () => {
  equal(ioctlNumber("KVM_RUN"), 0xae80);
  equal(ioctlNumber("KVM_SET_USER_MEMORY_REGION"), 0x4020ae46);
  equal(ioctlNumber("KVM_GET_SREGS"), 0x8138ae83);
  equal(ioctlNumber("KVM_CLEAR_DIRTY_LOG"), 0xc018aec0);
});

Deno.test("ioctlError() names the lacking capability when the kernel does not know the ioctl", () => {
  const error = ioctlError("KVM_GET_XCRS", errnos.ENOTTY);
  equal(error.code, "unsupported");
  match(error.message, /^Cannot call KVM_GET_XCRS: .*KVM_CAP_XCRS/);
});

Deno.test("ioctlError() has its own code when another hypervisor has the CPU", () => {
  equal(ioctlError("KVM_CREATE_VM", errnos.EBUSY).code, "locked");
  equal(ioctlError("KVM_SET_SREGS", errnos.EINVAL).code, "system");
});

Deno.test("ioctlBuffer() calls nothing when the argument is shorter than its structure", () => {
  throws(() => ioctlBuffer(-1, "KVM_GET_REGS", new Uint8Array(143)), RangeError);
  throws(() => ioctlBuffer(-1, "KVM_RUN", new Uint8Array(4096)), RangeError);
});
