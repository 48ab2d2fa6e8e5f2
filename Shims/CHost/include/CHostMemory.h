// Guest memory as the software CPU reaches it: addresses are host addresses that its MMU has checked.
// Atomic where a processor's bus lock is, for accesses that cross a cache line too (the host's LOCK covers those).
#ifndef CHOST_MEMORY_H
#define CHOST_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

static inline uint8_t chost_exchange8(uintptr_t at, uint8_t value) {
    return __atomic_exchange_n((uint8_t *)at, value, __ATOMIC_SEQ_CST);
}
static inline uint16_t chost_exchange16(uintptr_t at, uint16_t value) {
    __asm__ volatile("xchgw %0, %1" : "+r"(value), "+m"(*(uint16_t *)at) : : "memory");
    return value;
}
static inline uint32_t chost_exchange32(uintptr_t at, uint32_t value) {
    __asm__ volatile("xchgl %0, %1" : "+r"(value), "+m"(*(uint32_t *)at) : : "memory");
    return value;
}
static inline uint64_t chost_exchange64(uintptr_t at, uint64_t value) {
    __asm__ volatile("xchgq %0, %1" : "+r"(value), "+m"(*(uint64_t *)at) : : "memory");
    return value;
}

// Compare and exchange; returns what was there. Written as instructions because the addresses may be unaligned,
// which C's atomics leave undefined and the processor does not.
static inline uint8_t chost_compare_exchange8(uintptr_t at, uint8_t expected, uint8_t desired) {
    __asm__ volatile("lock cmpxchgb %2, %1" : "+a"(expected), "+m"(*(uint8_t *)at) : "q"(desired) : "memory", "cc");
    return expected;
}
static inline uint16_t chost_compare_exchange16(uintptr_t at, uint16_t expected, uint16_t desired) {
    __asm__ volatile("lock cmpxchgw %2, %1" : "+a"(expected), "+m"(*(uint16_t *)at) : "r"(desired) : "memory", "cc");
    return expected;
}
static inline uint32_t chost_compare_exchange32(uintptr_t at, uint32_t expected, uint32_t desired) {
    __asm__ volatile("lock cmpxchgl %2, %1" : "+a"(expected), "+m"(*(uint32_t *)at) : "r"(desired) : "memory", "cc");
    return expected;
}
static inline uint64_t chost_compare_exchange64(uintptr_t at, uint64_t expected, uint64_t desired) {
    __asm__ volatile("lock cmpxchgq %2, %1" : "+a"(expected), "+m"(*(uint64_t *)at) : "r"(desired) : "memory", "cc");
    return expected;
}

typedef struct { uint64_t low, high; } chost_pair;

// The address must be a multiple of 16.
static inline chost_pair chost_compare_exchange128(uintptr_t at, chost_pair expected, chost_pair desired) {
    __asm__ volatile("lock cmpxchg16b %2"
                     : "+a"(expected.low), "+d"(expected.high), "+m"(*(unsigned __int128 *)at)
                     : "b"(desired.low), "c"(desired.high)
                     : "memory", "cc");
    return expected;
}

static inline uint8_t chost_load8(uintptr_t at) { return __atomic_load_n((uint8_t *)at, __ATOMIC_ACQUIRE); }
static inline uint32_t chost_load32(uintptr_t at) { return __atomic_load_n((uint32_t *)at, __ATOMIC_ACQUIRE); }
// A ring that a guest's driver shares with a device: each field is read and written once, in one access. The addresses are aligned.
static inline uint16_t chost_load16(uintptr_t at) { return __atomic_load_n((uint16_t *)at, __ATOMIC_ACQUIRE); }
static inline uint64_t chost_load64(uintptr_t at) { return __atomic_load_n((uint64_t *)at, __ATOMIC_RELAXED); }
static inline void chost_store16(uintptr_t at, uint16_t value) { __atomic_store_n((uint16_t *)at, value, __ATOMIC_RELEASE); }
static inline void chost_store32(uintptr_t at, uint32_t value) { __atomic_store_n((uint32_t *)at, value, __ATOMIC_RELEASE); }
static inline void chost_store64(uintptr_t at, uint64_t value) { __atomic_store_n((uint64_t *)at, value, __ATOMIC_RELAXED); }

static inline uint32_t chost_or32(uintptr_t at, uint32_t bits) {
    return __atomic_fetch_or((uint32_t *)at, bits, __ATOMIC_SEQ_CST);
}
static inline uint32_t chost_and32(uintptr_t at, uint32_t bits) {
    return __atomic_fetch_and((uint32_t *)at, bits, __ATOMIC_SEQ_CST);
}
static inline uint8_t chost_or8(uintptr_t at, uint8_t bits) {
    return __atomic_fetch_or((uint8_t *)at, bits, __ATOMIC_SEQ_CST);
}
static inline uint8_t chost_and8(uintptr_t at, uint8_t bits) {
    return __atomic_fetch_and((uint8_t *)at, bits, __ATOMIC_SEQ_CST);
}
static inline void chost_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// MOVS and STOS with the direction flag clear: byte by byte in their effect, as the guest's own instruction is,
// also where source and destination overlap.
static inline void chost_move_bytes(uintptr_t to, uintptr_t from, uint64_t count) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}
static inline void chost_store_bytes(uintptr_t to, uint8_t value, uint64_t count) {
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}
static inline void chost_store_longs(uintptr_t to, uint32_t value, uint64_t count) {
    __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}
static inline void chost_store_quads(uintptr_t to, uint64_t value, uint64_t count) {
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}

// getrandom(2), which waits until the host kernel has its first entropy: it has it long since.
static inline long chost_random_bytes(void *_Nullable target, unsigned long count) { return getrandom(target, count, 0); }

// One of the host kernel's random numbers; false where it has none yet. Not RDRAND, which not every host's processor has.
static inline bool chost_random64(uint64_t *_Nonnull value) {
    return getrandom(value, sizeof *value, GRND_NONBLOCK) == sizeof *value;
}

#endif
