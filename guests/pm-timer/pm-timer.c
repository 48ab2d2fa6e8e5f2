// The ACPI PM timer: 3.579545 MHz, as wide as the FADT says, and in step with the TSC.
#include "guest.h"

void guest_main(void) {
    check(acpi_start() && acpi.pm_timer, "no PM timer in the FADT");
    printf("%u bits\n", acpi.pm_timer_bits);
    u32 mask = acpi.pm_timer_bits == 24 ? 0xFFFFFF : 0xFFFFFFFF;
    u32 last = pm_timer();
    for (u32 i = 0; i < 2000; i++) {
        u32 now = pm_timer();
        check((now & ~mask) == 0, "%x has bits above its width", now);
        check(((now - last) & mask) < mask / 2, "went back from %x to %x", last, now);
        last = now;
    }
    // Two spans measured by both clocks: the rates must agree.
    u64 rates[2];
    for (u32 i = 0; i < 2; i++) {
        u64 tsc = rdtsc();
        u32 start = pm_timer(), elapsed;
        while ((elapsed = pm_elapsed(start)) < us_to_pm(50000)) pause();
        rates[i] = (rdtsc() - tsc) * PM_TIMER_HZ / elapsed;
    }
    u64 low = rates[0] < rates[1] ? rates[0] : rates[1], high = rates[0] ^ rates[1] ^ low;
    check(high - low < low / 20, "the TSC runs at %lu and %lu Hz by it", rates[0], rates[1]);
    u64 told = tsc_frequency(50000);
    check(told > low - low / 10 && told < high + high / 10, "the TSC is said to run at %lu Hz, measured %lu", told, low);
}
