/**
 * Callbacks of those who watch a migration: what they throw changes nothing in it.
 *
 * @module
 */

/** The callback, or none, as one that never throws. */
export function quiet<A extends unknown[]>(
  observer: ((...args: A) => void) | undefined,
): (...args: A) => void {
  return (...args) => {
    try {
      const returned: unknown = observer?.(...args);
      // An async function is taken for one that returns nothing.
      if (returned instanceof Promise) returned.catch(() => {});
    } catch {
      // Whoever watches cannot stop a switchover half-way.
    }
  };
}
