// What a guest's programs ask of their kernel and of memory, timed: as /init of a guest, and on the host for comparison.
//
// Prints "@NAME TICKS" lines: time-stamp counter ticks for one operation, the least of several rounds each long enough
// that the clock's and the monitor's own cost does not count. The counter is the host's under every monitor measured.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

enum { MIB = 1 << 20, ROUNDS = 7 };

static unsigned char *source, *target;
static int forth[2], back[2];

static void copy(unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        memcpy(target, source, MIB);
        __asm__ volatile("" ::: "memory");
    }
}
static void fill(unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        memset(target, (int)i, MIB);
        __asm__ volatile("" ::: "memory");
    }
}
static void call(unsigned count) {
    for (unsigned i = 0; i < count; i++) syscall(SYS_getppid);
}
/// First touches of anonymous pages, each a page fault, with the map and unmap that make them so.
static void fault(unsigned count) {
    size_t bytes = (size_t)count * 4096;
    unsigned char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) exit(71);
    madvise(pages, bytes, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < bytes; at += 4096) pages[at] = 1;
    munmap(pages, bytes);
}
/// A byte to the other process and one back: two switches.
static void ping(unsigned count) {
    char byte = 0;
    for (unsigned i = 0; i < count / 2; i++) {
        if (write(forth[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) exit(71);
    }
}
static void echo(void) {
    char byte;
    while (read(forth[0], &byte, 1) == 1)
        if (write(back[1], &byte, 1) != 1) break;
    _exit(0);
}

static void measure(const char *name, void (*run)(unsigned), unsigned count) {
    uint64_t least = ~0ull;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = __rdtsc();
        run(count);
        uint64_t ticks = __rdtsc() - start;
        if (ticks < least) least = ticks;
    }
    printf("@%s %.1f\n", name, (double)least / count);
    fflush(stdout);
}

int main(void) {
    int init = getpid() == 1;
    if (init) {
        mkdir("/dev", 0755);
        mknod("/dev/console", S_IFCHR | 0600, makedev(5, 1));
        int console = open("/dev/console", O_RDWR);
        for (int fd = 0; fd < 3; fd++) dup2(console, fd);
        puts("USER-SPACE");
        fflush(stdout);
    }
    if (posix_memalign((void **)&source, 4096, MIB) || posix_memalign((void **)&target, 4096, MIB)) return 71;
    memset(source, 1, MIB);
    memset(target, 2, MIB);
    measure("memcpy", copy, 32);
    measure("memset", fill, 32);
    measure("syscall", call, 50000);
    measure("fault", fault, 8192);
    // Both processes on one processor, so that each hand-over is a switch.
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof first, &first);
    if (pipe(forth) || pipe(back)) return 71;
    pid_t other = fork();
    if (other == 0) {
        close(forth[1]);
        echo();
    }
    measure("switch", ping, 10000);
    close(forth[1]);
    close(forth[0]);
    waitpid(other, NULL, 0);
    if (!init) {
        // The counter's rate, for whoever wants nanoseconds.
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        uint64_t start = __rdtsc();
        usleep(200000);
        uint64_t ticks = __rdtsc() - start;
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("@ticks %.6f\n", ticks / ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)));
        return 0;
    }
    puts("@done");
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    for (;;) pause();
}
