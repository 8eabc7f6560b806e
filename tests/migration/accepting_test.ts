import assert from "node:assert/strict";
import { acceptLoop } from "../../migration/accepting.ts";
import type { Transport, TransportListener } from "../../migration/ports.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { Loopback } from "../support/loopback.ts";

/** A listener whose `accept` rejects while `failures` are left. */
class Failing implements TransportListener {
  readonly loopback = new Loopback();
  calls = 0;
  #failures: number;

  constructor(failures: number) {
    this.#failures = failures;
  }

  accept(): Promise<Transport> {
    this.calls++;
    if (this.#failures-- > 0) return Promise.reject(new Error("Socket is not connected"));
    return this.loopback.accept();
  }

  close(): void {
    this.loopback.close();
  }
}

Deno.test("acceptLoop() hands out what comes, in order, also after accept() has rejected", async () => {
  using clock = new FakeClock();
  const listener = new Failing(500);
  const ends = [listener.loopback.dial(), listener.loopback.dial()];
  const found: Transport[] = [];
  const both = Promise.withResolvers<void>();
  const accepting = acceptLoop(listener, {
    clock,
    onTransport: (transport) => {
      if (found.push(transport) === 2) both.resolve();
    },
  });
  await both.promise;
  accepting.close();
  await accepting.ended;
  for (const [i, end] of ends.entries()) {
    await end.write(Uint8Array.of(i));
    const into = new Uint8Array(1);
    await found[i]!.read(into);
    assert.equal(into[0], i);
    end.close();
  }
  assert.equal(clock.pending, 0);
});

Deno.test("acceptLoop() waits between failures, and not when it is closed", async () => {
  using clock = new FakeClock();
  const listener = new Failing(Infinity);
  const accepting = acceptLoop(listener, { clock, onTransport: () => assert.fail("nobody came") });
  const startedAtMs = clock.now();
  await clock.sleep(100);
  assert.ok(listener.calls > 1, "it went on");
  assert.ok(listener.calls <= clock.now() - startedAtMs + 1, `${listener.calls} calls`);
  accepting.close();
  accepting.close();
  await accepting.ended;
  assert.equal(clock.pending, 0);
  assert.ok(listener.loopback.closed);
});

Deno.test("acceptLoop() closes a connection that comes as it is closed", async () => {
  using clock = new FakeClock();
  const listener = new Loopback();
  const accepting = acceptLoop(listener, { clock, onTransport: () => assert.fail("it is closed") });
  const end = listener.dial();
  accepting.close();
  await accepting.ended;
  assert.equal(await end.read(new Uint8Array(1)), null);
  end.close();
});

Deno.test("acceptLoop() ends a listener of Deno that nobody dials", async () => {
  using clock = new FakeClock();
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepting = acceptLoop(listener, { clock, onTransport: () => assert.fail("nobody came") });
  accepting.close();
  await accepting.ended;
});
