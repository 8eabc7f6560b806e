import assert from "node:assert/strict";
import { FRAME_DATA } from "../../migration/frame.ts";
import { quiet } from "../../migration/observers.ts";
import { SimulatedMigration } from "../support/simulated_migration.ts";

/** Counts its calls, then throws, as a script's logger may. */
class Thrower {
  calls = 0;

  readonly throws = (): void => {
    this.calls++;
    throw new Error("the logger's disk is full");
  };

  readonly rejects = (): Promise<void> => {
    this.calls++;
    return Promise.reject(new Error("the logger's disk is full"));
  };
}

Deno.test("quiet() hands its arguments on, and does nothing where there is no observer", () => {
  const heard: [string, number][] = [];
  quiet((text: string, count: number) => void heard.push([text, count]))("round", 3);
  assert.deepEqual(heard, [["round", 3]]);
  assert.equal(quiet(undefined)(), undefined);
});

Deno.test("quiet() neither throws nor leaves a rejection behind when the observer does", async () => {
  const thrower = new Thrower();
  quiet(thrower.throws)();
  quiet(thrower.rejects)();
  // An unhandled rejection fails the test.
  await new Promise((resolve) => setTimeout(resolve, 0));
  assert.equal(thrower.calls, 2);
});

for (const how of ["throws", "rejects"] as const) {
  Deno.test(`Source and Destination complete over a cut, with a record damaged, when every observer ${how}`, async () => {
    const noted = new Thrower();
    const tampered = new Thrower();
    const rounded = new Thrower();
    const notedThere = new Thrower();
    let damaged = false;
    await using run = new SimulatedMigration({
      pageCounts: [40],
      seed: 5,
      source: { liveRounds: 2 },
      sourceEntered: (state, run) => state === "released" ? run.injector.cut() : undefined,
      sourceOptions: { onNote: noted[how], onTamper: tampered[how], onRound: rounded[how] },
      destinationNoted: notedThere[how],
      fault: ({ direction, bytes }) => {
        if (damaged || direction !== "there" || bytes[0] !== FRAME_DATA) return undefined;
        if (bytes.length < 4096) return undefined;
        damaged = true;
        return { kind: "flip", byte: bytes.length - 1, bit: 0 };
      },
    });
    const { source, destination } = await run.run();
    assert.equal(source.outcome, "completed", source.error?.message);
    assert.equal(destination.outcome, "completed", destination.error?.message);
    assert.equal(source.reconnects, 1);
    // The cut, and that it is over.
    assert.equal(noted.calls, 2);
    assert.ok(tampered.calls >= 1);
    assert.ok(rounded.calls >= 2);
    assert.ok(notedThere.calls >= 2, run.notes.join("\n"));
  });
}
