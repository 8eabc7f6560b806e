/**
 * What the destination makes of an OFFER: every check that can be made without moving a page.
 *
 * @see PROTOCOL.md section 3
 * @module
 */

import { messageOf } from "./failure.ts";
import {
  negotiateSuites,
  type OfferMessage,
  type PageClass,
  pageClasses,
  type RefuseMessage,
  type SuiteChoice,
  type SuiteOffers,
} from "./messages.ts";
import { checkOffer } from "./offer_check.ts";
import type { DestinationVm, JournalStore, LandingProbe } from "./ports.ts";

/** What the destination's policy makes of an offer: the suites that it accepts, or why it refuses. Never rejects. */
export type OfferJudge = (
  offer: OfferMessage,
) => Promise<
  { refusal: null; suites: SuiteOffers } | { refusal: Omit<RefuseMessage, "type"> }
>;

/** An offer that can be taken. */
export interface Acceptable {
  suites: SuiteChoice;
  probe: LandingProbe;
  warnings: string[];
}

/** Judges an offer; changes nothing in the VM. `probe` is what was found at an earlier one. */
export async function judgeOffer(offer: OfferMessage, world: {
  migrationId: string;
  vm: DestinationVm;
  vmId: string | undefined;
  suites: SuiteOffers;
  judge?: OfferJudge | undefined;
  journals: JournalStore;
  probe: LandingProbe | null;
}): Promise<RefuseMessage | Acceptable> {
  const { migrationId, vm, vmId, journals } = world;
  const checked = checkOffer(offer, { facts: vm.facts, vmId });
  if (checked.refusal !== null) return checked.refusal;
  let accepted = world.suites;
  if (world.judge !== undefined) {
    const verdict = await world.judge(offer);
    if (verdict.refusal !== null) return { type: "REFUSE", ...verdict.refusal };
    accepted = within(verdict.suites, world.suites);
  }
  const chosen = negotiateSuites(offer.suites, accepted);
  for (const pageClass of pageClasses) {
    if (chosen[pageClass] !== null) continue;
    return {
      type: "REFUSE",
      code: "policy",
      text: `no cipher suite for pages of class ${pageClass} is acceptable to both sides: ` +
        `offered ${shown(offer.suites[pageClass])}, accepted here ${shown(accepted[pageClass])}`,
      hint: "change one of the policies, or give the same --cipher and --plugin on both ends",
    };
  }
  if (await journals.has(migrationId, "destination")) {
    return refuse("state", "this host has seen this migration before");
  }
  if (offer.dryRun) {
    try {
      await journals.check();
    } catch (error) {
      return refuse("state", messageOf(error));
    }
  }
  try {
    const probe = world.probe ?? await vm.probe();
    return { suites: chosen as Record<PageClass, string>, probe, warnings: checked.warnings };
  } catch (error) {
    return refuse("landing", messageOf(error));
  }
}

/** What a policy accepts of what this side can do at all. */
function within(policy: SuiteOffers, able: SuiteOffers): SuiteOffers {
  const both = (name: PageClass) => policy[name].filter((id) => able[name].includes(id));
  return {
    user: both("user"),
    kernelText: both("kernelText"),
    kernelData: both("kernelData"),
    unmapped: both("unmapped"),
  };
}

/** A few ids: a REFUSE has room for 500 characters. */
function shown(ids: readonly string[]): string {
  const few = ids.slice(0, 4).join(", ");
  return ids.length > 4 ? `${few} and ${ids.length - 4} more` : few || "none";
}

/** A REFUSE without a hint. */
export function refuse(code: RefuseMessage["code"], text: string): RefuseMessage {
  return { type: "REFUSE", code, text, hint: null };
}
