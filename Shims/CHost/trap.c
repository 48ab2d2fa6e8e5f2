#define _GNU_SOURCE
#include "CHostTrap.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <ucontext.h>

#include "CHostTerminal.h"

// A range is complete before the count tells of it, so the handler needs no lock.
static struct {
  uintptr_t start, end;
} ranges[8];
static atomic_int range_count;
static struct sigaction previous;

static void on_floating_point(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  uintptr_t address = (uintptr_t)registers[REG_RIP];
  int count = atomic_load_explicit(&range_count, memory_order_acquire);
  for (int i = 0; i < count; i++)
    if (address >= ranges[i].start && address < ranges[i].end) {
      registers[REG_RIP] = registers[REG_R11];
      return;
    }
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(number, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(number);
  } else {
    // The process is broken. The terminal first, for our handler keeps its own from being installed; then the
    // instruction faults again, by the default action.
    chost_terminal_restore();
    signal(number, SIG_DFL);
  }
}

int chost_trap_floating_point(const void *start, const void *end) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  int result = 0;
  pthread_mutex_lock(&lock);
  int count = atomic_load_explicit(&range_count, memory_order_relaxed);
  if (count == sizeof ranges / sizeof *ranges) {
    result = -ENOSPC;
  } else if (count == 0) {
    struct sigaction action = {.sa_sigaction = on_floating_point, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGFPE, &action, &previous) != 0) result = -errno;
  }
  if (result == 0) {
    ranges[count].start = (uintptr_t)start;
    ranges[count].end = (uintptr_t)end;
    atomic_store_explicit(&range_count, count + 1, memory_order_release);
  }
  pthread_mutex_unlock(&lock);
  return result;
}
