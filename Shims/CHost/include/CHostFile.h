// Files of a directory that is shared with a guest: calls by descriptor and one component of a name, many of which hide behind
// _GNU_SOURCE or have no wrapper at all. They return 0, or a number or descriptor asked for, or -errno.
#ifndef CHOST_FILE_H
#define CHOST_FILE_H

#include <stdbool.h>
#include <stdint.h>

// What statx(2) says of a file.
typedef struct {
    uint64_t device, inode, size, blocks, links;
    int64_t accessed, modified, changed, born;
    uint32_t accessed_ns, modified_ns, changed_ns, born_ns;
    uint32_t mode, user, group, block_size, raw_device;
    // What it is the root of: a mount where it is `chost_mount_yes`, of nothing where it is `chost_mount_no`.
    uint32_t mount;
} chost_file_attributes;

extern const uint32_t chost_mount_no, chost_mount_yes, chost_mount_unknown;

typedef struct {
    uint64_t blocks, free, available, files, free_files;
    uint32_t block_size, fragment_size, name_length, reserved;
} chost_file_space;

extern const int32_t chost_open_path, chost_open_temporary;
extern const int32_t chost_seek_data, chost_seek_hole;

// openat2(2) of one component, never beyond `directory`, through no symbolic link; openat(2) with O_NOFOLLOW where the host
// has none.
int chost_file_open(int directory, const char *_Nonnull name, int flags, uint32_t mode);
// Opens what a descriptor with O_PATH is of, through `table`, a descriptor of /proc/self/fd.
int chost_file_reopen(int table, int descriptor, int flags, uint32_t mode);
// Of the name in the directory, or of the descriptor itself where the name is empty. Follows nothing, mounts nothing. With
// `cached` no server is asked: what the host knows has to do.
int chost_file_stat(int directory, const char *_Nonnull name, bool cached, chost_file_attributes *_Nonnull result);
int chost_file_space_of(int descriptor, chost_file_space *_Nonnull result);
// The magic number of the descriptor's file system, or 0.
uint64_t chost_file_system(int descriptor);

int chost_file_make_directory(int directory, const char *_Nonnull name, uint32_t mode);
// A regular file, a FIFO or a socket: nothing else is made.
int chost_file_make_node(int directory, const char *_Nonnull name, uint32_t mode);
int chost_file_make_link(int directory, const char *_Nonnull name, const char *_Nonnull target);
int chost_file_remove(int directory, const char *_Nonnull name, bool is_directory);
int chost_file_rename(int from, const char *_Nonnull old, int to, const char *_Nonnull name, uint32_t flags);
int chost_file_hard_link(int table, int descriptor, int directory, const char *_Nonnull name);
int chost_file_read_link(int descriptor, void *_Nonnull target, unsigned long count);

int chost_file_set_mode(int table, int descriptor, uint32_t mode);
int chost_file_set_owner(int descriptor, uint32_t user, uint32_t group);
// Nanoseconds of UTIME_NOW and UTIME_OMIT as utimensat(2) has them.
int chost_file_set_times(int table, int descriptor, int64_t accessed, uint32_t accessed_ns, int64_t modified,
                         uint32_t modified_ns);
extern const uint32_t chost_time_now, chost_time_omit;
int chost_file_truncate(int descriptor, uint64_t size);

// preadv2(2), into `count` of `struct iovec`, of what is in the host's page cache: -EAGAIN where the disk would have to be waited
// for, -EOPNOTSUPP where the file system cannot tell.
long chost_file_read_cached(int descriptor, const void *_Nonnull vectors, int count, int64_t offset);

// Directory entries as getdents64(2) lays them out.
long chost_file_entries(int descriptor, void *_Nonnull target, unsigned long count);
int64_t chost_file_seek(int descriptor, int64_t offset, int whence);
int chost_file_allocate(int descriptor, int mode, uint64_t offset, uint64_t count);
int64_t chost_file_copy(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t count);
int chost_file_sync(int descriptor, bool data_only);
int chost_file_sync_system(int descriptor);

// Extended attributes of what a descriptor with O_PATH is of.
long chost_file_get_attribute(int descriptor, const char *_Nonnull name, void *_Nullable target, unsigned long count);
long chost_file_list_attributes(int descriptor, void *_Nullable target, unsigned long count);
int chost_file_set_attribute(int descriptor, const char *_Nonnull name, const void *_Nullable value,
                             unsigned long count, int flags);
int chost_file_remove_attribute(int descriptor, const char *_Nonnull name);

// Locks of the open file description; does not wait. `type` is F_RDLCK, F_WRLCK or F_UNLCK; a count of 0 is to the end.
int chost_file_lock(int descriptor, int type, uint64_t start, uint64_t count);
// Finds out who is in the way: F_UNLCK in `type` where nobody is.
int chost_file_test_lock(int descriptor, int *_Nonnull type, uint64_t *_Nonnull start, uint64_t *_Nonnull count);

// Gives the calling thread a file mode creation mask of its own, which masks nothing.
int chost_thread_unmask(void);

#endif
