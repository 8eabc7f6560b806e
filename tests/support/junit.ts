/** What a run of tests came to. */
export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** Before anything has run. */
export const noCounts: Counts = { passed: 0, failed: 0, skipped: 0 };

/** The sum of two runs. */
export function addCounts(a: Counts, b: Counts): Counts {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
  };
}

/**
 * Counts the test cases of a JUnit report as `deno test --junit-path` writes it: each step is a case of its
 * own. Text in the report is escaped, so that tags can be told by `<` alone.
 */
export function countTestcases(xml: string): Counts {
  const counts = { ...noCounts };
  for (const [, attributes = "", body = ""] of xml.matchAll(testcasePattern)) {
    if (/<(?:failure|error)\b/.test(body)) counts.failed += 1;
    else if (/<skipped\b/.test(body) || /\bdisabled="true"/.test(attributes)) counts.skipped += 1;
    else counts.passed += 1;
  }
  return counts;
}

const testcasePattern = /<testcase\b((?:[^>"]|"[^"]*")*?)(?:\/>|>(.*?)<\/testcase>)/gs;

/** `N passed, N failed`, and `, N skipped` when there are any. */
export function formatCounts(counts: Counts): string {
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : "";
  return `${counts.passed} passed, ${counts.failed} failed${skipped}`;
}
