// A Multiboot 1 header with the image's addresses, so that a flat image needs no ELF reader.
        .set    FLAGS, 0x10003          // align modules, want memory information, addresses are valid
        .section .multiboot, "a"
        .balign 4
multiboot_header:
        .long   0x1BADB002, FLAGS, -(0x1BADB002 + FLAGS)
        .long   multiboot_header, image_start, image_data_end, image_end, start32
        .section .note.GNU-stack, "", @progbits
