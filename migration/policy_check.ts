/**
 * What a policy must be, checked on its data: once where it is defined, and once more where that data has
 * come from another process. A fault names its place: `levels.restricted.classes`.
 *
 * @module
 */

import { didYouMean } from "./did_you_mean.ts";
import { MAX_SUITE_ID_LENGTH, MAX_SUITES_PER_CLASS, pageClasses } from "./message_types.ts";
import { type PolicyDefinition, type PolicyLevel, tamperActs } from "./policy_types.ts";
import { printable } from "./printable.ts";

/** Levels of a policy: people have to tell them apart. */
const MAX_LEVELS = 32;
/** Destinations of one level. */
const MAX_DESTINATIONS = 256;
/** Longest name of a policy. */
const MAX_NAME_LENGTH = 64;
/** A fault of a policy; `message` says where and what, without the policy's name. */
export class PolicyFault extends Error {
  /** The class's name. */
  override readonly name = "PolicyFault";
}

/** Whether it is an object with named members. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @throws {PolicyFault} for a key that is none of `known` */
export function refuseUnknownKeys(
  value: Record<string, unknown>,
  known: readonly string[],
  path: string,
): void {
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    const where = path === "" ? shownKey(key) : `${path}.${shownKey(key)}`;
    throw new PolicyFault(`${where} is not known here${didYouMean(key, known)}`);
  }
}

/** A copy of a policy's data that holds nothing but what it must. @throws {PolicyFault} */
export function checkDefinition(value: unknown): PolicyDefinition {
  if (!isRecord(value)) throw new PolicyFault("it is not an object");
  refuseUnknownKeys(value, ["name", "levels"], "");
  const { name, levels } = value;
  if (typeof name !== "string" || name === "" || name.length > MAX_NAME_LENGTH) {
    throw new PolicyFault(`name is not a text of 1 to ${MAX_NAME_LENGTH} characters`);
  }
  if (name !== printable(name)) throw new PolicyFault("name has characters that cannot be printed");
  if (!isRecord(levels)) throw new PolicyFault("levels is not an object");
  const entries = Object.entries(levels);
  if (entries.length === 0) throw new PolicyFault("levels is empty");
  if (entries.length > MAX_LEVELS) throw new PolicyFault(`levels are more than ${MAX_LEVELS}`);
  return Object.freeze({
    name,
    levels: Object.freeze(Object.fromEntries(entries.map(
      ([level, content]) => [checkLevelName(level), checkLevel(content, `levels.${level}`)],
    ))),
  });
}

function checkLevelName(name: string): string {
  // ECMA-262, OrdinaryOwnPropertyKeys: integer keys come first, ascending, wherever they were written.
  if (/^\d+$/.test(name)) {
    throw new PolicyFault(
      `levels.${shownKey(name)} is an integer, and JavaScript would put it first: ` +
        "the order of levels matters, so begin its name with a letter",
    );
  }
  if (!/^[A-Za-z][A-Za-z0-9._-]{0,63}$/.test(name)) {
    throw new PolicyFault(
      `levels.${
        shown(name)
      } is no name of a level: a letter, then letters, digits, . _ -; at most 64`,
    );
  }
  return name;
}

function checkLevel(value: unknown, path: string): PolicyLevel {
  if (!isRecord(value)) throw new PolicyFault(`${path} is not an object`);
  refuseUnknownKeys(value, ["suites", "classes", "onTamper", "to", "profile"], path);
  const { suites, classes, onTamper, to, profile } = value;
  if (profile === "paper" && classes !== undefined) {
    throw new PolicyFault(
      `${path}.classes means nothing with profile: "paper": pages of user space go through the suite, all others in clear`,
    );
  }
  return Object.freeze({
    suites: checkSuiteList(suites, `${path}.suites`),
    ...(classes === undefined ? {} : { classes: checkClasses(classes, `${path}.classes`) }),
    ...(onTamper === undefined
      ? {}
      : { onTamper: checkChoice(onTamper, tamperActs, `${path}.onTamper`) }),
    ...(to === undefined ? {} : { to: checkDestinations(to, `${path}.to`) }),
    ...(profile === undefined
      ? {}
      : { profile: checkChoice(profile, ["sealed", "paper"], `${path}.profile`) }),
  }) as PolicyLevel;
}

function checkClasses(value: unknown, path: string): Record<string, readonly string[]> {
  if (!isRecord(value)) throw new PolicyFault(`${path} is not an object`);
  refuseUnknownKeys(value, pageClasses, path);
  return Object.freeze(Object.fromEntries(
    Object.entries(value).map(([name, list]) => [name, checkSuiteList(list, `${path}.${name}`)]),
  ));
}

function checkSuiteList(value: unknown, path: string): readonly string[] {
  const ids = checkTexts(value, path, { max: MAX_SUITES_PER_CLASS, what: "a suite's id" });
  for (const [index, id] of ids.entries()) {
    if (id.length > MAX_SUITE_ID_LENGTH || !/^[a-z0-9][a-z0-9._/-]*$/.test(id)) {
      throw new PolicyFault(`${path}[${index}] is no suite's id: ${shown(id)}`);
    }
  }
  return ids;
}

function checkDestinations(value: unknown, path: string): readonly string[] {
  const names = checkTexts(value, path, { max: MAX_DESTINATIONS, what: "a peer's name or key" });
  for (const [index, name] of names.entries()) {
    // A name of the list of peers, or a key: 32 bytes in padded base64.
    if (/^[A-Za-z0-9._-]{1,64}$/.test(name) || /^[A-Za-z0-9+/]{43}=$/.test(name)) continue;
    throw new PolicyFault(`${path}[${index}] is no peer's name or key: ${shown(name)}`);
  }
  return names;
}

/** A list of different texts that is not empty. */
function checkTexts(
  value: unknown,
  path: string,
  { max, what }: { max: number; what: string },
): readonly string[] {
  if (!Array.isArray(value)) throw new PolicyFault(`${path} is not a list`);
  if (value.length === 0) throw new PolicyFault(`${path} is empty`);
  if (value.length > max) throw new PolicyFault(`${path} has more than ${max} items`);
  const texts: string[] = [];
  for (const [index, text] of Array.from<unknown>(value).entries()) {
    if (typeof text !== "string") throw new PolicyFault(`${path}[${index}] is not ${what}`);
    if (texts.includes(text)) {
      throw new PolicyFault(`${path}[${index}] is there twice: ${shown(text)}`);
    }
    texts.push(text);
  }
  return Object.freeze(texts);
}

function checkChoice<T extends string>(value: unknown, known: readonly T[], path: string): T {
  const found = known.find((one) => one === value);
  if (found !== undefined) return found;
  const meant = typeof value === "string" ? didYouMean(value, known) : "";
  throw new PolicyFault(`${path} is none of ${known.join(", ")}: ${shown(value)}${meant}`);
}

function shownKey(key: string): string {
  return /^[A-Za-z0-9_$-]{1,64}$/.test(key) ? key : shown(key);
}

/** A value from elsewhere, short enough for a sentence. */
export function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(printable(value).slice(0, 80));
  if (typeof value === "function") return "a function";
  if (typeof value === "object" && value !== null) {
    return Array.isArray(value) ? "a list" : "an object";
  }
  return String(value).slice(0, 80);
}
