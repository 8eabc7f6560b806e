/**
 * Rows in which every pair of values comes at least once: far fewer than the full product.
 *
 * @module
 */

/** Names, each with its values. */
export type Factors = Record<string, readonly (string | number | boolean)[]>;

/** One value of each factor. */
export type Row<F extends Factors> = { [Name in keyof F]: F[Name][number] };

/** Two values of different factors. */
export type Pair = readonly [name: string, value: unknown, otherName: string, otherValue: unknown];

/** All pairs of values of different factors, but for those that `isExcluded`. */
export function allPairs(factors: Factors, isExcluded: (pair: Pair) => boolean): Pair[] {
  const names = Object.keys(factors);
  return names.flatMap((name, i) =>
    names.slice(i + 1).flatMap((otherName) =>
      factors[name]!.flatMap((value) =>
        factors[otherName]!.map((otherValue): Pair => [name, value, otherName, otherValue])
      )
    )
  ).filter((pair) => !isExcluded(pair));
}

/** Whether both values of a pair are in a row. */
export function hasPair(row: Record<string, unknown>, [name, value, other, otherValue]: Pair) {
  return row[name] === value && row[other] === otherValue;
}

/**
 * A covering array, the same at every call. Where nothing else decides, the first value of a factor is taken: put the
 * cheapest first.
 *
 * @param options.begin what the first rows have
 */
export function pairwise<F extends Factors>(
  factors: F,
  options: { isExcluded?: (pair: Pair) => boolean; begin?: readonly Partial<Row<F>>[] } = {},
): Row<F>[] {
  const { isExcluded = () => false, begin = [] } = options;
  const rows: Row<F>[] = [];
  let missing = allPairs(factors, isExcluded);
  while (missing.length > 0) {
    const next = begin[rows.length];
    const seeds = next === undefined
      ? missing.map(([name, value, other, otherValue]) => ({ [name]: value, [other]: otherValue }))
      : [next];
    const candidates = seeds.map((seed) => complete(factors, { seed, missing, isExcluded }));
    const counts = candidates.map((row) => missing.filter((pair) => hasPair(row, pair)).length);
    const row = candidates[counts.indexOf(Math.max(...counts))]!;
    missing = missing.filter((pair) => !hasPair(row, pair));
    rows.push(row as Row<F>);
  }
  return rows;
}

/** A row that has what `seed` has, and of the missing pairs as many as can be had one by one. */
function complete(
  factors: Factors,
  options: {
    seed: Record<string, unknown>;
    missing: readonly Pair[];
    isExcluded: (pair: Pair) => boolean;
  },
): Record<string, unknown> {
  const { seed, missing, isExcluded } = options;
  const row = { ...seed };
  for (const [name, values] of Object.entries(factors)) {
    if (name in row) continue;
    const allowed = values.filter((value) =>
      !Object.entries(row).some(([other, otherValue]) =>
        isExcluded([name, value, other, otherValue]) || isExcluded([other, otherValue, name, value])
      )
    );
    const gains = allowed.map((value) =>
      missing.filter((pair) =>
        (pair[0] === name || pair[2] === name) && hasPair({ ...row, [name]: value }, pair)
      ).length
    );
    row[name] = allowed[gains.indexOf(Math.max(...gains))];
  }
  return row;
}
