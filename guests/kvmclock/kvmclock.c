// Which hypervisor says it is there, and whether KVM's paravirtual clock keeps time.
#include "guest.h"

struct time_info { u32 version, pad; u64 tsc, system; u32 multiplier; signed char shift; u8 flags, pad2[2]; } __attribute__((packed));
static volatile struct time_info info __attribute__((aligned(64)));
static volatile struct { u32 version, seconds, nanoseconds; } wall __attribute__((aligned(64)));

static u64 read_clock(void) {
    u32 version;
    u64 now;
    do {
        version = info.version;
        u64 delta = rdtsc() - info.tsc;
        delta = info.shift < 0 ? delta >> -info.shift : delta << info.shift;
        now = info.system + (u64)((unsigned __int128)delta * info.multiplier >> 32);
    } while (version & 1 || version != info.version);
    return now;
}

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    check(cpuid(1, 0).ecx & 1u << 31, "CPUID shows no hypervisor");
    struct cpuid leaf = cpuid(0x40000000, 0);
    char signature[13] = { 0 };
    memcpy(signature, &leaf.ebx, 4);
    memcpy(signature + 4, &leaf.ecx, 4);
    memcpy(signature + 8, &leaf.edx, 4);
    printf("signature %s\n", signature);
    if (!string_equal(signature, "KVMKVMKVM") || !(cpuid(0x40000001, 0).eax & 8)) {
        print("no KVM clock\n");
        return;
    }
    wrmsr(0x4B564D01, (u64)&info | 1);
    wrmsr(0x4B564D00, (u64)&wall);
    check(info.multiplier, "the clock's page stays empty");
    u64 first = read_clock();
    u32 start = pm_timer();
    delay_us(20000);
    u64 second = read_clock();
    u32 us = pm_to_us(pm_elapsed(start)), clock_us = (u32)((second - first) / 1000);
    check(clock_us > us - us / 10 && clock_us < us + us / 10, "%u us by the clock, %u by the PM timer", clock_us, us);
    check(wall.seconds > 1600000000, "the wall clock says %u", wall.seconds);
    wrmsr(0x4B564D01, 0);
    print("KVM clock\n");
}
