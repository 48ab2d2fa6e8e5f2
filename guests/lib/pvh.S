// The note that makes an ELF image a PVH kernel: its 32-bit entry point.
        .section .note.pvh, "a", @note
        .balign 4
        .long   4, 4, 18                // XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .long   start32
        .section .note.GNU-stack, "", @progbits
