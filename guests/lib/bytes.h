// What the compiler calls of a C library, which no guest has. These are definitions: one source of each program includes them, behind
// the program's own header, which has the names of the types.
#pragma once

void *memset(void *target, int value, size_t count) {
    void *p = target;
    __asm__ volatile("rep stosb" : "+D"(p), "+c"(count) : "a"(value) : "memory");
    return target;
}

void *memcpy(void *target, const void *source, size_t count) {
    void *p = target;
    __asm__ volatile("rep movsb" : "+D"(p), "+S"(source), "+c"(count)::"memory");
    return target;
}

void *memmove(void *target, const void *source, size_t count) {
    u8 *to = target;
    const u8 *from = source;
    if (to <= from || to >= from + count) return memcpy(target, source, count);
    while (count--) to[count] = from[count];
    return target;
}

int memcmp(const void *a, const void *b, size_t count) {
    const u8 *p = a, *q = b;
    for (; count; p++, q++, count--)
        if (*p != *q) return *p - *q;
    return 0;
}
