/**
 * Texts that came from elsewhere, before a person sees them.
 *
 * @module
 */

/** Longest text for people, in UTF-16 code units: a sentence and QEMU's own words. */
export const MAX_TEXT_LENGTH = 500;

// C0, DEL and C1 drive terminals; the rest reorders, joins or hides text around it (Unicode TR 36).
const unprintable =
  // deno-lint-ignore no-control-regex
  /[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/**
 * Makes a text from elsewhere fit for a terminal: control characters become spaces, and what is beyond
 * {@linkcode MAX_TEXT_LENGTH} is cut. Doing it twice changes nothing more.
 *
 * @example
 * ```ts
 * import { printable } from "./printable.ts";
 *
 * console.assert(printable("a\u001b[2J\n") === "a [2J ");
 * ```
 */
export function printable(text: string): string {
  // Cut before the rest, so that the work is bounded too.
  const cut = text.length > MAX_TEXT_LENGTH ? `${text.slice(0, MAX_TEXT_LENGTH - 1)}…` : text;
  return cut.toWellFormed().replace(unprintable, " ");
}
