/**
 * Frames that nobody sealed, put in wherever the network is slow.
 */

import assert from "node:assert/strict";
import { FRAME_DATA, writeFrameHeader } from "../../migration/frame.ts";
import { FRAME_HEADER_BYTES, RECORD_HEADER_BYTES } from "../../migration/limits.ts";
import { readRecordHeader, writeRecordHeader } from "../../migration/record.ts";
import { migrate } from "../support/simulated_migration.ts";

const BODY_BYTES = 60;

/** A DATA frame whose header is the one that comes after that of `before`. */
function forgedBehind(before: Uint8Array): Uint8Array {
  const header = readRecordHeader(
    new DataView(before.buffer, before.byteOffset),
    FRAME_HEADER_BYTES,
  )!;
  const payloadBytes = RECORD_HEADER_BYTES + BODY_BYTES;
  const frame = new Uint8Array(FRAME_HEADER_BYTES + payloadBytes).fill(0xa5);
  const view = new DataView(frame.buffer);
  writeFrameHeader(view, 0, FRAME_DATA, payloadBytes);
  const { sequence } = header;
  writeRecordHeader(view, FRAME_HEADER_BYTES, {
    ...header,
    sequence: sequence + 1,
    bodyLength: BODY_BYTES,
  });
  return frame;
}

Deno.test("Source repairs a record whose number a forged frame used up before it was on the wire", async () => {
  const failures: string[] = [];
  let forged = 0;
  for (const behind of [2, 4]) {
    for (let at = 6; at < 30; at++) {
      let done = false;
      const { source, run } = await migrate({
        pageCounts: [300],
        seed: 7,
        source: { liveRounds: 2, paceMs: 5 },
        fault: ({ direction, index, bytes, connection }) => {
          if (direction !== "there" || connection > 0 || bytes[0] !== FRAME_DATA || done) {
            return undefined;
          }
          if (index === at) return { kind: "delay", ms: 18 };
          if (index < at + behind) return undefined;
          done = true;
          forged++;
          return { kind: "inject", behind: true, frames: [forgedBehind(bytes)] };
        },
      });
      if (source.outcome === "completed") continue;
      failures.push(
        `slow at ${at}, ${behind} before the forged one: ${source.error?.message}; ${run.world.source}`,
      );
    }
  }
  assert.ok(forged > 30, `${forged}`);
  assert.deepEqual(failures, []);
});
