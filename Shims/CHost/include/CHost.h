// What Swift cannot say about the host: headers that its Glibc module leaves out, and C static inlines.
// The terminal's signal handlers and the GNU calls have files of their own.
#ifndef CHOST_H
#define CHOST_H

#include <cpuid.h>
#include <emmintrin.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "CHostDisk.h"
#include "CHostFile.h"
#include "CHostFrames.h"
#include "CHostGNU.h"
#include "CHostFutex.h"
#include "CHostMemory.h"
#include "CHostRing.h"
#include "CHostTerminal.h"
#include "CHostTrap.h"

// The processor's time-stamp counter.
static inline uint64_t chost_rdtsc(void) { return __builtin_ia32_rdtsc(); }

// Its frequency in kHz, measured once a process: two milliseconds, good to about 20 parts in a million.
uint32_t chost_tsc_kilohertz(void);

// Two instructions an iteration, as the guest of the engine probe executes them.
static inline void chost_count_down(uint32_t iterations) {
    __asm__ volatile("1: decl %0; jnz 1b" : "+r"(iterations) : : "cc");
}

// CPUID: EAX, EBX, ECX and EDX to result[0] to result[3]; all zero for a leaf that the processor has not.
static inline void chost_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t result[_Nonnull 4]) {
    result[0] = result[1] = result[2] = result[3] = 0;
    __get_cpuid_count(leaf, subleaf, &result[0], &result[1], &result[2], &result[3]);
}

// PMOVMSKB of the 16 bytes at `at`: their top bits.
static inline uint32_t chost_byte_mask(uintptr_t at) {
    return (uint32_t)_mm_movemask_epi8(_mm_loadu_si128((const __m128i *)at));
}

// Names the calling thread for ps and debuggers; at most 15 bytes. (pthread_setname_np hides behind _GNU_SOURCE.)
static inline void chost_set_thread_name(const char *_Nonnull name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

// SIGKILL for this process when the thread that started it ends.
static inline void chost_end_with_parent(void) { prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); }

// Enumerations that Swift would otherwise import as types of their own.
static const int chost_epoll_cloexec = EPOLL_CLOEXEC;
static const int chost_timerfd_flags = TFD_CLOEXEC | TFD_NONBLOCK;
static const int chost_timerfd_absolute = TFD_TIMER_ABSTIME;
static const int chost_signalfd_flags = SFD_CLOEXEC | SFD_NONBLOCK;
static const int chost_eventfd_flags = EFD_CLOEXEC | EFD_NONBLOCK;

// Takes this program's read-only pages out of its resident set. They stay in the host's page cache and come back, one fault
// each, as they are used again: what only start-up needed does not.
static inline void chost_release_code(void) {
    extern const char __executable_start, etext;
    uintptr_t start = ((uintptr_t)&__executable_start + 4095) & ~(uintptr_t)4095;
    uintptr_t end = (uintptr_t)&etext & ~(uintptr_t)4095;
    if (start < end) madvise((void *)start, end - start, MADV_DONTNEED);
}

// One heap for all threads: glibc would reserve and cut 128 MiB of address space for each, on the way to the guest's first
// instruction. The threads of a run allocate next to nothing.
static inline void chost_single_arena(void) {
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 1);
#endif
}

#endif
