/**
 * Everything that touches the host: QEMU's monitor and migration stream, a VM's memory and process, the C library.
 *
 * A migration takes two of these, one on each host. Each satisfies what the algorithm in `migration/` asks of a VM, by
 * its shape:
 *
 * ```mermaid
 * sequenceDiagram
 *   participant Q as QEMU (source)
 *   participant S as QemuSource
 *   participant D as QemuDestination
 *   participant R as QEMU (destination)
 *   S->>Q: migrate unix:...
 *   Q->>S: stream: SETUP, pages
 *   S-->>D: (sealed)
 *   D->>R: SETUP, pages by the landing or the stream
 *   Q->>S: END, STATE
 *   D->>R: END, STATE, EOF
 *   R->>D: completed, not running
 *   S->>Q: SHUT(0)
 *   Q->>S: completed, postmigrate
 *   D->>R: cont
 *   R->>D: RESUME
 * ```
 *
 * @module
 */

export * from "./errors.ts";
export type { JsonObject } from "./json_values.ts";
export * from "./landing.ts";
export type { LiveParameters } from "./live_parameters.ts";
export * from "./process.ts";
export * from "./qemu_destination.ts";
export * from "./qemu_facts.ts";
export * from "./qemu_lock.ts";
export * from "./qemu_page_source.ts";
export * from "./qemu_sink.ts";
export * from "./qemu_source.ts";
export * from "./qemu_vm.ts";
export * from "./qmp.ts";
export * from "./qmp_error.ts";
export * from "./runtime_directory.ts";
export * from "./stream_format.ts";
export * from "./stream_reader.ts";
export * from "./stream_writer.ts";
export * from "./vm_states.ts";
export * from "./qemu_recovery.ts";
export type { MemoryPiece } from "./guest_physical.ts";
export { GuestPaging, type GuestPagingReading, type PagingVm } from "./page_tables.ts";
export * from "./dirty_log.ts";
export * from "./ioctls.ts";
export * from "./kvm.ts";
export * from "./kvm_structures.ts";
export * from "./mapping.ts";
export * from "./micro/micro_destination.ts";
export * from "./micro/micro_page_source.ts";
export type { MicroIdentity } from "./micro/micro_setup.ts";
export * from "./micro/micro_source.ts";
export * from "./micro/micro_vm.ts";
export type { WorkloadCheck } from "./micro/workload_check.ts";
export * from "./structure.ts";
export * from "./vcpu.ts";
export type { Beat } from "./vcpu_control.ts";
export * from "./vcpu_exit.ts";
export * from "./vcpu_state.ts";
export * from "./vcpu_thread.ts";
export * from "./vm.ts";
