import { equal, match, throws } from "node:assert/strict";
import { KvmError } from "../../kvm/errors.ts";
import { Kvm } from "../../kvm/kvm.ts";
import { libc } from "../../kvm/libc.ts";
import { TempDir } from "../support/temp_dir.ts";

// Open before any test: the library stays open for the life of the thread.
libc();

function code(open: () => unknown): string {
  let code = "none";
  throws(open, (error) => {
    if (error instanceof KvmError) code = error.code;
    return true;
  });
  return code;
}

Deno.test("Kvm.open() says what to load when there is no device", async () => {
  await using directory = await TempDir.make();
  const path = `${directory.path}/kvm`;
  equal(code(() => Kvm.open(path)), "missing");
  match(Kvm.whyUnavailable(path) ?? "", /^Cannot open .*\/kvm: .*module kvm_intel or kvm_amd/);
});

Deno.test("Kvm.open() leaves nothing open when the file is not KVM", () => {
  const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;
  const before = descriptors();
  equal(code(() => Kvm.open("/dev/null")), "unsupported");
  equal(descriptors(), before);
});
