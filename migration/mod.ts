/**
 * The algorithm: rounds of sealed pages from a source to a destination, then a switchover after which
 * exactly one copy runs. It knows no file descriptor and no QEMU; see {@linkcode SourceVm},
 * {@linkcode DestinationVm} and the other ports for what it is handed.
 *
 * @module
 */

export * from "./ports.ts";
export * from "./limits.ts";
export {
  AUTHENTICATION_FAILED,
  MigrationError,
  type MigrationErrorCode,
  migrationErrorCodes,
  type MigrationErrorOptions,
} from "./errors.ts";
export {
  decodeKey,
  encodeKey,
  generateIdentity,
  type Identity,
  importIdentity,
  isEncodedKey,
} from "./identity.ts";
export {
  type LanePosition,
  type MigrationLimits,
  type OfferMessage,
  type PageClass,
  pageClasses,
  refuseCodes,
  type RefuseMessage,
  type SuiteChoice,
  type SuiteOffers,
} from "./messages.ts";
export type { OfferJudge } from "./offer_answer.ts";
export { type ProfileId, profileIds } from "./profile.ts";
export { checkPolicy, DefinedPolicy, definePolicy } from "./policy.ts";
export {
  checkSensitivity,
  decide,
  judge,
  type OfferedVm,
  type PolicyConsent,
  type PolicyRefusal,
} from "./policy_decision.ts";
export { PolicyRounds, type PolicyRoundsOptions } from "./policy_rounds.ts";
export type { SuiteFacts } from "./policy_suites.ts";
export {
  type LevelParts,
  type PaperLevel,
  type Policy,
  type PolicyDefinition,
  type PolicyLevel,
  type PolicyRound,
  type PolicySource,
  type PolicyVm,
  type SealedLevel,
  type SuiteList,
  type TamperAct,
  tamperActs,
  type ThirdPartySuiteId,
} from "./policy_types.ts";
export { type MigrationResult, type Outcome, outcomes } from "./result.ts";
export { type RoundStatistics } from "./rounds.ts";
export {
  type DestinationState,
  destinationTransitions,
  type EnteredHook,
  type SourceState,
  sourceTransitions,
} from "./states.ts";
export { DEFAULT_MONITOR_BUDGET_MS, Monitor, type MonitorOptions } from "./monitor.ts";
export { Source } from "./source.ts";
export type { SourceOptions } from "./source_options.ts";
export { Destination } from "./destination.ts";
export type { DestinationOptions } from "./destination_options.ts";
export { recover, type RecoveryOptions, type RecoveryResult, type RecoveryVm } from "./recovery.ts";
export type { VmStatus } from "./recovery_standing.ts";
