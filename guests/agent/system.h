// What the agent asks of Linux on x86-64: numbers, structures and calls, without a C library. Every call returns what the kernel
// returns, which is a negative errno where it fails. Source: [PSABI-X86-64 §A.2.1].
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t i64;

static inline long call6(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#define call(number, a, b, c, d, e) call6(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

// MARK: Errors

enum {
    EPERM = 1, ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7, ENOEXEC = 8, EBADF = 9, ECHILD = 10, EAGAIN = 11,
    ENOMEM = 12, EACCES = 13, EFAULT = 14, ENOTBLK = 15, EBUSY = 16, EEXIST = 17, EXDEV = 18, ENODEV = 19, ENOTDIR = 20,
    EISDIR = 21, EINVAL = 22, ENFILE = 23, EMFILE = 24, ENOTTY = 25, ETXTBSY = 26, EFBIG = 27, ENOSPC = 28, EROFS = 30,
    EPIPE = 32, ENAMETOOLONG = 36, ENOSYS = 38, ELOOP = 40, EPROTONOSUPPORT = 93, EAFNOSUPPORT = 97, EADDRINUSE = 98, EADDRNOTAVAIL = 99,
    ENETUNREACH = 101, ECONNRESET = 104, ENOTCONN = 107, ETIMEDOUT = 110, ECONNREFUSED = 111, ESTALE = 116, EKEYREJECTED = 129,
};

// MARK: Files

enum {
    O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, O_NOCTTY = 0400, O_TRUNC = 01000, O_NONBLOCK = 04000,
    O_DIRECTORY = 0200000, O_NOFOLLOW = 0400000, O_CLOEXEC = 02000000, O_PATH = 010000000,
};
enum { S_IFMT = 0170000, S_IFDIR = 0040000, S_IFREG = 0100000, S_IFLNK = 0120000 };
enum { AT_FDCWD = -100, AT_SYMLINK_NOFOLLOW = 0x100 };

struct stat {
    u64 device, inode, links;
    u32 mode, user, group, pad;
    u64 special;
    i64 size, block_size, blocks;
    i64 times[6], unused[3];
};

struct timespec { i64 seconds, nanoseconds; };

static inline int sys_open(const char *path, int flags, u32 mode) {
    return (int)call(257, AT_FDCWD, path, flags | O_CLOEXEC, mode, 0);
}
static inline int sys_close(int fd) { return (int)call(3, fd, 0, 0, 0, 0); }
static inline long sys_read(int fd, void *bytes, size_t count) { return call(0, fd, bytes, count, 0, 0); }
static inline long sys_write(int fd, const void *bytes, size_t count) { return call(1, fd, bytes, count, 0, 0); }
static inline long sys_pread(int fd, void *bytes, size_t count, i64 offset) { return call(17, fd, bytes, count, offset, 0); }
static inline int sys_fstat(int fd, struct stat *s) { return (int)call(5, fd, s, 0, 0, 0); }
static inline int sys_stat(const char *path, struct stat *s) { return (int)call(262, AT_FDCWD, path, s, 0, 0); }
static inline int sys_lstat(const char *path, struct stat *s) {
    return (int)call(262, AT_FDCWD, path, s, AT_SYMLINK_NOFOLLOW, 0);
}
static inline int sys_fchmod(int fd, u32 mode) { return (int)call(91, fd, mode, 0, 0, 0); }
static inline int sys_chmod(const char *path, u32 mode) { return (int)call(268, AT_FDCWD, path, mode, 0, 0); }
static inline int sys_fchown(int fd, u32 user, u32 group) { return (int)call(93, fd, user, group, 0, 0); }
static inline int sys_chown(const char *path, u32 user, u32 group) { return (int)call(260, AT_FDCWD, path, user, group, 0); }
static inline int sys_mkdir(const char *path, u32 mode) { return (int)call(258, AT_FDCWD, path, mode, 0, 0); }
static inline int sys_unlink(const char *path) { return (int)call(263, AT_FDCWD, path, 0, 0, 0); }
static inline int sys_symlink(const char *target, const char *path) { return (int)call(266, target, AT_FDCWD, path, 0, 0); }
static inline long sys_readlink(const char *path, char *target, size_t room) { return call(267, AT_FDCWD, path, target, room, 0); }
static inline int sys_chdir(const char *path) { return (int)call(80, path, 0, 0, 0, 0); }
static inline int sys_chroot(const char *path) { return (int)call(161, path, 0, 0, 0, 0); }
static inline u32 sys_umask(u32 mask) { return (u32)call(95, mask, 0, 0, 0, 0); }
static inline void sys_sync(void) { call(162, 0, 0, 0, 0, 0); }

enum {
    MS_RDONLY = 1, MS_NOSUID = 2, MS_NODEV = 4, MS_NOEXEC = 8, MS_REMOUNT = 32, MS_BIND = 4096, MS_MOVE = 8192,
    MS_SILENT = 32768, MNT_DETACH = 2,
};
static inline int sys_mount(const char *source, const char *target, const char *type, u64 flags, const char *options) {
    return (int)call(165, source, target, type, flags, options);
}
static inline int sys_umount(const char *target, int flags) { return (int)call(166, target, flags, 0, 0, 0); }

// MARK: Descriptors

enum { F_SETFD = 2, F_GETFL = 3, F_SETFL = 4, F_DUPFD_CLOEXEC = 1030, FD_CLOEXEC = 1 };
enum {
    FIONREAD = 0x541B, TCGETS = 0x5401, TCSETS = 0x5402, TIOCSCTTY = 0x540E, TIOCSWINSZ = 0x5414, TIOCGPTPEER = 0x5441,
    TIOCSPTLCK = 0x40045431,
};
static inline int sys_fcntl(int fd, int command, long argument) { return (int)call(72, fd, command, argument, 0, 0); }
static inline int sys_ioctl(int fd, u32 request, void *argument) { return (int)call(16, fd, request, argument, 0, 0); }
static inline int sys_pipe(int ends[2]) { return (int)call(293, ends, O_CLOEXEC, 0, 0, 0); }
static inline int sys_dup(int from, int to, int flags) { return (int)call(292, from, to, flags, 0, 0); }
static inline int sys_dup2(int from, int to) { return (int)call(33, from, to, 0, 0, 0); }
static inline int sys_close_range(u32 first, u32 last) { return (int)call(436, first, last, 0, 0, 0); }

enum { POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 0x10, POLLNVAL = 0x20, POLLRDHUP = 0x2000 };
struct pollfd { int fd; short events, revents; };
static inline int sys_ppoll(struct pollfd *fds, size_t count, const struct timespec *timeout, const u64 *mask) {
    // The kernel writes the time that is left into what it is given.
    struct timespec limit;
    if (timeout) limit = *timeout;
    return (int)call(271, fds, count, timeout ? &limit : NULL, mask, sizeof *mask);
}

// MARK: Sockets

enum { AF_UNIX = 1, AF_INET = 2, AF_NETLINK = 16, AF_PACKET = 17, AF_VSOCK = 40 };
enum { SOCK_STREAM = 1, SOCK_DGRAM = 2, SOCK_RAW = 3, SOCK_CLOEXEC = O_CLOEXEC };
enum { MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000 };
enum { SHUT_WR = 1 };
struct sockaddr_vm { u16 family, reserved; u32 port, cid; u8 zero[4]; };
struct sockaddr_un { u16 family; char path[108]; };
static inline int sys_socket(int family, int type, int protocol) { return (int)call(41, family, type | SOCK_CLOEXEC, protocol, 0, 0); }
static inline int sys_connect(int fd, const void *address, u32 size) { return (int)call(42, fd, address, size, 0, 0); }
static inline int sys_bind(int fd, const void *address, u32 size) { return (int)call(49, fd, address, size, 0, 0); }
static inline int sys_shutdown(int fd, int how) { return (int)call(48, fd, how, 0, 0, 0); }
static inline int sys_setsockopt(int fd, int level, int name, const void *value, u32 size) {
    return (int)call(54, fd, level, name, value, size);
}
static inline long sys_sendto(int fd, const void *bytes, size_t count, int flags, const void *address, u32 size) {
    return call6(44, fd, (long)bytes, (long)count, flags, (long)address, size);
}
static inline long sys_recv(int fd, void *bytes, size_t count, int flags) {
    return call6(45, fd, (long)bytes, (long)count, flags, 0, 0);
}

// MARK: Memory

enum { PROT_READ = 1, PROT_WRITE = 2, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20 };
static inline long sys_mmap(size_t size) {
    return call6(9, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static inline int sys_munmap(void *address, size_t size) { return (int)call(11, address, size, 0, 0, 0); }

// MARK: Processes

enum { SIGHUP = 1, SIGKILL = 9, SIGPIPE = 13, SIGCHLD = 17, SIGNAL_COUNT = 64 };
enum { SIG_BLOCK = 0, SIG_SETMASK = 2, SA_RESTORER = 0x04000000, SA_NOCLDSTOP = 1 };
enum { WNOHANG = 1 };
struct sigaction { void (*handler)(int); u64 flags; void (*restorer)(void); u64 mask; };
struct rlimit { u64 soft, hard; };
enum { RLIMIT_NOFILE = 7 };

static inline int sys_fork(void) { return (int)call(57, 0, 0, 0, 0, 0); }
static inline int sys_execve(const char *path, char *const *arguments, char *const *environment) {
    return (int)call(59, path, arguments, environment, 0, 0);
}
static inline _Noreturn void sys_exit(int status) {
    for (;;) call(231, status, 0, 0, 0, 0);
}
static inline int sys_wait(int *status, int options) { return (int)call(61, -1, status, options, 0, 0); }
static inline int sys_kill(int pid, int signal) { return (int)call(62, pid, signal, 0, 0, 0); }
static inline int sys_getpid(void) { return (int)call(39, 0, 0, 0, 0, 0); }
static inline int sys_setsid(void) { return (int)call(112, 0, 0, 0, 0, 0); }
static inline int sys_sigaction(int signal, const struct sigaction *action) { return (int)call(13, signal, action, 0, 8, 0); }
static inline int sys_sigmask(int how, const u64 *mask) { return (int)call(14, how, mask, 0, sizeof *mask, 0); }
static inline int sys_setgroups(size_t count, const u32 *groups) { return (int)call(116, count, groups, 0, 0, 0); }
static inline int sys_setresuid(u32 user) { return (int)call(117, user, user, user, 0, 0); }
static inline int sys_setresgid(u32 group) { return (int)call(119, group, group, group, 0, 0); }
static inline int sys_prlimit(int resource, const struct rlimit *new, struct rlimit *old) {
    return (int)call(302, 0, resource, new, old, 0);
}
static inline long sys_affinity(u64 *mask, size_t size) { return call(204, 0, size, mask, 0, 0); }

// MARK: The machine

struct utsname { char system[65], node[65], release[65], version[65], machine[65], domain[65]; };
enum { CLOCK_REALTIME = 0, CLOCK_MONOTONIC = 1, CLOCK_BOOTTIME = 7 };
enum { REBOOT_MAGIC = (int)0xFEE1DEAD, REBOOT_MAGIC_2 = 0x28121969, REBOOT_POWER_OFF = 0x4321FEDC };
static inline int sys_uname(struct utsname *name) { return (int)call(63, name, 0, 0, 0, 0); }
static inline int sys_sethostname(const char *name, size_t length) { return (int)call(170, name, length, 0, 0, 0); }
static inline int sys_clock_gettime(int clock, struct timespec *time) { return (int)call(228, clock, time, 0, 0, 0); }
static inline int sys_clock_settime(int clock, const struct timespec *time) { return (int)call(227, clock, time, 0, 0, 0); }
static inline int sys_nanosleep(const struct timespec *time) { return (int)call(35, time, 0, 0, 0, 0); }
struct itimerspec { struct timespec interval, value; };
static inline int sys_timerfd_create(int clock) { return (int)call(283, clock, O_NONBLOCK | O_CLOEXEC, 0, 0, 0); }
/// At a time of the clock's; zero: never.
static inline int sys_timerfd_settime(int fd, const struct itimerspec *time) { return (int)call(286, fd, 1, time, 0, 0); }
static inline int sys_reboot(int command) { return (int)call(169, REBOOT_MAGIC, REBOOT_MAGIC_2, command, 0, 0); }
static inline int sys_finit_module(int fd, const char *parameters, int flags) { return (int)call(313, fd, parameters, flags, 0, 0); }
