// From the boot loader's 32-bit protected mode to 64-bit C; application processors join from real mode.
//
// Multiboot 1 and 2 and PVH all enter here: paging off, flat 32-bit segments, a pointer to the boot
// information in EBX. What EAX holds tells which it was.

        .set CODE64, 0x08
        .set DATA, 0x10
        .set CODE32, 0x18
        .set TRAMPOLINE, 0x8000         // where application processors start: SIPI vector 8

        .section .text.start, "ax"
        .code32
        .globl start32
start32:
        cli
        cld
        movl    $boot_stack_top, %esp
        movl    %eax, boot_magic
        movl    %ebx, boot_info

        // Identity-map the low 4 GiB with 2 MiB pages.
        movl    $page_directories, %edi
        movl    $0x83, %eax             // present, writable, 2 MiB
        movl    $2048, %ecx
1:      movl    %eax, (%edi)
        addl    $0x200000, %eax
        addl    $8, %edi
        decl    %ecx
        jnz     1b
        movl    $page_pointers, %edi
        movl    $page_directories + 3, %eax
        movl    $4, %ecx
1:      movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        decl    %ecx
        jnz     1b
        movl    $page_pointers + 3, page_map

        lgdt    gdt_pointer
        movl    $start64, %edi
        jmp     enter_long_mode

// To 64-bit mode at EDI. Every processor passes here.
enter_long_mode:
        movl    %cr4, %eax
        orl     $0x20, %eax             // PAE
        movl    %eax, %cr4
        movl    $page_map, %eax
        movl    %eax, %cr3
        movl    $0xC0000080, %ecx       // EFER
        rdmsr
        orl     $0x900, %eax            // LME, NXE
        wrmsr
        movl    %cr0, %eax
        andl    $0x9FFFFFFF, %eax       // caches on: not CD, not NW
        orl     $0x80010001, %eax       // PG, WP, PE
        movl    %eax, %cr0
        ljmp    $CODE64, $1f
        .code64
1:      movl    $DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        xorl    %eax, %eax
        movl    %eax, %fs
        movl    %eax, %gs
        movl    %edi, %edi
        jmp     *%rdi

start64:
        movl    $boot_stack_top, %esp
        xorl    %ebp, %ebp
        call    runtime_start
1:      cli
        hlt
        jmp     1b

start_ap:
        movq    ap_stack(%rip), %rsp
        xorl    %ebp, %ebp
        call    ap_start
1:      cli
        hlt
        jmp     1b

        .code32
ap32:   movl    $DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $start_ap, %edi
        jmp     enter_long_mode

// Copied to TRAMPOLINE: 16-bit real mode, CS:IP = 0800:0000.
        .code16
        .globl  ap_trampoline, ap_trampoline_end
ap_trampoline:
        cli
        cld
        xorl    %eax, %eax
        movw    %ax, %ds
        lgdtl   TRAMPOLINE + (ap_gdt_pointer - ap_trampoline)
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $CODE32, $ap32
        .balign 4
ap_gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt
ap_trampoline_end:

        .section .data
        .balign 8
        .globl gdt
gdt:    .quad   0
        .quad   0x00AF9B000000FFFF      // 0x08 64-bit code
        .quad   0x00CF93000000FFFF      // 0x10 data
        .quad   0x00CF9B000000FFFF      // 0x18 32-bit code
        .quad   0x00CF13000000FFFF      // 0x20 data, not present: the exceptions guest loads it
gdt_end:
gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt

        .section .bss
        .balign 4096
        .globl  page_map, page_pointers
page_map:         .skip 4096
page_pointers:    .skip 4096
page_directories: .skip 4 * 4096
        .skip   16384
boot_stack_top:
        .globl  boot_magic, boot_info
boot_magic:       .skip 4
boot_info:        .skip 4

// One entry stub a vector, 16 bytes apart: an error code where the processor pushes none, then the vector.
        .section .text, "ax"
        .code64
        .balign 16
        .globl  trap_stubs
trap_stubs:
        .set    vector, 0
        .rept   256
        .balign 16
        .if     !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
        pushq   $0
        .endif
        pushq   $vector
        jmp     trap_common
        .set    vector, vector + 1
        .endr

        .balign 16
trap_common:
        pushq   %rax
        pushq   %rcx
        pushq   %rdx
        pushq   %rbx
        pushq   %rbp
        pushq   %rsi
        pushq   %rdi
        pushq   %r8
        pushq   %r9
        pushq   %r10
        pushq   %r11
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        cld
        movq    %rsp, %rdi
        call    trap
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %r11
        popq    %r10
        popq    %r9
        popq    %r8
        popq    %rdi
        popq    %rsi
        popq    %rbp
        popq    %rbx
        popq    %rdx
        popq    %rcx
        popq    %rax
        addq    $16, %rsp
        iretq

        .section .note.GNU-stack, "", @progbits
