// Sleeping on a word of memory: futex(2), which the C library does not wrap.
#ifndef CHOST_FUTEX_H
#define CHOST_FUTEX_H

#include <stdint.h>

// Sleeps while the word at `at` holds `value`, at most until `deadline` (nanoseconds of CLOCK_MONOTONIC; ~0 for ever).
// Returns on a wake-up, a signal, the deadline, or at once where the word differs.
void chost_futex_wait(uintptr_t at, uint32_t value, uint64_t deadline);

// Wakes whoever sleeps on the word.
void chost_futex_wake(uintptr_t at);

#endif
