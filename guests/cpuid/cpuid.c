// What each processor's CPUID says of itself and of the package.
#include "guest.h"

static struct { u32 leaf1_id, leaf1_count, x2apic_id, apic, package_shift, package_count; bool has_leaf_b; } cpus[MAX_CPUS];

static void ask(u32 index) {
    struct cpuid one = cpuid(1, 0);
    cpus[index].apic = lapic_id();
    cpus[index].leaf1_id = one.ebx >> 24;
    cpus[index].leaf1_count = one.edx & 1 << 28 && one.ebx >> 16 & 0xFF ? one.ebx >> 16 & 0xFF : 1;
    if (cpuid(0, 0).eax < 0xB) return;
    for (u32 level = 0; level < 8; level++) {
        struct cpuid leaf = cpuid(0xB, level);
        if ((leaf.ecx >> 8 & 0xFF) == 0) break;
        cpus[index].has_leaf_b = true;
        cpus[index].x2apic_id = leaf.edx;
        cpus[index].package_shift = leaf.eax & 31;
        cpus[index].package_count = leaf.ebx & 0xFFFF;
    }
}

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    smp_start();
    u32 count = acpi.cpu_count;
    printf("%u processors\n", count);
    check(cpus_online == count, "only %u started", cpus_online);
    ask(0);
    check(run_on_aps(ask, 5000000), "a processor hangs");
    for (u32 i = 0; i < count; i++) {
        u32 id = acpi.apic_ids[i];
        check(cpus[i].apic == id, "cpu %u: APIC id %u, the MADT says %u", i, cpus[i].apic, id);
        check(cpus[i].leaf1_id == id, "cpu %u: leaf 1 says id %u", i, cpus[i].leaf1_id);
        check(cpus[i].leaf1_count >= count, "cpu %u: leaf 1 says %u logical processors", i, cpus[i].leaf1_count);
        if (!cpus[i].has_leaf_b) continue;
        check(cpus[i].x2apic_id == id, "cpu %u: leaf B says id %u", i, cpus[i].x2apic_id);
        check(cpus[i].package_count == count, "cpu %u: leaf B says %u in its package", i, cpus[i].package_count);
        check(id >> cpus[i].package_shift == 0, "cpu %u: shift %u does not cover id %u", i, cpus[i].package_shift, id);
    }
    struct cpuid one = cpuid(1, 0);
    check(one.edx & 1 << 9, "no APIC feature");
    check(cpuid(0x80000001, 0).edx & 1 << 29, "no long mode, says the processor that is in it");
    u32 bits = cpuid(0x80000008, 0).eax & 0xFF;
    check(bits >= 36 && bits <= 52, "%u physical address bits", bits);
}
