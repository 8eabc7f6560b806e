/**
 * The chart of `deno task bench`: how fast each suite seals, by size of message and backend.
 *
 * @module
 */

import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import type { BenchFigure } from "./bench_figures.ts";

/** One bar. */
interface Bar {
  size: string;
  suite: string;
  backend: string;
  megabytesPerSecond: number;
}

/** Benches in the groups `seal 64 KiB`, with names like `aes-256-gcm (node:crypto)`. */
function barsOf(figures: readonly BenchFigure[]): Bar[] {
  return figures.flatMap(({ group, name, megabytesPerSecond }) => {
    const size = /^seal (\d+ [KMG]iB)$/.exec(group ?? "")?.[1];
    const [, suite, backend] = /^(\S+) \((.*)\)$/.exec(name) ?? [];
    if (size === undefined || suite === undefined || backend === undefined) return [];
    return megabytesPerSecond === null ? [] : [{ size, suite, backend, megabytesPerSecond }];
  });
}

/**
 * The chart as SVG: a panel for each size, a row for each suite and backend; a suite's backends side by side.
 *
 * @returns null when no suite is among the figures
 */
export async function drawBenchChart(
  figures: readonly BenchFigure[],
  options: { subtitle: string },
): Promise<string | null> {
  const bars = barsOf(figures);
  if (bars.length === 0) return null;
  const inOrder = (key: "size" | "suite" | "backend") => [...new Set(bars.map((bar) => bar[key]))];
  const rows = inOrder("suite").flatMap((suite) =>
    inOrder("backend").map((backend) => rowOf({ suite, backend }))
  );
  const y = {
    field: "row",
    type: "nominal",
    sort: rows,
    title: null,
    axis: { labelLimit: 0, ticks: false, domain: false },
  } as const;
  const x = {
    field: "megabytesPerSecond",
    type: "quantitative",
    title: "MB/s on one core",
  } as const;
  const color = {
    field: "backend",
    type: "nominal",
    sort: inOrder("backend"),
    legend: null,
  } as const;
  const text = { field: "megabytesPerSecond", type: "quantitative", format: ",.0f" } as const;
  const spec: TopLevelSpec = {
    data: { values: bars.map((bar) => ({ ...bar, row: rowOf(bar) })) },
    background: "white",
    title: {
      text: "Sealing messages, by size, suite and backend",
      subtitle: options.subtitle,
      anchor: "start",
      offset: 12,
    },
    facet: {
      field: "size",
      type: "nominal",
      sort: inOrder("size"),
      title: null,
      header: { labelFontSize: 12, labelFontWeight: "bold", labelAnchor: "start" },
    },
    columns: 2,
    spec: {
      width: 340,
      height: { step: 16 },
      layer: [
        { mark: { type: "bar" }, encoding: { y, x, color } },
        {
          mark: { type: "text", align: "left", dx: 3, fontSize: 9 },
          encoding: { y, x, text },
        },
      ],
    },
    config: { view: { stroke: null } },
  };
  const view = new View(parse(compile(spec).spec), { renderer: "none" });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}

function rowOf({ suite, backend }: Pick<Bar, "suite" | "backend">): string {
  return `${suite}, ${backend}`;
}
