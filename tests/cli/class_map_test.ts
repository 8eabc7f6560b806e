import assert from "node:assert/strict";
import {
  bar,
  countClasses,
  mapRows,
  shownClasses,
  shownIndex,
  summarize,
} from "../../cli/class_map.ts";
import { classMapSvg } from "../../cli/class_map_svg.ts";

const [user, text, data, unmapped, zero] = shownClasses.map(shownIndex) as [
  number,
  number,
  number,
  number,
  number,
];

Deno.test("countClasses() counts the pages of all blocks", () => {
  const counts = countClasses([
    { name: "a", classes: Uint8Array.of(user, user, zero) },
    { name: "b", classes: Uint8Array.of(data, text, unmapped, user) },
  ]);
  assert.deepEqual(counts, {
    user: { pages: 3, bytes: 12288 },
    kernelText: { pages: 1, bytes: 4096 },
    kernelData: { pages: 1, bytes: 4096 },
    unmapped: { pages: 1, bytes: 4096 },
    zero: { pages: 1, bytes: 4096 },
  });
});

Deno.test("summarize() shows the class of most pages, and zeros only where nothing else is", () => {
  const classes = Uint8Array.of(zero, zero, user, data, data, user, zero, zero, zero, unmapped);
  const { pagesPerCell, cells } = summarize(classes, 4);
  assert.equal(pagesPerCell, 3);
  assert.deepEqual([...cells], [user, data, zero, unmapped]);
});

Deno.test("summarize() gives a cell to each page when there are enough, and none to nothing", () => {
  assert.deepEqual([...summarize(Uint8Array.of(user, zero), 64).cells], [user, zero]);
  assert.equal(summarize(new Uint8Array(0), 64).cells.length, 0);
});

Deno.test("mapRows() cuts the block into lines", () => {
  const classes = new Uint8Array(10).fill(text);
  classes.fill(unmapped, 8);
  const { bytesPerLetter, rows } = mapRows({ name: "m0", classes }, { columns: 4, rows: 8 });
  assert.equal(bytesPerLetter, 4096);
  assert.deepEqual(rows, ["TTTT", "TTTT", "--"]);
});

Deno.test("bar() shows every share that is not nothing", () => {
  assert.deepEqual([0, 0.001, 0.5, 1].map((share) => bar(share, 4)), ["", "#", "##", "####"]);
});

Deno.test("classMapSvg() draws one rectangle for neighbors of one class, and a legend", () => {
  const classes = new Uint8Array(300).fill(user);
  classes.fill(data, 10, 20);
  const blocks = [{ name: "m0", classes }];
  const svg = classMapSvg({ title: "vm1", blocks, counts: countClasses(blocks) });
  const count = (pattern: RegExp) => [...svg.matchAll(pattern)].length;
  // Three rows of at most 128; the first is cut in three. One more is in the legend.
  assert.equal(count(/fill="#d55e00"/g), 2 + 1 + 1 + 1);
  assert.equal(count(/fill="#56b4e9"/g), 1 + 1);
  for (const name of shownClasses) assert.match(svg, new RegExp(`>${name} `));
  assert.match(svg, /m0, 4\.00 KiB a cell/);
});

Deno.test("classMapSvg() escapes what comes from outside", () => {
  const blocks = [{ name: "</text><script>&\u0000", classes: Uint8Array.of(user) }];
  const svg = classMapSvg({ title: "<b>", blocks, counts: countClasses(blocks) });
  assert.doesNotMatch(svg, /<script|<b>/);
  assert.ok(!svg.includes("\0"));
  assert.match(svg, /&lt;\/text&gt;&lt;script&gt;&amp;/);
});
