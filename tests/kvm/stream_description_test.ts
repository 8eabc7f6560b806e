import assert from "node:assert/strict";
import { concat, description, end, full, setup } from "../support/stream_builder.ts";
import { read } from "../support/stream_listener.ts";

Deno.test("StreamReader ends only at a whole description that is the last that came", () => {
  const before = concat(setup, end([]), full(3, new Uint8Array(4)));
  const ends = (...pieces: Uint8Array[]) => read(concat(before, ...pieces)).ended;
  assert.equal(ends(description()), true);
  assert.equal(ends(description('{"devices":[]}')), true);
  assert.equal(read(concat(setup, end([]), description())).ended, true);
  assert.equal(ends(description("{}")), false);
  assert.equal(ends(description('{"devices":{}}')), false);
  assert.equal(ends(description('{"devices":[]')), false);
  assert.equal(ends(description('{"devices":[]}}')), false);
  assert.equal(ends(description('{"devices":["\u0006"]}')), false);
  assert.equal(ends(description().subarray(1)), false);
  assert.equal(ends(description().subarray(0, -1)), false);
  assert.equal(ends(), false);
  assert.equal(
    ends(description('{"devices":[]}'), description('{"page_size":4096,"devices":[]}')),
    true,
  );
  // Lengths that themselves hold the byte that marks a description.
  for (const bytes of [0x0106, 0x0600, 0x0606, 0x060006, 0x060606]) {
    const json = '{"devices":[]'.padEnd(bytes - 1) + "}";
    assert.equal(ends(description(json)), true, `${bytes}`);
  }
});
