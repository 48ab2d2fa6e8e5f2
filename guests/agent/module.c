// Loads the kernel modules that the initial RAM disk lists, each behind what it needs.
#include "agent.h"

static void say_failed(const char *path, int error) {
    struct line line = { 0 };
    put(&line, "the module ");
    put(&line, path);
    put(&line, " was not loaded: ");
    put_error(&line, error);
    say(&line);
}

static bool ends(const char *text, const char *end) {
    size_t count = length_of(text), last = length_of(end);
    return count >= last && equal(text + count - last, end);
}

static int load(const char *path) {
    enum { COMPRESSED = 4 };
    int fd = sys_open(path, O_RDONLY, 0);
    if (fd < 0) return fd;
    int flags = ends(path, ".xz") || ends(path, ".gz") || ends(path, ".zst") ? COMPRESSED : 0;
    int error = sys_finit_module(fd, "", flags);
    sys_close(fd);
    // It is there already, or in the kernel itself.
    return error == -EEXIST ? 0 : error;
}

void load_modules(void) {
    struct contents list;
    int error = read_file("/windhover/modules", 1 << 20, &list);
    if (error == -ENOENT) return;
    if (error < 0) {
        say_failed("list /windhover/modules", error);
        return;
    }
    for (char *path = list.bytes, *next; *path; path = next) {
        next = cut_line(path);
        if (*path && (error = load(path)) < 0) say_failed(path, error);
    }
    release(list.bytes, list.mapped);
}
