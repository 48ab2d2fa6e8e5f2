#define _GNU_SOURCE
#include "CHostFutex.h"
#include "CHostGNU.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

int chost_accept(int listener) {
    int descriptor = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return descriptor >= 0 ? descriptor : -errno;
}

int chost_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) == 0 ? 0 : -errno; }

int chost_processor_count(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

int chost_spawn_chdir(posix_spawn_file_actions_t *actions, const char *path) {
  return posix_spawn_file_actions_addchdir_np(actions, path);
}

int chost_exchange(const char *one, const char *other) {
  return renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) == 0 ? 0 : -errno;
}

int chost_release_unwritten(int descriptor) {
  off_t size = lseek(descriptor, 0, SEEK_END);
  off_t data = 0;
  while (data >= 0 && data < size) {
    off_t hole = lseek(descriptor, data, SEEK_HOLE);
    if (hole < 0 || hole >= size) break;
    // ENXIO behind the last data: the rest is one hole.
    data = lseek(descriptor, hole, SEEK_DATA);
    off_t end = data < 0 ? size : data;
    if (fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, hole, end - hole) != 0) return -errno;
  }
  return size < 0 ? -errno : 0;
}

void chost_futex_wait(uintptr_t at, uint32_t value, uint64_t deadline) {
  struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000u), .tv_nsec = (long)(deadline % 1000000000u)};
  syscall(SYS_futex, (void *)at, FUTEX_WAIT_BITSET_PRIVATE, value, deadline == UINT64_MAX ? NULL : &until, NULL,
          FUTEX_BITSET_MATCH_ANY);
}

void chost_futex_wake(uintptr_t at) { syscall(SYS_futex, (void *)at, FUTEX_WAKE_PRIVATE, 0x7FFFFFFF, NULL, NULL, 0); }
int chost_code_file(const char *name) {
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
  // Kernels before 6.3 do not know MFD_EXEC, and need it not.
  int descriptor = memfd_create(name, MFD_CLOEXEC | MFD_EXEC);
  if (descriptor < 0 && errno == EINVAL) descriptor = memfd_create(name, MFD_CLOEXEC);
  return descriptor >= 0 ? descriptor : -errno;
}
