// From the boot loader to 64-bit C: what the loader said, and that 64-bit arithmetic is 64 bits wide.
#include "guest.h"

void guest_main(void) {
    printf("hello from long mode by %s\n", boot.protocol);
    printf("command line \"%s\"\n", boot.command_line);
    u64 usable = 0;
    for (u32 i = 0; i < boot.range_count; i++)
        if (boot.ranges[i].type == MEMORY_USABLE) usable += boot.ranges[i].size;
    printf("%lu MiB usable\n", (usable + 0xFFFFF) >> 20);
    volatile u64 big = 0x123456789ABCDEF;
    printf("product %lx\n", big * 0x10001);
}
