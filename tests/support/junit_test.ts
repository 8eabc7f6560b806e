import assert from "node:assert/strict";
import { addCounts, countTestcases, formatCounts } from "./junit.ts";

// As written by `deno test --junit-path`, Deno 2.9.6.
const report = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="deno test" tests="6" failures="2" errors="0" time="0.015">
    <testsuite name="./a_test.ts" tests="6" disabled="1" errors="0" failures="2">
        <testcase name="ok" classname="./a_test.ts" time="0.001" line="1" col="6">
        </testcase>
        <testcase name="a &lt;failure/&gt; in a name > here" classname="./a_test.ts" time="0.000" line="2" col="6">
        </testcase>
        <testcase name="ignored" classname="./a_test.ts" time="0.000" line="3" col="6">
            <skipped/>
        </testcase>
        <testcase name="fails" classname="./a_test.ts" time="0.001" line="4" col="6">
            <failure message="Uncaught Error: no &lt;b&gt;">Error: no &lt;b&gt;
    at file:///a_test.ts:3:31</failure>
        </testcase>
        <testcase name="short" classname="./a_test.ts" time="0.002" line="5" col="6"/>
        <testcase name="short > step" classname="./a_test.ts" time="0.000" line="5" col="41">
            <error message="x">x</error>
        </testcase>
    </testsuite>
</testsuites>`;

Deno.test("countTestcases() tells passed, failed and skipped apart", () => {
  assert.deepEqual(countTestcases(report), { passed: 3, failed: 2, skipped: 1 });
});

Deno.test("countTestcases() counts nothing when nothing ran", () => {
  assert.deepEqual(countTestcases('<testsuites tests="0"></testsuites>'), {
    passed: 0,
    failed: 0,
    skipped: 0,
  });
});

Deno.test("formatCounts() names the skipped only when there are any", () => {
  const counts = { passed: 3, failed: 0, skipped: 0 };
  assert.equal(formatCounts(counts), "3 passed, 0 failed");
  assert.equal(
    formatCounts(addCounts(counts, { passed: 1, failed: 1, skipped: 2 })),
    "4 passed, 1 failed, 2 skipped",
  );
});
