// A command's process between fork and exec: its descriptors, its session, what it inherits. What fails is told to the agent
// on a pipe that exec closes.
#include "agent.h"

_Noreturn void child_fail(u32 stage, int error, const char *name) {
    struct { struct child_failure failure; char name[CHILD_NAME_LIMIT]; } report;
    report.failure = (struct child_failure){ .stage = stage, .error = (u32)(error < 0 ? -error : error) };
    size_t count = length_of(name);
    if (count > sizeof report.name) count = sizeof report.name;
    memcpy(report.name, name, count);
    // Less than a pipe takes at once.
    write_all(CHILD_FAILURE_PIPE, &report, sizeof report.failure + count);
    sys_exit(127);
}

/// Standard streams in their places, the pipe behind them, and nothing else: what other commands' streams would otherwise
/// have as a second owner might not end when it should.
static void place_descriptors(const struct child_streams *streams) {
    // All that the agent opens is 3 or more.
    for (int i = 0; i < 3; i++) sys_dup2(streams->descriptors[i], i);
    if (streams->failure == CHILD_FAILURE_PIPE) sys_fcntl(CHILD_FAILURE_PIPE, F_SETFD, FD_CLOEXEC);
    else sys_dup(streams->failure, CHILD_FAILURE_PIPE, O_CLOEXEC);
    if (sys_close_range(CHILD_FAILURE_PIPE + 1, UINT32_MAX) == 0) return;
    struct rlimit files = { .soft = 65536 };
    sys_prlimit(RLIMIT_NOFILE, NULL, &files);
    for (int fd = CHILD_FAILURE_PIPE + 1; (u64)fd < files.soft && fd < 65536; fd++) sys_close(fd);
}

_Noreturn void child_run(const struct start *original, const struct child_streams *streams) {
    // A copy of the agent's memory, to be changed at will.
    struct start start = *original;
    place_descriptors(streams);
    sys_setsid();
    if (streams->terminal) sys_ioctl(0, TIOCSCTTY, NULL);
    for (int signal = 1; signal <= SIGNAL_COUNT; signal++) {
        struct sigaction standard = { 0 };
        sys_sigaction(signal, &standard);
    }
    u64 none = 0;
    sys_sigmask(SIG_SETMASK, &none);
    sys_prlimit(RLIMIT_NOFILE, &command_files, NULL);
    sys_umask(command_mask);

    if (start.user) become_user(&start);
    const char *directory = start.directory ? start.directory : "/";
    int error = sys_chdir(directory);
    if (error < 0) child_fail(STAGE_DIRECTORY, error, directory);
    switch (start.operation) {
    case OPERATION_WRITE: write_file(&start);
    case OPERATION_READ: send_file(&start);
    case OPERATION_RUN: child_fail(STAGE_PROGRAM, execute(&start), start.arguments[0]);
    default: child_fail(STAGE_PROGRAM, -ENOSYS, start.arguments[0]);
    }
}
