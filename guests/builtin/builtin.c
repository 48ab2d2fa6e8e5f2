// Start: bring up what there is, say so, and answer on the serial line.
#include "builtin.h"

u64 tsc_hz;
u64 tsc_at_start;
bool have_acpi;

void guest_main(void) {
    tsc_at_start = rdtsc();
    have_acpi = acpi_start();
    // Without a clock nobody could say when a processor that does not answer is given up.
    if (acpi.pm_timer && acpi.cpu_count > 0) smp_start();
    tsc_hz = tsc_frequency(10000);
    collect_cpus();
    report_summary();
    shell();
}
