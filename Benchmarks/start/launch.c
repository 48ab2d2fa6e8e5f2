// Notes the time, then becomes a command: the measurement starts at the exec.
//
//   launch FILE COMMAND...    FILE gets CLOCK_MONOTONIC in nanoseconds
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (count < 3) return 64;
    int file = open(arguments[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0) return 66;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    dprintf(file, "%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    close(file);
    execvp(arguments[2], arguments + 2);
    return 127;
}
