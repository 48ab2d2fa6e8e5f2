// Starts a monitor, waits for a line of its guest's, and kills it.
//
//   stopwatch LINE SECONDS COMMAND...
//
// Prints the milliseconds from just before the command's exec to the line's last byte on its standard output, or
// "failed" and what came instead. What the command says besides goes to standard error.
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

int main(int count, char **arguments) {
    if (count < 4) return 64;
    const char *line = arguments[1];
    double limit = atof(arguments[2]) * 1e3;
    int output[2];
    if (pipe2(output, O_CLOEXEC) != 0) return 71;
    double start = milliseconds();
    pid_t child = fork();
    if (child < 0) return 71;
    if (child == 0) {
        dup2(output[1], 1);
        setpgid(0, 0);
        execvp(arguments[3], arguments + 3);
        _exit(127);
    }
    close(output[1]);
    static char text[1 << 20];
    size_t length = 0;
    double found = -1;
    while (found < 0 && length < sizeof text - 1) {
        double left = limit - (milliseconds() - start);
        if (left <= 0) break;
        struct pollfd ready = {.fd = output[0], .events = POLLIN};
        if (poll(&ready, 1, (int)left + 1) <= 0) break;
        ssize_t got = read(output[0], text + length, sizeof text - 1 - length);
        if (got <= 0) break;
        length += (size_t)got;
        text[length] = 0;
        if (strstr(text, line)) found = milliseconds() - start;
    }
    // The group: a monitor may have children. Twice, in case it had not yet made itself one.
    kill(-child, SIGKILL);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    if (found < 0) {
        printf("failed\n");
        fprintf(stderr, "--- %s: no \"%s\"; the end of what came:\n%s\n", arguments[3], line, length > 2000 ? text + length - 2000 : text);
        return 1;
    }
    printf("%.1f\n", found);
    return 0;
}
