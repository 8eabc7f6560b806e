import assert from "node:assert/strict";
import { QemuPageSource } from "../../kvm/qemu_page_source.ts";
import type { StreamEvents } from "../../kvm/stream_format.ts";
import { writeAll } from "../../kvm/write_all.ts";
import { builtBlocks, wholeStream } from "../support/stream_builder.ts";
import { TempDir } from "../support/temp_dir.ts";

const deaf: StreamEvents = {
  setup: () => {},
  page: () => {},
  zero: () => {},
  stopped: () => {},
  state: () => {},
  drained: () => {},
};

Deno.test("QemuPageSource has ended once everything was read, and stays so when it is closed", async () => {
  await using directory = await TempDir.make();
  const path = `${directory.path}/stream`;
  using listener = Deno.listen({ transport: "unix", path });
  const [here, there] = await Promise.all([
    Deno.connect({ transport: "unix", path }),
    listener.accept(),
  ]);
  using _there = there;
  using source = new QemuPageSource(here, { blocks: builtBlocks });
  const stream = wholeStream();
  await writeAll(there, stream.subarray(0, stream.length - 1));
  assert.equal(await source.next(deaf), true);
  assert.equal(source.ended, false);
  await writeAll(there, stream.subarray(stream.length - 1));
  while (await source.next(deaf));
  assert.equal(source.ended, true);
  source.close();
  assert.equal(source.ended, true);
});
