#define _GNU_SOURCE
#include "include/CHostFile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

const int32_t chost_open_path = O_PATH;
const int32_t chost_open_temporary = O_TMPFILE;
const int32_t chost_seek_data = SEEK_DATA;
const int32_t chost_seek_hole = SEEK_HOLE;
const uint32_t chost_time_now = UTIME_NOW;
const uint32_t chost_time_omit = UTIME_OMIT;
const uint32_t chost_mount_no = 0;
const uint32_t chost_mount_yes = 1;
const uint32_t chost_mount_unknown = 2;

static int result(long value) { return value < 0 ? -errno : (int)value; }

int chost_file_open(int directory, const char *name, int flags, uint32_t mode) {
    struct open_how how = {
        .flags = (uint64_t)(uint32_t)(flags | O_CLOEXEC | O_NOFOLLOW),
        .mode = flags & (O_CREAT | __O_TMPFILE) ? mode & 07777 : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
    };
    // EAGAIN: something was renamed meanwhile. A lease's EAGAIN stays, and is the answer.
    for (int attempt = 0; attempt < 16; attempt++) {
        long opened = syscall(SYS_openat2, directory, name, &how, sizeof how);
        if (opened >= 0) return (int)opened;
        // A sandbox may refuse the call with EPERM; then the plain one, with one component, is as good.
        if (errno == ENOSYS || errno == EPERM) break;
        if (errno != EAGAIN && errno != EINTR) return -errno;
    }
    return result(openat(directory, name, flags | O_CLOEXEC | O_NOFOLLOW, mode & 07777));
}

int chost_file_reopen(int table, int descriptor, int flags, uint32_t mode) {
    char name[16];
    snprintf(name, sizeof name, "%d", descriptor);
    int opened;
    int attempt = 0;
    do opened = openat(table, name, flags | O_CLOEXEC, mode & 07777);
    while (opened < 0 && errno == EINTR && ++attempt < 16);
    return result(opened);
}

int chost_file_stat(int directory, const char *name, bool cached, chost_file_attributes *out) {
    struct statx found;
    unsigned flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH) |
                     (cached ? AT_STATX_DONT_SYNC : AT_STATX_SYNC_AS_STAT);
    if (statx(directory, name, flags, STATX_BASIC_STATS | STATX_BTIME, &found) < 0) return -errno;
    memset(out, 0, sizeof *out);
    out->device = (uint64_t)found.stx_dev_major << 32 | found.stx_dev_minor;
    out->inode = found.stx_ino;
    out->size = found.stx_size;
    out->blocks = found.stx_blocks;
    out->links = found.stx_nlink;
    out->accessed = found.stx_atime.tv_sec;
    out->accessed_ns = found.stx_atime.tv_nsec;
    out->modified = found.stx_mtime.tv_sec;
    out->modified_ns = found.stx_mtime.tv_nsec;
    out->changed = found.stx_ctime.tv_sec;
    out->changed_ns = found.stx_ctime.tv_nsec;
    if (found.stx_mask & STATX_BTIME) {
        out->born = found.stx_btime.tv_sec;
        out->born_ns = found.stx_btime.tv_nsec;
    }
    out->mode = found.stx_mode;
    out->user = found.stx_uid;
    out->group = found.stx_gid;
    out->block_size = found.stx_blksize;
    // Since Linux 5.8.
    out->mount = !(found.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) ? chost_mount_unknown
                 : found.stx_attributes & STATX_ATTR_MOUNT_ROOT      ? chost_mount_yes
                                                                     : chost_mount_no;
    // As Linux encodes it in 32 bits for FUSE: 8 bits of the minor, 12 of the major, the rest of the minor.
    out->raw_device = (found.stx_rdev_minor & 0xFF) | found.stx_rdev_major << 8 | (found.stx_rdev_minor & ~0xFFu) << 12;
    return 0;
}

int chost_file_space_of(int descriptor, chost_file_space *out) {
    struct statfs found;
    if (fstatfs(descriptor, &found) < 0) return -errno;
    memset(out, 0, sizeof *out);
    out->blocks = found.f_blocks;
    out->free = found.f_bfree;
    out->available = found.f_bavail;
    out->files = found.f_files;
    out->free_files = found.f_ffree;
    out->block_size = (uint32_t)found.f_bsize;
    out->fragment_size = (uint32_t)found.f_frsize;
    out->name_length = (uint32_t)found.f_namelen;
    return 0;
}

uint64_t chost_file_system(int descriptor) {
    struct statfs found;
    return fstatfs(descriptor, &found) < 0 ? 0 : (uint32_t)found.f_type;
}

int chost_file_make_directory(int directory, const char *name, uint32_t mode) {
    return result(mkdirat(directory, name, mode & 07777));
}

int chost_file_make_node(int directory, const char *name, uint32_t mode) {
    if (!S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode)) return -EPERM;
    return result(mknodat(directory, name, mode & (S_IFMT | 07777), 0));
}

int chost_file_make_link(int directory, const char *name, const char *target) {
    return result(symlinkat(target, directory, name));
}

int chost_file_remove(int directory, const char *name, bool is_directory) {
    return result(unlinkat(directory, name, is_directory ? AT_REMOVEDIR : 0));
}

int chost_file_rename(int from, const char *old, int to, const char *name, uint32_t flags) {
    return result(syscall(SYS_renameat2, from, old, to, name, flags));
}

int chost_file_hard_link(int table, int descriptor, int directory, const char *name) {
    char place[16];
    snprintf(place, sizeof place, "%d", descriptor);
    return result(linkat(table, place, directory, name, AT_SYMLINK_FOLLOW));
}

int chost_file_read_link(int descriptor, void *target, unsigned long count) {
    return result(readlinkat(descriptor, "", target, count));
}

int chost_file_set_mode(int table, int descriptor, uint32_t mode) {
    char place[16];
    snprintf(place, sizeof place, "%d", descriptor);
    return result(fchmodat(table, place, mode & 07777, 0));
}

int chost_file_set_owner(int descriptor, uint32_t user, uint32_t group) {
    return result(fchownat(descriptor, "", user, group, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
}

int chost_file_set_times(int table, int descriptor, int64_t accessed, uint32_t accessed_ns, int64_t modified,
                         uint32_t modified_ns) {
    char place[16];
    snprintf(place, sizeof place, "%d", descriptor);
    struct timespec times[2] = {{accessed, accessed_ns}, {modified, modified_ns}};
    return result(utimensat(table, place, times, 0));
}

int chost_file_truncate(int descriptor, uint64_t size) {
    if (size > INT64_MAX) return -EFBIG;
    return result(ftruncate(descriptor, (off_t)size));
}

long chost_file_read_cached(int descriptor, const void *vectors, int count, int64_t offset) {
    ssize_t got = preadv2(descriptor, vectors, count, offset, RWF_NOWAIT);
    return got < 0 ? -errno : got;
}

long chost_file_entries(int descriptor, void *target, unsigned long count) {
    long got = syscall(SYS_getdents64, descriptor, target, count);
    return got < 0 ? -errno : got;
}

int64_t chost_file_seek(int descriptor, int64_t offset, int whence) {
    off_t found = lseek(descriptor, offset, whence);
    return found < 0 ? -errno : found;
}

int chost_file_allocate(int descriptor, int mode, uint64_t offset, uint64_t count) {
    if (offset > INT64_MAX || count > INT64_MAX) return -EFBIG;
    return result(fallocate(descriptor, mode, (off_t)offset, (off_t)count));
}

int64_t chost_file_copy(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t count) {
    if (from_offset > INT64_MAX || to_offset > INT64_MAX) return -EINVAL;
    off_t source = (off_t)from_offset, target = (off_t)to_offset;
    ssize_t copied = copy_file_range(from, &source, to, &target, count, 0);
    return copied < 0 ? -errno : copied;
}

int chost_file_sync(int descriptor, bool data_only) { return result(data_only ? fdatasync(descriptor) : fsync(descriptor)); }
int chost_file_sync_system(int descriptor) { return result(syncfs(descriptor)); }

// The extended attribute calls take no directory; this path is ours alone.
static void place_of(char place[32], int descriptor) { snprintf(place, 32, "/proc/self/fd/%d", descriptor); }

long chost_file_get_attribute(int descriptor, const char *name, void *target, unsigned long count) {
    char place[32];
    place_of(place, descriptor);
    ssize_t got = getxattr(place, name, target, count);
    return got < 0 ? -errno : got;
}

long chost_file_list_attributes(int descriptor, void *target, unsigned long count) {
    char place[32];
    place_of(place, descriptor);
    ssize_t got = listxattr(place, target, count);
    return got < 0 ? -errno : got;
}

int chost_file_set_attribute(int descriptor, const char *name, const void *value, unsigned long count, int flags) {
    char place[32];
    place_of(place, descriptor);
    return result(setxattr(place, name, value, count, flags));
}

int chost_file_remove_attribute(int descriptor, const char *name) {
    char place[32];
    place_of(place, descriptor);
    return result(removexattr(place, name));
}

int chost_file_lock(int descriptor, int type, uint64_t start, uint64_t count) {
    if (start > INT64_MAX || count > INT64_MAX) return -EOVERFLOW;
    struct flock lock = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = (off_t)count};
    return result(fcntl(descriptor, F_OFD_SETLK, &lock));
}

int chost_file_test_lock(int descriptor, int *type, uint64_t *start, uint64_t *count) {
    if (*start > INT64_MAX || *count > INT64_MAX) return -EOVERFLOW;
    struct flock lock = {.l_type = (short)*type, .l_whence = SEEK_SET, .l_start = (off_t)*start, .l_len = (off_t)*count};
    if (fcntl(descriptor, F_OFD_GETLK, &lock) < 0) return -errno;
    *type = lock.l_type;
    *start = (uint64_t)lock.l_start;
    *count = (uint64_t)lock.l_len;
    return 0;
}

int chost_thread_unmask(void) {
    // The mask belongs to what threads share by CLONE_FS: without that it would be the whole process's.
    if (unshare(CLONE_FS) < 0) return -errno;
    umask(0);
    return 0;
}
