import assert from "node:assert/strict";
import { PolicyRounds } from "../../migration/policy_rounds.ts";
import type { PolicyRound } from "../../migration/policy_types.ts";
import type { LiveSettings } from "../../migration/ports.ts";
import type { RoundStatistics } from "../../migration/rounds.ts";

function closed(round: number, bytes: number): RoundStatistics {
  return {
    round,
    pages: { user: 0, kernelText: 0, kernelData: 0, unmapped: 0, zero: 0 },
    bytes,
    sealedBytes: bytes,
    durationMs: 1,
    keyNumber: round,
    mistakes: 0,
  };
}

/** A policy that answers when it is told to. */
class World {
  readonly asked: { stats: PolicyRound; answer: PromiseWithResolvers<LiveSettings> }[] = [];
  readonly tuned: LiveSettings[] = [];
  readonly errors: unknown[] = [];
  readonly rounds = new PolicyRounds({
    policy: {
      round: (stats) => {
        const answer = Promise.withResolvers<LiveSettings>();
        this.asked.push({ stats, answer });
        return answer.promise;
      },
    },
    tune: (settings) => {
      this.tuned.push(settings);
      return Promise.resolve();
    },
    onError: (error) => this.errors.push(error),
  });
}

Deno.test("PolicyRounds asks one question at a time, of the newest round", async () => {
  const { rounds, asked, tuned } = new World();
  rounds.closed(closed(0, 100));
  rounds.closed(closed(1, 50));
  rounds.closed(closed(2, 60));
  assert.deepEqual(asked.map(({ stats }) => stats.round), [0]);
  asked[0]!.answer.resolve({});
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(asked.map(({ stats }) => stats.round), [0, 2]);
  asked[1]!.answer.resolve({ autoConverge: true });
  await rounds.settled();
  assert.deepEqual(tuned, [{ autoConverge: true }]);
  rounds.closed(closed(3, 10));
  asked[2]!.answer.resolve({});
  await rounds.settled();
  assert.deepEqual(asked.map(({ stats }) => [stats.round, stats.converging]), [
    [0, true],
    [2, false],
    [3, true],
  ]);
});

Deno.test("PolicyRounds says once that the policy failed, and asks it no more", async () => {
  const { rounds, asked, errors, tuned } = new World();
  rounds.closed(closed(0, 100));
  rounds.closed(closed(1, 50));
  asked[0]!.answer.reject(new Error("no"));
  await rounds.settled();
  rounds.closed(closed(2, 40));
  await rounds.settled();
  assert.deepEqual([asked.length, errors.length, tuned.length], [1, 1, 0]);
});

Deno.test("PolicyRounds leaves a policy alone that has no say in rounds", async () => {
  const rounds = new PolicyRounds({
    policy: { round: undefined },
    tune: () => assert.fail("nothing to tune"),
    onError: (error) => assert.fail(String(error)),
  });
  rounds.closed(closed(0, 100));
  await rounds.settled();
});
