import assert from "node:assert/strict";
import { DEFAULT_MONITOR_BUDGET_MS, Monitor } from "../../migration/monitor.ts";
import { type Clock, pagingFlags, type PagingReading } from "../../migration/ports.ts";

/** Each look at it takes 7 ms. */
function slowClock(): Clock {
  let nowMs = 0;
  return {
    now: () => nowMs += 7,
    date: () => new Date(0),
    timer: () => ({ clear: () => {} }),
  };
}

const { user, kernel, kernelExecutable, known } = pagingFlags;

function monitorOf(readings: PagingReading[], budgetMs?: number) {
  const budgets: number[] = [];
  const reader = {
    read(budget: number) {
      budgets.push(budget);
      return readings[Math.min(budgets.length, readings.length) - 1]!;
    },
  };
  const clock = slowClock();
  return { budgets, monitor: new Monitor({ reader, clock, ...(budgetMs ? { budgetMs } : {}) }) };
}

function reading(marks: (Uint8Array | null)[], why: string | null = null): PagingReading {
  return { why, addressSpaces: 3, marks };
}

Deno.test("Monitor.classOf() follows the flags of a page", () => {
  const marks = Uint8Array.of(
    known,
    known | kernel,
    known | kernel | kernelExecutable,
    known | kernel | kernelExecutable | user,
    known | user,
  );
  const { monitor } = monitorOf([reading([null, marks])]);
  monitor.refresh();
  const classes = Array.from(marks, (_, page) => monitor.classOf(1, page));
  assert.deepEqual(classes, ["unmapped", "kernelData", "kernelText", "user", "user"]);
});

Deno.test("Monitor.classOf() says user for every page that nothing is known of", () => {
  const { monitor } = monitorOf([reading([null, Uint8Array.of(kernel, known | kernel, 0xf8)])]);
  assert.equal(monitor.classOf(1, 1), "user");
  assert.match(monitor.summary().why ?? "", /not read yet/);
  monitor.refresh();
  assert.equal(monitor.classOf(1, 1), "kernelData");
  for (const [block, page] of [[0, 0], [1, 0], [1, 2], [1, 3], [2, 0], [-1, -1]] as const) {
    assert.equal(monitor.classOf(block, page), "user", `${block}, ${page}`);
  }
});

Deno.test("Monitor.classOf() says user again when a refresh cannot read the page tables", () => {
  const marks = [Uint8Array.of(known | kernel)];
  const { monitor } = monitorOf([reading(marks), reading(marks, "too late"), reading(marks)]);
  const classes = [0, 1, 2].map(() => {
    monitor.refresh();
    return [monitor.classOf(0, 0), monitor.summary().why];
  });
  assert.deepEqual(classes, [
    ["kernelData", null],
    ["user", "too late"],
    ["kernelData", "too late"],
  ]);
  assert.equal(monitor.summary().failed, 1);
});

Deno.test("Monitor.refresh() hands its budget on and counts; while the VM runs there is more time", () => {
  const { monitor, budgets } = monitorOf([reading([])], 50);
  monitor.refresh();
  for (let i = 0; i < 9; i++) monitor.refreshIfDue();
  monitor.refresh();
  assert.deepEqual(budgets, [250, 250, 50]);
  const { refreshes, addressSpaces, lastRefreshMs } = monitor.summary();
  assert.deepEqual([refreshes, addressSpaces, lastRefreshMs], [3, 3, 7]);
  const other = monitorOf([reading([])]);
  other.monitor.refresh();
  other.monitor.refresh();
  assert.equal(other.budgets[1], DEFAULT_MONITOR_BUDGET_MS);
});

Deno.test("Monitor.refreshIfDue() looks for a tenth of the time at most", () => {
  const { monitor } = monitorOf([reading([])]);
  monitor.refresh();
  const refreshes = Array.from({ length: 12 }, () => {
    monitor.refreshIfDue();
    return monitor.summary().refreshes;
  });
  // The clock goes on by 7 ms a look at it, which is also what a refresh takes.
  assert.deepEqual(refreshes, [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]);
});
