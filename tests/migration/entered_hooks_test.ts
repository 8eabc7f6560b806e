/**
 * Whoever watches a migration may fail at any state: that changes nothing about it.
 */

import assert from "node:assert/strict";
import type { MigrationResult } from "../../migration/result.ts";
import { destinationTransitions, sourceTransitions } from "../../migration/states.ts";
import {
  forEachCase,
  migrate,
  type SimulatedMigration,
  type SimulatedMigrationOptions,
} from "../support/simulated_migration.ts";

const RECONNECT_MS = 3_000;

/** What leads to every state that there is. */
const courses: Record<string, SimulatedMigrationOptions> = {
  "it completes": {},
  "a dry run": { sourceOptions: { dryRun: true } },
  "nobody listens": { dialFails: () => true },
  "the copy cannot be loaded": { destination: { loadFails: "unknown section" } },
  "it runs at the third try": { destination: { runFails: 2 } },
  "it cannot be run": { destination: { runFails: 1_000 } },
  "the source's disk is full at the release": { sourceDiskFails: (append) => append === 2 },
  "the destination's disk is full once it is loaded": {
    destinationDiskFails: (append) => append === 1,
  },
  "Ctrl-C to send": {
    sourceEntered: (state, run) => void (state === "copying" && run.stopSource.abort()),
  },
  "Ctrl-C to receive": {
    destinationEntered: (state, run) => void (state === "loaded" && run.stopDestination.abort()),
  },
  "cut off for good": {
    limits: { reconnectMs: RECONNECT_MS },
    dialFails: (run) => run.sourceJournals.states.includes("released"),
    sourceEntered: (state, run) => void (state === "released" && run.injector.cut()),
  },
};

type Side = "source" | "destination";
type Hook = (side: Side, state: string) => void | Promise<void>;

async function migrateWatched(options: SimulatedMigrationOptions, hook: Hook) {
  return await migrate({
    pageCounts: [6],
    seed: 5,
    source: { liveRounds: 1 },
    ...options,
    sourceEntered: (state, run) => {
      void options.sourceEntered?.(state, run);
      return hook("source", state);
    },
    destinationEntered: (state, run) => {
      void options.destinationEntered?.(state, run);
      return hook("destination", state);
    },
  });
}

/** What must not depend on who watches. */
function endOf(
  { source, destination, run }: {
    source: MigrationResult;
    destination: MigrationResult;
    run: SimulatedMigration;
  },
) {
  return {
    source: [source.outcome, source.lastState, run.world.source, run.sourceJournals.states],
    destination: [
      destination.outcome,
      destination.lastState,
      run.world.destination,
      run.destinationJournals.states,
    ],
  };
}

Deno.test("Source and Destination end alike whether the hook of one fails at a state, those of both at all, or neither", async () => {
  const seen = { source: new Set<string>(), destination: new Set<string>() };
  for (const [course, options] of Object.entries(courses)) {
    // Each state in the first course that comes by it.
    const places: { side: Side; state: string }[] = [];
    const quiet = endOf(
      await migrateWatched(options, (side, state) => {
        if (!seen[side].has(state)) places.push({ side, state });
        seen[side].add(state);
      }),
    );
    await forEachCase(places, async (place) => {
      const end = await migrateWatched(options, (side, state) => {
        if (side !== place.side || state !== place.state) return;
        throw new Error("no space left on device");
      });
      assert.deepEqual(endOf(end), quiet, course);
    });
    for (
      const everywhere of [
        () => {
          throw new Error("no space left on device");
        },
        () => Promise.reject(new Error("no space left on device")),
      ] satisfies Hook[]
    ) assert.deepEqual(endOf(await migrateWatched(options, everywhere)), quiet, course);
  }
  for (
    const [side, first, table] of [
      ["source", "connecting", sourceTransitions],
      ["destination", "listening", destinationTransitions],
    ] as const
  ) {
    // The state that it begins with is not entered.
    const states = Object.keys(table).filter((state) => state !== first);
    assert.deepEqual([...seen[side]].toSorted(), states.toSorted());
  }
});

Deno.test("Source.run() counts as holdMs what a hook's promise held up, and no time in which a hook only was slow", async () => {
  for (const [held, holdMs] of [[true, 400], [false, 0]] as const) {
    const { source } = await migrate({
      sourceEntered: (state, { clock }) => {
        if (state !== "releasing") return;
        if (held) return clock.sleep(400);
        clock.pass(400);
      },
    });
    assert.equal(source.outcome, "completed");
    assert.equal(source.holdMs, holdMs);
    assert.equal(source.downtimeMs! >= 400, !held);
  }
});
