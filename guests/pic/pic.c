// Interrupts through the 8259A pair, from the PIT (IR 0) and the RTC (IR 8).
#include "guest.h"

static volatile u32 count[16];
static volatile bool end_it = true;

static void on_interrupt(struct frame *frame) {
    u8 irq = (u8)(frame->vector - PIC_BASE);
    count[irq]++;
    if (irq == 8) rtc_read(0x0C);
    if (end_it) pic_eoi(irq);
}

static void idle(u32 us) {
    u32 start = pm_timer();
    interrupts_on();
    while (pm_elapsed(start) < us_to_pm(us)) pause();
    interrupts_off();
}

static u8 read_register(u16 port, u8 which) {
    outb(port, which);
    return inb(port);
}

/// Until IR 0 requests; a PIT that a busy host serves is late.
static void await_request(void) {
    u32 start = pm_timer();
    while (!(read_register(0x20, 0x0A) & 1) && pm_elapsed(start) < us_to_pm(1000000)) pause();
}

/// One rising edge on IR 0, the line left high.
static void fire(void) {
    pit_program(0, 0, 100);
    await_request();
}

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    for (u8 irq = 0; irq < 16; irq++) set_handler(PIC_BASE + irq, on_interrupt);

    fire();
    check(read_register(0x20, 0x0A) & 1, "IRR misses the request");
    idle(2000);
    check(count[0] == 0, "delivered though masked");
    print("masked\n");

    pic_unmask(0);
    idle(2000);
    check(count[0] == 1, "%u deliveries of one request", count[0]);
    check(!(read_register(0x20, 0x0B) & 1), "still in service after EOI");
    print("delivered\n");

    end_it = false;
    fire();
    idle(2000);
    check(count[0] == 2, "not delivered");
    check(read_register(0x20, 0x0B) & 1, "not in service");
    fire();
    idle(2000);
    check(count[0] == 2, "delivered while in service");
    end_it = true;
    pic_eoi(0);
    idle(2000);
    check(count[0] == 3, "not delivered after EOI: %u", count[0]);
    print("end of interrupt\n");

    // Poll: the request is taken by a read, without the processor.
    pic_mask(0);
    pit_program(0, 0, 100);
    outb(0x20, 0x0C);
    check(!(inb(0x20) & 0x80), "poll finds a request where there is none");
    pic_unmask(0);
    await_request();
    outb(0x20, 0x0C);
    check(inb(0x20) == 0x80, "poll does not find request 0");
    pic_eoi(0);
    idle(1000);
    check(count[0] == 3, "delivered though polled");
    print("poll\n");

    // The slave: its requests come through IR 2 of the master.
    pic_unmask(8);
    rtc_write(0x0A, (rtc_read(0x0A) & 0xF0) | 6); // 1024 Hz
    rtc_read(0x0C);
    rtc_write(0x0B, rtc_read(0x0B) | 0x40);
    idle(50000);
    rtc_write(0x0B, rtc_read(0x0B) & 0x8F);
    check(count[8] >= 2, "%u interrupts from the slave", count[8]);
    print("cascade\n");

    // Automatic EOI: nothing stays in service.
    outb(0x20, 0x11); outb(0x21, PIC_BASE); outb(0x21, 4); outb(0x21, 3);
    outb(0x21, 0xFE);
    end_it = false;
    u32 before = count[0];
    for (u32 i = 0; i < 3; i++) {
        fire();
        idle(2000);
    }
    check(count[0] >= before + 3, "%u deliveries with automatic EOI", count[0] - before);
    check(!(read_register(0x20, 0x0B) & 1), "in service with automatic EOI");
    print("automatic EOI\n");
    for (u8 irq = 1; irq < 16; irq++) check(irq == 8 || count[irq] == 0, "%u interrupts on IR %u", count[irq], irq);
}
