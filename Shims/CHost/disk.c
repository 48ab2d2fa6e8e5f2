#define _GNU_SOURCE
#include "CHostDisk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>

const int chost_open_direct = O_DIRECT;

int chost_disk_lock(int descriptor, bool exclusive) {
  struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
  return fcntl(descriptor, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

int chost_device_size(int descriptor, uint64_t *bytes) { return ioctl(descriptor, BLKGETSIZE64, bytes) == 0 ? 0 : -errno; }

int chost_device_block_size(int descriptor, uint32_t *bytes) {
  return ioctl(descriptor, BLKPBSZGET, bytes) == 0 ? 0 : -errno;
}

uint32_t chost_direct_alignment(int descriptor) {
#ifdef STATX_DIOALIGN
  struct statx status;
  if (statx(descriptor, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 && (status.stx_mask & STATX_DIOALIGN) &&
      status.stx_dio_offset_align > 0) {
    uint32_t most = status.stx_dio_offset_align > status.stx_dio_mem_align ? status.stx_dio_offset_align
                                                                           : status.stx_dio_mem_align;
    // A power of two in every file system there is.
    return most < 512 ? 512 : most;
  }
#else
  (void)descriptor;
#endif
  return 4096;
}

bool chost_file_is_memory(int descriptor) {
  struct statfs status;
  return fstatfs(descriptor, &status) == 0 && (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC);
}

ssize_t chost_read_at_once(int descriptor, const struct iovec *vectors, int count, uint64_t offset, bool is_memory) {
  ssize_t result = preadv2(descriptor, vectors, count, (off_t)offset, is_memory ? 0 : RWF_NOWAIT);
  return result >= 0 ? result : -errno;
}

int chost_file_punch(int descriptor, uint64_t offset, uint64_t count) {
  int flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  return fallocate(descriptor, flags, (off_t)offset, (off_t)count) == 0 ? 0 : -errno;
}

int chost_file_zero(int descriptor, uint64_t offset, uint64_t count) {
  int flags = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  return fallocate(descriptor, flags, (off_t)offset, (off_t)count) == 0 ? 0 : -errno;
}

int chost_device_discard(int descriptor, uint64_t offset, uint64_t count) {
  uint64_t range[2] = {offset, count};
  return ioctl(descriptor, BLKDISCARD, range) == 0 ? 0 : -errno;
}

int chost_device_zero(int descriptor, uint64_t offset, uint64_t count) {
  uint64_t range[2] = {offset, count};
  return ioctl(descriptor, BLKZEROOUT, range) == 0 ? 0 : -errno;
}
