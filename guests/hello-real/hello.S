// A boot sector: 16-bit real mode at 0000:7C00, no BIOS needed. Prints on COM1 and ends through the debug-exit port.
        .set    COM1, 0x3F8
        .code16
        .globl  _start
_start: cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movw    $0x7C00, %sp
        movw    $message, %si
next:   lodsb
        testb   %al, %al
        jz      done
        movb    %al, %ah
        movw    $COM1 + 5, %dx
wait:   inb     %dx, %al
        testb   $0x20, %al              // THRE
        jz      wait
        movb    %ah, %al
        movw    $COM1, %dx
        outb    %al, %dx
        jmp     next
done:   xorl    %eax, %eax
        movw    $0xF4, %dx
        outl    %eax, %dx
halt:   hlt
        jmp     halt
message:
        .asciz  "hello from real mode\r\n"
        .org    510
        .word   0xAA55
