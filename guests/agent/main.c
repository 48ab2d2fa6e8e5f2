// Where the kernel starts the agent: as a guest's PID 1, or, for tests and without a machine, as
//
//     agent --connect DESCRIPTOR PATH
//
// whose control connection is a descriptor that it was started with, and whose streams are connections to a Unix socket. Then it
// sets nothing up and powers nothing off; commands are what they are in a guest.
#include "agent.h"

_Noreturn void agent_main(long *stack);

bool is_init;
const char *stream_path;
u32 command_mask = 022;
struct rlimit command_files;

__attribute__((naked, noreturn)) void _start(void) {
    // The stack has the number of arguments on top. Source: [PSABI-X86-64 §3.4.1].
    __asm__("xor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall agent_main\n\thlt");
}

void say(struct line *line) {
    struct line whole = { 0 };
    put(&whole, "windhover-agent: ");
    put(&whole, line->text);
    if (whole.count > sizeof whole.text - 2) whole.count = sizeof whole.text - 2;
    whole.text[whole.count++] = '\n';
    write_all(2, whole.text, whole.count);
}

_Noreturn void leave(int status) {
    if (is_init) {
        enum { TCSBRK = 0x5409 };
        // Until what was said on the console is out.
        sys_ioctl(2, TCSBRK, (void *)1);
        sys_reboot(REBOOT_POWER_OFF);
    } else {
        commands_kill();
    }
    sys_exit(status);
}

/// Standard descriptors are open, on the console if possible: all that is opened later is 3 or more.
static void open_standard(const char *path) {
    for (;;) {
        int fd = sys_open(path, O_RDWR | O_NOCTTY, 0);
        if (fd < 0 && !equal(path, "/dev/null")) {
            path = "/dev/null";
            continue;
        }
        if (fd < 0) return;
        if (fd > 2) {
            sys_close(fd);
            return;
        }
        sys_fcntl(fd, F_SETFD, 0);
    }
}

// MARK: Signals

__attribute__((naked)) static void restore(void) {
    __asm__("mov $15, %eax\n\tsyscall"); // rt_sigreturn
}

/// There to end a ppoll.
static void on_child(int signal) { (void)signal; }

static void prepare_signals(void) {
    struct sigaction child = { .handler = on_child, .flags = SA_RESTORER | SA_NOCLDSTOP, .restorer = restore };
    sys_sigaction(SIGCHLD, &child);
    struct sigaction ignored = { .handler = (void (*)(int))1 };
    sys_sigaction(SIGPIPE, &ignored);
    u64 mask = 1ULL << (SIGCHLD - 1);
    sys_sigmask(SIG_SETMASK, &mask);
}

/// A descriptor or seven a command: as many as may be had, for the agent alone.
static void prepare_limits(void) {
    if (sys_prlimit(RLIMIT_NOFILE, NULL, &command_files) < 0) command_files = (struct rlimit){ 1024, 4096 };
    struct rlimit files = { 1 << 20, 1 << 20 };
    if (sys_prlimit(RLIMIT_NOFILE, &files, NULL) == 0) return;
    files = (struct rlimit){ command_files.hard, command_files.hard };
    sys_prlimit(RLIMIT_NOFILE, &files, NULL);
}

// MARK: Connections

/// Gives a socket a port that only root may take: by it the host knows us from a command that would speak in our name.
static int bind_reserved(int fd) {
    enum { LAST = 1023, COUNT = 960 };
    static u32 used;
    for (u32 try = 0; try < COUNT; try++) {
        struct sockaddr_vm own = { .family = AF_VSOCK, .port = LAST - used++ % COUNT, .cid = UINT32_MAX };
        int error = sys_bind(fd, &own, sizeof own);
        if (error != -EADDRINUSE) return error;
    }
    return -EADDRINUSE;
}

int connect_host(u32 port) {
    int fd = sys_socket(AF_VSOCK, SOCK_STREAM, 0);
    if (fd < 0) return fd;
    struct sockaddr_vm host = { .family = AF_VSOCK, .port = port, .cid = 2 };
    int error = bind_reserved(fd);
    if (error >= 0) error = sys_connect(fd, &host, sizeof host);
    if (error < 0) {
        sys_close(fd);
        return error;
    }
    return fd;
}

static int connect_path(const char *path) {
    int fd = sys_socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return fd;
    struct sockaddr_un address = { .family = AF_UNIX };
    size_t count = length_of(path);
    int error = count < sizeof address.path ? 0 : -ENAMETOOLONG;
    if (error == 0) {
        memcpy(address.path, path, count + 1);
        error = sys_connect(fd, &address, sizeof address);
    }
    if (error < 0) {
        sys_close(fd);
        return error;
    }
    return fd;
}

int connect_stream(u32 number, u32 stream) {
    enum { STREAM_PORT = 1025, TRIES = 9 };
    int fd = -ECONNREFUSED;
    // A host with many connections to accept refuses for a moment.
    for (int try = 0; try < TRIES; try++) {
        if (try > 0) sleep_milliseconds(1ULL << try);
        fd = is_init ? connect_host(STREAM_PORT) : connect_path(stream_path);
        if (fd != -ECONNREFUSED && fd != -ECONNRESET && fd != -EAGAIN) break;
    }
    if (fd < 0) return fd;
    u8 whose[8];
    for (int i = 0; i < 4; i++) whose[i] = (u8)(number >> 8 * i), whose[4 + i] = (u8)(stream >> 8 * i);
    int error = write_all(fd, whose, sizeof whose);
    if (error < 0) {
        sys_close(fd);
        return error;
    }
    return fd;
}

/// The device may show itself after its driver is in.
static int connect_control(void) {
    enum { CONTROL_PORT = 1024, LIMIT = 5000 };
    u64 until = now_milliseconds() + LIMIT, pause = 5;
    for (;;) {
        int fd = connect_host(CONTROL_PORT);
        if (fd >= 0 || fd == -EAFNOSUPPORT || now_milliseconds() >= until) return fd;
        sleep_milliseconds(pause);
        if (pause < 160) pause *= 2;
    }
}

static _Noreturn void no_connection(int error) {
    struct line line = { 0 };
    put(&line, "no connection to the host (");
    put_error(&line, error);
    put(&line, "): ");
    if (error == -EAFNOSUPPORT) put(&line, "the kernel has no vsock sockets; the module vsock is missing");
    else if (error == -ENODEV || error == -EADDRNOTAVAIL || error == -ENETUNREACH)
        put(&line, "there is no vsock device, or its module vmw_vsock_virtio_transport is missing");
    else put(&line, "nobody answers at the host's port 1024");
    say(&line);
    leave(1);
}

// MARK: The two ways to be started

static _Noreturn void run_as_init(void) {
    is_init = true;
    sys_umask(0);
    mount_initial();
    open_standard("/dev/console");
    prepare_signals();
    prepare_limits();
    load_modules();
    loopback_up();
    int control = connect_control();
    if (control < 0) no_connection(control);
    serve(control);
}

static _Noreturn void run_connected(const char *descriptor, const char *path) {
    u32 control;
    if (!parse_number(descriptor, length_of(descriptor), 10, &control) || control < 3 || control > INT32_MAX ||
        sys_fcntl((int)control, F_SETFD, FD_CLOEXEC) < 0) {
        struct line line = { 0 };
        put(&line, "--connect: not an open descriptor from 3 on: ");
        put(&line, descriptor);
        say(&line);
        sys_exit(64);
    }
    stream_path = path;
    command_mask = sys_umask(0);
    open_standard("/dev/null");
    prepare_signals();
    prepare_limits();
    serve((int)control);
}

_Noreturn void agent_main(long *stack) {
    char **arguments = (char **)(stack + 1);
    if (stack[0] == 4 && equal(arguments[1], "--connect")) run_connected(arguments[2], arguments[3]);
    if (sys_getpid() == 1) run_as_init();
    struct line line = { 0 };
    put(&line, "it is a guest's PID 1; anywhere else: agent --connect DESCRIPTOR PATH");
    say(&line);
    sys_exit(64);
}
