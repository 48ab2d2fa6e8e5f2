// What the machine consists of, in words, within 80 columns.
#include "builtin.h"

struct cpu_record cpu_records[MAX_CPUS];

static void record_cpu(u32 index) {
    struct cpu_record *cpu = &cpu_records[index];
    struct cpuid leaf = cpuid(0, 0);
    memcpy(cpu->vendor, &leaf.ebx, 4);
    memcpy(cpu->vendor + 4, &leaf.edx, 4);
    memcpy(cpu->vendor + 8, &leaf.ecx, 4);
    cpu->signature = cpuid(1, 0).eax;
    if (acpi.cpu_count) cpu->apic_id = lapic_id();
    cpu->online = 1;
}

void collect_cpus(void) {
    record_cpu(0);
    run_on_aps(record_cpu, 1000000);
}

/// The processor's name, without the spaces that pad it.
static const char *brand(void) {
    static char name[49];
    if (cpuid(0x80000000, 0).eax < 0x80000004) return cpu_records[0].vendor;
    for (u32 i = 0; i < 3; i++) {
        struct cpuid leaf = cpuid(0x80000002 + i, 0);
        memcpy(name + i * 16, &leaf, 16);
    }
    char *end = name + strlen(name);
    while (end > name && end[-1] == ' ') *--end = 0;
    const char *start = name;
    while (*start == ' ') start++;
    return *start ? start : cpu_records[0].vendor;
}

static bool has_hypervisor(void) { return cpuid(1, 0).ecx & 1u << 31; }

/// The 12 letters of leaf 0x40000000: who runs this machine.
static const char *signature(void) {
    static char name[13];
    if (!has_hypervisor()) return "none";
    struct cpuid leaf = cpuid(0x40000000, 0);
    memcpy(name, &leaf.ebx, 4);
    memcpy(name + 4, &leaf.ecx, 4);
    memcpy(name + 8, &leaf.edx, 4);
    return *name ? name : "none";
}

static bool has_kvm_clock(void) {
    return has_hypervisor() && string_equal(signature(), "KVMKVMKVM") && cpuid(0x40000001, 0).eax & 8;
}

static u64 usable_bytes(void) {
    u64 total = 0;
    for (u32 i = 0; i < boot.range_count; i++)
        if (boot.ranges[i].type == MEMORY_USABLE) total += boot.ranges[i].size;
    return total;
}

/// The first megabyte loses a little to tables and the legacy hole: rounded up, it is what was asked for.
static u32 usable_mebibytes(void) { return (u32)((usable_bytes() + 0xFFFFF) >> 20); }

static u32 decode_bcd(u8 value, bool binary) { return binary ? value : (u32)(value >> 4) * 10 + (value & 15); }

static void print_time(void) {
    if (!(rtc_read(0x0D) & 0x80)) {
        print("the clock has lost its time");
        return;
    }
    // Read twice alike: no update fell between.
    u8 raw[7], again[7];
    static const u8 registers[7] = { 0x32, 9, 8, 7, 4, 2, 0 };
    do {
        for (u32 i = 0; i < 7; i++) raw[i] = rtc_read(registers[i]);
        for (u32 i = 0; i < 7; i++) again[i] = rtc_read(registers[i]);
    } while (memcmp(raw, again, 7) != 0);
    bool binary = rtc_read(0x0B) & 4;
    u32 v[7];
    for (u32 i = 0; i < 7; i++) v[i] = decode_bcd(raw[i], binary);
    printf("%02u%02u-%02u-%02u %02u:%02u:%02u UTC", v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
}

static void print_megahertz(u64 hertz) {
    u32 khz = (u32)(hertz / 1000);
    printf("%u.%03u MHz", khz / 1000, khz % 1000);
}

static void label(const char *name) { printf("  %-11s", name); }

void report_summary(void) {
    print("\n"
          "  \\\\___    ___//\n"
          "   `-.__\\\\//__.-'     Windhover\n"
          "       ) vv (         the guest that is built in\n"
          "        `||'\n"
          "\n");
    label("engine");
    printf("%s, started by %s\n", signature(), boot.protocol);
    label("processors");
    if (acpi.cpu_count > cpus_online) printf("%u of %u", cpus_online, acpi.cpu_count);
    else printf("%u", cpus_online);
    printf(" running, %s\n", brand());
    label("memory");
    printf("%u MiB\n", usable_mebibytes());
    label("timers");
    print("TSC ");
    print_megahertz(tsc_hz);
    if (acpi.pm_timer) printf(", PM timer %u bits", acpi.pm_timer_bits);
    print(", PIT, APIC");
    if (cpuid(1, 0).ecx & 1 << 24) print(" with TSC deadline");
    if (has_kvm_clock()) print(", KVM clock");
    print("\n");
    label("time");
    print_time();
    print("\n");
    label("ACPI");
    if (!have_acpi) print("no tables");
    for (u32 i = 0; i < acpi.table_count && i < 12; i++) {
        const char *s = acpi.tables[i]->signature;
        printf("%s%c%c%c%c", i ? " " : "", s[0], s[1], s[2], s[3]);
    }
    print("\n\nType help for what it answers to, off to switch it off.\n\n");
}

static volatile u32 answered;
static void answer(u32 index) {
    (void)index;
    __atomic_add_fetch(&answered, 1, __ATOMIC_SEQ_CST);
}

void report_cpus(void) {
    printf("%s\n\n  cpu  apic id  vendor        family  model  stepping\n", brand());
    u32 count = acpi.cpu_count ? acpi.cpu_count : 1;
    for (u32 i = 0; i < count; i++) {
        struct cpu_record *cpu = &cpu_records[i];
        if (!cpu->online) {
            printf("  %3u  %7u  does not run\n", i, acpi.apic_ids[i]);
            continue;
        }
        u32 family = cpu->signature >> 8 & 15, model = cpu->signature >> 4 & 15;
        if (family == 15 || family == 6) model |= (cpu->signature >> 16 & 15) << 4;
        if (family == 15) family += cpu->signature >> 20 & 0xFF;
        printf("  %3u  %7u  %-12s  %6u  %5u  %8u\n", i, cpu->apic_id, cpu->vendor, family, model, cpu->signature & 15);
    }
    if (cpus_online == 1) return;
    answered = 0;
    u64 start = rdtsc();
    bool all = run_on_aps(answer, 1000000);
    u64 us = tsc_hz ? (rdtsc() - start) * 1000000 / tsc_hz : 0;
    if (all) printf("\nAll others answered a broadcast interrupt within %lu us.\n", us);
    else printf("\n%u of %u others answered a broadcast interrupt within a second.\n", answered, cpus_online - 1);
}

void report_memory(void) {
    static const char *const kinds[] = { "?", "usable", "reserved", "ACPI", "ACPI, kept", "bad" };
    print("  from              to                      KiB  kind\n");
    for (u32 i = 0; i < boot.range_count; i++) {
        struct memory_range *r = &boot.ranges[i];
        printf("  %016lx  %016lx  %9lu  %s\n", r->base, r->base + r->size - 1, r->size >> 10,
            r->type < 6 ? kinds[r->type] : "other");
    }
    printf("\n%lu KiB usable; this guest lies at %lx to %lx.\n", usable_bytes() >> 10, (u64)image_start, (u64)image_end - 1);
}

/// A counter's rate by the TSC, over 10 ms.
static u64 rate(u32 (*read)(void), u32 mask, bool down) {
    u64 tsc = rdtsc(), span = tsc_hz / 100;
    u32 start = read();
    while (rdtsc() - tsc < span) pause();
    u32 end = read();
    u64 elapsed = rdtsc() - tsc;
    return ((down ? start - end : end - start) & mask) * tsc_hz / (elapsed ? elapsed : 1);
}

static u32 read_pit2(void) { return pit_read(2); }
static u32 read_apic_timer(void) { return lapic_read(LAPIC_TIMER_CURRENT); }

void report_timers(void) {
    label("TSC");
    print_megahertz(tsc_hz);
    bool invariant = cpuid(0x80000000, 0).eax >= 0x80000007 && cpuid(0x80000007, 0).edx & 1 << 8;
    printf("%s\n", invariant ? ", invariant" : "");
    if (tsc_hz) {
        if (acpi.pm_timer) {
            label("PM timer");
            print_megahertz(rate(pm_timer, acpi.pm_timer_bits == 24 ? 0xFFFFFF : 0xFFFFFFFF, false));
            printf(", %u bits, port 0x%x\n", acpi.pm_timer_bits, acpi.pm_timer);
        }
        label("PIT");
        outb(0x61, (inb(0x61) & 0xFC) | 1);
        pit_program(2, 2, 0);
        print_megahertz(rate(read_pit2, 0xFFFF, true));
        print(", channel 2\n");
        if (acpi.cpu_count) {
            label("APIC timer");
            lapic_write(LAPIC_LVT_TIMER, LAPIC_LVT_MASKED | 0xFE);
            lapic_write(LAPIC_TIMER_DIVIDE, 0xB);
            lapic_write(LAPIC_TIMER_INITIAL, 0xFFFFFFFF);
            print_megahertz(rate(read_apic_timer, 0xFFFFFFFF, true));
            lapic_write(LAPIC_TIMER_INITIAL, 0);
            printf("%s\n", cpuid(1, 0).ecx & 1 << 24 ? ", TSC deadline" : "");
        }
    }
    label("KVM clock");
    printf("%s\n", has_kvm_clock() ? "offered" : "not offered");
    label("RTC");
    print_time();
    print("\n");
}

void report_acpi(void) {
    if (!have_acpi) {
        print("There are no ACPI tables.\n");
        return;
    }
    printf("  RSDP at 0x%lx\n", boot.rsdp);
    for (u32 i = 0; i < acpi.table_count; i++) {
        const struct acpi_header *t = acpi.tables[i];
        const char *s = t->signature;
        printf("  %c%c%c%c at 0x%lx, %u bytes, revision %u\n", s[0], s[1], s[2], s[3], (u64)t, t->length, t->revision);
    }
    printf("\n  SCI on %u, PM1 event port 0x%x, PM1 control port 0x%x\n", acpi.sci, acpi.pm1a_event, acpi.pm1a_control);
    if (acpi.has_s5) printf("  power-off: sleep type %u\n", acpi.sleep_type_s5);
    if (acpi.has_reset) printf("  reset: 0x%x to %s 0x%lx\n", acpi.reset_value, acpi.reset_space == 1 ? "port" : "memory", acpi.reset_address);
}

static void device(const char *where, const char *what, bool there) {
    if (there) printf("  %-12s%s\n", where, what);
}

void report_devices(void) {
    // A mask register holds what is written to it; the cascade's bit alone lets nothing through.
    u8 mask = inb(0x21);
    outb(0x21, mask & 0xFB);
    device("0x020 0x0a0", "two 8259A interrupt controllers", inb(0x21) == (mask & 0xFB));
    outb(0x21, mask);
    device("0x040", "8254 timer", true);
    u8 keyboard = inb(0x64);
    device("0x060", "i8042 keyboard controller", keyboard != 0xFF);
    device("0x070", "real-time clock", rtc_read(0x0D) & 0x80);
    device("0x0e9", "debug console", inb(0xE9) == 0xE9);
    u8 scratch = inb(COM1 + 7);
    outb(COM1 + 7, 0x5A);
    bool has_scratch = inb(COM1 + 7) == 0x5A;
    outb(COM1 + 7, scratch);
    device("0x3f8", (inb(COM1 + 2) & 0xC0) == 0xC0 ? "16550A serial line (this one)" : "8250 serial line (this one)", has_scratch);
    if (acpi.pm1a_control) printf("  0x%03x       ACPI power management\n", acpi.pm1a_event);
    if (acpi.ioapic_address) printf("  0x%08x  I/O APIC, %u pins, version 0x%x\n", acpi.ioapic_address, ioapic_pins(), ioapic_read(1) & 0xFF);
    if (acpi.cpu_count) printf("  0x%08lx  local APIC, version 0x%x, %s mode\n", acpi.lapic_address, lapic_read(LAPIC_VERSION) & 0xFF, x2apic ? "x2APIC" : "xAPIC");
}

void report_uptime(void) {
    if (!tsc_hz) {
        print("There is no clock to tell.\n");
        return;
    }
    u64 ms = (rdtsc() - tsc_at_start) / (tsc_hz / 1000);
    printf("up %lu.%03lu s\n", ms / 1000, ms % 1000);
}
