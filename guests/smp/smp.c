// Every processor the MADT names starts, says its APIC id, and counts on shared words.
#include "guest.h"

enum { ROUNDS = 1000 };

static volatile u32 locked, exchanged, ids[MAX_CPUS];
static volatile u64 wide;

static void work(u32 index) {
    ids[index] = lapic_id() + 1;
    for (u32 i = 0; i < ROUNDS; i++) {
        __atomic_add_fetch(&locked, 1, __ATOMIC_SEQ_CST);
        u32 seen = exchanged;
        while (!__atomic_compare_exchange_n(&exchanged, &seen, seen + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) pause();
        // Carries from the low half into the high one.
        __atomic_add_fetch(&wide, 0xFFFFFFFF, __ATOMIC_SEQ_CST);
    }
}

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    smp_start();
    printf("%u of %u processors run\n", cpus_online, acpi.cpu_count);
    check(cpus_online == acpi.cpu_count, "not all processors started");
    check(run_on_aps(work, 10000000), "processors did not finish: counts %u, %u", locked, exchanged);
    work(0);
    for (u32 i = 0; i < acpi.cpu_count; i++) {
        printf("cpu %u apic id %u\n", i, ids[i] - 1);
        check(ids[i] == acpi.apic_ids[i] + 1, "the MADT says %u", acpi.apic_ids[i]);
    }
    u32 total = acpi.cpu_count * ROUNDS;
    check(locked == total && exchanged == total, "counts %u and %u, not %u", locked, exchanged, total);
    check(wide == (u64)total * 0xFFFFFFFF, "the 64-bit sum is %lx", wide);
}
