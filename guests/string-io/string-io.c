// String I/O against the UART's scratch register (0x3FF) and the debug console (0xE9).
#include "guest.h"

static u8 buffer[64] __attribute__((aligned(64)));

static void outsb(u16 port, const void *from, u64 count) {
    __asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(port) : "memory");
    check(count == 0, "rep outsb left %lu", count);
}

void guest_main(void) {
    // The last byte written stays in the scratch register.
    const char text[] = "string output\n";
    outsb(0xE9, text, sizeof text - 1);
    outsb(0x3FF, "abcdefgh", 8);
    check(inb(0x3FF) == 'h', "rep outsb ended with %x", inb(0x3FF));
    print("outsb\n");

    void *to = buffer;
    u64 count = 20;
    memset(buffer, 0, sizeof buffer);
    __asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"((u16)0x3FF) : "memory");
    check(count == 0 && to == buffer + 20, "rep insb moved to %p, left %lu", to, count);
    for (u32 i = 0; i < 64; i++) check(buffer[i] == (i < 20 ? 'h' : 0), "rep insb: byte %u is %x", i, buffer[i]);
    print("insb\n");

    // Backwards.
    memset(buffer, 0, sizeof buffer);
    to = buffer + 9;
    count = 5;
    __asm__ volatile("std; rep insb; cld" : "+D"(to), "+c"(count) : "d"((u16)0x3FF) : "memory");
    check(to == buffer + 4, "rep insb backwards moved to %p", to);
    for (u32 i = 0; i < 16; i++) check(buffer[i] == (i >= 5 && i <= 9 ? 'h' : 0), "backwards: byte %u is %x", i, buffer[i]);
    const char *from = &"xyz"[2];
    count = 3;
    __asm__ volatile("std; rep outsb; cld" : "+S"(from), "+c"(count) : "d"((u16)0x3FF) : "memory");
    check(inb(0x3FF) == 'x', "rep outsb backwards ended with %x", inb(0x3FF));
    print("backwards\n");

    // A word to 0x3FE is a byte to each of two registers: the modem status, which ignores it, and the scratch register.
    const u16 words[] = { 0x1122, 0x3344, 0x5566 };
    const void *word = words;
    count = 3;
    __asm__ volatile("rep outsw" : "+S"(word), "+c"(count) : "d"((u16)0x3FE) : "memory");
    check(inb(0x3FF) == 0x55, "rep outsw ended with %x", inb(0x3FF));
    to = buffer;
    count = 2;
    __asm__ volatile("rep insw" : "+D"(to), "+c"(count) : "d"((u16)0x3FE) : "memory");
    check(buffer[1] == 0x55 && buffer[3] == 0x55 && to == buffer + 4, "rep insw read %x", *(u32 *)buffer);
    print("words\n");

    const u32 longs[] = { 0x00000000, 0x77000000 };
    const void *from_long = longs;
    count = 2;
    // 0x3FC-0x3FF: modem control first, so zeroes there; its loopback and lines are set again below.
    __asm__ volatile("rep outsl" : "+S"(from_long), "+c"(count) : "d"((u16)0x3FC) : "memory");
    check(inb(0x3FF) == 0x77, "rep outsl ended with %x", inb(0x3FF));
    to = buffer;
    count = 1;
    __asm__ volatile("rep insl" : "+D"(to), "+c"(count) : "d"((u16)0x3FC) : "memory");
    check(buffer[3] == 0x77, "rep insl read %x", *(u32 *)buffer);
    outb(COM1 + 4, 0x0B);
    print("longs\n");

    outb(0x3FF, 0x99);
    from = "q";
    const char *same = from;
    count = 0;
    __asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"((u16)0x3FF) : "memory");
    check(inb(0x3FF) == 0x99 && from == same, "rep outsb of nothing wrote");
    print("nothing\n");
}
