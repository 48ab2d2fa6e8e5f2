// The 8254. Times are bounded below strictly (never early) and above loosely (a busy host is late).
#include "guest.h"

static volatile u32 ticks;

static void on_tick(struct frame *frame) {
    (void)frame;
    ticks++;
    pic_eoi(0);
}

/// Interrupts of channel 0 until `count` came, timed in microseconds.
static u32 measure(u8 mode, u16 count, u32 interrupts) {
    // The mode before may have left a request, and sends no more once this one counts its longest, 55 ms.
    pit_program(0, 0, 0);
    interrupts_on();
    delay_us(100);
    interrupts_off();
    pit_program(0, mode, count);
    ticks = 0;
    u32 start = pm_timer();
    interrupts_on();
    while (ticks < interrupts && pm_elapsed(start) < us_to_pm(3000000)) wait_for_interrupt();
    interrupts_off();
    return pm_to_us(pm_elapsed(start));
}

static void read_back(void) {
    // Channel 2, mode 2, gate off: the count stands still once loaded, and the status tells mode and access.
    outb(0x61, inb(0x61) & 0xFC);
    pit_program(2, 2, 0x1234);
    outb(0x43, 0xC8); // count and status of channel 2
    u8 status = inb(0x42);
    u16 count = inb(0x42);
    count |= (u16)(inb(0x42) << 8);
    check((status & 0x3F) == 0x34, "channel 2 status %x", status);
    check(count <= 0x1234, "channel 2 latched %x", count);
    outb(0x61, (inb(0x61) & 0xFC) | 1);
    u16 first = pit_read(2);
    delay_us(1000);
    u16 second = pit_read(2);
    check(first != second, "channel 2 stands still with its gate on");
    check(first <= 0x1234 && second <= 0x1234, "channel 2 counts past its reload: %x, %x", first, second);
    print("read-back\n");
}

static void one_shot(void) {
    // Mode 0 on channel 2: OUT (port 0x61 bit 5) is low while counting, high at the end, and stays.
    outb(0x61, (inb(0x61) & 0xFC) | 1);
    pit_program(2, 0, 23864); // 20 ms
    u32 start = pm_timer();
    check(!(inb(0x61) & 0x20), "OUT 2 is high at once");
    while (!(inb(0x61) & 0x20)) {
        pause();
        check(pm_elapsed(start) < us_to_pm(2000000), "OUT 2 never rose");
    }
    u32 us = pm_to_us(pm_elapsed(start));
    check(us > 19000, "one-shot of 20000 us took %u", us);
    delay_us(5000);
    check(inb(0x61) & 0x20, "OUT 2 fell again");
    print("one-shot\n");
}

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    set_handler(PIC_BASE, on_tick);
    pic_unmask(0);
    read_back();
    one_shot();
    // 20 interrupts of 5 ms. The first period may have begun already, so one less bounds below.
    u32 us = measure(2, 5966, 20);
    check(ticks == 20 && us > 90000 && us < 1000000, "rate generator: %u interrupts in %u us", ticks, us);
    print("rate generator\n");
    us = measure(3, 5966, 20);
    check(ticks == 20 && us > 90000 && us < 1000000, "square wave: %u interrupts in %u us", ticks, us);
    print("square wave\n");
    us = measure(0, 11932, 1);
    check(ticks == 1 && us > 9000, "terminal count: %u interrupts in %u us", ticks, us);
    u32 start = pm_timer();
    interrupts_on();
    while (pm_elapsed(start) < us_to_pm(30000)) pause();
    interrupts_off();
    check(ticks == 1, "terminal count repeated");
    print("terminal count\n");
}
