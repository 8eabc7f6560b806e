import assert from "node:assert/strict";
import type { Admitted } from "../../migration/admission.ts";
import type { Candidate } from "../../migration/candidate.ts";
import { Place } from "../../migration/destination_place.ts";

/** Just enough of who was let in, and of what it becomes. */
class Caller {
  closed = false;
  connected = true;
  disposed = false;
  readonly admitted: Admitted;
  readonly candidate: Candidate;

  constructor(key: number) {
    const connection = { [Symbol.dispose]: () => this.closed = true };
    this.admitted = { connection, publicKey: Uint8Array.of(key) } as unknown as Admitted;
    const { admitted } = this;
    const connected = () => this.connected;
    this.candidate = {
      admitted,
      link: {
        get connected() {
          return connected();
        },
      },
      [Symbol.dispose]: () => this.disposed = true,
    } as unknown as Candidate;
  }
}

Deno.test("Place is for who claimed it, while they are there; the same key may take it again", () => {
  using place = new Place();
  const [first, other, again] = [new Caller(1), new Caller(2), new Caller(1)];
  assert.equal(place.isTakenFor(other.admitted.publicKey), false);
  place.claim(first.admitted);
  assert.equal(place.isTakenFor(other.admitted.publicKey), true);
  assert.equal(place.isTakenFor(again.admitted.publicKey), false);
  place.seat(first.candidate);
  assert.equal(place.isTakenFor(other.admitted.publicKey), true);
  first.connected = false;
  assert.equal(place.isTakenFor(other.admitted.publicKey), false);
  place.claim(other.admitted);
  assert.ok(first.closed && first.disposed, "who is pushed out is closed, its keys are wiped");
  assert.equal(place.candidate, null);
  assert.ok(place.isClaimedBy(other.admitted) && !place.isClaimedBy(first.admitted));
});

Deno.test("Place.bind() keeps it for good, from the same key as well", () => {
  using place = new Place();
  const [first, again] = [new Caller(1), new Caller(1)];
  place.claim(first.admitted);
  assert.equal(place.bound, null);
  place.bind(place.seat(first.candidate));
  assert.equal(place.bound, first.candidate);
  first.connected = false;
  assert.equal(place.isTakenFor(again.admitted.publicKey), true);
  place.giveUp(first.admitted);
  assert.equal(place.bound, first.candidate);
  assert.equal(first.closed, false);
});

Deno.test("Place.bind() refuses who was pushed out, and everybody once it is closed", () => {
  using place = new Place();
  const [first, second] = [new Caller(1), new Caller(1)];
  place.claim(first.admitted);
  place.seat(first.candidate);
  place.claim(second.admitted);
  place.seat(second.candidate);
  const refusal = { code: "protocol", message: /another connection took this one's place/ };
  assert.throws(() => place.bind(first.candidate), refusal);
  place.close();
  assert.throws(() => place.bind(second.candidate), refusal);
  assert.equal(place.bound, null);
});

Deno.test("Place.giveUp() frees it for others, unless another has it", () => {
  using place = new Place();
  const [first, other] = [new Caller(1), new Caller(2)];
  place.claim(first.admitted);
  place.seat(first.candidate);
  place.giveUp(other.admitted);
  assert.ok(place.isClaimedBy(first.admitted));
  place.giveUp(first.admitted);
  assert.ok(first.closed && first.disposed);
  assert.equal(place.candidate, null);
  assert.equal(place.isTakenFor(other.admitted.publicKey), false);
});
