import assert from "node:assert/strict";
import { MigrationError } from "../../migration/errors.ts";
import {
  failedReport,
  formatBytes,
  formatMs,
  formatReport,
  type MigrationReport,
} from "../../cli/report.ts";

function completed(): MigrationReport {
  return {
    ...failedReport(new Error(), { side: "source", dryRun: false, profile: "sealed" }),
    outcome: "completed",
    error: null,
    id: "0123456789abcdef0123456789abcdef",
    suites: {
      user: "aes-256-gcm",
      kernelText: "aes-256-gcm",
      kernelData: "aes-256-gcm",
      unmapped: "aes-256-gcm",
    },
    suite: "aes-256-gcm",
    backend: "libcrypto 3.0.17",
    landing: "mapped",
    vm: {
      name: "web",
      uuid: "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
      memoryBytes: 2 ** 30,
      sensitivity: null,
    },
    rounds: [{
      round: 0,
      pages: { user: 10, kernelText: 2, kernelData: 3, unmapped: 5, zero: 7 },
      bytes: 81920,
      sealedBytes: 82100,
      durationMs: 1234,
      keyNumber: 1,
      mistakes: 0,
    }],
    setupMs: 80,
    totalMs: 1520,
    downtimeMs: 8.4,
    bytes: { guest: 81920, wire: 90000 },
    mistakes: { detected: 1, repaired: 1, hits: [] },
    cpuSeconds: { agent: 1.25, qemu: null },
    verified: { pages: 20, records: 4 },
    sourceState: "quit",
    destinationState: "running",
    notes: ["the disk is not copied"],
  };
}

Deno.test("formatReport() shows what is known, in the order that people ask", () => {
  assert.deepEqual(formatReport(completed()), [
    "completed after 1.52 s",
    "  migration   0123456789abcdef0123456789abcdef",
    "  vm          web, 1b4e28ba-2fa1-11d2-883f-0016d3cca427, 1.00 GiB",
    "  sealed with aes-256-gcm, libcrypto 3.0.17",
    "  landing     mapped",
    "  source      quit",
    "  destination running",
    "  time        setup 80.0 ms, downtime 8.4 ms",
    "  round 0     20 pages, 7 zero, 80.2 KiB sealed, 1.23 s",
    "  bytes       80.0 KiB of guest, 87.9 KiB on the wire",
    "  verified    20 pages, 4 records",
    "  mistakes    1 detected, 1 repaired",
    "  cpu         agent 1.25 s",
    "  note        the disk is not copied",
  ]);
});

Deno.test("formatReport() leaves out what only the other side knows", () => {
  const lines = formatReport({
    ...completed(),
    vm: null,
    rounds: null,
    downtimeMs: null,
    setupMs: null,
  });
  assert.ok(
    !lines.some((line) => /null|NaN|undefined|downtime|round/.test(line)),
    lines.join("\n"),
  );
});

Deno.test("formatReport() says that the paper's profile is not for use", () => {
  const lines = formatReport({ ...completed(), profile: "paper", dryRun: true });
  assert.match(lines.join("\n"), /^dry run: .*the paper's profile: not for use/s);
});

Deno.test("formatReport() tells which suite sealed which class, and what told them apart", () => {
  const report = completed();
  const lines = formatReport({
    ...report,
    suites: { ...report.suites!, kernelText: "aes-128-gcm" },
    monitor: { addressSpaces: 13, refreshes: 4, lastRefreshMs: 40, failed: 0, why: null },
  });
  const tells = (line: string) => assert.ok(lines.includes(line), lines.join("\n"));
  tells(
    "  sealed with aes-256-gcm (user, kernelData, unmapped), aes-128-gcm (kernelText), libcrypto 3.0.17",
  );
  tells("  monitor     13 address spaces, 4 refreshes, the last took 40.0 ms");
  tells(
    "  round 0     20 pages, 10 user, 2 kernelText, 3 kernelData, 5 unmapped, 7 zero, 80.2 KiB sealed, 1.23 s",
  );
});

Deno.test("failedReport() has every key, and the outcome that the error stands for", () => {
  const report = failedReport(new MigrationError("handshake", "no", { hint: "look" }), {
    side: "destination",
    dryRun: false,
    profile: "paper",
  });
  assert.equal(report.outcome, "refused");
  assert.equal(report.profile, "paper");
  assert.deepEqual(report.error, { code: "handshake", message: "no", hint: "look" });
  assert.deepEqual(Object.keys(report).sort(), Object.keys(completed()).sort());
  assert.ok(Object.values(report).every((value) => value !== undefined));
});

Deno.test("formatBytes() and formatMs() change units where the number would get long", () => {
  assert.deepEqual([0, 1023, 1024, 10 * 1024, 2 ** 30, 2 ** 50].map(formatBytes), [
    "0 B",
    "1023 B",
    "1.00 KiB",
    "10.0 KiB",
    "1.00 GiB",
    "1024.0 TiB",
  ]);
  assert.deepEqual([0, 99.94, 99.96, 999.4, 999.6, 59_994, 59_996, 125_000].map(formatMs), [
    "0.0 ms",
    "99.9 ms",
    "100 ms",
    "999 ms",
    "1.00 s",
    "59.99 s",
    "1 min 0 s",
    "2 min 5 s",
  ]);
});
