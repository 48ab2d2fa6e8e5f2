// The local APIC timer in its three modes, on the boot processor and on another.
#include "guest.h"

enum { VECTOR = 0x40 };
static volatile u32 ticks[2];
static volatile u32 current;
static u32 ticks_per_ms;
static const char *volatile failure;

static void on_tick(struct frame *frame) {
    (void)frame;
    ticks[current]++;
    lapic_eoi();
}

/// Interrupts enabled for `us` microseconds.
static void idle(u32 us) {
    u32 start = pm_timer();
    interrupts_on();
    while (pm_elapsed(start) < us_to_pm(us)) pause();
    interrupts_off();
}

static bool wait_ticks(u32 count, u32 us) {
    u32 start = pm_timer();
    interrupts_on();
    while (ticks[current] < count && pm_elapsed(start) < us_to_pm(us)) pause();
    interrupts_off();
    return ticks[current] >= count;
}

static void modes(u32 index) {
    current = index;
    lapic_write(LAPIC_TIMER_DIVIDE, 0xB); // by 1
    lapic_write(LAPIC_LVT_TIMER, VECTOR);
    u32 start = pm_timer();
    lapic_write(LAPIC_TIMER_INITIAL, ticks_per_ms * 10);
    if (!wait_ticks(1, 2000000)) { failure = "one-shot never fired"; return; }
    if (pm_to_us(pm_elapsed(start)) < 9000) { failure = "one-shot fired early"; return; }
    idle(30000);
    if (ticks[index] != 1) { failure = "one-shot fired again"; return; }

    ticks[index] = 0;
    lapic_write(LAPIC_LVT_TIMER, VECTOR | LAPIC_TIMER_PERIODIC);
    start = pm_timer();
    lapic_write(LAPIC_TIMER_INITIAL, ticks_per_ms * 5);
    if (!wait_ticks(10, 3000000)) { failure = "periodic did not fire ten times"; return; }
    if (pm_to_us(pm_elapsed(start)) < 42000) { failure = "periodic fired early"; return; }
    lapic_write(LAPIC_LVT_TIMER, VECTOR | LAPIC_TIMER_PERIODIC | LAPIC_LVT_MASKED);
    idle(1000);
    u32 before = ticks[index];
    idle(20000);
    if (ticks[index] != before) { failure = "fired though masked"; return; }
    lapic_write(LAPIC_TIMER_INITIAL, 0);

    if (!(cpuid(1, 0).ecx & 1 << 24)) return;
    ticks[index] = 0;
    lapic_write(LAPIC_LVT_TIMER, VECTOR | LAPIC_TIMER_DEADLINE);
    __asm__ volatile("mfence" ::: "memory");
    u64 deadline = rdtsc() + tsc_frequency(20000) / 100;
    wrmsr(0x6E0, deadline);
    if (!wait_ticks(1, 2000000)) { failure = "the TSC deadline never fired"; return; }
    if (rdtsc() < deadline) { failure = "the TSC deadline fired early"; return; }
    if (rdmsr(0x6E0) != 0) { failure = "the TSC deadline still reads as armed"; return; }
    idle(5000);
    if (ticks[index] != 1) failure = "the TSC deadline fired again";
}

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    set_handler(VECTOR, on_tick);
    smp_start();
    // Its frequency, by the PM timer.
    lapic_write(LAPIC_TIMER_DIVIDE, 0xB);
    lapic_write(LAPIC_LVT_TIMER, LAPIC_LVT_MASKED | VECTOR);
    lapic_write(LAPIC_TIMER_INITIAL, 0xFFFFFFFF);
    u32 start = pm_timer(), elapsed;
    while ((elapsed = pm_elapsed(start)) < us_to_pm(20000)) pause();
    u32 counted = 0xFFFFFFFF - lapic_read(LAPIC_TIMER_CURRENT);
    lapic_write(LAPIC_TIMER_INITIAL, 0);
    ticks_per_ms = (u32)((u64)counted * (PM_TIMER_HZ / 1000) / elapsed);
    check(ticks_per_ms > 100, "the timer stands still: %u ticks in 20 ms", counted);
    modes(0);
    check(!failure, "cpu 0: %s", failure);
    print("cpu 0\n");
    check(run_on_aps(modes, 10000000), "cpu 1 hangs");
    check(!failure, "cpu 1: %s", failure);
    print("cpu 1\n");
}
