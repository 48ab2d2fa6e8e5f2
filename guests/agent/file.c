// Writing and reading a file for the host, in a process of its own: a file system that blocks then blocks nobody else. What goes
// wrong once it has begun is told by the exit status, an errno.
#include "agent.h"

static _Noreturn void copy(int from, int to) {
    static u8 bytes[65536];
    for (;;) {
        long got = sys_read(from, bytes, sizeof bytes);
        if (got == -EINTR) continue;
        if (got < 0) sys_exit((int)-got);
        if (got == 0) break;
        int error = write_all(to, bytes, (size_t)got);
        if (error < 0) sys_exit(-error);
    }
    // Where a file system is told late that there is no room, its close says so.
    int error = to > 2 ? sys_close(to) : 0;
    sys_exit(error < 0 ? -error : 0);
}

/// Opened: the agent may say that it is started.
static void begin(void) { sys_close(CHILD_FAILURE_PIPE); }

_Noreturn void write_file(const struct start *start) {
    const char *path = start->arguments[0];
    u32 mode;
    if (start->argument_count < 2 || !parse_number(start->arguments[1], length_of(start->arguments[1]), 8, &mode) || mode > 07777)
        child_fail(STAGE_PROGRAM, -EINVAL, path);
    int file = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY, mode);
    if (file < 0) child_fail(STAGE_PROGRAM, file, path);
    // Whatever the mask is, and where the file has been there before; but not of a device, or a file of /proc.
    struct stat facts;
    if (sys_fstat(file, &facts) == 0 && (facts.mode & S_IFMT) == S_IFREG && (facts.mode & 07777) != mode) {
        int error = sys_fchmod(file, mode);
        if (error < 0 && error != -EPERM) child_fail(STAGE_PROGRAM, error, path);
    }
    begin();
    copy(0, file);
}

_Noreturn void send_file(const struct start *start) {
    const char *path = start->arguments[0];
    int file = sys_open(path, O_RDONLY | O_NOCTTY, 0);
    if (file < 0) child_fail(STAGE_PROGRAM, file, path);
    struct stat facts;
    if (sys_fstat(file, &facts) == 0 && (facts.mode & S_IFMT) == S_IFDIR) child_fail(STAGE_PROGRAM, -EISDIR, path);
    begin();
    copy(file, 1);
}
