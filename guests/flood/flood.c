// Prints for ever, faster than anyone reads.
#include "guest.h"

void guest_main(void) {
    for (u32 line = 0;; line++) printf("flood %08x ........................................................\n", line);
}
