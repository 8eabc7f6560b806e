/**
 * The structures of the KVM API on x86-64, as exact offsets over bytes.
 *
 * The tables carry the kernel's names; a test compiles a C program against the system's headers and compares field by field.
 *
 * @see https://docs.kernel.org/virt/kvm/api.html
 * @module
 */

/** A scalar by its width, or the length in bytes of an array or a nested structure. */
export type FieldType = "u8" | "u16" | "u32" | "u64" | number;

/** A structure: its size, and offset and type of each field. */
export interface StructureLayout {
  /** `sizeof`, without what a flexible array adds. */
  readonly bytes: number;
  /** By the kernel's name; members of unions with their path. */
  readonly fields: Readonly<Record<string, readonly [offset: number, type: FieldType]>>;
}

/** `struct kvm_run`, as far as x86-64 without in-kernel devices needs it. API document, section 5. */
export const kvm_run = {
  bytes: 2352,
  fields: {
    request_interrupt_window: [0, "u8"],
    immediate_exit: [1, "u8"],
    exit_reason: [8, "u32"],
    ready_for_interrupt_injection: [12, "u8"],
    if_flag: [13, "u8"],
    flags: [14, "u16"],
    cr8: [16, "u64"],
    apic_base: [24, "u64"],
    "hw.hardware_exit_reason": [32, "u64"],
    "fail_entry.hardware_entry_failure_reason": [32, "u64"],
    "fail_entry.cpu": [40, "u32"],
    "ex.exception": [32, "u32"],
    "ex.error_code": [36, "u32"],
    "io.direction": [32, "u8"],
    "io.size": [33, "u8"],
    "io.port": [34, "u16"],
    "io.count": [36, "u32"],
    "io.data_offset": [40, "u64"],
    "mmio.phys_addr": [32, "u64"],
    "mmio.data": [40, 8],
    "mmio.len": [48, "u32"],
    "mmio.is_write": [52, "u8"],
    "internal.suberror": [32, "u32"],
    "internal.ndata": [36, "u32"],
    "internal.data": [40, 128],
    "system_event.type": [32, "u32"],
  },
} as const satisfies StructureLayout;

/** `struct kvm_regs`, section 4.11. */
export const kvm_regs = {
  bytes: 144,
  fields: {
    rax: [0, "u64"],
    rbx: [8, "u64"],
    rcx: [16, "u64"],
    rdx: [24, "u64"],
    rsi: [32, "u64"],
    rdi: [40, "u64"],
    rsp: [48, "u64"],
    rbp: [56, "u64"],
    r8: [64, "u64"],
    r9: [72, "u64"],
    r10: [80, "u64"],
    r11: [88, "u64"],
    r12: [96, "u64"],
    r13: [104, "u64"],
    r14: [112, "u64"],
    r15: [120, "u64"],
    rip: [128, "u64"],
    rflags: [136, "u64"],
  },
} as const satisfies StructureLayout;

/** `struct kvm_segment`, a part of {@linkcode kvm_sregs}. */
export const kvm_segment = {
  bytes: 24,
  fields: {
    base: [0, "u64"],
    limit: [8, "u32"],
    selector: [12, "u16"],
    type: [14, "u8"],
    present: [15, "u8"],
    dpl: [16, "u8"],
    db: [17, "u8"],
    s: [18, "u8"],
    l: [19, "u8"],
    g: [20, "u8"],
    avl: [21, "u8"],
    unusable: [22, "u8"],
  },
} as const satisfies StructureLayout;

/** `struct kvm_dtable`, a part of {@linkcode kvm_sregs}. */
export const kvm_dtable = {
  bytes: 16,
  fields: { base: [0, "u64"], limit: [8, "u16"] },
} as const satisfies StructureLayout;

/** `struct kvm_sregs`, section 4.13. */
export const kvm_sregs = {
  bytes: 312,
  fields: {
    cs: [0, 24],
    ds: [24, 24],
    es: [48, 24],
    fs: [72, 24],
    gs: [96, 24],
    ss: [120, 24],
    tr: [144, 24],
    ldt: [168, 24],
    gdt: [192, 16],
    idt: [208, 16],
    cr0: [224, "u64"],
    cr2: [232, "u64"],
    cr3: [240, "u64"],
    cr4: [248, "u64"],
    cr8: [256, "u64"],
    efer: [264, "u64"],
    apic_base: [272, "u64"],
    interrupt_bitmap: [280, 32],
  },
} as const satisfies StructureLayout;

/** `struct kvm_userspace_memory_region`, section 4.35. */
export const kvm_userspace_memory_region = {
  bytes: 32,
  fields: {
    slot: [0, "u32"],
    flags: [4, "u32"],
    guest_phys_addr: [8, "u64"],
    memory_size: [16, "u64"],
    userspace_addr: [24, "u64"],
  },
} as const satisfies StructureLayout;

/** `struct kvm_dirty_log`, section 4.8. */
export const kvm_dirty_log = {
  bytes: 16,
  fields: { slot: [0, "u32"], dirty_bitmap: [8, "u64"] },
} as const satisfies StructureLayout;

/** `struct kvm_clear_dirty_log`, section 4.117. */
export const kvm_clear_dirty_log = {
  bytes: 24,
  fields: {
    slot: [0, "u32"],
    num_pages: [4, "u32"],
    first_page: [8, "u64"],
    dirty_bitmap: [16, "u64"],
  },
} as const satisfies StructureLayout;

/** `struct kvm_enable_cap`, section 4.37. */
export const kvm_enable_cap = {
  bytes: 104,
  fields: { cap: [0, "u32"], flags: [4, "u32"], args: [8, 32] },
} as const satisfies StructureLayout;

/** `struct kvm_fpu`, section 4.22. */
export const kvm_fpu = {
  bytes: 416,
  fields: {
    fpr: [0, 128],
    fcw: [128, "u16"],
    fsw: [130, "u16"],
    ftwx: [132, "u8"],
    last_opcode: [134, "u16"],
    last_ip: [136, "u64"],
    last_dp: [144, "u64"],
    xmm: [152, 256],
    mxcsr: [408, "u32"],
  },
} as const satisfies StructureLayout;

/** `struct kvm_xsave`, section 4.42; without the extra space of KVM_CAP_XSAVE2. */
export const kvm_xsave = {
  bytes: 4096,
  fields: { region: [0, 4096] },
} as const satisfies StructureLayout;

/** `struct kvm_xcrs`, section 4.44. */
export const kvm_xcrs = {
  bytes: 392,
  fields: { nr_xcrs: [0, "u32"], flags: [4, "u32"], xcrs: [8, 256] },
} as const satisfies StructureLayout;

/** `struct kvm_msrs`, section 4.18: followed by {@linkcode kvm_msr_entry}. */
export const kvm_msrs = {
  bytes: 8,
  fields: { nmsrs: [0, "u32"] },
} as const satisfies StructureLayout;

/** `struct kvm_msr_entry`. */
export const kvm_msr_entry = {
  bytes: 16,
  fields: { index: [0, "u32"], data: [8, "u64"] },
} as const satisfies StructureLayout;

/** `struct kvm_msr_list`, section 4.3: followed by indices of 32 bits. */
export const kvm_msr_list = {
  bytes: 4,
  fields: { nmsrs: [0, "u32"] },
} as const satisfies StructureLayout;

/** `struct kvm_cpuid2`, section 4.46: followed by {@linkcode kvm_cpuid_entry2}. */
export const kvm_cpuid2 = {
  bytes: 8,
  fields: { nent: [0, "u32"] },
} as const satisfies StructureLayout;

/** `struct kvm_cpuid_entry2`. */
export const kvm_cpuid_entry2 = {
  bytes: 40,
  fields: {
    function: [0, "u32"],
    index: [4, "u32"],
    flags: [8, "u32"],
    eax: [12, "u32"],
    ebx: [16, "u32"],
    ecx: [20, "u32"],
    edx: [24, "u32"],
  },
} as const satisfies StructureLayout;

/** `struct kvm_lapic_state`, section 4.57. */
export const kvm_lapic_state = {
  bytes: 1024,
  fields: { regs: [0, 1024] },
} as const satisfies StructureLayout;

/** `struct kvm_mp_state`, section 4.38. */
export const kvm_mp_state = {
  bytes: 4,
  fields: { mp_state: [0, "u32"] },
} as const satisfies StructureLayout;

/** `struct kvm_vcpu_events`, section 4.31. */
export const kvm_vcpu_events = {
  bytes: 64,
  fields: {
    "exception.injected": [0, "u8"],
    "exception.nr": [1, "u8"],
    "exception.has_error_code": [2, "u8"],
    "exception.pending": [3, "u8"],
    "exception.error_code": [4, "u32"],
    "interrupt.injected": [8, "u8"],
    "interrupt.nr": [9, "u8"],
    "interrupt.soft": [10, "u8"],
    "interrupt.shadow": [11, "u8"],
    "nmi.injected": [12, "u8"],
    "nmi.pending": [13, "u8"],
    "nmi.masked": [14, "u8"],
    sipi_vector: [16, "u32"],
    flags: [20, "u32"],
    "smi.smm": [24, "u8"],
    "smi.pending": [25, "u8"],
    "smi.smm_inside_nmi": [26, "u8"],
    "smi.latched_init": [27, "u8"],
    "triple_fault.pending": [28, "u8"],
    exception_has_payload: [55, "u8"],
    exception_payload: [56, "u64"],
  },
} as const satisfies StructureLayout;

/** `struct kvm_debugregs`, section 4.33. */
export const kvm_debugregs = {
  bytes: 128,
  fields: { db: [0, 32], dr6: [32, "u64"], dr7: [40, "u64"], flags: [48, "u64"] },
} as const satisfies StructureLayout;

/** `struct kvm_clock_data`, section 4.29. */
export const kvm_clock_data = {
  bytes: 48,
  fields: {
    clock: [0, "u64"],
    flags: [8, "u32"],
    realtime: [16, "u64"],
    host_tsc: [24, "u64"],
  },
} as const satisfies StructureLayout;

/** Every structure by the kernel's name. */
export const kvmStructures = {
  kvm_run,
  kvm_regs,
  kvm_segment,
  kvm_dtable,
  kvm_sregs,
  kvm_userspace_memory_region,
  kvm_dirty_log,
  kvm_clear_dirty_log,
  kvm_enable_cap,
  kvm_fpu,
  kvm_xsave,
  kvm_xcrs,
  kvm_msrs,
  kvm_msr_entry,
  kvm_msr_list,
  kvm_cpuid2,
  kvm_cpuid_entry2,
  kvm_lapic_state,
  kvm_mp_state,
  kvm_vcpu_events,
  kvm_debugregs,
  kvm_clock_data,
} as const satisfies Record<string, StructureLayout>;
