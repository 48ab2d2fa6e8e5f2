// File systems: what every program expects, the root, the shares.
#include "agent.h"

bool root_in_memory = true;
static bool root_written_through;
/// Where shares were mounted, to be unmounted; in memory of its own, for the frame that named them goes.
static struct { char *text; size_t count, room; } mounted;

int make_directories(const char *path) {
    size_t count = length_of(path);
    char *part = pages(count + 1);
    if (!part) return -ENOMEM;
    int error = 0;
    for (size_t i = 1; i <= count; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        error = sys_mkdir(part, 0755);
        if (error == -EEXIST || error == -EISDIR) error = 0;
        // One that is there need not be in a file system that is written to.
        struct stat facts;
        if (error < 0 && sys_stat(part, &facts) == 0) error = (facts.mode & S_IFMT) == S_IFDIR ? 0 : -ENOTDIR;
        if (error < 0) break;
    }
    release(part, count + 1);
    return error;
}

void mount_initial(void) {
    static const char *const systems[][2] = { { "/proc", "proc" }, { "/sys", "sysfs" }, { "/dev", "devtmpfs" } };
    for (int i = 0; i < 3; i++) {
        sys_mkdir(systems[i][0], 0755);
        u64 flags = MS_NOSUID | (i < 2 ? MS_NODEV | MS_NOEXEC : 0);
        int error = sys_mount(systems[i][1], systems[i][0], systems[i][1], flags, NULL);
        // The kernel may have mounted devtmpfs itself.
        if (error == 0 || error == -EBUSY) continue;
        struct line line = { 0 };
        put(&line, systems[i][0]);
        put(&line, " was not mounted: ");
        put_error(&line, error);
        say(&line);
    }
}

static void note_mount(const char *path, int error) {
    struct line line = { 0 };
    put(&line, path);
    put(&line, " was not mounted: ");
    put_error(&line, error);
    note(line.text);
}

/// What has no root of its own to fail with: a program may miss it, and most do not.
static void mount_or_note(const char *path, const char *type, u64 flags, const char *options) {
    int error = make_directories(path);
    if (error == 0) error = sys_mount(type, path, type, flags, options);
    if (error < 0 && error != -EBUSY) note_mount(path, error);
}

// MARK: The root

/// What a file system is by its first bytes, so that neither the kernel complains of those it is not, nor a missing module goes
/// unnamed. NULL: unknown.
static const char *type_on(const char *device) {
    static const struct { const char *type; u32 offset; u8 count; const char *bytes; } marks[] = {
        { "ext4", 1080, 2, "\x53\xEF" }, { "xfs", 0, 4, "XFSB" }, { "btrfs", 65600, 8, "_BHRfS_M" },
        { "squashfs", 0, 4, "hsqs" }, { "erofs", 1024, 4, "\xE2\xE1\xF5\xE0" }, { "f2fs", 1024, 4, "\x10\x20\xF5\xF2" },
        { "iso9660", 32769, 5, "CD001" }, { "vfat", 82, 5, "FAT32" }, { "vfat", 54, 3, "FAT" },
    };
    const char *type = NULL;
    int fd = sys_open(device, O_RDONLY, 0);
    if (fd < 0) return NULL;
    for (size_t i = 0; !type && i < sizeof marks / sizeof *marks; i++) {
        u8 bytes[8];
        if (sys_pread(fd, bytes, marks[i].count, marks[i].offset) == marks[i].count &&
            memcmp(bytes, marks[i].bytes, marks[i].count) == 0)
            type = marks[i].type;
    }
    sys_close(fd);
    return type;
}

/// Every type that the kernel has for block devices, one after the other.
static int mount_any(const char *device, const char *target, u64 flags) {
    struct contents list;
    int result = -ENODEV;
    if (read_file("/proc/filesystems", 1 << 20, &list) < 0) return result;
    for (char *line = list.bytes, *next; *line; line = next) {
        next = cut_line(line);
        if (*line == '\t') {
            int error = sys_mount(device, target, line + 1, flags | MS_SILENT, NULL);
            if (error != -EINVAL) result = error;
            else if (result == -ENODEV) result = error;
            if (error == 0) break;
        }
    }
    release(list.bytes, list.mapped);
    return result;
}

static bool mount_block(const struct setup *setup, const char *target, u64 flags, struct failure *failure) {
    char device[256] = "/dev/";
    bool whole = setup->root[0] == '/';
    size_t count = length_of(setup->root);
    if (count > sizeof device - 6) return fail(failure, ENAMETOOLONG, "find the block device", setup->root);
    memcpy(device + (whole ? 0 : 5), setup->root, count + 1);
    // Its driver may still be at it.
    struct stat facts;
    u64 until = now_milliseconds() + 5000;
    int error;
    while ((error = sys_stat(device, &facts)) == -ENOENT && now_milliseconds() < until) sleep_milliseconds(5);
    if (error < 0) return fail(failure, error, "find the block device", setup->root);
    const char *type = setup->root_type ? setup->root_type : type_on(device);
    error = type ? sys_mount(device, target, type, flags, NULL) : mount_any(device, target, flags);
    if (error == 0) return true;
    if (error == -ENODEV) failure->module = type;
    return fail(failure, error, "mount the root", setup->root);
}

static bool mount_lower(const struct setup *setup, const char *target, bool readonly, struct failure *failure) {
    int error = make_directories(target);
    if (error < 0) return fail(failure, error, "make the directory", target);
    u64 flags = readonly ? MS_RDONLY : 0;
    if (setup->root_kind == ROOT_BLOCK) return mount_block(setup, target, flags, failure);
    error = sys_mount(setup->root, target, "virtiofs", flags, NULL);
    if (error == 0) return true;
    if (error == -ENODEV) failure->module = "virtiofs";
    return fail(failure, error, "mount the root", setup->root);
}

#define LOWER "/windhover/lower"
#define LAYER "/windhover/layer"
#define ROOT "/windhover/root"

/// Half of the memory at most is for what is written: what tmpfs does unless it is told otherwise.
static bool mount_layer(struct failure *failure) {
    int error;
    if ((error = make_directories(LAYER)) < 0 || (error = make_directories(ROOT)) < 0)
        return fail(failure, error, "make the directories of the root's layer", "");
    if ((error = sys_mount("layer", LAYER, "tmpfs", 0, "mode=0755,size=50%")) < 0) {
        if (error == -ENODEV) failure->module = "tmpfs";
        return fail(failure, error, "mount a file system in memory for the root's layer", "");
    }
    // The root of the whole is as the layer's is.
    struct stat lower;
    if ((error = sys_stat(LOWER, &lower)) < 0 || (error = sys_mkdir(LAYER "/upper", 0755)) < 0 ||
        (error = sys_chown(LAYER "/upper", lower.user, lower.group)) < 0 ||
        (error = sys_chmod(LAYER "/upper", lower.mode & 07777)) < 0 || (error = sys_mkdir(LAYER "/work", 0755)) < 0)
        return fail(failure, error, "make the directories of the root's layer", "");
    error = sys_mount("root", ROOT, "overlay", 0, "lowerdir=" LOWER ",upperdir=" LAYER "/upper,workdir=" LAYER "/work");
    if (error == 0) return true;
    if (error == -ENODEV) failure->module = "overlay";
    return fail(failure, error, "mount the root's layer in memory", "");
}

/// Moves what is mounted already into the new root, and goes there.
static bool switch_root(struct failure *failure) {
    static const char *const moved[] = { "/proc", "/sys", "/dev" };
    for (int i = 0; i < 3; i++) {
        char target[32] = ROOT;
        memcpy(target + sizeof ROOT - 1, moved[i], length_of(moved[i]) + 1);
        int error = sys_mkdir(target, 0755);
        struct stat facts;
        if (sys_stat(target, &facts) < 0) return fail(failure, error, "make the root's missing mount point", moved[i]);
        if ((error = sys_mount(moved[i], target, NULL, MS_MOVE, NULL)) < 0)
            return fail(failure, error, "move into the root", moved[i]);
    }
    int error;
    if ((error = sys_chdir(ROOT)) < 0 || (error = sys_mount(".", "/", NULL, MS_MOVE, NULL)) < 0 ||
        (error = sys_chroot(".")) < 0 || (error = sys_chdir("/")) < 0)
        return fail(failure, error, "go into the root", "");
    return true;
}

/// Where modprobe looks, in the new root, shows the initial RAM disk's modules. They are reached by a descriptor from before.
static void bind_modules(int modules, const char *release_name) {
    struct stat facts;
    struct line target = { 0 }, source = { 0 };
    put(&target, "/lib/modules/");
    put(&target, release_name);
    put(&source, "/proc/self/fd/");
    put_number(&source, (u64)modules);
    // Nothing is made in a directory of the host's for it but what its own kernel packages would.
    if (sys_stat(target.text, &facts) < 0 && !root_in_memory && sys_stat("/lib", &facts) < 0) return;
    if (make_directories(target.text) == 0) sys_mount(source.text, target.text, NULL, MS_BIND, NULL);
}

static bool replace_root(const struct setup *setup, struct failure *failure) {
    bool layered = setup->root_flags & ROOT_LAYER, readonly = setup->root_flags & ROOT_READONLY;
    if (!setup->root || !*setup->root) return fail(failure, EINVAL, "mount a root without a name", "");
    if (!mount_lower(setup, layered ? LOWER : ROOT, layered || readonly, failure)) return false;
    if (layered && !mount_layer(failure)) return false;
    struct utsname system = { 0 };
    sys_uname(&system);
    struct line path = { 0 };
    put(&path, "/lib/modules/");
    put(&path, system.release);
    int modules = sys_open(path.text, O_PATH | O_DIRECTORY, 0);
    if (!switch_root(failure)) return false;
    root_in_memory = layered;
    root_written_through = !layered && !readonly;
    if (modules >= 0) {
        if (!readonly || layered) bind_modules(modules, system.release);
        sys_close(modules);
    }
    // In the initial RAM disk everything is in memory as it is.
    mount_or_note("/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
    return true;
}

bool mount_root(const struct setup *setup, struct failure *failure) {
    switch (setup->root_kind) {
    case ROOT_INITIAL: break;
    case ROOT_SHARED: case ROOT_BLOCK:
        if (!replace_root(setup, failure)) return false;
        break;
    default: return fail(failure, EINVAL, "mount a root of an unknown kind", "");
    }
    static const char *const links[][2] = {
        { "/proc/self/fd", "/dev/fd" }, { "/proc/self/fd/0", "/dev/stdin" },
        { "/proc/self/fd/1", "/dev/stdout" }, { "/proc/self/fd/2", "/dev/stderr" },
    };
    for (int i = 0; i < 4; i++) sys_symlink(links[i][0], links[i][1]);
    mount_or_note("/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
    mount_or_note("/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    struct stat facts;
    if (sys_stat("/sys/fs/cgroup", &facts) == 0)
        mount_or_note("/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    return true;
}

// MARK: Shares

static void remember(const char *path) {
    size_t count = length_of(path) + 1;
    if (mounted.room - mounted.count < count) {
        size_t room = mounted.room * 2 + count + 4096;
        char *larger = pages(room);
        if (!larger) return;
        memcpy(larger, mounted.text, mounted.count);
        release(mounted.text, mounted.room);
        mounted.text = larger;
        mounted.room = room;
    }
    memcpy(mounted.text + mounted.count, path, count);
    mounted.count += count;
}

bool mount_shares(const struct setup *setup, struct failure *failure) {
    for (size_t i = 0; i < setup->share_count; i++) {
        const struct share *share = &setup->shares[i];
        int error = make_directories(share->path);
        if (error < 0) return fail(failure, error, "make the mount point", share->path);
        error = sys_mount(share->tag, share->path, "virtiofs", share->flags & SHARE_READONLY ? MS_RDONLY : 0, NULL);
        if (error < 0) {
            if (error == -ENODEV) failure->module = "virtiofs";
            return fail(failure, error, "mount the share", share->tag);
        }
        remember(share->path);
    }
    return true;
}

void unmount_all(void) {
    sys_sync();
    // The last first: one may be below another.
    size_t end = mounted.count;
    while (end > 0) {
        size_t start = end - 1;
        while (start > 0 && mounted.text[start - 1] != 0) start--;
        if (sys_umount(mounted.text + start, 0) < 0) sys_umount(mounted.text + start, MNT_DETACH);
        end = start;
    }
    // The root cannot be unmounted below this process's feet.
    if (root_written_through) sys_mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
    sys_sync();
}
