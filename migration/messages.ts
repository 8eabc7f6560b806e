/**
 * Control messages as canonical JSON, checked strictly: what {@linkcode decodeMessage} returns holds
 * exactly the fields of its type, within the caps beside the types.
 *
 * @module
 */

import {
  ascending,
  boolean,
  type Check,
  integer,
  list,
  nullable,
  object,
  oneOf,
  SchemaError,
  string,
} from "./_schema.ts";
import { decodeStrict, encodeCanonical } from "./canonical_json.ts";
import { MigrationError } from "./errors.ts";
import { isEncodedKey } from "./identity.ts";
import { MAX_BLOCK_BYTES, MAX_BLOCKS, MAX_CONTROL_MESSAGE_BYTES } from "./limits.ts";
import {
  abortCodes,
  type AbortMessage,
  type AcceptMessage,
  type AckMessage,
  type DiscardedMessage,
  type DiscardMessage,
  type DoneMessage,
  type FinishMessage,
  type HaveMessage,
  type LanePosition,
  type LoadedMessage,
  MAX_CAPABILITIES,
  MAX_LABEL_LENGTH,
  MAX_LANES,
  MAX_LIMIT_MS,
  MAX_NOTES,
  MAX_REPAIR_BUDGET_BYTES,
  MAX_SUITE_ID_LENGTH,
  MAX_SUITES_PER_CLASS,
  MAX_WINDOW_BYTES,
  type Message,
  type MessageOf,
  type MigrationLimits,
  type MistakeMessage,
  type OfferMessage,
  type PageClass,
  type PingMessage,
  type PongMessage,
  refuseCodes,
  type RefuseMessage,
  type ReleaseMessage,
  type ResumeMessage,
  type RunningMessage,
  type StatusMessage,
} from "./message_types.ts";
import { destinationJournalStates, type RamBlock, sourceJournalStates } from "./ports.ts";
import { MAX_TEXT_LENGTH, printable } from "./printable.ts";

export * from "./message_types.ts";
export { MAX_TEXT_LENGTH, printable };

const count = integer(0, Number.MAX_SAFE_INTEGER);
const sequence = integer(0, Number.MAX_SAFE_INTEGER);
const lane = integer(0, MAX_LANES - 1);
const uuid = string(
  "a UUID in lower case",
  (s) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(s),
);
const random = string("32 bytes in base64", isEncodedKey);
const text = string(
  `printable text of at most ${MAX_TEXT_LENGTH} characters`,
  (s) => s === printable(s),
);
const label = string(
  `a name of 1 to ${MAX_LABEL_LENGTH} printable characters`,
  (s) => s.length > 0 && s.length <= MAX_LABEL_LENGTH && s === printable(s),
);
const suiteId = string(
  "a suite id",
  (s) => s.length <= MAX_SUITE_ID_LENGTH && /^[a-z0-9][a-z0-9._/-]*$/.test(s),
);

const limits = object<MigrationLimits>({
  reconnectMs: integer(0, MAX_LIMIT_MS),
  maxStopMs: integer(0, MAX_LIMIT_MS),
  repairBudgetBytes: integer(0, MAX_REPAIR_BUDGET_BYTES),
  windowBytes: integer(0, MAX_WINDOW_BYTES),
});
const position = { lane, sequence };
const lanes = ascending(list(object<LanePosition>(position), MAX_LANES), (one) => one.lane);

function perClass<T>(check: Check<T>): Check<Record<PageClass, T>> {
  return object({ user: check, kernelText: check, kernelData: check, unmapped: check });
}

const schemas: { [T in Message["type"]]: Check<MessageOf<T>> } = {
  OFFER: object<OfferMessage>({
    type: oneOf(["OFFER"]),
    uuid,
    name: nullable(text),
    machine: label,
    qemuVersion: label,
    memoryBytes: integer(0, MAX_BLOCKS * MAX_BLOCK_BYTES),
    blocks: list(object<RamBlock>({ name: label, bytes: integer(0, MAX_BLOCK_BYTES) }), MAX_BLOCKS),
    capabilities: list(label, MAX_CAPABILITIES),
    vmId: nullable(uuid),
    sensitivity: nullable(label),
    before: oneOf(["running", "paused", "prelaunch"]),
    suites: perClass(list(suiteId, MAX_SUITES_PER_CLASS)),
    limits,
    dryRun: boolean,
    sourceRandom: random,
  }),
  ACCEPT: object<AcceptMessage>({
    type: oneOf(["ACCEPT"]),
    suites: perClass(suiteId),
    landing: label,
    backend: label,
    notes: list(text, MAX_NOTES),
    warnings: list(text, MAX_NOTES),
    limits,
    qemuVersion: label,
    destinationRandom: random,
  }),
  REFUSE: object<RefuseMessage>({
    type: oneOf(["REFUSE"]),
    code: oneOf(refuseCodes),
    text,
    hint: nullable(text),
  }),
  ACK: object<AckMessage>({ type: oneOf(["ACK"]), ...position }),
  MISTAKE: object<MistakeMessage>({ type: oneOf(["MISTAKE"]), ...position }),
  LOADED: object<LoadedMessage>({ type: oneOf(["LOADED"]), pages: count, records: count }),
  RUNNING: object<RunningMessage>({
    type: oneOf(["RUNNING"]),
    sinceResumeUs: count,
    cpuMs: object<RunningMessage["cpuMs"]>({ agent: count, qemu: nullable(count) }),
  }),
  DISCARDED: object<DiscardedMessage>({ type: oneOf(["DISCARDED"]) }),
  ABORT: object<AbortMessage>({ type: oneOf(["ABORT"]), code: oneOf(abortCodes), text }),
  PONG: object<PongMessage>({ type: oneOf(["PONG"]), nonce: count }),
  FINISH: object<FinishMessage>({
    type: oneOf(["FINISH"]),
    lanes,
    pages: count,
    records: count,
    damaged: object<FinishMessage["damaged"]>({
      count,
      sha256: string("64 hex digits in lower case", (s) => /^[0-9a-f]{64}$/.test(s)),
    }),
  }),
  RELEASE: object<ReleaseMessage>({ type: oneOf(["RELEASE"]) }),
  DONE: object<DoneMessage>({ type: oneOf(["DONE"]) }),
  DISCARD: object<DiscardMessage>({ type: oneOf(["DISCARD"]) }),
  PING: object<PingMessage>({ type: oneOf(["PING"]), nonce: count, lanes }),
  RESUME: object<ResumeMessage>({ type: oneOf(["RESUME"]), attempt: count, lanes }),
  HAVE: object<HaveMessage>({ type: oneOf(["HAVE"]), lanes }),
  STATUS: object<StatusMessage>({
    type: oneOf(["STATUS"]),
    side: oneOf(["source", "destination"]),
    journal: oneOf([...sourceJournalStates, ...destinationJournalStates]),
    runState: label,
    migration: nullable(label),
  }),
};

const messageTypes = Object.keys(schemas) as Message["type"][];

/**
 * Encodes a message as canonical JSON. Texts for people go through {@linkcode printable}, so that no
 * ABORT fails for the words in it.
 *
 * @throws {TypeError} when the other side would refuse the message
 */
export function encodeMessage(message: Message): Uint8Array<ArrayBuffer> {
  const tidied = tidy(message);
  try {
    schemas[message.type](tidied, message.type);
  } catch (cause) {
    if (!(cause instanceof SchemaError)) throw cause;
    throw new TypeError(`Cannot encode message: ${cause.message}`, { cause });
  }
  const bytes = encodeCanonical(tidied);
  if (bytes.length > MAX_CONTROL_MESSAGE_BYTES) {
    throw new TypeError(`Cannot encode message: ${message.type} has ${bytes.length} bytes`);
  }
  return bytes;
}

/**
 * Decodes one whole control message.
 *
 * @throws {MigrationError} `protocol`, whatever the bytes are
 *
 * @example
 * ```ts
 * import { decodeMessage, encodeMessage } from "./messages.ts";
 *
 * const message = decodeMessage(encodeMessage({ type: "ACK", lane: 0, sequence: 7 }));
 * console.assert(message.type === "ACK" && message.sequence === 7);
 * ```
 */
export function decodeMessage(bytes: Uint8Array): Message {
  if (bytes.length > MAX_CONTROL_MESSAGE_BYTES) {
    throw new MigrationError("protocol", "Cannot read message: it is too long");
  }
  const value = decodeStrict(bytes);
  const given = typeof value === "object" && value !== null && "type" in value ? value.type : null;
  const type = messageTypes.find((name) => name === given);
  if (type === undefined) {
    throw new MigrationError("protocol", "Cannot read message: its type is unknown");
  }
  try {
    return schemas[type](value, type);
  } catch (cause) {
    if (!(cause instanceof SchemaError)) throw cause;
    throw new MigrationError("protocol", `Cannot read message: ${cause.message}`, { cause });
  }
}

function tidy(message: Message): Message {
  switch (message.type) {
    case "OFFER":
      return { ...message, name: message.name === null ? null : printable(message.name) };
    case "ACCEPT":
      return {
        ...message,
        notes: message.notes.slice(0, MAX_NOTES).map(printable),
        warnings: message.warnings.slice(0, MAX_NOTES).map(printable),
      };
    case "REFUSE":
      return {
        ...message,
        text: printable(message.text),
        hint: message.hint === null ? null : printable(message.hint),
      };
    case "ABORT":
      return { ...message, text: printable(message.text) };
    default:
      return message;
  }
}
