// A Multiboot 2 header; the image is a 64-bit ELF file entered in 32-bit protected mode.
        .section .multiboot, "a"
        .balign 8
multiboot2_header:
        .long   0xE85250D6, 0, multiboot2_end - multiboot2_header
        .long   -(0xE85250D6 + multiboot2_end - multiboot2_header)
        .short  0, 0                    // end tag
        .long   8
multiboot2_end:
        .section .note.GNU-stack, "", @progbits
