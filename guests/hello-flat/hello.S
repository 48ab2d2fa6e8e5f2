// A headerless real-mode image at 1000:0000. Where it runs is asked of the processor, with segments and a
// little arithmetic that goes wrong on an engine that confuses segment bases or 16-bit wrapping.
        .set    COM1, 0x3F8
        .code16
        .globl  _start
_start: cli
        cld
        movw    %cs, %ax
        movw    %ax, %ds
        movw    $0x2000, %ax
        movw    %ax, %es
        // Copy the message to 2000:FFF8, so that DI wraps to 2000:0000 half way, and print it from there.
        movw    $message, %si
        movw    $0xFFF8, %di
        movw    $message_end - message, %cx
        rep movsb
        movw    $0xFFF8, %si
        movw    $message_end - message, %cx
next:   movb    %es:(%si), %ah
        incw    %si
        movw    $COM1 + 5, %dx
wait:   inb     %dx, %al
        testb   $0x20, %al
        jz      wait
        movb    %ah, %al
        movw    $COM1, %dx
        outb    %al, %dx
        loop    next
        xorl    %eax, %eax
        movw    $0xF4, %dx
        outl    %eax, %dx
halt:   hlt
        jmp     halt
message:
        .ascii  "hello from a flat image\r\n"
message_end:
