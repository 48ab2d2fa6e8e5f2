// Calls of the host's C library that Swift does not see, because their declarations ask for _GNU_SOURCE.
#ifndef CHOST_GNU_H
#define CHOST_GNU_H

#include <spawn.h>

// pipe2(2) with O_CLOEXEC. Returns 0 or -errno.
int chost_pipe(int ends[2]);

// accept4(2), the connection non-blocking and closed on exec. Returns a descriptor or -errno.
int chost_accept(int listener);

// sched_getaffinity(2): the processors that the calling thread may run on; all that are on line where there are too many for a set.
int chost_processor_count(void);

// posix_spawn_file_actions_addchdir_np(3). Returns 0 or an errno.
int chost_spawn_chdir(posix_spawn_file_actions_t *actions, const char *path);

// renameat2(2) with RENAME_EXCHANGE: the two paths change places in one step. Returns 0 or -errno.
int chost_exchange(const char *one, const char *other);

// lseek(2) with SEEK_HOLE and SEEK_DATA, fallocate(2) with FALLOC_FL_PUNCH_HOLE: what a file has been given and not written
// goes back. Returns 0 or -errno.
int chost_release_unwritten(int descriptor);

// memfd_create(2) of a file that may be mapped executable. Returns a descriptor or -errno.
int chost_code_file(const char *name);

#endif
