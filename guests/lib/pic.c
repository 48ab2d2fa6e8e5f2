// The 8259A pair.
#include "guest.h"

void pic_start(void) {
    outb(0x20, 0x11); outb(0xA0, 0x11);                   // ICW1: edge, cascade, ICW4 follows
    outb(0x21, PIC_BASE); outb(0xA1, PIC_BASE + 8);       // ICW2: vectors
    outb(0x21, 4); outb(0xA1, 2);                         // ICW3: the slave is on IR2
    outb(0x21, 1); outb(0xA1, 1);                         // ICW4: 8086 mode
    outb(0x21, 0xFF); outb(0xA1, 0xFF);
}

void pic_unmask(u8 irq) {
    if (irq >= 8) {
        outb(0xA1, inb(0xA1) & (u8)~(1 << (irq - 8)));
        irq = 2;
    }
    outb(0x21, inb(0x21) & (u8)~(1 << irq));
}

void pic_mask(u8 irq) {
    u16 port = irq >= 8 ? 0xA1 : 0x21;
    outb(port, inb(port) | (u8)(1 << (irq & 7)));
}

void pic_eoi(u8 irq) {
    if (irq >= 8) outb(0xA0, 0x20);
    outb(0x20, 0x20);
}
