/**
 * The administrator's word on damage that does not end: what goes on while it is waited for, and when it is not.
 */

import assert from "node:assert/strict";
import { FRAME_DATA } from "../../migration/frame.ts";
import { migrate, SimulatedMigration } from "../support/simulated_migration.ts";

/** Pages read so far. */
function pagesRead({ source }: SimulatedMigration): number {
  return source.rounds.flatMap(({ pages }) => Object.values(pages)).reduce((a, b) => a + b, 0);
}

Deno.test("Source.run() reads its VM no further while the administrator is asked", async () => {
  const read: number[] = [];
  let asked = false;
  await using run = new SimulatedMigration({
    pageCounts: [200],
    seed: 5,
    source: { liveRounds: 12, busy: true, paceMs: 10 },
    sourceOptions: {
      askTamper: async () => {
        asked = true;
        assert.equal(run.source.state, "copying");
        // What was being read is handed out yet.
        for (const ms of [100, 10_000]) {
          await run.clock.sleep(ms);
          read.push(pagesRead(run));
        }
        return true;
      },
    },
    // Every page, in round after round, until somebody is asked.
    fault: ({ direction, bytes }) =>
      !asked && direction === "there" && bytes[0] === FRAME_DATA && bytes.length > 4_000
        ? { kind: "flip", byte: bytes.length - 1, bit: 0 }
        : undefined,
  });
  const { source, destination } = await run.run();
  const story = `${source.error?.message}\n${run.world.log.join("\n")}`;
  assert.equal(source.outcome, "completed", story);
  assert.equal(destination.outcome, "completed", story);
  assert.equal(read.length, 2);
  assert.equal(read[1], read[0]);
  assert.ok(pagesRead(run) > read[1]!);
});

Deno.test("Source.run() asks nobody when what is marked takes more than the repair budget", async () => {
  const asked: string[] = [];
  const { source, run } = await migrate({
    pageCounts: [2_000],
    source: { liveRounds: 1 },
    limits: { repairBudgetBytes: 10 * 4096 },
    // Small on the wire, all of them.
    prepare: ({ sourceVm }) => sourceVm.memory.forEach((block) => block.fill(0)),
    sourceOptions: {
      askTamper: (text) => {
        asked.push(text);
        return Promise.resolve(true);
      },
    },
    fault: ({ direction, index, bytes }) =>
      direction === "there" && index > 2 && bytes[0] === FRAME_DATA && bytes.length < 4_000
        ? { kind: "flip", byte: bytes.length - 1, bit: 0 }
        : undefined,
  });
  assert.equal(source.outcome, "tampered", run.world.log.join("\n"));
  assert.match(source.error!.message, /more than the repair budget permits/);
  assert.deepEqual(asked, []);
  assert.equal(run.world.source, "running");
});

/** A record of pages, damaged once; then the administrator is asked, with the VM stopped. */
const damagedAtTheEnd = {
  pageCounts: [8],
  seed: 3,
  source: { liveRounds: 1 },
};

for (const gone of [false, true]) {
  Deno.test(
    `Source.run() hears ${
      gone ? "that its QEMU is gone" : "the administrator's answer"
    } while a PING is being written`,
    async () => {
      const answer = Promise.withResolvers<boolean>();
      let asked = false;
      let pinged = false;
      await using run = new SimulatedMigration({
        ...damagedAtTheEnd,
        sourceOptions: {
          askTamper: () => {
            asked = true;
            return answer.promise;
          },
        },
        fault: ({ direction, index, bytes }) => {
          if (direction !== "there") return undefined;
          if (bytes[0] === FRAME_DATA) {
            const damaged = index >= 2 && bytes.length > 4_000 && !asked;
            return damaged ? { kind: "flip", byte: 300, bit: 0 } : undefined;
          }
          return undefined;
        },
        prepare: (run) => {
          const dial = run.injector.dial.bind(run.injector);
          run.injector.dial = () => {
            const end = dial();
            const write = end.write.bind(end);
            end.write = async (bytes) => {
              const count = await write(bytes);
              if (!asked || pinged || bytes[0] === FRAME_DATA || run.source.state !== "stopping") {
                return count;
              }
              // The kernel has it, and the agent does not know yet.
              pinged = true;
              if (gone) run.killSource();
              else answer.resolve(true);
              await run.clock.sleep(1);
              return count;
            };
            return end;
          };
        },
      });
      const { sourceEnds, destinationEnds } = run.start();
      const ended = await Promise.race([sourceEnds, run.clock.sleep(600_000).then(() => null)]);
      const story = run.world.log.join("\n");
      assert.ok(pinged, story);
      assert.ok(ended !== null, `it waits in ${run.source.state}\n${story}`);
      assert.equal(ended.outcome, "completed", `${ended.error?.message}\n${story}`);
      await destinationEnds;
    },
  );
}

Deno.test("Source.run() has no use for an answer of the administrator that comes after its end", async () => {
  const answer = Promise.withResolvers<boolean>();
  let asked = false;
  await using run = new SimulatedMigration({
    ...damagedAtTheEnd,
    pageCounts: [4],
    sourceOptions: {
      askTamper: () => {
        asked = true;
        return answer.promise;
      },
    },
    // SETUP, STATE and the ends of rounds.
    fault: ({ direction, index, bytes }) =>
      direction === "there" && index >= 2 && bytes[0] === FRAME_DATA && bytes.length < 900
        ? { kind: "flip", byte: 45, bit: 0 }
        : undefined,
  });
  const { sourceEnds, destinationEnds } = run.start();
  await run.clock.sleep(2_000);
  assert.ok(asked);
  run.stopSource.abort();
  assert.equal((await sourceEnds).outcome, "aborted");
  // What it would seal now has no key any more: a rejection that nobody handles fails the test.
  answer.resolve(true);
  await run.clock.sleep(10);
  run.stopDestination.abort();
  await destinationEnds;
});
