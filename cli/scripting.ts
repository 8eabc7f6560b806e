/**
 * Whole migrations for scripts: `send` and `receive` as functions, with the same state directory, journals and
 * peers. Nothing is printed; what happens comes through callbacks, and how it ended is the result.
 *
 * @module
 */

import { defaultRegistry } from "../ciphers/registry.ts";
import type { CipherSuite } from "../ciphers/suite.ts";
import type { LandingMode } from "../kvm/landing.ts";
import { QemuDestination } from "../kvm/qemu_destination.ts";
import { QemuSource } from "../kvm/qemu_source.ts";
import { MigrationError } from "../migration/errors.ts";
import { DEFAULT_MAX_STOP_MS, DEFAULT_RECONNECT_MS } from "../migration/limits.ts";
import { checkPolicySuites } from "../migration/policy_suites.ts";
import type { Policy } from "../migration/policy_types.ts";
import type { LiveSettings } from "../migration/ports.ts";
import type { ProfileId } from "../migration/profile.ts";
import type { MigrationResult } from "../migration/result.ts";
import type { RoundStatistics } from "../migration/rounds.ts";
import type { DestinationState, SourceState } from "../migration/states.ts";
import { makeDestination, resolveAllowed } from "./destination_side.ts";
import { resolvePeer } from "./peers.ts";
import { checkPolicyOptions, checkProfile, PAPER_WARNING, Protection } from "./protection.ts";
import { makeSource } from "./source_side.ts";
import { makeStateDirectory, readIdentityFile, stateDirectory } from "./state_directory.ts";
import { type Address, parseAddress } from "./values.ts";

/** What {@linkcode migrate} and {@linkcode receive} take alike. */
export interface SideOptions {
  /** Path of QEMU's QMP socket on this host. */
  qmp: string;
  /** Where identity, peers and journals are; default as on the command line. */
  stateDir?: string;
  /** File of this host's private key; default: in the state directory. */
  identity?: string;
  /** What protects the migration, the same on both ends; default `sealed`. `paper` is for the lab. */
  profile?: ProfileId;
  /** Lets `paper` leave this machine, where it protects nothing. */
  labNetwork?: boolean;
  /** Chooses suites by the VM's sensitivity; default: every suite of the profile. */
  policy?: Policy;
  /** At the source the VM's level, at the destination the lowest one that is taken in. */
  sensitivity?: string;
  /** What the VM is called for the policy's `select`. */
  labels?: readonly string[];
  /** Suites of your own: checked by the conformance kit, and registered for this process. */
  suites?: readonly CipherSuite[];
  /** In the place of the VM's UUID; the same on both ends. */
  vmId?: string;
  /** Ends the migration: the VM stays where it can be known to be. */
  signal?: AbortSignal;
  /** Something a person may want to know, damage on the way included. */
  onNote?: (text: string) => void;
}

/** What {@linkcode migrate} is told. */
export interface MigrateOptions extends SideOptions {
  /** HOST:PORT of the destination. */
  to: string;
  /** Who the destination is: a name of the list of peers, or a public key in base64. */
  peer: string;
  /** A suite's id, where there is no policy. */
  cipher?: string;
  /** Settings of the live phase; default: no limit of bandwidth. */
  live?: LiveSettings;
  /** Time without a connection in all; default 120 s. */
  reconnectMs?: number;
  /** Time that the VM may stand still in all; default 5 s. */
  maxStopMs?: number;
  /** Live rounds before the VM is stopped. */
  maxRounds?: number;
  /** The last round must have begun by then. */
  maxTimeMs?: number;
  /** Leaves the source's QEMU in `postmigrate`. */
  keepSource?: boolean;
  /** Makes every check on both ends, moves nothing. */
  dryRun?: boolean;
  /** A state was entered. */
  onState?: (state: SourceState) => void;
  /** A round was closed. */
  onRound?: (round: RoundStatistics) => void;
  /** Asked whether to go on when damage does not end; default: it is given up. */
  askTamper?: (text: string) => Promise<boolean>;
}

/**
 * Moves the VM behind a QMP socket to another host, as `sealift send` does.
 *
 * @returns how it ended: look at `outcome`; the VM is where `sourceState` and `destinationState` say
 * @throws {MigrationError} `usage` for an argument that cannot be right, `refused` by the policy here
 * @throws {KvmError} {QmpError} when the VM cannot be moved as it is; nothing was changed then
 *
 * @example
 * ```ts
 * import { migrate } from "./scripting.ts";
 *
 * export async function move(qmp: string): Promise<void> {
 *   const { outcome, downtimeMs } = await migrate({ qmp, to: "host-b:7900", peer: "host-b" });
 *   console.log(outcome, downtimeMs);
 * }
 * ```
 */
export async function migrate(options: MigrateOptions): Promise<MigrationResult> {
  const { onNote } = options;
  await using stack = new AsyncDisposableStack();
  const to = addressOf(options.to, { listen: false });
  const { directory, identity, protection } = await begin(options, to);
  const peer = await resolvePeer(directory, options.peer);
  const vm = stack.use(await QemuSource.attach(options.qmp));
  const source = await makeSource({
    to,
    cipher: options.cipher,
    reconnectMs: options.reconnectMs ?? DEFAULT_RECONNECT_MS,
    maxStopMs: options.maxStopMs ?? DEFAULT_MAX_STOP_MS,
    onTamper: options.askTamper === undefined ? "abort" : "ask",
    maxRounds: options.maxRounds,
    maxTimeMs: options.maxTimeMs,
    keepSource: options.keepSource,
    dryRun: options.dryRun,
    vmId: options.vmId,
    live: { maxBandwidth: 0, ...options.live },
  }, {
    vm,
    qmp: options.qmp,
    directory,
    identity,
    peer,
    protection,
    signal: options.signal ?? new AbortController().signal,
    stack,
    watch: {
      entered: (state) => void options.onState?.(state),
      onRound: options.onRound,
      onNote,
      onTamper: onNote,
      askTamper: options.askTamper,
    },
  });
  return await source.run();
}

/** What {@linkcode receive} is told. */
export interface ReceiveOptions extends SideOptions {
  /** HOST:PORT to listen at; port 0 takes a free one. */
  listen: string;
  /** Who may send: names of the list of peers, or public keys in base64. */
  allow: readonly string[];
  /** How pages reach the VM's memory; default: the best that works. */
  land?: LandingMode;
  /** A state was entered. */
  onState?: (state: DestinationState) => void;
}

/** A destination that listens. */
export interface Receiving {
  /** HOST:PORT, with the port that was taken. */
  address: string;
  /** How pages will reach the VM's memory. */
  landing: string;
  /** How it ended, after one VM was taken in. */
  result: Promise<MigrationResult>;
}

/**
 * Takes one VM into the QEMU behind a QMP socket, as `sealift receive` does.
 *
 * @returns once it listens
 * @throws as {@linkcode migrate}
 */
export async function receive(options: ReceiveOptions): Promise<Receiving> {
  await using stack = new AsyncDisposableStack();
  const listen = addressOf(options.listen, { listen: true });
  const { directory, identity, protection } = await begin(options, listen);
  const allowed = await resolveAllowed(directory, options.allow);
  const accepted = await protection.ofDestination({
    onFailure: (text) => options.onNote?.(text),
  });
  const { land } = options;
  const vm = stack.use(
    await QemuDestination.attach(options.qmp, land === undefined ? {} : { land }),
  );
  const { destination, address, landing } = await makeDestination({
    listen,
    vmId: options.vmId,
  }, {
    vm,
    qmp: options.qmp,
    directory,
    identity,
    allowed,
    accepted,
    signal: options.signal ?? new AbortController().signal,
    stack,
    watch: {
      entered: (state) => void options.onState?.(state),
      onNote: ({ text }) => options.onNote?.(text),
    },
  });
  const held = stack.move();
  return { address, landing, result: destination.run().finally(() => held.disposeAsync()) };
}

/** What does not depend on the VM. */
async function begin(options: SideOptions, address: Address) {
  const { profile = "sealed", labNetwork = false, policy = null } = options;
  const { sensitivity, labels = [], onNote } = options;
  checkProfile({ profile, labNetwork }, address);
  if (profile === "paper") onNote?.(PAPER_WARNING);
  checkPolicyOptions({ policy: policy ?? undefined, sensitivity, labels });
  await registerSuites(options.suites ?? []);
  if (policy !== null) checkPolicySuites(policy, defaultRegistry().list());
  const directory = stateDirectory({ stateDir: options.stateDir });
  await makeStateDirectory(directory);
  const identity = await readIdentityFile(options.identity ?? directory.identity);
  const protection = new Protection({ profile, sensitivity, labels }, policy);
  return { directory, identity, protection };
}

/** Once is enough for each suite, however many migrations bring it. */
async function registerSuites(suites: readonly CipherSuite[]): Promise<void> {
  const registry = defaultRegistry();
  const news = suites.filter((suite) => !registry.list().includes(suite));
  if (news.length === 0) return;
  const { conformanceChecks } = await import("../ciphers/conformance.ts");
  for (const suite of news) {
    for (const { run } of conformanceChecks(suite)) run();
    registry.register(suite);
  }
}

function addressOf(text: string, options: { listen: boolean }): Address {
  const parsed = parseAddress(text, options);
  if (parsed.ok) return parsed.value;
  throw new MigrationError("usage", `Cannot use address ${text}: expected ${parsed.expected}`);
}
