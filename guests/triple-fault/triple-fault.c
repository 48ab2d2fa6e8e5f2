// An empty IDT, then an invalid opcode: #UD, #GP, #DF, shutdown.
#include "guest.h"

void guest_main(void) {
    print("about to fault three times\n");
    struct { u16 limit; u64 base; } __attribute__((packed)) empty = { 0, 0 };
    __asm__ volatile("lidt %0\n\tud2" ::"m"(empty));
    fail("still alive");
}
