// Echoes what it receives, until 'q'.
#include "guest.h"

static volatile char ring[256];
static volatile u8 head, tail;

static void on_uart(struct frame *frame) {
    (void)frame;
    // Every cause that is pending, until "none": an edge-triggered input needs the line to fall.
    while (!(inb(COM1 + 2) & 1))
        while (inb(COM1 + 5) & 1) ring[head++] = (char)inb(COM1);
    pic_eoi(4);
}

static char receive(bool by_interrupt) {
    if (!by_interrupt) {
        while (!(inb(COM1 + 5) & 1)) pause();
        return (char)inb(COM1);
    }
    while (head == tail) wait_for_interrupt();
    return ring[tail++];
}

void guest_main(void) {
    bool by_interrupt = option("interrupt");
    printf("by %s\n", by_interrupt ? "interrupt" : "polling");
    if (by_interrupt) {
        set_handler(PIC_BASE + 4, on_uart);
        pic_unmask(4);
        outb(COM1 + 1, 1);
    }
    for (;;) {
        char c = receive(by_interrupt);
        if (c == 'q') break;
        putchar_serial(c);
    }
    print("\n");
}
