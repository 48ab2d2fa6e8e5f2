// Clocks: ACPI PM timer, TSC, 8254, RTC.
#include "guest.h"

u32 pm_timer(void) { return inl(acpi.pm_timer); }

u32 pm_elapsed(u32 start) {
    u32 difference = pm_timer() - start;
    return acpi.pm_timer_bits == 24 ? difference & 0xFFFFFF : difference;
}

void delay_us(u32 us) {
    if (!acpi.pm_timer) return;
    u32 start = pm_timer(), ticks = us_to_pm(us);
    while (pm_elapsed(start) < ticks) pause();
}

u64 tsc_frequency(u32 measure_us) {
    // The hypervisors' timing leaf: kHz. Else the processor's own leaf.
    if (cpuid(1, 0).ecx & 1u << 31 && cpuid(0x40000000, 0).eax >= 0x40000010) {
        u32 khz = cpuid(0x40000010, 0).eax;
        if (khz) return (u64)khz * 1000;
    }
    if (cpuid(0, 0).eax >= 0x15) {
        struct cpuid leaf = cpuid(0x15, 0);
        if (leaf.eax && leaf.ebx && leaf.ecx) return (u64)leaf.ecx * leaf.ebx / leaf.eax;
    }
    if (!acpi.pm_timer) return 0;
    u32 start = pm_timer(), ticks = us_to_pm(measure_us), elapsed;
    u64 tsc = rdtsc();
    while ((elapsed = pm_elapsed(start)) < ticks) pause();
    return (rdtsc() - tsc) * PM_TIMER_HZ / elapsed;
}

void pit_program(u8 channel, u8 mode, u16 count) {
    outb(0x43, (u8)(channel << 6 | 0x30 | mode << 1));
    outb(0x40 + channel, (u8)count);
    outb(0x40 + channel, (u8)(count >> 8));
}

u16 pit_read(u8 channel) {
    outb(0x43, (u8)(channel << 6));
    u8 low = inb(0x40 + channel);
    return (u16)(inb(0x40 + channel) << 8 | low);
}

u8 rtc_read(u8 index) {
    outb(0x70, index);
    return inb(0x71);
}

void rtc_write(u8 index, u8 value) {
    outb(0x70, index);
    outb(0x71, value);
}
