import assert from "node:assert/strict";
import { destinationTransitions, sourceTransitions, StateMachine } from "../../migration/states.ts";

const tables: Record<string, Record<string, readonly string[]>> = {
  sourceTransitions,
  destinationTransitions,
};

for (const [name, table] of Object.entries(tables)) {
  Deno.test(`${name} leads from the first state to each other, and from each to an end`, () => {
    const [first] = Object.keys(table);
    const reached = new Set([first!]);
    for (const state of reached) for (const next of table[state]!) reached.add(next);
    assert.deepEqual([...reached].sort(), Object.keys(table).sort());
    for (const state of Object.keys(table)) {
      const onward = new Set([state]);
      for (const at of onward) for (const next of table[at]!) onward.add(next);
      assert.ok([...onward].some((at) => table[at]!.length === 0), state);
    }
  });
}

Deno.test("sourceTransitions never lead from the release to an abort without the other side's word", () => {
  assert.ok(!(sourceTransitions.released as readonly string[]).includes("aborting"));
  assert.deepEqual(
    Object.entries(sourceTransitions).filter(([, next]) =>
      (next as readonly string[]).includes("returning")
    ).map(([state]) => state),
    ["released", "discarding"],
  );
});

Deno.test("destinationTransitions lead to running by way of taking alone", () => {
  assert.deepEqual(
    Object.entries(destinationTransitions).filter(([, next]) =>
      (next as readonly string[]).includes("running")
    ).map(([state]) => state),
    ["taking", "stuck"],
  );
  assert.deepEqual(
    Object.entries(destinationTransitions).filter(([, next]) =>
      (next as readonly string[]).includes("taking")
    ).map(([state]) => state),
    ["loaded"],
  );
});

Deno.test("StateMachine.enter() waits for the hook, and refuses a step that the table lacks", async () => {
  const entered: string[] = [];
  const machine = new StateMachine<keyof typeof destinationTransitions>("listening", {
    transitions: destinationTransitions,
    entered: async (state) => {
      await Promise.resolve();
      entered.push(state);
    },
  });
  await machine.enter("receiving");
  assert.deepEqual(entered, ["receiving"]);
  await assert.rejects(machine.enter("running"), /Cannot go from receiving to running/);
  assert.equal(machine.state, "receiving");
});

Deno.test("StateMachine.enter() says whether the hook held it up, and goes on when the hook fails", async () => {
  const hooks: [held: boolean, hook: () => void | Promise<void>][] = [
    [false, () => {}],
    [true, () => Promise.resolve()],
    [true, () => Promise.reject(new Error("no space left on device"))],
  ];
  const throwing = () => {
    throw new Error("no space left on device");
  };
  for (const [held, entered] of [...hooks, [false, throwing] as const]) {
    const machine = new StateMachine<keyof typeof destinationTransitions>("listening", {
      transitions: destinationTransitions,
      entered,
    });
    assert.equal(await machine.enter("receiving"), held);
    assert.equal(machine.state, "receiving");
  }
});
