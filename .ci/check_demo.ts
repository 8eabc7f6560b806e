/**
 * Checks what `sealift demo --json` reports: `check_demo.ts FILE`. Says what does not hold, and exits with 1.
 *
 * @module
 */

interface DemoReport {
  outcome: string;
  profile: "sealed" | "paper";
  downtimeMs: number | null;
  rounds: unknown[] | null;
  sourceState: string | null;
  destinationState: string | null;
  proof: {
    heartbeatContinues: boolean;
    ramEqual: boolean;
    secretsOnWire: number;
    secretsInPlaintextControl: number;
  };
}

const [path = ""] = Deno.args;
const last = (await Deno.readTextFile(path)).trimEnd().split("\n").at(-1) ?? "";
const report: DemoReport = JSON.parse(last);
const { proof } = report;
const rounds = report.rounds?.length ?? 0;

const checks: [text: string, holds: boolean][] = [
  [`outcome is ${report.outcome}`, report.outcome === "completed"],
  [`heartbeatContinues is ${proof.heartbeatContinues}`, proof.heartbeatContinues === true],
  [`ramEqual is ${proof.ramEqual}`, proof.ramEqual === true],
  [
    `secretsOnWire is ${proof.secretsOnWire}, profile ${report.profile}`,
    // The paper's profile leaks: that is what it is there to show.
    report.profile === "paper" ? proof.secretsOnWire > 0 : proof.secretsOnWire === 0,
  ],
  [
    `secretsInPlaintextControl is ${proof.secretsInPlaintextControl}`,
    proof.secretsInPlaintextControl > 0,
  ],
  [`rounds: ${rounds}`, rounds >= 3],
  [`sourceState is ${report.sourceState}`, report.sourceState === "quit"],
  [`destinationState is ${report.destinationState}`, report.destinationState === "running"],
];
for (const [text, holds] of checks) console.log(`${holds ? "ok  " : "FAIL"} ${text}`);
console.log(`     downtime ${report.downtimeMs?.toFixed(1)} ms`);
if (checks.some(([, holds]) => !holds)) Deno.exit(1);
