// Switches the machine off the way an operating system does.
#include "guest.h"

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    check(acpi.has_s5, "the DSDT has no _S5_");
    print("good night\n");
    acpi_power_off();
    fail("still on");
}
