// Writes the number on the command line to the debug-exit port, and prints nothing.
#include "guest.h"

void guest_main(void) {
    // Loaders may put the image's name first: the number is the last word.
    u32 value = 0;
    for (const char *p = boot.command_line; *p; p++) {
        if (*p >= '0' && *p <= '9') value = value * 10 + (u32)(*p - '0');
        else value = 0;
    }
    debug_exit(value);
}
