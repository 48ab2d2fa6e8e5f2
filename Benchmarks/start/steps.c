// Runs a program one instruction at a time, with all of its threads, to its first KVM_RUN, and prints where in its text it has
// been: the addresses of granules of 16 bytes, each once, in the order they were come to. What release.order is made from.
//
//   steps FIRST LAST PROGRAM ARGUMENTS...    FIRST, LAST: the text's bounds in memory, hexadecimal; of a program that is
//                                            linked to fixed addresses
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

// [KVM-API] 4.10; its number is the same on every x86-64 kernel.
#define KVM_RUN 0xAE80ul

int main(int count, char **arguments) {
    if (count < 4) return 64;
    uint64_t first = strtoull(arguments[1], NULL, 16), last = strtoull(arguments[2], NULL, 16);
    uint8_t *seen = calloc((last - first) / 16 + 1, 1);
    if (seen == NULL) return 71;
    pid_t child = fork();
    if (child < 0) return 71;
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        // What the program says is not the list.
        dup2(STDERR_FILENO, STDOUT_FILENO);
        execv(arguments[3], arguments + 3);
        _exit(127);
    }
    int status;
    if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status)) return 69;
    ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL));
    ptrace(PTRACE_SINGLESTEP, child, NULL, NULL);
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0) {
            if (errno == EINTR) continue;
            fprintf(stderr, "steps: the program ended before its first KVM_RUN\n");
            return 70;
        }
        if (!WIFSTOPPED(status)) continue;
        struct user_regs_struct registers;
        if (ptrace(PTRACE_GETREGS, thread, NULL, &registers) != 0) continue;
        if (registers.rip >= first && registers.rip < last) {
            uint64_t granule = (registers.rip - first) / 16;
            if (!seen[granule]) printf("%lx\n", (unsigned long)(first + granule * 16));
            seen[granule] = 1;
        }
        // Its number is in rax still where the next instruction is SYSCALL.
        if (registers.rax == SYS_ioctl && registers.rsi == KVM_RUN) {
            long code = ptrace(PTRACE_PEEKTEXT, thread, (void *)registers.rip, NULL);
            if ((code & 0xFFFF) == 0x050F) break;
        }
        int signal = WSTOPSIG(status);
        if (signal == SIGTRAP || signal == SIGSTOP) signal = 0;
        ptrace(PTRACE_SINGLESTEP, thread, NULL, (void *)(long)signal);
    }
    kill(child, SIGKILL);
    return 0;
}
