/**
 * Sealift: moves a running QEMU virtual machine to another host with every byte sealed.
 *
 * Three layers, put together here. The algorithm ({@linkcode Source}, {@linkcode Destination}) knows no
 * descriptor and no QEMU: it is handed objects of the shapes in its ports. {@linkcode QemuSource} and
 * {@linkcode QemuDestination} are such objects, on stock QEMU of version 7.2 or newer. Cipher suites are
 * plug-ins of a {@linkcode CipherRegistry}.
 *
 * ```mermaid
 * sequenceDiagram
 *   participant Q as QEMU (source)
 *   participant S as Source
 *   participant D as Destination
 *   participant R as QEMU (destination)
 *   Q->>S: migration stream
 *   S->>D: handshake, OFFER
 *   D->>S: ACCEPT
 *   loop rounds
 *     S->>D: sealed records
 *     D->>R: verified pages
 *   end
 *   S->>D: STATE, FINISH
 *   D->>R: state, EOF
 *   D->>S: LOADED
 *   S->>Q: SHUT(0): it will never run here again
 *   S->>D: RELEASE
 *   D->>R: cont
 *   D->>S: RUNNING
 * ```
 *
 * The command line does the same with flags, journals in files and signals: `deno run -A cli/migrate.ts`.
 *
 * @example Which suites there are, and what computes them
 * ```ts
 * import { nodeCryptoSuites } from "./mod.ts"; // `defaultRegistry()` takes libcrypto where it loads
 *
 * for (const { id, backend } of nodeCryptoSuites()) console.log(id, backend);
 * ```
 *
 * @module
 */

export * from "./ciphers/mod.ts";
export {
  type AfterCancel,
  type AttachOptions,
  type DestinationEnd,
  type DestinationOptions as QemuDestinationOptions,
  type JsonObject,
  KvmError,
  type KvmErrorCode,
  type Landing,
  type LandingMode,
  type LandingName,
  landingNames,
  type LiveParameters,
  type MigrationInfo,
  type ProcessFacts,
  type ProcessIdentity,
  QemuDestination,
  type QemuFacts,
  type QemuPageSource,
  type QemuSink,
  type QemuSinkParts,
  QemuSource,
  type QemuVm,
  QmpClient,
  QmpError,
  type QmpErrorCode,
  type QmpEvent,
  type RunStateBefore,
  type SocketDirectory,
  type SourceCounters,
  type SourceEnd,
  type SourceProgress,
  type StreamBlock,
  type StreamEvents,
  type VmLook,
} from "./kvm/mod.ts";
export * from "./migration/mod.ts";
