// Files and block devices that hold disks: requests of ioctl(2), fcntl(2) and fallocate(2) that Swift does not see.
// All return 0 or a number asked for, or -errno.
#ifndef CHOST_DISK_H
#define CHOST_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// Declared, not included: its definition is to be the C library's module's, for whoever imports both.
struct iovec;

// Locks the whole file for this open file description, against others of its own process too (F_OFD_SETLK).
int chost_disk_lock(int descriptor, bool exclusive);

// Bytes of a block device, and of its physical blocks.
int chost_device_size(int descriptor, uint64_t *_Nonnull bytes);
int chost_device_block_size(int descriptor, uint32_t *_Nonnull bytes);

// What O_DIRECT needs offsets, lengths and buffers to be a multiple of; 4096 where the host does not say.
uint32_t chost_direct_alignment(int descriptor);

// Whether a file's bytes are nothing but memory: it lies in tmpfs or ramfs.
bool chost_file_is_memory(int descriptor);
// Reads what is to be had without waiting for a disk; of a file that is memory, all.
ssize_t chost_read_at_once(int descriptor, const struct iovec *_Nullable vectors, int count, uint64_t offset, bool is_memory);

// Gives a range's space back; the bytes read as zero.
int chost_file_punch(int descriptor, uint64_t offset, uint64_t count);
// Makes a range read as zero, its space kept.
int chost_file_zero(int descriptor, uint64_t offset, uint64_t count);
int chost_device_discard(int descriptor, uint64_t offset, uint64_t count);
int chost_device_zero(int descriptor, uint64_t offset, uint64_t count);

// O_DIRECT, which hides behind _GNU_SOURCE.
extern const int chost_open_direct;

#endif
