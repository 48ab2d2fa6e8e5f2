#include "CHost.h"

#include <time.h>

static uint64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// One point on both clocks, as close together as preemption allows: the best of several.
static void sample(uint64_t *ticks, uint64_t *time) {
  uint64_t best = UINT64_MAX;
  for (int i = 0; i < 16; i++) {
    uint64_t before = chost_rdtsc(), now = nanoseconds(), after = chost_rdtsc();
    if (after - before < best) {
      best = after - before;
      *ticks = before + (after - before) / 2;
      *time = now;
    }
  }
}

uint32_t chost_tsc_kilohertz(void) {
  static uint32_t known = 0;
  uint32_t frequency = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (frequency) return frequency;
  uint64_t tick0, time0, tick1, time1;
  sample(&tick0, &time0);
  do sample(&tick1, &time1);
  while (time1 - time0 < 2000000);
  frequency = (uint32_t)((tick1 - tick0) * 1000000u / (time1 - time0));
  __atomic_store_n(&known, frequency, __ATOMIC_RELAXED);
  return frequency;
}
