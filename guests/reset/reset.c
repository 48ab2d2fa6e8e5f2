// Resets the machine by the way the command line names.
#include "guest.h"

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    if (option("fadt")) {
        print("reset by the FADT's register\n");
        check(acpi.has_reset, "the FADT has none");
        acpi_reset();
    } else if (option("keyboard")) {
        print("reset by the keyboard controller\n");
        outb(0x64, 0xFE);
    } else if (option("cf9")) {
        print("reset by port 0xCF9\n");
        outb(0xCF9, 2);
        outb(0xCF9, 6);
    } else {
        fail("name one of: fadt keyboard cf9");
    }
    delay_us(100000);
    fail("still running");
}
