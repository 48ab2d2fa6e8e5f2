// /etc/resolv.conf, with the name servers that DHCP named. What is written never reaches the host: where the root is written
// through, or cannot be written, a file in memory is mounted over it. Source: [RESOLV.CONF].
#include "agent.h"

#define PATH "/etc/resolv.conf"
#define OWN "/run/windhover-resolv.conf"

static int write_text(const char *path, const struct line *text) {
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0644);
    if (fd < 0) return fd;
    int error = write_all(fd, text->text, text->count);
    sys_close(fd);
    return error;
}

/// Where a link that leads nowhere leads, if that is below /run, which is in memory; without `.` and `..`.
static bool target_below_run(struct line *path) {
    char target[256];
    long count = sys_readlink(PATH, target, sizeof target - 1);
    if (count <= 0) return false;
    target[count] = 0;
    // From /etc on.
    const char *rest = target;
    if (begins(rest, "../")) rest += 2;
    put(path, rest);
    if (!begins(path->text, "/run/")) return false;
    for (const char *part = path->text; *part; part++)
        if (begins(part, "/../") || equal(part, "/..") || begins(part, "/./")) return false;
    return true;
}

static int write_below_run(const struct line *path, const struct line *text) {
    char directory[sizeof path->text];
    size_t end = path->count;
    while (end > 0 && path->text[end] != '/') end--;
    memcpy(directory, path->text, end);
    directory[end] = 0;
    int error = make_directories(directory);
    return error < 0 ? error : write_text(path->text, text);
}

static int put_over(const struct line *text) {
    static bool is_over;
    if (is_over) return write_text(OWN, text);
    struct stat facts;
    struct line target = { 0 };
    if (sys_stat(PATH, &facts) < 0 && target_below_run(&target)) return write_below_run(&target, text);
    int error = write_text(OWN, text);
    // Follows a link to the file that is read in the end.
    if (error == 0) error = sys_mount(OWN, PATH, NULL, MS_BIND, NULL);
    is_over = error == 0;
    return error;
}

static int write_here(const struct line *text) {
    struct stat facts;
    int error = make_directories("/etc");
    if (error < 0) return error;
    if (sys_lstat(PATH, &facts) == 0 && (facts.mode & S_IFMT) == S_IFLNK) sys_unlink(PATH);
    return write_text(PATH, text);
}

void write_resolver(const struct lease *lease) {
    if (lease->dns_count == 0) return;
    struct line text = { 0 };
    if (lease->domain[0]) {
        put(&text, "search ");
        put(&text, lease->domain);
        put(&text, "\n");
    }
    for (u32 i = 0; i < lease->dns_count; i++) {
        put(&text, "nameserver ");
        for (int shift = 0; shift < 32; shift += 8) {
            put_number(&text, lease->dns[i] >> shift & 0xFF);
            put(&text, shift < 24 ? "." : "\n");
        }
    }
    // What a renewed lease says again is not written again, over what somebody may have written.
    static struct line told;
    if (equal(text.text, told.text)) return;
    told = text;
    int error = root_in_memory ? write_here(&text) : put_over(&text);
    if (error == 0) return;
    struct line line = { 0 };
    put(&line, "network: name servers could not be told in " PATH ": ");
    put_error(&line, error);
    note(line.text);
}
