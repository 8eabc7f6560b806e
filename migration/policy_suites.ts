/**
 * A policy's suites against those that there are: known, of the right profile, and no weaker the higher the level.
 *
 * @module
 */

import type { CipherSuite, SuiteProfile } from "../ciphers/suite.ts";
import { didYouMean } from "./did_you_mean.ts";
import { type PageClass, pageClasses, type SuiteOffers } from "./message_types.ts";
import { PolicyFault } from "./policy_check.ts";
import type { PolicyDefinition, PolicyLevel } from "./policy_types.ts";

/** What has to be known of a suite to judge a policy; a `CipherSuite` fits. */
export type SuiteFacts = Pick<CipherSuite, "id" | "profile" | "keyBytes">;

/** What a level accepts, class by class, best first. */
export function levelSuites({ suites, classes = {} }: PolicyLevel): SuiteOffers {
  const { user = suites, kernelText = suites, kernelData = suites, unmapped = suites } = classes;
  return { user, kernelText, kernelData, unmapped };
}

/**
 * Checks a policy's suites against those that there are: each is known and of its level's profile, and no
 * level accepts, for some class, a weaker one than a level below it does.
 *
 * @throws {PolicyFault}
 */
export function checkPolicySuites(
  { levels }: PolicyDefinition,
  suites: Iterable<SuiteFacts>,
): void {
  const known = new Map(Array.from(suites, (suite) => [suite.id, suite]));
  let lower: { level: string; weakest: Record<PageClass, SuiteFacts> } | null = null;
  for (const [level, content] of Object.entries(levels)) {
    for (const { list, path } of lists(content, `levels.${level}`)) {
      for (const [index, id] of list.entries()) {
        checkSuite(known, id, {
          profile: content.profile ?? "sealed",
          path: `${path}[${index}]`,
        });
      }
    }
    const weakest = weakestSuites(levelSuites(content), known);
    for (const pageClass of lower === null ? [] : pageClasses) {
      const own = weakest[pageClass];
      const least = lower!.weakest[pageClass];
      if (strength(own) >= strength(least)) continue;
      throw new PolicyFault(
        `levels.${level} accepts ${own.id} for pages of class ${pageClass}, which is weaker than ` +
          `${least.id}, the least that levels.${
            lower!.level
          } below it accepts; levels go from low to high`,
      );
    }
    lower = { level, weakest };
  }
}

function weakestSuites(
  offers: SuiteOffers,
  known: ReadonlyMap<string, SuiteFacts>,
): Record<PageClass, SuiteFacts> {
  const weakest = (pageClass: PageClass) =>
    offers[pageClass].map((id) => known.get(id)!)
      .reduce((a, b) => strength(b) < strength(a) ? b : a);
  return {
    user: weakest("user"),
    kernelText: weakest("kernelText"),
    kernelData: weakest("kernelData"),
    unmapped: weakest("unmapped"),
  };
}

/** Every list of suites in a level, with its place. */
function lists(
  { suites, classes = {} }: PolicyLevel,
  path: string,
): { list: readonly string[]; path: string }[] {
  return [
    { list: suites, path: `${path}.suites` },
    ...Object.entries(classes).map(([name, list]) => ({ list, path: `${path}.classes.${name}` })),
  ];
}

function checkSuite(
  known: ReadonlyMap<string, SuiteFacts>,
  id: string,
  { profile, path }: { profile: SuiteProfile; path: string },
): void {
  const suite = known.get(id);
  if (suite === undefined) {
    throw new PolicyFault(
      `${path} is no suite that is known here: ${id}${didYouMean(id, known.keys())}`,
    );
  }
  if (suite.profile === profile) return;
  throw new PolicyFault(
    suite.profile === "paper"
      ? `${path} is a suite of the lab, which protects nothing: ${id}; only a level with profile: "paper" may name it`
      : `${path} is a sealed suite: ${id}; a level with profile: "paper" names suites of the lab only`,
  );
}

/** Of sealed suites the longer key is above; below them are those of the lab, and lowest is no cipher at all. */
function strength({ profile, keyBytes }: SuiteFacts): number {
  if (profile === "sealed") return 1 + keyBytes;
  return keyBytes === 0 ? 0 : 1;
}
