// Finds a program as execvp does, and runs it. Source: [EXEC].
#include "agent.h"

static const char standard_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static const char *path_of(char *const *environment) {
    for (; *environment; environment++)
        if (begins(*environment, "PATH=")) return *environment + 5;
    return standard_path;
}

/// What the kernel does not know the format of is a shell's.
static int execute_at(const char *path, const struct start *start) {
    int error = sys_execve(path, start->arguments, start->environment);
    if (error != -ENOEXEC) return error;
    size_t size = (start->argument_count + 2) * sizeof(char *);
    char **arguments = pages(size);
    if (!arguments) return -ENOMEM;
    arguments[0] = "/bin/sh";
    arguments[1] = (char *)path;
    // With the NULL behind the last.
    memcpy(arguments + 2, start->arguments + 1, start->argument_count * sizeof(char *));
    sys_execve(arguments[0], arguments, start->environment);
    return error;
}

int execute(const struct start *start) {
    const char *name = start->arguments[0];
    size_t name_length = length_of(name);
    if (name_length == 0) return -ENOENT;
    if (find_byte(name, name_length, '/')) return execute_at(name, start);

    const char *path = path_of(start->environment);
    char *candidate = pages(length_of(path) + name_length + 3);
    if (!candidate) return -ENOMEM;
    int result = -ENOENT;
    for (;;) {
        size_t count = 0;
        while (path[count] && path[count] != ':') count++;
        // An empty one is the working directory.
        size_t length = count ? count : 1;
        memcpy(candidate, count ? path : ".", length);
        candidate[length] = '/';
        memcpy(candidate + length + 1, name, name_length + 1);
        int error = execute_at(candidate, start);
        switch (-error) {
        // One that may not be run is not in the way of another, but is the better answer than none at all.
        case EACCES: result = -EACCES; break;
        case ENOENT: case ENOTDIR: case ENAMETOOLONG: case ELOOP: case ESTALE: case ENODEV: case ETIMEDOUT: break;
        default: return error;
        }
        if (!path[count]) return result;
        path += count + 1;
    }
}
