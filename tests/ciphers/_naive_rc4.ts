/**
 * RC4 from its description alone, a byte at a time: what the fast one is compared with.
 */

/** The first `length` bytes of the key stream. */
export function naiveRc4(key: ArrayLike<number>, length: number): number[] {
  const state = Array.from({ length: 256 }, (_, i) => i);
  const swap = (a: number, b: number) => [state[a], state[b]] = [state[b]!, state[a]!];
  let j = 0;
  for (let i = 0; i < 256; i++) swap(i, j = (j + state[i]! + key[i % key.length]!) % 256);
  let i = j = 0;
  return Array.from({ length }, () => {
    i = (i + 1) % 256;
    swap(i, j = (j + state[i]!) % 256);
    return state[(state[i]! + state[j]!) % 256]!;
  });
}
