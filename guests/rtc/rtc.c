// The MC146818: a date that can be, and each of its three interrupts.
#include "guest.h"

static volatile u32 interrupts;
static volatile u8 causes;

static void on_interrupt(struct frame *frame) {
    (void)frame;
    causes |= rtc_read(0x0C);
    interrupts++;
    pic_eoi(8);
}

static u32 decode(u8 value, bool binary) { return binary ? value : (u32)(value >> 4) * 10 + (value & 15); }

/// Enables `bit` of register B and waits for `count` interrupts.
/// - Returns: microseconds, 0 for never.
static u32 wait_for(u8 bit, u32 count, u32 limit) {
    rtc_read(0x0C);
    interrupts = 0;
    causes = 0;
    u8 b = rtc_read(0x0B) & 0x8F;
    rtc_write(0x0B, b | bit);
    u32 start = pm_timer();
    interrupts_on();
    while (interrupts < count && pm_elapsed(start) < us_to_pm(limit)) pause();
    interrupts_off();
    u32 us = pm_to_us(pm_elapsed(start));
    rtc_write(0x0B, b);
    return interrupts >= count ? us : 0;
}

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    set_handler(PIC_BASE + 8, on_interrupt);
    pic_unmask(8);
    check(rtc_read(0x0D) & 0x80, "VRT is clear: the clock has lost its time");
    while (rtc_read(0x0A) & 0x80) pause();
    u8 b = rtc_read(0x0B);
    bool binary = b & 4;
    u32 second = decode(rtc_read(0), binary), minute = decode(rtc_read(2), binary), hour = decode(rtc_read(4) & 0x7F, binary);
    u32 day = decode(rtc_read(7), binary), month = decode(rtc_read(8), binary), year = decode(rtc_read(9), binary);
    u32 century = decode(rtc_read(0x32), binary);
    printf("time %02u%02u-%02u-%02u %02u:%02u:%02u\n", century, year, month, day, hour, minute, second);
    check(second < 60 && minute < 60 && hour < 24 && day >= 1 && day <= 31 && month >= 1 && month <= 12, "no such time");
    check(century == 20, "the century is %u", century);

    // Periodic, 128 Hz: 16 of them are 125 ms.
    rtc_write(0x0A, (rtc_read(0x0A) & 0xF0) | 9);
    u32 us = wait_for(0x40, 16, 3000000);
    check(us > 110000 && us < 1500000 && causes & 0x40, "16 periodic interrupts at 128 Hz took %u us", us);
    print("periodic\n");
    us = wait_for(0x10, 2, 5000000);
    check(us > 990000 && us < 4000000 && causes & 0x10, "2 update-ended interrupts took %u us", us);
    print("update-ended\n");
    // An alarm for any second: all three alarm bytes "don't care".
    rtc_write(1, 0xFF);
    rtc_write(3, 0xFF);
    rtc_write(5, 0xFF);
    us = wait_for(0x20, 1, 3000000);
    check(us && causes & 0x20, "no alarm");
    print("alarm\n");
}
