// Every way one local APIC reaches another, in xAPIC and in x2APIC mode.
#include "guest.h"

enum { VECTOR = 0x48 };
static volatile u32 got[MAX_CPUS], nmis[MAX_CPUS];
static u32 total;

static u32 index_of_self(void) {
    u32 id = lapic_id();
    for (u32 i = 0; i < acpi.cpu_count; i++)
        if (acpi.apic_ids[i] == id) return i;
    return 0;
}

static void on_ipi(struct frame *frame) { (void)frame; got[index_of_self()]++; lapic_eoi(); }
static void on_nmi(struct frame *frame) { (void)frame; nmis[index_of_self()]++; }

static void expect(const char *what, const u32 *wanted, volatile u32 *seen) {
    u32 start = pm_timer();
    interrupts_on();
    while (pm_elapsed(start) < us_to_pm(1000000)) {
        bool all = true;
        for (u32 i = 0; i < total; i++) all = all && seen[i] >= wanted[i];
        if (all) break;
        pause();
    }
    delay_us(2000);
    interrupts_off();
    for (u32 i = 0; i < total; i++) {
        check(seen[i] == wanted[i], "%s: cpu %u got %u, not %u", what, i, seen[i], wanted[i]);
        seen[i] = 0;
    }
    printf("%s\n", what);
}

static void all_ways(void) {
    u32 self = acpi.apic_ids[0];
    lapic_send(self, 0x4000 | VECTOR);
    expect("to self by id", (u32[]){ 1, 0, 0 }, got);
    lapic_send(0, 0x44000 | VECTOR);
    expect("to self by shorthand", (u32[]){ 1, 0, 0 }, got);
    lapic_send(acpi.apic_ids[2], 0x4000 | VECTOR);
    expect("to one", (u32[]){ 0, 0, 1 }, got);
    lapic_send(0, 0x84000 | VECTOR);
    expect("to all", (u32[]){ 1, 1, 1 }, got);
    lapic_send(0, 0xC4000 | VECTOR);
    expect("to all but self", (u32[]){ 0, 1, 1 }, got);
    lapic_send(0, 0xC4400);
    expect("NMI to all but self", (u32[]){ 0, 1, 1 }, nmis);
}

/// An application processor enters x2APIC mode. `x2apic` is shared, so only the boot processor sets it, last.
static void switch_mode(u32 index) {
    (void)index;
    wrmsr(0x1B, rdmsr(0x1B) | 0xC00);
}

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    set_handler(VECTOR, on_ipi);
    set_handler(2, on_nmi);
    smp_start();
    total = cpus_online;
    check(total == 3, "%u processors, not 3", total);
    if (!x2apic) {
        print("xAPIC\n");
        all_ways();
        if (!(cpuid(1, 0).ecx & 1 << 21)) {
            print("no x2APIC\n");
            return;
        }
        // The others first: they are reached through the mode they are in.
        check(run_on_aps(switch_mode, 1000000), "the switch to x2APIC hangs");
    }
    lapic_use_x2apic();
    print("x2APIC\n");
    all_ways();
    wrmsr(0x83F, VECTOR);
    expect("to self by SELF IPI", (u32[]){ 1, 0, 0 }, got);
}
