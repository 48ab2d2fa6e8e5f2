// Touches everything that is not RAM. What ends the machine by design is left alone: the debug-exit port, the PM control
// register's sleep bits, the reset ports and the keyboard controller's commands.
#include "guest.h"

static u32 accesses;

/// Of what is far from all devices, one in so many; 1 where the command line has no `stride=N`.
static u32 stride(void) {
    u32 value = 0;
    for (const char *p = boot.command_line; *p; p++) {
        if (*p >= '0' && *p <= '9') value = value * 10 + (u32)(*p - '0');
        else value = 0;
    }
    return value ? value : 1;
}

static bool ends_the_machine(u16 port) {
    return (port >= DEBUG_EXIT - 3 && port < DEBUG_EXIT + 4) || port == 0x64 || port == 0x92
        || (port + 3 >= 0xCF9 && port <= 0xCF9) || (port + 3 >= acpi.pm1a_control && port < acpi.pm1a_control + 2)
        || (acpi.has_reset && port + 3 >= acpi.reset_address && port <= acpi.reset_address)
        || (port + 3 >= 0x64 && port < 0x64);
}

static void ports(u32 step) {
    static const u8 patterns[] = { 0x00, 0xFF, 0x5A };
    u32 n = 0;
    for (u32 port = 0; port < 0x10000; port += port < 0x1000 ? 1 : step) {
        u16 p = (u16)port;
        if (ends_the_machine(p)) continue;
        u8 pattern = patterns[n++ % 3];
        // Every width where devices live; elsewhere they take turns.
        bool dense = port < 0x1000;
        // The console's data register: what is written there is printed.
        bool is_console = port >= COM1 - 3 && port <= COM1;
        if (dense || n % 3 == 0) { inb(p); if (!is_console && port != 0xE9) outb(p, pattern); accesses += 2; }
        if (dense || n % 3 == 1) { inw(p); if (!is_console && (port > 0xE9 || port < 0xE8)) outw(p, (u16)(pattern * 0x101)); accesses += 2; }
        if (dense || n % 3 == 2) { inl(p); if (!is_console && (port > 0xE9 || port < 0xE6)) outl(p, pattern * 0x1010101u); accesses += 2; }
    }
}

static u64 sink;

static void touch(u64 address, u32 width, u64 value) {
    accesses += 2;
    switch (width) {
    case 1: sink += *(volatile u8 *)address; *(volatile u8 *)address = (u8)value; break;
    case 2: sink += *(volatile u16 *)address; *(volatile u16 *)address = (u16)value; break;
    case 4: sink += *(volatile u32 *)address; *(volatile u32 *)address = (u32)value; break;
    case 8: sink += *(volatile u64 *)address; *(volatile u64 *)address = value; break;
    }
}

static void hole(u32 step) {
    // A place on each page of every 64 KiB at which a device may begin, one width after another, across page ends too.
    static const u8 widths[] = { 1, 2, 4, 8 };
    u32 n = 0;
    for (u64 at = 0xC0000000; at < 0xFEC00000; at += 0x10000ull * step, n++) {
        touch(at, widths[n & 3], 0);
        touch(at + 0x1000 * (n & 15) + 0xFFD, widths[n >> 2 & 3], ~0ull);
    }
    // Device pages: each byte of the I/O APIC's, each register of the local APIC's (zeroes: it must stay able to serve us).
    for (u64 offset = 0; offset < 0x1000; offset++) touch(0xFEC00000 + offset, widths[offset & 3], offset);
    for (u64 offset = 0; offset < 0x1000; offset += 4) {
        sink += *(volatile u32 *)(0xFEE00000 + offset);
        if (offset != LAPIC_ICR) *(volatile u32 *)(0xFEE00000 + offset) = 0;
        accesses += 2;
    }
    for (u64 at = 0xFEF00000; at < 0x100000000; at += 0x1000) {
        // Not the pages that the hypervisor itself may use for real mode.
        if (at >= 0xFFFB0000 && at < 0xFFFC0000) continue;
        sink += *(volatile u32 *)at;
        accesses++;
    }
}

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    print("ports\n");
    ports(stride());
    serial_start();
    print("hole\n");
    hole(stride());
    // The clock still runs, and the line still prints.
    u32 start = pm_timer();
    delay_us(1000);
    check(pm_elapsed(start) >= us_to_pm(1000), "the PM timer stands still");
    printf("alive after %u accesses\n", accesses);
}
