; The micro-VM's guest: a kernel that only beats, and a program in ring 3 that writes to memory.
; Flat image for guest-physical 0x1000, loaded by loader.ts; assembled by: nasm -f bin -o guest.bin guest.asm
; The loader starts every vCPU at `kernel`, in long mode: rdi = its information page, rsp = its kernel stack.

bits 64
org 0x1000

%define KERNEL_CODE 0x08
%define USER_DATA   0x1b                ; 0x18, ring 3
%define USER_CODE   0x23                ; 0x20, ring 3
%define BEAT_PORT   0x10
%define FAULT_PORT  0x11
%define STACKS      0x4000              ; of one page each, at 0x4000 and 0x5000

; Information page, layout.ts has the same.
%define FIRST           rdi + 0x00      ; address of the first page of the working set
%define PAGES           rdi + 0x08      ; its pages
%define PAGES_PER_BEAT  rdi + 0x10
%define FILLED          rdi + 0x18      ; 1 once every page was written
%define VISITS          rdi + 0x20      ; pages changed since then: the only word that says how far it is
%define CHECKSUM        rdi + 0x28      ; sum of the first words of all pages
%define BEATS           rdi + 0x30

; ---- kernel text, page 0x1000 ----

kernel:
        push USER_DATA
        push 0                          ; ring 3 has no stack, and needs none
        push 2                          ; flags: nothing but the bit that is always set
        push USER_CODE
        mov rax, user
        push rax
        iretq

; #BP, from ring 3: a heartbeat. The host decides how long it lasts.
breakpoint:
        push rax
        mov rax, [BEATS]
        inc rax
        mov [BEATS], rax
        out BEAT_PORT, eax
        pop rax
        iretq

; Every other exception: says which, and stands.
%assign vector 0
%rep 32
exception_ %+ vector:
        push vector
        jmp near fault
%assign vector vector + 1
%endrep

fault:
        pop rax
        out FAULT_PORT, eax
.stand: hlt
        jmp .stand

; ---- kernel data, page 0x2000 ----

        times 0x1000 - ($ - $$) db 0

gdt:
        dq 0
        dq 0x00209b0000000000           ; 0x08 kernel code, 64 bits
        dq 0x0000930000000000           ; 0x10 kernel data
        dq 0x0000f30000000000           ; 0x18 user data
        dq 0x0020fb0000000000           ; 0x20 user code, 64 bits
; 0x28 and 0x38: a task state segment for each vCPU. %1 its offset in the image
%macro tss_descriptor 1
        dw 103
        dw (0x1000 + %1) & 0xffff
        db 0, 0x8b, 0, 0
        dq 0
%endmacro
        tss_descriptor tss0 - $$
        tss_descriptor tss1 - $$

        times 0x1100 - ($ - $$) db 0
; %1 offset of the handler in the image, %2 the ring that may call it
%macro gate 2
        dw (0x1000 + %1) & 0xffff
        dw KERNEL_CODE
        db 0, 0x8e | %2 << 5
        dw 0
        dq 0
%endmacro
idt:
%assign vector 0
%rep 32
%if vector == 3
        gate breakpoint - $$, 3
%else
        gate exception_ %+ vector - $$, 0
%endif
%assign vector vector + 1
%endrep

        times 0x1300 - ($ - $$) db 0
; %1 top of the stack for what comes from ring 3
%macro tss 1
        dd 0
        dq %1
        times 104 - 12 db 0
%endmacro
tss0:   tss STACKS + 0x1000
        times 0x1380 - ($ - $$) db 0
tss1:   tss STACKS + 0x2000

; ---- ring 3, page 0x3000 ----

        times 0x2000 - ($ - $$) db 0

; rbx page, r8 visits, r9 number of the pass, r10 pages until the beat, r11 pages left in the pass, r15 multiplier
user:
        mov r15, 0x9e3779b97f4a7c15

; Every page gets a pattern of its own: none is all zeros, and none compresses.
        mov rbx, [FIRST]
        mov rcx, [PAGES]
        xor r12d, r12d                  ; checksum
        xor r9d, r9d                    ; pass 0
.fill:
        mov rax, r9
        shl rax, 32
        mov rdx, rbx
        shr rdx, 12
        add rax, rdx
        imul rax, r15
        mov rdx, rax
        shr rdx, 32
        xor rax, rdx
        add r12, rax
        mov r13, rax
        xor esi, esi
.word:  mov [rbx + rsi * 8], r13
        imul r13, r15
        inc r13
        inc esi
        cmp esi, 511
        jb .word
        not rax
        mov [rbx + 511 * 8], rax
        add rbx, 4096
        dec rcx
        jnz .fill
        mov [CHECKSUM], r12
        mov qword [FILLED], 1
        mov qword [VISITS], 0

; Page by page, again and again: what it left there must be there still.
        xor r8d, r8d
        xor r11d, r11d
.beat:  int3
        mov r10, [PAGES_PER_BEAT]
        test r10, r10
        jz .beat
.visit: test r11, r11
        jnz .page
        inc r9
        mov rbx, [FIRST]
        mov r11, [PAGES]
.page:  lea rax, [r9 - 1]
        shl rax, 32
        mov rdx, rbx
        shr rdx, 12
        add rax, rdx
        imul rax, r15
        mov rdx, rax
        shr rdx, 32
        xor rax, rdx                    ; what the last pass wrote
        cmp [rbx], rax
        jne .lost
        mov rdx, rax
        not rdx
        cmp [rbx + 511 * 8], rdx
        jne .lost

        mov rcx, r9
        shl rcx, 32
        mov rdx, rbx
        shr rdx, 12
        add rcx, rdx
        imul rcx, r15
        mov rdx, rcx
        shr rdx, 32
        xor rcx, rdx                    ; what this one writes
        mov [rbx], rcx
        mov rdx, rcx
        not rdx
        mov [rbx + 511 * 8], rdx
        sub rcx, rax
        add [CHECKSUM], rcx
        inc r8
        mov [VISITS], r8

        add rbx, 4096
        dec r11
        dec r10
        jnz .visit
        jmp .beat

; Memory is not as it was left: #UD tells the host.
.lost:  ud2
