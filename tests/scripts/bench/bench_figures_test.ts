import assert from "node:assert/strict";
import {
  type BenchEntry,
  benchFigures,
  type BenchTimes,
  sizeIn,
} from "../../../scripts/bench/bench_figures.ts";
import { drawBenchChart } from "../../../scripts/bench/bench_chart.ts";

function entry(name: string, avg: number, more: Partial<BenchEntry> = {}): BenchEntry {
  const ok: BenchTimes = { n: 10, avg, min: avg / 2, max: avg * 3, p75: avg, p99: avg * 2 };
  return {
    origin: "file:///checkout/tests/x_bench.ts",
    group: "seal 64 KiB",
    name,
    baseline: false,
    results: [{ ok }],
    ...more,
  };
}

const entries = [
  entry("aes-256-gcm (libcrypto 3.0.0)", 16_384, { baseline: true }),
  entry("aes-256-gcm (node:crypto)", 163_840),
  entry("example.com/mine (plain)", 1_638_400),
];

Deno.test("sizeIn() reads the first size, and none out of other numbers", () => {
  assert.equal(sizeIn("seal 1 MiB"), 2 ** 20);
  assert.equal(sizeIn("encode pages, 64 MiB in sections of 64"), 64 * 2 ** 20);
  assert.equal(sizeIn("64 GiB, then 4 KiB"), 64 * 2 ** 30);
  for (const text of ["reader", "64", "64 KB", "sections of 64", "64KiB"]) {
    assert.equal(sizeIn(text), null, text);
  }
});

Deno.test("benchFigures() derives throughput and the ratio to the group's baseline", () => {
  const other = entry("scan", 5_000, { group: null });
  const [first, second, third, fourth] = benchFigures([...entries, other], "file:///checkout/");
  assert.equal(first?.file, "tests/x_bench.ts");
  assert.deepEqual([first?.bytes, first?.megabytesPerSecond, first?.ofBaseline], [65_536, 4000, 1]);
  assert.deepEqual([second?.megabytesPerSecond, second?.ofBaseline], [400, 0.1]);
  assert.deepEqual([third?.megabytesPerSecond, third?.ofBaseline], [40, 0.01]);
  assert.deepEqual(
    [fourth?.bytes, fourth?.megabytesPerSecond, fourth?.ofBaseline],
    [null, null, null],
  );
});

Deno.test("benchFigures() takes the size of the name when the group has none", () => {
  const [figure] = benchFigures([entry("parse 64 MiB", 1e6, { group: "reader" })], "file:///");
  assert.equal(figure?.bytes, 64 * 2 ** 20);
  assert.equal(figure?.megabytesPerSecond, 67_100);
});

Deno.test("benchFigures() throws when a bench failed", () => {
  const failed = entry("broken", 1, { results: [{ failed: { message: "it does not open" } }] });
  assert.throws(() => benchFigures([...entries, failed], "file:///"), /bench "broken".*it failed/);
});

Deno.test("drawBenchChart() draws a bar for every suite, backend and size", async () => {
  const more = entries.map((one) => ({ ...one, group: "seal 4 KiB" }));
  const figures = benchFigures([...entries, ...more], "file:///");
  const svg = await drawBenchChart(figures, { subtitle: "a <machine>" }) ?? "";
  assert.match(svg, /^<svg [^]*<\/svg>$/);
  for (
    const text of ["aes-256-gcm", "example.com/mine", "libcrypto 3.0.0", "node:crypto", "4 KiB"]
  ) assert.ok(svg.includes(text), text);
  assert.ok(svg.includes("a &lt;machine&gt;"));
  assert.equal(svg.match(/aria-roledescription="bar"/g)?.length, 6);
});

Deno.test("drawBenchChart() draws nothing when no suite was measured", async () => {
  const figures = benchFigures([entry("parse 64 MiB", 1e6, { group: "reader" })], "file:///");
  assert.equal(await drawBenchChart(figures, { subtitle: "" }), null);
});
