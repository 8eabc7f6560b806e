/**
 * Sealift: moves a running QEMU virtual machine to another host with every byte sealed.
 *
 * Three layers, put together here. The algorithm ({@linkcode Source}, {@linkcode Destination}) knows no
 * descriptor and no QEMU: it is handed objects of the shapes in its ports. {@linkcode QemuSource} and
 * {@linkcode QemuDestination} are such objects, on stock QEMU of version 7.2 or newer; {@linkcode MicroSource} and
 * {@linkcode MicroDestination} are such objects too, on a {@linkcode MicroVm} of this process, which needs
 * nothing but `/dev/kvm` ({@linkcode Kvm}). Cipher suites are plug-ins of a {@linkcode CipherRegistry}.
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
 * {@linkcode migrate} and {@linkcode receive} put them together for scripts, with journals in files; the command line
 * does the same with flags and signals: `deno run -A cli/migrate.ts`.
 *
 * @example A whole migration: suites by the VM's sensitivity
 * ```ts
 * import { definePolicy, migrate } from "./mod.ts";
 *
 * const policy = definePolicy({
 *   name: "by-name",
 *   levels: {
 *     ordinary: { suites: ["aes-128-gcm", "aes-256-gcm"] },
 *     payment: { suites: ["aes-256-gcm"] },
 *   },
 *   select: (vm) => vm.name?.startsWith("pay-") ? "payment" : "ordinary",
 * });
 * export const move = () =>
 *   migrate({ qmp: "/run/vm1.qmp", to: "host-b:7900", peer: "host-b", policy });
 * ```
 *
 * @example Which suites there are, and what computes them
 * ```ts
 * import { nodeCryptoSuites } from "./mod.ts"; // `defaultRegistry()` takes libcrypto where it loads
 *
 * for (const { id, backend } of nodeCryptoSuites()) console.log(id, backend);
 * ```
 *
 * @example A VM of your own, without QEMU
 * ```ts
 * import { Kvm, MicroVm } from "./mod.ts";
 *
 * if (Kvm.whyUnavailable() === null) {
 *   using vm = await MicroVm.create({ memoryBytes: 8 * 2 ** 20 });
 *   vm.boot({ dirtyPagesPerSecond: 1000 });
 *   vm.start();
 *   await vm.untilBeats(3);
 *   vm.stop();
 *   console.log(vm.beats(0), vm.check());
 * }
 * ```
 *
 * @module
 */

export * from "./ciphers/mod.ts";
export {
  migrate,
  type MigrateOptions,
  receive,
  type ReceiveOptions,
  type Receiving,
  type SideOptions,
} from "./cli/scripting.ts";
export {
  type AfterCancel,
  type AttachOptions,
  type Beat,
  type DestinationEnd,
  type DestinationOptions as QemuDestinationOptions,
  DirtyLog,
  exitError,
  type FieldType,
  type FieldValue,
  GuestPaging,
  type GuestPagingReading,
  type IoctlName,
  type JsonObject,
  Kvm,
  kvm_regs,
  kvm_sregs,
  kvmCapabilities,
  type KvmCapability,
  KvmError,
  type KvmErrorCode,
  kvmIoctls,
  type Landing,
  type LandingMode,
  type LandingName,
  landingNames,
  type LiveParameters,
  Mapping,
  type MemoryPiece,
  type MemorySlot,
  MicroDestination,
  type MicroDirtyLog,
  type MicroGuestOptions,
  type MicroIdentity,
  MicroPageSource,
  type MicroPageSourceHooks,
  MicroSink,
  MicroSource,
  MicroVm,
  type MicroVmOptions,
  type MigrationInfo,
  type PagingVm,
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
  Structure,
  type StructureLayout,
  Vcpu,
  type VcpuExit,
  VcpuThread,
  Vm,
  type VmLook,
  type WorkloadCheck,
} from "./kvm/mod.ts";
export * from "./migration/mod.ts";
