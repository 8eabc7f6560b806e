import assert from "node:assert/strict";
import type { CopyParts } from "../../migration/source_copy.ts";
import { SourceCopy } from "../../migration/source_copy.ts";
import { Waiter } from "../../migration/waiter.ts";

/** A wire that is busy until a test says otherwise, and `marked` records to send again. */
function mending({ marked }: { marked: number }) {
  const waiter = new Waiter();
  const wire = { busy: true, waiting: 0, resent: 0, drain: () => {} };
  const link = {
    window: { flush: () => {}, full: false, empty: true },
    acknowledged: 0,
    get idle() {
      return !wire.busy;
    },
    drained: () => {
      wire.waiting++;
      const { promise, resolve } = Promise.withResolvers<void>();
      wire.drain = () => {
        wire.waiting--;
        resolve();
      };
      return promise;
    },
  };
  const sending = { lastSequence: 0, repair: { resend: () => wire.resent++ < marked } };
  // Only what mend() asks for: a whole source would wait for much else besides.
  const parts = {
    waiter,
    link,
    sending,
    alarm: { asking: false },
    forwardIfGone: (condition: () => boolean) => waiter.until(condition),
  } as unknown as CopyParts;
  return { waiter, wire, copy: new SourceCopy(parts) };
}

/** Lets everything run that waits for nothing. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

Deno.test("SourceCopy.mend() waits for a busy wire once, however often it is woken meanwhile", async () => {
  const { waiter, wire, copy } = mending({ marked: 1 });
  const mended = copy.mend();
  for (let acknowledged = 0; acknowledged < 50; acknowledged++) {
    waiter.wake();
    await settle();
  }
  assert.equal(wire.waiting, 1);
  assert.equal(wire.resent, 0);
  wire.busy = false;
  wire.drain();
  await mended;
});

Deno.test("SourceCopy.mend() waits again for a wire that got busy before it was looked at", async () => {
  const { wire, copy } = mending({ marked: 2 });
  const mended = copy.mend();
  await settle();
  // A PING, for instance: what was waited for is over, and still nothing may be sent.
  wire.drain();
  await settle();
  assert.equal(wire.waiting, 1);
  assert.equal(wire.resent, 0);
  wire.busy = false;
  wire.drain();
  await mended;
  // Both, then one look that found nothing, and another at the end.
  assert.equal(wire.resent, 4);
});
